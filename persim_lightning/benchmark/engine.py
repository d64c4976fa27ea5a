"""Runs cells side by side: in processes of this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from persim_lightning.benchmark.cell import Outcome, Places, run_cell
from persim_lightning.benchmark.grid import Cell


@dataclass(frozen=True)
class Engine:
    """How cells are run.

    Attributes
    ----------
    jobs : int
        Cells at a time.
    threads : int
        CPU threads of each.
    backend : str
        Of joblib.
    options : dict
        Of the backend.
    broken : tuple of type
        What joblib raises when a process has died.
    """

    jobs: int
    threads: int
    backend: str
    options: dict[str, Any]
    broken: tuple[type[BaseException], ...]

    def run(self, cells: Sequence[Cell], places: Places) -> Iterator[Outcome]:
        """Outcomes as cells finish.

        A process that dies (out of memory, say) takes the whole pool with it. The cells that were being run then are
        run again one by one, so that the one at fault is found, and only that one is lost.
        """
        waiting = {cell.name: cell for cell in cells}
        while waiting:
            begun: list[Cell] = []
            try:
                for outcome in self._pool(waiting.values(), places, begun, self.jobs):
                    del waiting[outcome.cell.name]
                    yield outcome
            except self.broken:
                suspects = [cell for cell in begun if cell.name in waiting]
                if not suspects:
                    raise
                for cell in suspects:
                    del waiting[cell.name]
                    yield from self._alone(cell, places)

    def _alone(self, cell: Cell, places: Places) -> Iterator[Outcome]:
        try:
            # With one job, joblib would start no process.
            yield from self._pool([cell], places, [], 2)
        except self.broken as error:
            reason = "its process died: too little memory, or a crash in a library"
            yield Outcome(cell, None, reason, f"{reason}\n{type(error).__name__}: {error}\n")

    def _pool(self, cells: Iterable[Cell], places: Places, begun: list[Cell], jobs: int) -> Iterator[Outcome]:
        """Outcomes of a pool of processes; what it has begun is noted in `begun`."""

        def noted(cell: Cell) -> Cell:
            begun.append(cell)
            return cell

        work = delayed(partial(run_cell, places=places, threads=self.threads))
        with parallel_config(self.backend, **self.options):
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
        outcomes: Iterator[Outcome] = parallel(work(noted(cell)) for cell in list(cells))
        return outcomes


def local_engine(jobs: int, threads: int) -> Engine:
    """Processes of this machine."""
    return Engine(jobs, threads, "loky", {"inner_max_num_threads": threads}, (BrokenProcessPool,))
