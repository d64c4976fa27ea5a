"""Fits one method on one data set, scores its predictions and runs its episodes."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from persim_lightning.benchmark.grid import Cell
from persim_lightning.data.datamodule import TrajectoryDataModule, open_data
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, FitInterruptedError, PersimError
from persim_lightning.evaluation.control import PlanningSettings, play_agents
from persim_lightning.methods.contract import Fitted, Method, Task
from persim_lightning.methods.method_file import build_method
from persim_lightning.store.names import FITTED, LOCK, LOG, RESULT
from persim_lightning.store.work import Work
from persim_lightning.support.files import read_json, write_json
from persim_lightning.support.provenance import PACKAGES

# Episodes start in other states than the training and test trajectories of the same seed.
_EPISODE_SEED = 2_000_000
_OPTIONAL_PACKAGES = ("d3rlpy", "joblib", "ray")


@dataclass(frozen=True)
class Folders:
    """Absolute paths, so that they are valid in every process.

    Attributes
    ----------
    runs, data : str
        Folders of results and of data sets; created if missing.
    """

    runs: str
    data: str


class Outcome(NamedTuple):
    """Result of a cell, or its failure.

    Attributes
    ----------
    cell : Cell
    result : dict or None
        Content of result.json; None if the cell failed.
    reason : str
        Reason of the failure in one line.
    trace : str
        Traceback of the failure.
    """

    cell: Cell
    result: dict[str, Any] | None
    reason: str = ""
    trace: str = ""


def run_cell(cell: Cell, folders: Folders, threads: int) -> Outcome:
    """Run or resume a cell; return errors instead of raising them."""
    folder = Path(folders.runs) / cell.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, blocking=False), _quiet(folder / LOG), _on_threads(threads):
            # Another command may have finished it since this one started.
            path = folder / RESULT
            return Outcome(cell, read_json(path) if path.is_file() else _run(cell, folder, folders))
    except FitInterruptedError:
        raise
    except Timeout:
        return Outcome(cell, None, "another command is running it", traceback.format_exc())
    except Exception as error:  # a method may raise any exception, and the other cells must run
        message = " ".join(str(error).split())
        reason = message if isinstance(error, PersimError) else f"{type(error).__name__}: {message}"
        return Outcome(cell, None, reason, traceback.format_exc())


def _run(cell: Cell, folder: Path, folders: Folders) -> dict[str, Any]:
    environment = get_environment(cell.environment)
    data = _open(cell, Path(folders.data))
    files = data.recordings.files
    tables = {name: files[name] for name in ("sha256", "test_sha256")}
    task = Task(
        environment=environment,
        recordings=data.recordings,
        agents=tuple(cell.test_agents),
        planning=PlanningSettings.of(cell.planning),
        configuration=cell.configuration,
        steps=cell.steps or data.steps_per_epoch * cell.configuration["trainer"]["max_epochs"],
        seed=cell.seed,
        workspace=Path(folders.runs) / cell.workspace,
    )
    method = build_method(cell.description, f"method {cell.method}")
    fitted, fit_seconds = _fit_or_load(method, task, folder, {**cell.fit_settings(), "tables": tables})
    start = time.perf_counter()
    scores = fitted.score(task)
    scored = time.perf_counter()
    episodes = cell.episodes["planned" if fitted.plans else "learned"]
    policy, seed = fitted.policy(task, episodes), task.seed + _EPISODE_SEED
    agents: list[dict[str, Any]] = [{"agent": agent, "returns": [], "lengths": []} for agent in task.agents]
    seconds = 0.0
    if policy is not None:
        played = play_agents(environment, policy, task.covariates(), episodes, seed, max_steps=cell.max_steps)
        agents, seconds = played.to_dict(task.agents)["agents"], played.seconds
    test = data.recordings.test
    records = [] if scores is None or test is None else scores.to_records(test.agent_ids)
    score_of = {record["agent"]: record for record in records}
    return {
        "settings": cell.settings(),
        "tables": tables,
        "label": method.label,
        "plans": fitted.plans,
        "episodes": 0 if policy is None else episodes,
        "steps": task.steps,
        "seconds": {"fit": fit_seconds, "score": scored - start, "play": seconds},
        "agents": agents,
        "predictions": [score_of[agent] for agent in task.agents] if score_of else None,
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "node": _node(),
            "threads": torch.get_num_threads(),
            "versions": dict(_versions()),
        },
    }


def _open(cell: Cell, root: Path) -> TrajectoryDataModule:
    """Open the cell's data, split as in PerSim's configuration, whose epochs give the number of gradient steps."""
    names = ("batch_size", "val_fraction", "walls")
    split = {name: value for name, value in cell.configuration["data"].items() if name in names}
    return open_data(env=cell.environment, dataset=cell.dataset, root=root, agents=cell.agents, seed=cell.seed, **split)


def _fit_or_load(method: Method, task: Task, folder: Path, settings: dict[str, Any]) -> tuple[Fitted, float]:
    """Fit the method, or load its fit from an earlier run; return it with the seconds that fitting took."""
    record, work = folder / FITTED, Work(folder, settings, FITTED)
    if work.open():
        try:
            return method.load(folder, task), read_json(record)["seconds"]
        except PersimError as error:
            raise ConfigurationError(f"{error}; remove {folder} to fit it again") from error
    start = time.perf_counter()
    with work.attempt():
        fitted = method.fit(task)
    seconds = time.perf_counter() - start
    fitted.save(folder)
    # Marks the fit as finished, so it is written last.
    write_json({"seconds": seconds}, record)
    return fitted, seconds


def _node() -> str:
    """Name of this machine; in a Ray worker, the id of the Ray node."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().get_node_id())
    return platform.node()


def _versions() -> Iterator[tuple[str, str]]:
    for name in (*PACKAGES, *_OPTIONAL_PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Redirect output to a file, since many cells share one terminal."""
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


@contextlib.contextmanager
def _on_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
