"""Runs the unfinished cells of a grid, and writes tables, pictures and a summary of all finished ones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from persim_lightning.benchmark.cell import Folders, Outcome
from persim_lightning.benchmark.cluster import ray_engine
from persim_lightning.benchmark.engine import Engine, LocalEngine
from persim_lightning.benchmark.grid import Cell, Preset, choose_methods, make_cells
from persim_lightning.benchmark.pictures import draw_environments
from persim_lightning.benchmark.results import CellResult, read_results, sort_results, unfinished, write_tidy
from persim_lightning.benchmark.scores import method_scores
from persim_lightning.benchmark.summary import summarize, summary_lines
from persim_lightning.benchmark.tables import write_tables
from persim_lightning.benchmark.wandb_tables import log_tables
from persim_lightning.errors import FitInterruptedError, PersimError
from persim_lightning.store.names import ERROR, RESULT, SUMMARY, TABLES
from persim_lightning.support.configurations import shipped_folder
from persim_lightning.support.files import atomic_write, check_writable, write_json
from persim_lightning.support.wandb import wandb_mode


class BenchmarkError(PersimError):
    """Some cells failed."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """A grid, its folders and how to run it.

    Attributes
    ----------
    preset : Preset
        Grid and protocol.
    runs, root : Path
        Folders of results and of data sets.
    methods : sequence of str, optional
        Names in the methods folder that replace the preset's; `all` for every one.
    conf, methods_folder : Path, optional
        Folders of YAMLs; the shipped ones by default.
    engine : {'joblib', 'ray'}
    address : str
        Address of the Ray cluster.
    jobs : int, optional
        Number of cells that run at the same time; by default 2, or as many as the Ray cluster has room for.
    threads : int
        CPU threads of each cell.
    wandb : {'auto', 'online', 'offline', 'disabled'}
    """

    preset: Preset
    runs: Path
    root: Path
    methods: Sequence[str] | None = None
    conf: Path | None = None
    methods_folder: Path | None = None
    engine: Literal["joblib", "ray"] = "joblib"
    address: str = "auto"
    jobs: int | None = None
    threads: int = 1
    wandb: str = "auto"


def run_benchmark(request: BenchmarkRequest) -> None:
    """Run a grid, and write its tables.

    Raises
    ------
    PersimError
        If a setting is invalid.
    BenchmarkError
        If cells failed; the others are kept.
    FitInterruptedError
        On Ctrl-C.
    """
    order = request.preset.methods
    folder = request.methods_folder or (request.conf or shipped_folder()) / "methods"
    cells = make_cells(request.preset, choose_methods(request.methods or order, folder, order), request.conf)
    check_writable(request.runs / RESULT)
    waiting = unfinished(cells, request.runs, request.root, request.preset.without_data)
    print(f"{_count(len(cells))}, {len(cells) - len(waiting)} of them already finished")
    failed = _run(waiting, request) if waiting else []
    if any(request.runs.glob(f"*/cells/*/{RESULT}")):
        _report(request, order)
    if failed:
        raise BenchmarkError(_print_failures(failed, request.runs))


def _report(request: BenchmarkRequest, order: Sequence[str]) -> None:
    """Write tables, pictures and the summary of all finished cells in the folder, from this and earlier commands."""
    runs = request.runs
    records = read_results(runs)
    results = sort_results(records, order)
    scores = method_scores(results)
    summary = summarize(scores)
    lines = summary_lines(summary, scores)
    written = write_tidy(results, runs)
    write_json(summary, runs / SUMMARY)
    written += [runs / SUMMARY, write_tables(scores, records[0]["settings"], lines, runs / TABLES)]
    written += draw_environments(scores, runs)
    for line in lines:
        print(line)
    for path in written:
        print(f"wrote {path}")
    log_tables(results, summary, runs, wandb_mode(request.wandb))


def _run(cells: Sequence[Cell], request: BenchmarkRequest) -> list[Outcome]:
    """Run cells, save each result at once, and return the outcomes that failed."""
    folders = Folders(str(request.runs.resolve()), str(request.root.resolve()))
    failed = []
    # Bind the stream now: a cell that runs in this process redirects sys.stdout.
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            _engine(request) as engine,
            # Closed on Ctrl-C too, so that it cancels the tasks that it started.
            contextlib.closing(engine.run(cells, folders)) as outcomes,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            bar = progress.add_task("cells", total=len(cells))
            for outcome in outcomes:
                _save(outcome, request.runs)
                console.print(_describe(outcome), markup=False)
                progress.advance(bar)
                if outcome.result is None:
                    failed.append(outcome)
    except (KeyboardInterrupt, FitInterruptedError) as error:
        raise FitInterruptedError("interrupted: the same command resumes") from error
    return failed


@contextlib.contextmanager
def _engine(request: BenchmarkRequest) -> Iterator[Engine]:
    if request.engine == "joblib":
        yield LocalEngine(request.jobs or 2, request.threads)
        return
    with ray_engine(request.address, request.jobs, request.threads) as engine:
        yield engine


def _save(outcome: Outcome, runs: Path) -> None:
    folder = runs / outcome.cell.folder
    if outcome.result is None:
        with atomic_write(folder / ERROR) as temporary:
            temporary.write_text(outcome.trace)
        return
    (folder / ERROR).unlink(missing_ok=True)
    # Marks the cell as finished, so it is written last.
    write_json(outcome.result, folder / RESULT)


def _describe(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.cell.name}: failed: {outcome.reason}"
    result, seconds = CellResult.of(outcome.result), sum(outcome.result["seconds"].values())
    score = f"mean return {result.mean_return:.1f}" if result.episodes else "no episodes"
    return f"{outcome.cell.name}: {result.label}, {score}, {seconds:.0f} s"


def _count(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"


def _print_failures(failed: Sequence[Outcome], runs: Path) -> str:
    """Print the reason of each failure, and return a one-line message."""
    print("failed:")
    for outcome in failed:
        print(f"  {outcome.cell.name}: {outcome.reason} ({runs / outcome.cell.folder / ERROR})")
    return f"{_count(len(failed))} failed; the same command tries {'it' if len(failed) == 1 else 'them'} again"
