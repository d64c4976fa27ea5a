"""Runs cells in parallel processes on this machine."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool

from persim_lightning.benchmark.cell import Folders, Outcome, run_cell
from persim_lightning.benchmark.grid import Cell

DIED = "its process died: too little memory, or a crash in a library"


class Engine(Protocol):
    """A way to run cells."""

    def run(self, cells: Sequence[Cell], folders: Folders) -> Generator[Outcome, None, None]:
        """Yield outcomes as cells finish; a process that dies loses only its own cell."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Processes on this machine.

    Attributes
    ----------
    jobs : int
        Number of cells that run at the same time.
    threads : int
        CPU threads of each cell.
    """

    jobs: int
    threads: int

    def run(self, cells: Sequence[Cell], folders: Folders) -> Generator[Outcome, None, None]:
        """Yield outcomes as cells finish.

        If a process dies (for example, out of memory), joblib's whole pool breaks. The cells that were running then
        run again one by one, so that only the one that caused it is lost.
        """
        waiting = {cell.name: cell for cell in cells}
        while waiting:
            started: list[Cell] = []
            try:
                for outcome in self._pool(waiting.values(), folders, started, self.jobs):
                    del waiting[outcome.cell.name]
                    yield outcome
            except BrokenProcessPool:
                suspects = [cell for cell in started if cell.name in waiting]
                if not suspects:
                    raise
                for cell in suspects:
                    del waiting[cell.name]
                    yield from self._run_alone(cell, folders)

    def _run_alone(self, cell: Cell, folders: Folders) -> Iterator[Outcome]:
        try:
            # With one job, joblib would run it in this process.
            yield from self._pool([cell], folders, [], 2)
        except BrokenProcessPool as error:
            yield Outcome(cell, None, DIED, f"{DIED}\n{type(error).__name__}: {error}\n")

    def _pool(self, cells: Iterable[Cell], folders: Folders, started: list[Cell], jobs: int) -> Iterator[Outcome]:
        """Run cells in a pool of processes; append those that it starts to `started`."""

        def note(cell: Cell) -> Cell:
            started.append(cell)
            return cell

        work = delayed(partial(run_cell, folders=folders, threads=self.threads))
        with parallel_config("loky", inner_max_num_threads=self.threads):
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
        outcomes: Iterator[Outcome] = parallel(work(note(cell)) for cell in list(cells))
        return outcomes
