"""Where a run came from: versions, seed, data, machine."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
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


def provenance(data_path: str, data_sha256: str, seed: int) -> dict[str, Any]:
    """Facts that are needed to repeat a run.

    Parameters
    ----------
    data_path, data_sha256 : str
        Training table and its hash.
    seed : int
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "data": {"path": data_path, "sha256": data_sha256},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device_count": torch.cuda.device_count(),
        "versions": {name: version(name) for name in PACKAGES},
    }
