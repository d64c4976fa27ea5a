"""Records how a run was made: versions, seed, data, machine."""

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


def provenance(data: dict[str, str | None], seed: int) -> dict[str, Any]:
    """Collect the facts that are needed to repeat a run, ready for JSON.

    Parameters
    ----------
    data : dict
        Paths of the tables, and their hashes.
    seed : int
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "data": data,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device_count": torch.cuda.device_count(),
        "versions": {name: version(name) for name in PACKAGES},
    }
