"""Predictions beside what was recorded of uneven tables."""

import numpy as np
import pytest

from persim_lightning import PersonalizedSimulator
from persim_lightning.report.rollouts import compare_rollouts
from tests.tanks import ROLES, tanks


def test_rows_of_uneven_tables_are_compared_at_their_times_where_they_were_observed(tmp_path):
    simulator = PersonalizedSimulator.fit(
        tanks(6, 60, missing=0.3), **ROLES, step=1.0, rank=2, members=2, hidden_width=8, epochs=10, progress=False
    )
    compared = compare_rollouts(tmp_path, simulator, 0.9)
    episodes = compared.episodes()
    assert len(episodes) == 6
    for episode in episodes:
        assert episode.mean.shape == episode.recorded.shape == episode.half_width.shape
        assert not np.array_equal(episode.elapsed, episode.elapsed.round())
    recorded = np.concatenate([episode.recorded[1:] for episode in episodes])
    assert 0 < np.isnan(recorded).mean() < 1
    [first, *_] = compared.curves()
    own = compared.windows.observed_mask()[:1]
    error = ((compared.predicted - compared.windows.target) / compared.scale)[:1]
    assert first.error[0] == pytest.approx(float(error[0, 0, 0].abs()) if own[0, 0, 0] else np.nan, nan_ok=True)
