"""Runs cells side by side in processes of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from persim_lightning.benchmark.cell import Outcome, Places, run_cell
from persim_lightning.benchmark.grid import Cell

DIED = "its process died: too little memory, or a crash in a library"


class Engine(Protocol):
    """A way to run cells."""

    def run(self, cells: Sequence[Cell], places: Places) -> Iterator[Outcome]:
        """Outcomes as cells finish; a process that dies costs only its own cell."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Processes of this machine.

    Attributes
    ----------
    jobs : int
        Cells at a time.
    threads : int
        CPU threads of each.
    """

    jobs: int
    threads: int

    def run(self, cells: Sequence[Cell], places: Places) -> Iterator[Outcome]:
        """Outcomes as cells finish.

        A process that dies (out of memory, say) takes joblib's whole pool with it. The cells that were running then
        run again one by one, so that the one at fault is found, and only that one is lost.
        """
        waiting = {cell.name: cell for cell in cells}
        while waiting:
            begun: list[Cell] = []
            try:
                for outcome in self._pool(waiting.values(), places, begun, self.jobs):
                    del waiting[outcome.cell.name]
                    yield outcome
            except BrokenProcessPool:
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
        except BrokenProcessPool as error:
            yield Outcome(cell, None, DIED, f"{DIED}\n{type(error).__name__}: {error}\n")

    def _pool(self, cells: Iterable[Cell], places: Places, begun: list[Cell], jobs: int) -> Iterator[Outcome]:
        """Outcomes of a pool of processes; cells that it has started are appended to `begun`."""

        def note(cell: Cell) -> Cell:
            begun.append(cell)
            return cell

        work = delayed(partial(run_cell, places=places, threads=self.threads))
        with parallel_config("loky", inner_max_num_threads=self.threads):
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
        outcomes: Iterator[Outcome] = parallel(work(note(cell)) for cell in list(cells))
        return outcomes
