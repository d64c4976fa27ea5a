"""Unseen agents: error against the number of rows that an agent is adapted to, and with its covariates.

(PerSim, section 6 and appendix; https://arxiv.org/abs/2102.06961.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from persim_lightning.adaptation.extend import extend_population
from persim_lightning.adaptation.posterior import population_prior
from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.evaluation.prediction import score_predictions
from persim_lightning.models.population import FittedPopulation
from persim_lightning.runs.reuse import fit_once
from persim_lightning.runs.settings import change_settings
from persim_lightning.store.names import PROVENANCE
from persim_lightning.support.files import atomic_write, markdown_table, read_json, write_json
from persim_lightning.support.terminal import print_table

ROWS = (5, 10, 20, 50)
# Studies use neither the theorem's check nor W&B.
UNUSED = {"check_theorem": False, "wandb": "disabled"}


@dataclass(frozen=True)
class UnseenScores:
    """Scores of the test agents under one way of adapting to them.

    Attributes
    ----------
    known_by : str
    rmse, r2 : list of float
        Mean RMSE and median R² of 50-step rollouts, by agent.
    milliseconds : float or None
        Wall time of adapting to all test agents.
    """

    known_by: str
    rmse: list[float]
    r2: list[float]
    milliseconds: float | None


def unseen_study(environment: str, settings: Mapping[str, Any], runs: Path) -> list[UnseenScores]:
    """Score the test agents without training on them, and compare with a simulator trained on them.

    Parameters
    ----------
    environment : str
    settings : mapping
        Settings of both fits, as :func:`~persim_lightning.runs.fit.fit` takes them.
    runs : Path
        Folder of the two runs; finished runs are reused.

    Raises
    ------
    PersimError
        If the folder holds runs under other settings.
    """
    settings = change_settings(settings, UNUSED)
    whole = fit_once(runs / f"{environment}-all", settings)
    files = read_json(whole / PROVENANCE)["data"]
    trained = PersonalizedSimulator.load(whole)
    test = load_trajectories(Path(files["test_path"]), trained.schema)
    ids = pa.array(test.agent_ids)
    table, covariates = read_table(Path(files["path"])), read_table(Path(files["agents_path"]))
    seen_path = runs / f"{environment}-without-test-agents.parquet"
    write_table(table.filter(pc.invert(pc.is_in(table["agent"], ids))), seen_path)
    tables = {"data.path": str(seen_path), "data.agents_path": files["agents_path"]}
    unseen = fit_once(runs / f"{environment}-unseen", change_settings(settings, tables))
    simulator = PersonalizedSimulator.load(unseen)
    rows = table.filter(pc.is_in(table["agent"], ids))
    new = covariates.filter(pc.is_in(covariates["agent"], ids))
    known = covariates.filter(pc.invert(pc.is_in(covariates["agent"], ids)))

    def adapt(count: int) -> PersonalizedSimulator:
        """Adapt to the first `count` transitions of every agent."""
        return simulator.adapt(rows.filter(pc.less_equal(rows["t"], count)))

    def adapt_both(count: int) -> PersonalizedSimulator:
        return simulator.adapt(rows.filter(pc.less_equal(rows["t"], count)), new, known)

    def mean_agents() -> PersonalizedSimulator:
        prior = population_prior(simulator.population.simulator)
        factors = prior.mean.expand(-1, len(test.agent_ids), -1)
        extended = extend_population(simulator.population, test.agent_ids, factors)
        return PersonalizedSimulator(extended, simulator.trajectories)

    ways: dict[str, Callable[[], PersonalizedSimulator]] = {"nothing": mean_agents}
    ways |= {f"{count} rows": partial(adapt, count) for count in ROWS}
    ways["all its rows"] = partial(simulator.adapt, rows)
    ways["covariates"] = partial(simulator.adapt, covariates=new, known_covariates=known)
    ways |= {f"covariates, {count} rows": partial(adapt_both, count) for count in ROWS}
    scores = []
    for known_by, make in ways.items():
        start = time.perf_counter()
        adapted = make()
        scores.append(_score(known_by, adapted.population, test, 1000 * (time.perf_counter() - start)))
    return [*scores, _score("training on all its rows", trained.population, test, None)]


def _score(known_by: str, population: FittedPopulation, test: Trajectories, milliseconds: float | None) -> UnseenScores:
    scores = score_predictions(population.simulator, population.index(test.agent_ids), test)
    records = scores.to_records(test.agent_ids)
    rmse, r2 = ([record[name] for record in records] for name in ("rmse", "r2"))
    return UnseenScores(known_by, rmse, r2, milliseconds)


def write_unseen(environment: str, scores: Sequence[UnseenScores], folder: Path) -> list[Path]:
    """Print the scores, and write them as `unseen-ENV.md` and `.json`."""
    headings = ["known by", *(f"agent {index}" for index in range(len(scores[0].rmse))), "ms to adapt"]
    rows = [
        [
            score.known_by,
            *(f"{rmse:.3g} ({r2:.3f})" for rmse, r2 in zip(score.rmse, score.r2, strict=True)),
            "" if score.milliseconds is None else f"{score.milliseconds:.0f}",
        ]
        for score in scores
    ]
    title = f"{environment}: mean RMSE (median R²) of 50-step rollouts of unseen agents"
    print_table(title, headings, rows)
    page, values = (folder / f"unseen-{environment}{suffix}" for suffix in (".md", ".json"))
    with atomic_write(page) as temporary:
        temporary.write_text("\n".join([title, "", *markdown_table(headings, rows)]) + "\n")
    write_json([asdict(score) for score in scores], values)
    return [page, values]
