"""Evaluates a saved simulator on a table of test trajectories."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from persim_lightning.data.tables.user import read_like
from persim_lightning.errors import PersimError
from persim_lightning.evaluation.prediction import score_predictions
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
    return score_predictions(personalized.simulator, population, test).to_records(test.agent_ids)


def print_scores(records: list[dict[str, Any]], title: str) -> None:
    """Print the prediction protocol's scores, one row per agent."""
    rows = [
        [str(record["agent"]), f"{record['rmse']:.5f}", f"{record['r2']:.4f}"]
        + [str(record[name]) for name in ("scored", "short", "diverged")]
        for record in records
    ]
    print_table(title, ("agent", "mean RMSE", "median R²", "episodes", "too short", "diverged"), rows)
