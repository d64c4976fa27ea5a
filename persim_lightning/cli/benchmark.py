"""The command `tools/benchmark.py`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from persim_lightning.benchmark.cell import ERROR, RESULT, Outcome, Places
from persim_lightning.benchmark.cluster import ray_engine
from persim_lightning.benchmark.engine import Engine, local_engine
from persim_lightning.benchmark.grid import Cell, EpisodeCounts, Preset, choose_methods, make_cells
from persim_lightning.benchmark.pictures import draw_environments
from persim_lightning.benchmark.results import CellResult, read_results, sort_results, unfinished, write_tidy
from persim_lightning.benchmark.scores import method_scores
from persim_lightning.benchmark.summary import summarize, summary_lines
from persim_lightning.benchmark.tables import write_tables
from persim_lightning.benchmark.wandb_tables import log_tables
from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import FitInterruptedError, PersimError
from persim_lightning.support.files import atomic_write, check_writable, write_json
from persim_lightning.support.wandb import wandb_mode


def benchmark_command(args: list[str] | None = None) -> None:
    """Compare methods under the paper's protocols: fit, score and play a grid of data sets, methods and seeds."""
    # A user's method may lie in the current folder, which is no script's own.
    sys.path.append(str(Path.cwd()))
    given = _parse(args)
    preset = _overridden(Preset.load(_preset_path(given)), given)
    methods_folder = given.methods_folder or given.conf / "methods"
    order = preset.methods
    names = list(choose_methods(given.methods or order, methods_folder, order))
    cells = make_cells(replace(preset, methods=names), given.conf, methods_folder)
    check_writable(given.runs / RESULT)
    waiting = unfinished(cells, given.runs, given.root, preset.without_data)
    print(f"{_counted(len(cells))}, {len(cells) - len(waiting)} of them finished before")
    failed = _run(waiting, given) if waiting else []
    if any(given.runs.glob(f"*/cells/*/{RESULT}")):
        _report(given, order)
    if failed:
        raise BenchmarkError(_failures(failed, given.runs))


def _report(given: argparse.Namespace, order: Sequence[str]) -> None:
    """Tables, pictures and counts of all finished cells of the folder, whichever command has run them."""
    runs: Path = given.runs
    records = read_results(runs)
    results = sort_results(records, order)
    scores = method_scores(results)
    summary = summarize(scores)
    lines = summary_lines(summary, scores)
    written = write_tidy(results, runs)
    write_json(summary, runs / "summary.json")
    written += [runs / "summary.json", write_tables(scores, records[0]["asked"], lines, runs / "tables.md")]
    written += draw_environments(scores, runs)
    for line in lines:
        print(line)
    for path in written:
        print(f"wrote {path}")
    log_tables(results, summary, runs, wandb_mode(given.wandb))


class BenchmarkError(PersimError):
    """Some cells failed."""


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description=f"{benchmark_command.__doc__} Finished cells are kept, so the same command goes on after an "
        "interruption, and a grid may be run in pieces. "
        "Example: python tools/benchmark.py --env cartpole --dataset random --methods all",
    )
    grid = parser.add_argument_group("grid (default: the preset's)")
    grid.add_argument("--preset", default="small", help="CONF/benchmark/NAME.yaml, or a path (default: %(default)s)")
    grid.add_argument("--env", nargs="+", metavar="ENV", help=f"environments: {', '.join(ENVIRONMENTS)}")
    grid.add_argument("--dataset", nargs="+", metavar="DATASET", help=f"data sets: {', '.join(DATASETS)}")
    grid.add_argument(
        "--methods", nargs="+", metavar="NAME", help="YAMLs of the methods folder, such as persim bcq-p; or all"
    )
    grid.add_argument("--seeds", nargs="+", type=NonNegativeInt, metavar="SEED", help="of data, networks and episodes")
    grid.add_argument("--agents", type=PositiveInt, help="size of the population")
    grid.add_argument("--steps", type=PositiveInt, help="gradient steps of every network")
    grid.add_argument("--episodes", type=PositiveInt, help="of every test agent, the same for all methods")
    grid.add_argument("--max_steps", type=PositiveInt, help="cut episodes after so many steps")
    places = parser.add_argument_group("files")
    places.add_argument("--conf", type=Path, default=Path("conf"), help="folder of YAMLs (default: %(default)s)")
    places.add_argument("--methods_folder", type=Path, help="folder of NAME.yaml (default: CONF/methods)")
    places.add_argument("--root", type=Path, default=Path("data"), help="folder of data sets (default: %(default)s)")
    places.add_argument(
        "--runs", type=Path, help="results, tables and pictures of all cells run there (default: runs/benchmark/PRESET)"
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine",
        choices=("joblib", "ray"),
        default="joblib",
        help="processes of this machine, or a Ray cluster (default: %(default)s)",
    )
    engine.add_argument("--address", help="of the Ray cluster: auto, or HOST:PORT (default: auto)")
    engine.add_argument("--jobs", type=PositiveInt, help="cells at a time (default: 2; on Ray, all CPUs)")
    engine.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads of each (default: %(default)s)")
    parser.add_argument(
        "--wandb",
        choices=("auto", "online", "offline", "disabled"),
        default="auto",
        help="Weights & Biases: the tidy tables; auto is online where an API key is found, and otherwise offline, in "
        "RUNS/wandb (default: %(default)s)",
    )
    given = parser.parse_args(args)
    if given.address is not None and given.engine != "ray":
        parser.error("--address belongs to --engine ray")
    if given.runs is None:
        given.runs = Path("runs/benchmark") / Path(given.preset).stem
    return given


