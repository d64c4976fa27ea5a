"""The paper's Table 1: prediction errors of every data set of every environment, five test agents each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.data.datamodule import open_data
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.prediction import score_predictions
from persim_lightning.methods.completion import CompletionSettings, fit_completion
from persim_lightning.models.factorization import Ranks
from persim_lightning.models.population import DESCRIPTION
from persim_lightning.studies.runs import fit_or_reuse
from persim_lightning.support.files import atomic_write, markdown_table, read_json, write_json

_OWN_OPTIONS = {
    *("--config", "--run_dir", "--ckpt_path", "--data", "--model.agent_factors"),
    *("--data.env", "--data.dataset", "--data.root", "--data.path", "--data.test_path"),
    # Lightning would start this whole command once more for every further process.
    *("--trainer.devices", "--trainer.strategy", "--trainer.num_nodes"),
}
# Below it, only that it is bad can be said.
_WORST_R2 = -10
# What the run folder's name adds, and the options that it stands for.
METHODS: dict[str, list[str]] = {
    "PerSim": [],
    "without agent factors": ["--model.agent_factors", "false"],
}
# Not a network: it takes data, rank and seed from the run of PerSim in the same row.
COMPLETION = "tensor completion"


@dataclass(frozen=True)
class Cell:
    """Scores of one method on one data set.

    Attributes
    ----------
    environment, dataset, method : str
    run : str
        Run folder.
    scores : list of dict
        One record per test agent, as in the run's `prediction.json`.
    """

    environment: str
    dataset: str
    method: str
    run: str
    scores: list[dict[str, Any]]


def study(
    environments: Sequence[str], methods: Sequence[str], conf: Path, runs: Path, root: Path, options: Sequence[str] = ()
) -> list[Cell]:
    """Fit every (environment, data set, method), or reuse what an earlier call has fitted or begun.

    Parameters
    ----------
    environments, methods : sequence of str
        Methods from `METHODS`, and `COMPLETION`, which needs PerSim before it.
    conf : Path
        Folder of `<environment>.yaml`.
    runs : Path
        Folder that receives a run folder for every cell.
    root : Path
        Folder of data sets; what is missing is made.
    options : sequence of str
        Further options of `tools/fit.py`, for all cells.

    Raises
    ------
    ConfigurationError
        If a configuration is missing, or a run folder holds a run under other settings or on other data.
    """
    taken = [option for option in options if option.split("=")[0] in _OWN_OPTIONS]
    if taken:
        raise ConfigurationError(f"{taken[0]} cannot be given for all runs of the table")
    cells = []
    for environment in environments:
        for dataset in DATASETS:
            for method in methods:
                run = _run_folder(runs, environment, dataset, method)
                if method == COMPLETION:
                    _complete_or_reuse(run, _run_folder(runs, environment, dataset, "PerSim"))
                else:
                    chosen = ["--data.dataset", dataset, "--data.root", str(root), *METHODS[method], *options]
                    fit_or_reuse(run, conf / f"{environment}.yaml", chosen)
                scores = read_json(run / "prediction.json")
                cells.append(Cell(environment, dataset, method, str(run), scores))
    return cells


def _run_folder(runs: Path, environment: str, dataset: str, method: str) -> Path:
    return runs / "-".join((environment, dataset, *method.split()))


def _complete_or_reuse(run: Path, fitted: Path) -> None:
    """Leave scores of tensor completion in `run`: transitions, ranks and seed are those of PerSim's run `fitted`."""
    settings = CompletionSettings()
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    architecture = read_json(fitted / DESCRIPTION)["architecture"]
    factorization, ranks, seed = architecture["factorization"], architecture["ranks"], config["seed_everything"]
    data = read_json(fitted / "provenance.json")["data"]
    tables = {name: data[name] for name in ("sha256", "test_sha256")}
    model = {"factorization": factorization, "ranks": ranks, "seed": seed}
    asked = {"settings": asdict(settings), **model, "data": tables}
    record, scores = run / "completion.json", run / "prediction.json"
    if record.is_file():
        if read_json(record)["asked"] != asked:
            raise ConfigurationError(f"{run} was fitted under other settings: remove it, or choose another --runs")
        return
    opened = open_data(**{**config["data"], **{name: Path(data[name]) for name in ("path", "test_path")}})
    train, test = opened.trajectories, opened.test_trajectories
    assert test is not None
    # Sums over cells depend on it in their last bits.
    torch.set_num_threads(config["threads"])
    start = time.monotonic()
    simulator, completion = fit_completion(train, opened.train_rows, Ranks(*ranks), factorization, settings, seed)
    population = torch.tensor([train.agent_ids.index(label) for label in test.agent_ids])
    write_json(score_predictions(simulator, population, test).to_records(test.agent_ids), scores)
    facts = {"history": completion.history, "converged": completion.converged, "seconds": time.monotonic() - start}
    # It says that the run is finished, so it comes last.
    write_json({"asked": asked, **facts}, record)


def write_study(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write `table1-<environment>.json` and `.md` for every environment, each whole or not at all."""
    written = []
    for environment in dict.fromkeys(cell.environment for cell in cells):
        values, page = folder / f"table1-{environment}.json", folder / f"table1-{environment}.md"
        write_json([asdict(cell) for cell in cells if cell.environment == environment], values)
        headings, *rows = table_rows(cells, environment)
        with atomic_write(page) as temporary:
            temporary.write_text("\n".join(markdown_table(headings, rows)) + "\n")
        written += [values, page]
    return written


def table_rows(cells: Sequence[Cell], environment: str) -> list[list[str]]:
    """One environment's part of the table, headings first: mean RMSE (median R²) of every test agent."""
    own = [cell for cell in cells if cell.environment == environment]
    return [
        ["data", "method", *(f"agent {score['agent']}" for score in own[0].scores)],
        *([cell.dataset, cell.method, *(_score(score) for score in cell.scores)] for cell in own),
    ]


def _score(score: dict[str, Any]) -> str:
    """`0.0123 (0.987)`; a dash for an agent without a scored episode, or whose prediction diverged."""
    rmse, r2 = score["rmse"], score["r2"]
    if rmse is None or r2 is None:
        return "–"
    return f"{rmse:.3g} ({r2:.3f})" if r2 > _WORST_R2 else f"{rmse:.3g} (< {_WORST_R2})"
