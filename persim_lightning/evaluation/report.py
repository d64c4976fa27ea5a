"""Scores of a saved simulator on a table of test trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persim_lightning.data.table import load_trajectories
from persim_lightning.errors import PersimError
from persim_lightning.evaluation.prediction import EpisodeWindows, PredictionMetric, score_predictions
from persim_lightning.models.personalized import PersonalizedSimulator


def evaluate(personalized: PersonalizedSimulator, path: Path) -> list[dict[str, Any]]:
    """Score the prediction protocol, one record per agent of the table.

    Parameters
    ----------
    personalized : PersonalizedSimulator
    path : Path
        Test trajectories with the columns that the simulator was trained on.

    Raises
    ------
    PersimError
        If the table does not fit, or holds an agent that the simulator does not know.
    """
    test = load_trajectories(path, personalized.schema)
    try:
        population = personalized.index(test.agent_ids)
    except PersimError as error:
        raise PersimError(f"{path}: {error}") from error
    windows = EpisodeWindows.cut(test)
    metric = PredictionMetric(windows.agent, test.num_agents)
    scores = score_predictions(personalized.simulator, population[windows.agent], windows, metric)
    return scores.to_records(test.agent_ids)
