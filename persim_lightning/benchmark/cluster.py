"""Runs cells on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from persim_lightning.benchmark.cell import Folders, Outcome, run_cell
from persim_lightning.benchmark.engine import DIED
from persim_lightning.benchmark.grid import Cell
from persim_lightning.errors import ConfigurationError, MissingPackageError

# Names in ray.exceptions: the process, its memory, its node, or the node that held its result.
_LOST = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "ObjectLostError")


@dataclass(frozen=True)
class RayEngine:
    """Tasks on the Ray cluster that this process is connected to.

    Attributes
    ----------
    jobs : int
        Number of cells that run at the same time.
    threads : int
        CPUs of each cell.
    """

    jobs: int
    threads: int

    def run(self, cells: Sequence[Cell], folders: Folders) -> Generator[Outcome, None, None]:
        """Yield outcomes as cells finish; a worker or node that dies loses only its own cells."""
        import ray

        # No retries: a cell that killed its worker once would do so again.
        lost = tuple(getattr(ray.exceptions, name) for name in _LOST)
        remote = ray.remote(num_cpus=self.threads, max_retries=0, scheduling_strategy="SPREAD")
        task: Any = remote(run_cell)
        waiting, running = deque(cells), dict[Any, Cell]()
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    cell = waiting.popleft()
                    running[task.remote(cell, folders, self.threads)] = cell
                [done], _ = ray.wait(list(running), num_returns=1)
                cell = running.pop(done)
                try:
                    yield ray.get(done)
                except lost as error:
                    yield Outcome(cell, None, DIED, f"{DIED}\n{type(error).__name__}: {error}\n")
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


@contextlib.contextmanager
def ray_engine(address: str, jobs: int | None, threads: int) -> Iterator[RayEngine]:
    """Connect to a running cluster, and disconnect at the end.

    Parameters
    ----------
    address : str
        `auto`, or HOST:PORT.
    jobs : int, optional
        As many as the cluster has room for by default.
    threads : int
        CPUs of each job.

    Raises
    ------
    ConfigurationError
        If Ray is not installed, there is no such cluster, or it is too small.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingPackageError("--engine ray", "Ray", "cluster")
    # Ray must not prompt for usage reports.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    connect = not ray.is_initialized()
    if connect:
        _connect(address)
    try:
        room = int(ray.cluster_resources().get("CPU", 0)) // threads
        if not 1 <= (jobs or room) <= room:
            raise ConfigurationError(
                f"--jobs {jobs or 1}: the cluster has room for {room} cell(s) of {threads} CPU(s) at a time"
            )
        yield RayEngine(jobs or room, threads)
    finally:
        if connect:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():
            # Fail fast: Ray itself retries for minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"--address {address}: no Ray cluster was reached ({words})") from error
