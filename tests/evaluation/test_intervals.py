"""How often intervals hold the truth: counted as one would count by hand."""

import numpy as np
import pytest

from persim_lightning.data.tables.user import read_like
from persim_lightning.evaluation.intervals import calibrate, coverage
from tests.rooms import rooms


def test_coverage_is_the_share_of_states_inside(switched):
    test = read_like(switched.schema, rooms(16, 30, seed=8))
    found = coverage(switched.population, switched.trajectories, switched.calibration, test)
    assert [record["agent"] for record in found] == list(range(16))
    for agent in (0, 9):
        own = slice(30 * agent + 10, 30 * agent + 30)
        states, actions = test.state[own].numpy(), test.action[own][:-1].numpy()
        for level in (0.8, 0.95):
            low, high = switched.rollout(agent, states[0], actions, level).interval
            inside = ((low <= states) & (states <= high))[1:].mean()
            assert found[agent][str(level)] == pytest.approx(inside)
    assert np.mean([record["0.95"] for record in found]) > np.mean([record["0.8"] for record in found])


def test_without_tails_or_windows_there_is_nothing_to_tell(switched):
    assert calibrate(switched.population, switched.trajectories, 0.01) is None
    short = read_like(switched.schema, rooms(16, 1, seed=8))
    assert coverage(switched.population, switched.trajectories, switched.calibration, short) == []
