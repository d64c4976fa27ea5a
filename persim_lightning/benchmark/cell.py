"""Fits one method on one data set, plays its episodes, and says how it did."""

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
from persim_lightning.methods.training import ADVICE
from persim_lightning.store.names import FITTED, LOCK, LOG, RESULT
from persim_lightning.store.work import State, Work
from persim_lightning.support.files import read_json, write_json
from persim_lightning.support.provenance import PACKAGES

# Episodes start elsewhere than the training trajectories of the same seed, and than its test trajectories.
_EPISODE_SEED = 2_000_000
_OPTIONAL_PACKAGES = ("d3rlpy", "joblib", "ray")


@dataclass(frozen=True)
class Places:
    """Where a cell works: absolute, so that they mean the same in every process.

    Attributes
    ----------
    runs, data : str
        Folders of results and of data sets; made where they are missing.
    """

    runs: str
    data: str


class Outcome(NamedTuple):
    """What comes back from a cell: a result, or what went wrong.

    Attributes
    ----------
    cell : Cell
    result : dict or None
        What result.json will hold.
    reason : str
        One line, empty where there is a result.
    trace : str
        The whole story of a failure.
    """

    cell: Cell
    result: dict[str, Any] | None
    reason: str = ""
    trace: str = ""


def run_cell(cell: Cell, places: Places, threads: int) -> Outcome:
    """Run a cell, or finish what an interrupted run has begun; whatever goes wrong is returned, not raised."""
    folder = Path(places.runs) / cell.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, blocking=False), _quiet(folder / LOG), _on_threads(threads):
            # Another command may just have finished it.
            known = folder / RESULT
            return Outcome(cell, read_json(known) if known.is_file() else _run(cell, folder, places))
    except FitInterruptedError:
        raise
    except Timeout:
        return Outcome(cell, None, "another command is running it", traceback.format_exc())
    except Exception as error:  # a method may raise anything, and the other cells must go on
        words = " ".join(str(error).split())
        reason = words if isinstance(error, PersimError) else f"{type(error).__name__}: {words}"
        return Outcome(cell, None, reason, traceback.format_exc())


def _run(cell: Cell, folder: Path, places: Places) -> dict[str, Any]:
    environment = get_environment(cell.environment)
    data = _open(cell, Path(places.data))
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
        workspace=Path(places.runs) / cell.workspace,
    )
    method = build_method(cell.description, f"method {cell.method}")
    fitted, fit_seconds = _fit_or_load(method, task, folder, {**cell.asked_of_fit(), "tables": tables})
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
        "asked": cell.asked(),
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
    """The cell's data, split as PerSim's configuration says: its epochs tell how many steps there are."""
    known = ("batch_size", "val_fraction", "walls")
    split = {name: value for name, value in cell.configuration["data"].items() if name in known}
    return open_data(env=cell.environment, dataset=cell.dataset, root=root, agents=cell.agents, seed=cell.seed, **split)


def _fit_or_load(method: Method, task: Task, folder: Path, settings: dict[str, Any]) -> tuple[Fitted, float]:
    """What the method learns, and the seconds it took: now, or before an earlier run was interrupted."""
    record = folder / FITTED
    if Work(folder, settings, FITTED, ADVICE).open() is State.FINISHED:
        try:
            return method.load(folder, task), read_json(record)["seconds"]
        except PersimError as error:
            raise ConfigurationError(f"{error}; remove {folder} to fit it again") from error
    start = time.perf_counter()
    fitted = method.fit(task)
    seconds = time.perf_counter() - start
    fitted.save(folder)
    # It marks the fit as finished, so it is written last.
    write_json({"seconds": seconds}, record)
    return fitted, seconds


def _node() -> str:
    """Which machine this is: as Ray knows it, in a process of Ray's."""
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
    """Send what libraries print to a file: many cells share one terminal."""
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
