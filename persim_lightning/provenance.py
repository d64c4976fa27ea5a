"""Where a run came from: versions, seed, data, machine."""

from __future__ import annotations

import hashlib
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "persim-lightning",
    "torch",
    "pytorch-lightning",
    "tensorly",
    "torchmetrics",
    "gymnasium",
    "mujoco",
    "numpy",
    "pyarrow",
    "wandb",
)


def provenance(data_path: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Facts that are needed to repeat a run.

    Parameters
    ----------
    data_path : Path
        Training table; its SHA-256 is taken.
    seed : int
    seconds : float
        Wall-clock time of training and scoring.
    """
    with data_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "command": sys.argv,
        "seed": seed,
        "data": {"path": str(data_path.resolve()), "sha256": digest},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device_count": torch.cuda.device_count(),
        "versions": {name: version(name) for name in PACKAGES},
    }
