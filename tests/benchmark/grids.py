"""Small grids of methods that learn nothing."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from persim_lightning.cli import benchmark

FAKES = "tests.benchmark.fakes"
METHODS = {
    "persim": ("FakeMethod", {"name": "PerSim", "noise": 0.5, "plans": True, "predicts": True}),
    "vanilla-cadm": ("FakeMethod", {"name": "Vanilla CaDM", "predicts": True, "plans": True}),
    "bcq-a": ("FakeMethod", {"name": "BCQ-A"}),
}
PRESET = {
    "environments": ["cartpole"],
    "datasets": ["random"],
    "methods": ["persim", "vanilla-cadm", "bcq-a"],
    "seeds": [0],
    "agents": 5,
    "test_agents": [0, 1],
    "episodes": {"planned": 2, "learned": 3},
    "steps": 7,
    "max_steps": 20,
}


def write_grid(folder: Path, kinds: dict | None = None, **changes: object) -> None:
    """Methods and a preset, which names all of them unless told otherwise."""
    kinds = METHODS if kinds is None else kinds
    for name, (kind, arguments) in kinds.items():
        path = folder / "methods" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"class_path": f"{FAKES}.{kind}", "init_args": arguments}))
    (folder / "preset.yaml").write_text(yaml.safe_dump({**PRESET, "methods": list(kinds), **changes}))


def options(folder: Path, *further: str) -> list[str]:
    return [
        *("--preset", str(folder / "preset.yaml")),
        *("--methods_folder", str(folder / "methods"), "--root", str(folder / "data"), "--runs", str(folder / "runs")),
        *("--wandb", "disabled", *further),
    ]


def run_grid(folder: Path, *further: str) -> None:
    """Run the grid, in this process unless told otherwise."""
    benchmark.main(options(folder, "--jobs", "1", *further))


def result_of(folder: Path, cell: str) -> dict:
    path = folder / "runs" / cell / "result.json"
    found: dict = json.loads(path.read_text())
    return found


def fits(folder: Path, label: str, workspace: str = "cartpole-random-seed0") -> int:
    """How often a method has been fitted."""
    path = folder / "runs" / workspace / f"fits-{label}.txt"
    return path.read_text().count("fit") if path.is_file() else 0