def _preset_path(given: argparse.Namespace) -> Path:
    if given.preset.endswith((".yaml", ".yml")):
        return Path(given.preset)
    path: Path = given.conf / "benchmark" / f"{given.preset}.yaml"
    return path


def _overridden(preset: Preset, given: argparse.Namespace) -> Preset:
    """The preset, with what the command line says in the place of what it holds."""
    options = {
        "environments": given.env,
        "datasets": given.dataset,
        **{name: getattr(given, name) for name in ("seeds", "agents", "steps", "max_steps")},
    }
    preset = replace(preset, **{name: value for name, value in options.items() if value is not None})
    if given.episodes is None:
        return preset
    return replace(preset, episodes=EpisodeCounts(given.episodes, given.episodes), episodes_of={})


def _run(cells: Sequence[Cell], given: argparse.Namespace) -> list[Outcome]:
    """Run cells, and keep what each comes to as soon as it is known; returns those that failed."""
    places = Places(str(given.runs.resolve()), str(given.root.resolve()))
    failed = []
    # The file is named, so that no redirection of a cell in this process can reach the progress bar.
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with (
            _engine(given) as engine,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            bar = progress.add_task("cells", total=len(cells))
            for outcome in engine.run(cells, places):
                _keep(outcome, given.runs)
                console.print(_line(outcome), markup=False)
                progress.advance(bar)
                if outcome.result is None:
                    failed.append(outcome)
    except (KeyboardInterrupt, FitInterruptedError) as error:
        raise FitInterruptedError("interrupted: the same command goes on") from error
    return failed


@contextlib.contextmanager
def _engine(given: argparse.Namespace) -> Iterator[Engine]:
    if given.engine == "joblib":
        yield local_engine(given.jobs or 2, given.threads)
        return
    with ray_engine(given.address or "auto", given.jobs, given.threads) as engine:
        yield engine


def _keep(outcome: Outcome, runs: Path) -> None:
    folder = runs / outcome.cell.folder
    if outcome.result is None:
        with atomic_write(folder / ERROR) as temporary:
            temporary.write_text(outcome.trace)
        return
    (folder / ERROR).unlink(missing_ok=True)
    # It says that the cell is finished, so it comes last.
    write_json(outcome.result, folder / RESULT)


def _line(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.cell.name}: failed: {outcome.reason}"
    result, seconds = CellResult.of(outcome.result), sum(outcome.result["seconds"].values())
    return f"{outcome.cell.name}: {result.label}, mean return {result.mean_return:.1f}, {seconds:.0f} s"


def _counted(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"


def _failures(failed: Sequence[Outcome], runs: Path) -> str:
    """Say in one line what to do; why each failed is printed before."""
    print("failed:")
    for outcome in failed:
        print(f"  {outcome.cell.name}: {outcome.reason} ({runs / outcome.cell.folder / ERROR})")
    return f"{_counted(len(failed))} failed; the same command tries {'it' if len(failed) == 1 else 'them'} again"
