"""Writes checkpoints atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from persim_lightning.support.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the target's folder, then renames it.

    Lightning's own writer uses the system's temporary folder. Moving a file from there to another file system copies
    it: if the process is killed while copying, the only checkpoint is lost.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with atomic_write(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
