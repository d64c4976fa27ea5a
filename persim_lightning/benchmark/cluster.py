"""Runs cells on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from persim_lightning.benchmark.cell import Outcome, Places, run_cell
from persim_lightning.benchmark.engine import DIED
from persim_lightning.benchmark.grid import Cell
from persim_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class RayEngine:
    """Tasks of a Ray cluster that this process is connected to.

    Attributes
    ----------
    jobs : int
        Cells at a time.
    threads : int
        CPUs that each cell takes.
    """

    jobs: int
    threads: int

    def run(self, cells: Sequence[Cell], places: Places) -> Iterator[Outcome]:
        """Outcomes as cells finish; a worker that dies costs only its own cell."""
        import ray

        # Not retried: a cell that died once would die again.
        remote = ray.remote(num_cpus=self.threads, max_retries=0, scheduling_strategy="SPREAD")
        task: Any = remote(run_cell)
        waiting, running = deque(cells), dict[Any, Cell]()
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    cell = waiting.popleft()
                    running[task.remote(cell, places, self.threads)] = cell
                [done], _ = ray.wait(list(running), num_returns=1)
                cell = running.pop(done)
                try:
                    yield ray.get(done)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                    yield Outcome(cell, None, DIED, f"{DIED}\n{type(error).__name__}: {error}\n")
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


@contextlib.contextmanager
def ray_engine(address: str, jobs: int | None, threads: int) -> Iterator[RayEngine]:
    """An engine on the nodes of a running cluster; disconnects afterward.

    Parameters
    ----------
    address : str
        `auto`, or HOST:PORT.
    jobs : int, optional
        As many as the cluster has room for where not given.
    threads : int
        CPUs that each job takes.

    Raises
    ------
    ConfigurationError
        If Ray is not installed, there is no such cluster, or it is too small.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError("--engine ray needs Ray: pip install 'persim-lightning[cluster]'")
    # Ray must not ask whether it may report usage.
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
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"--address {address}: no Ray cluster was reached ({words})") from error
