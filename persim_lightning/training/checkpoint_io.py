"""Checkpoints that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from persim_lightning.support.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own writer goes through the system's temporary folder, from where a move to another file system is a
    copy: a kill in its midst would cost the only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with atomic_write(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
