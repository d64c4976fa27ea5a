"""Evaluates a saved simulator on a table of test trajectories."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persim_lightning.data.tables.user import read_like
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import PersimError
from persim_lightning.evaluation.filtering import filtered
from persim_lightning.evaluation.prediction import EpisodeWindows, predict, score_predictions, window_parts
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.terminal import print_table


def without_agents(personalized: FittedPopulation) -> FittedPopulation:
    """Copy a population and give every agent the mean factor; the loss in accuracy is the value of personalization."""
    copied = copy.deepcopy(personalized)
    deviation = copied.simulator.agent_encoder.deviation
    with torch.no_grad():
        deviation.copy_(deviation.mean(1, keepdim=True).expand_as(deviation))
    return copied


def evaluate(personalized: FittedPopulation, path: Path) -> list[dict[str, Any]]:
    """Score the prediction protocol; returns one record per agent of the table.

    Records hold `rmse_by_state`, the root mean square error of every state over all episodes of the agent.

    Parameters
    ----------
    personalized : FittedPopulation
    path : Path
        Test trajectories with the columns that the simulator was trained on.

    Raises
    ------
    PersimError
        If the table is malformed, or contains an agent that is not in the population.
    """
    test = read_like(personalized.schema, path)
    try:
        population = personalized.index(test.agent_ids)
    except PersimError as error:
        raise PersimError(f"{path}: {error}") from error
    test = filtered(personalized, test)
    records = score_predictions(personalized.simulator, population, test).to_records(test.agent_ids)
    for record, errors in zip(records, _errors_by_state(personalized, population, test), strict=True):
        record["rmse_by_state"] = dict(zip(test.schema.state, errors.tolist(), strict=True))
    return records


def _errors_by_state(personalized: FittedPopulation, population: Tensor, test: Trajectories) -> Tensor:
    """Root mean square errors (N, D) over all episodes and steps; NaN without any."""
    windows = EpisodeWindows.cut(test)
    total = torch.zeros(test.num_agents, test.schema.state_dim, dtype=torch.float64)
    count = torch.zeros_like(total)
    for _, window in window_parts(windows, torch.arange(len(windows.agent)), torch.device("cpu")):
        valid = window.observed_mask()
        error = predict(personalized.simulator, population[window.agent], window) - window.target
        total.index_add_(0, window.agent, torch.where(valid, error, 0.0).double().square().sum(1))
        count.index_add_(0, window.agent, valid.double().sum(1))
    return (total / count).sqrt()


def print_scores(records: list[dict[str, Any]], title: str) -> None:
    """Print the prediction protocol's scores, one row per agent."""
    rows = [
        [str(record["agent"]), f"{record['rmse']:.5f}", f"{record['r2']:.4f}"]
        + [str(record[name]) for name in ("scored", "short", "diverged")]
        for record in records
    ]
    print_table(title, ("agent", "mean RMSE", "median R²", "episodes", "too short", "diverged"), rows)
