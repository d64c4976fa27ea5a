"""joblib on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from joblib.parallel import register_parallel_backend

from persim_lightning.benchmark.engine import Engine
from persim_lightning.errors import ConfigurationError

_BACKEND = "persim-ray"


@contextlib.contextmanager
def ray_engine(address: str, jobs: int | None, threads: int) -> Iterator[Engine]:
    """An engine on the nodes of a running cluster; disconnects afterwards.

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
        If Ray is not installed, or there is no such cluster, or it is too small.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError("--engine ray needs Ray: pip install 'persim-lightning[cluster]'")
    # Its question whether it may report usage has no place here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    own = not ray.is_initialized()
    if own:
        _connect(address)
    try:
        room = int(ray.cluster_resources().get("CPU", 0)) // threads
        jobs = room if jobs is None else jobs
        if room < 2:
            raise ConfigurationError(
                f"--address {address}: the cluster has room for {room} cells of {threads} CPU(s) at a time, and "
                "joblib on Ray needs 2: use --engine joblib"
            )
        if not 2 <= jobs <= room:
            raise ConfigurationError(
                f"--jobs {jobs}: on Ray, from 2 up to as many as the cluster has room for, {room} of {threads} CPU(s)"
            )
        _register()
        # Actors ask for no CPU unless told to, and would all gather on one node.
        resources = {"num_cpus": threads, "scheduling_strategy": "SPREAD"}
        yield Engine(jobs, threads, _BACKEND, {"ray_remote_args": resources}, (ray.exceptions.RayError,))
    finally:
        if own:
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


def _register() -> None:
    """Register Ray's backend for joblib, with outcomes as they come, and work for whoever is idle."""
    from ray.util.joblib import register_ray
    from ray.util.joblib.ray_backend import RayBackend

    register_ray()

    class IdleFirst(RayBackend):
        # Ray's pool gives its results to callbacks, which is all that joblib needs for it.
        supports_return_generator = True

        def configure(self, *args: Any, **options: Any) -> int:
            jobs: int = super().configure(*args, **options)
            self._idle = list(range(jobs))
            return jobs

        def submit(self, func: Callable[..., Any], callback: Callable[[Any], None]) -> Any:
            """Ray's pool deals work out in turn: a cell could wait behind one of hours while another actor is idle."""
            pool = self._get_pool()
            if not self._idle:
                return super().submit(func, callback)
            actor = self._idle.pop()

            def done(result: Any) -> None:
                self._idle.append(actor)
                callback(result)

            pool._next_actor_index = lambda: actor
            try:
                return super().submit(func, done)
            finally:
                del pool._next_actor_index

    register_parallel_backend(_BACKEND, IdleFirst)
