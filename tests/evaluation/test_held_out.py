"""Held-out tails calibrate intervals, and then count for agents' factors."""

from dataclasses import replace

import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.api.fitting import fit_population
from persim_lightning.errors import PersimWarning
from persim_lightning.evaluation.agent_posteriors import agent_posterior
from persim_lightning.evaluation.held_out import calibrate_and_refit, calibrate_by_second_fit
from tests.patients import ROLES, patients

QUICK = {"rank": 2, "members": 2, "hidden_width": 8}


@pytest.fixture(scope="module")
def recorded():
    fitted = PersonalizedSimulator.fit(patients(8, 20), **ROLES, **QUICK, epochs=1, progress=False)
    return fitted.trajectories


def heads(recorded, tail):
    return fit_population(recorded, tail, 20, 0, False, **QUICK).population


def test_factors_come_from_all_rows_and_intervals_from_the_heads(recorded):
    population, kept = heads(recorded, 0.2), heads(recorded, 0.2)
    calibration = calibrate_and_refit(population, recorded, 0.2)
    same = calibrate_and_refit(kept, recorded, 0.2, refit=False)
    torch.testing.assert_close(calibration.factors, same.factors)
    before, after = (dict(each.simulator.named_parameters()) for each in (kept, population))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"agent_encoder.deviation"}
    everyone = torch.arange(8)
    for tail, each in ((0.2, kept), (0.0, population)):
        expected = agent_posterior(kept, recorded, everyone, tail).mean.float()
        torch.testing.assert_close(each.simulator.agent_encoder.table(), expected, rtol=1e-3, atol=1e-4)


def test_a_population_without_agent_factors_stays_without(recorded):
    population = fit_population(recorded, 0.2, 2, 0, False, **QUICK, agent_factors=False).population
    calibrate_and_refit(population, recorded, 0.2)
    assert not population.simulator.agent_encoder.deviation.any()


def test_short_trajectories_are_calibrated_by_a_second_fit():
    short = PersonalizedSimulator.fit(patients(8, 5), **ROLES, **QUICK, epochs=2, progress=False)
    assert short.rollout("p1", [1.0, 7.0], {"dose": 0.1, "drug": "weak"}, level=0.9).half_width[1, 0] > 0
    asked = []

    def fit_heads(tail):
        asked.append(tail)
        return heads(short.trajectories, tail)

    assert calibrate_and_refit(heads(short.trajectories, 0.1), short.trajectories, 0.1) is None
    assert calibrate_by_second_fit(fit_heads, short.trajectories) is not None
    assert asked == [pytest.approx(0.34)]
    rows = short.trajectories
    first = rows.offsets[:-1]
    tiny = replace(
        rows,
        offsets=torch.arange(9) * 2,
        **{
            name: getattr(rows, name)[(first[:, None] + torch.arange(2)).flatten()]
            for name in ("state", "action", "delta", "time")
        },
    )
    with pytest.warns(PersimWarning, match="no trajectory has 4 rows, so there are no intervals"):
        assert calibrate_by_second_fit(fit_heads, tiny) is None
    assert len(asked) == 1
