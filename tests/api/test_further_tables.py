"""Tables after the fit: history, new agents and rows to come are read as the fitted table was."""

import copy
import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from persim_lightning import PersonalizedSimulator
from persim_lightning.adaptation.covariate_prior import covariate_prior
from persim_lightning.adaptation.intervals import LEVELS, Calibration
from persim_lightning.api.fitting import fit_population
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.data.tables.events import spread_events
from persim_lightning.envs import get_environment
from persim_lightning.errors import PersimError, TableError
from persim_lightning.evaluation.agent_posteriors import prior_of_covariates, refit_on_all_rows
from persim_lightning.models.population import FittedPopulation
from tests.tanks import tanks

QUICK = {"epochs": 2, "rank": 2, "members": 2, "hidden_width": 4, "progress": False}
ROLES = {"agent": "tank", "time": "hour", "state": ["level"], "action": ["poured"]}


def with_covariates(table):
    return {**table, "size": [float(name.strip("tA")) + 1 for name in table["tank"]]}


def renamed(table, letter):
    return {**table, "tank": [name.replace("t", letter) for name in table["tank"]]}


@pytest.fixture(scope="module")
def covered():
    table = with_covariates(tanks(12, 15, missing=0.2))
    return PersonalizedSimulator.fit(table, **ROLES, covariates=["size"], **QUICK)


def by_id(simulator):
    recorded = simulator.trajectories
    rows = dict(zip(recorded.agent_ids, recorded.covariates[:, 0].tolist(), strict=True))
    inserted = {
        label: recorded.trajectory(int((recorded.agent == index).nonzero()[0])).inserted.tolist()
        for index, label in enumerate(recorded.agent_ids)
    }
    return rows, inserted


def test_agents_that_sort_first_are_saved_and_loaded_with_their_own_rows(covered, tmp_path):
    larger = covered.adapt(with_covariates(renamed(tanks(2, 15, first=40), "A")))
    assert larger.agents[-2:] == ("A40", "A41")
    larger.save(tmp_path)
    assert by_id(PersonalizedSimulator.load(tmp_path)) == by_id(larger)


def test_covariates_stay_known_where_further_tables_lack_them(covered):
    without = renamed(tanks(2, 15, first=40), "A")
    larger = covered.adapt(without)
    assert by_id(larger)[0]["t3"] == 4
    assert np.isnan(by_id(larger)[0]["A40"])
    history = {name: values[:30] for name, values in tanks(12, 15, seed=5).items()}
    later = covered.with_history(history)
    assert by_id(later)[0]["t0"] == 1
    assert by_id(later)[0]["t7"] == 8


def test_a_covariate_of_zero_has_a_prior_where_all_fitted_ones_are_positive():
    factors = torch.arange(12.0)[None, :, None].expand(2, 12, 3)
    known = np.arange(1.0, 13)[:, None]
    assert covariate_prior(factors, known, np.array([[5.0], [0.0]])).mean.isfinite().all()
    assert covariate_prior(factors[:, :5], known[:5], known[:5]) is None


def test_the_prior_of_covariates_is_estimated_once_and_does_not_narrow(covered):
    recorded = covered.trajectories
    population = FittedPopulation(copy.deepcopy(covered.population.simulator), covered.schema, covered.agents)
    before = prior_of_covariates(population, recorded, recorded.covariates)
    kept = population.covariate_map
    refit_on_all_rows(population, recorded)
    assert population.covariate_map is kept
    population.covariate_map = None
    after = prior_of_covariates(population, recorded, recorded.covariates)
    torch.testing.assert_close(after.covariance, before.covariance)
    # A fit, its adaptation and its intervals agree.
    factors = covered.population.simulator.agent_encoder.table()
    torch.testing.assert_close(population.simulator.agent_encoder.table(), factors, rtol=1e-4, atol=1e-5)
    assert covered.population.covariate_map is None or covered.population.covariate_map.key[0] == 0.0


def coded(codes=("01", "02"), last=None):
    rng = np.random.default_rng(0)
    rows = {"who": [], "t": [], "x": [], "u": []}
    for agent in range(4):
        for t in range(8):
            values = (agent, t, float(rng.uniform()), last if t == 7 else codes[t % 2])
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    return rows


CODED = {"agent": "who", "time": "t", "state": ["x"], "action": ["u"]}


def test_codes_with_leading_zeros_stay_text():
    table = coded()
    simulator = PersonalizedSimulator.fit(table, **CODED, categorical=["u"], **QUICK)
    assert simulator.schema.user_actions[0].categories == ("01", "02")
    simulator.forecast({"who": [0, 0], "t": [8, 9], "u": ["01", "02"]}, history=table)
    simulator.adapt({**table, "who": [agent + 10 for agent in table["who"]]})


def test_an_unknown_last_action_is_not_invented():
    simulator = PersonalizedSimulator.fit(coded(("a", "b")), **CODED, **QUICK)
    for value, message in ((None, "column 'u', row 0: empty"), ("typo", "unknown category 'typo'")):
        with pytest.raises(TableError, match=message):
            simulator.forecast({"who": [0], "t": [8], "u": [value]})
    assert len(simulator.forecast({"who": [0, 0], "t": [8, 9], "u": ["a", None]})) == 2
    known = PersonalizedSimulator.fit(coded(("a", "b"), "b"), **CODED, **QUICK)
    assert len(known.forecast({"who": [0], "t": [8], "u": [None]})) == 1


def test_fill_holds_for_further_tables(recwarn):
    table = {**coded(), "u": [1.0, None] * 16}
    simulator = PersonalizedSimulator.fit(table, **CODED, fill={"u": "last"}, **QUICK)
    recwarn.clear()
    later = simulator.with_history(table)
    assert not [warning for warning in recwarn if "empty" in str(warning.message)]
    assert later.trajectories.num_trajectories == 4
    simulator.forecast({"who": [0, 0, 0], "t": [8, 9, 10], "u": [1.0, None, None]})


def test_times_far_ahead_are_refused():
    simulator = PersonalizedSimulator.fit(tanks(4, 10), **ROLES, **QUICK)
    with pytest.raises(TableError, match="row 0: more than 10000 base steps"):
        simulator.forecast({"tank": ["t0"], "hour": [1.7e9], "poured": [0.0]})


def test_forecasts_follow_the_last_episode_where_times_start_again():
    table = {"who": [], "t": [], "x": [], "u": [], "run": []}
    for agent in range(4):
        for run, rows in ((1, 20), (2, 10)):
            for t in range(rows):
                for name, value in zip(table, (agent, t, 100.0 * run + t, 1.0 + t % 2, run), strict=True):
                    table[name].append(value)
    simulator = PersonalizedSimulator.fit(table, **CODED, episode="run", **QUICK)
    ahead = simulator.forecast({"who": [0], "t": [10], "u": [1.0]})["x"].to_pylist()
    assert abs(ahead[0] - 209) < 60


def test_a_state_may_have_the_name_of_an_interval():
    table = coded()
    table = {**table, "u": [1.0, 2.0] * 16, "x_low": [value + 5 for value in table["x"]]}
    simulator = PersonalizedSimulator.fit(table, **{**CODED, "state": ["x", "x_low"]}, **QUICK)
    asked = {"who": [0], "t": [8], "u": [1.0]}
    plain, wide = simulator.forecast(asked), simulator.forecast(asked, level=0.9)
    assert plain["x_low"] == wide["x_low"]
    assert "x_low_" in wide.column_names


@pytest.mark.parametrize("name", ["mountaincar", "cartpole"])
def test_forecasts_of_canonical_tables(name):
    environment = get_environment(name)
    schema, rng = environment.schema, np.random.default_rng(0)
    table = {schema.agent: np.repeat(np.arange(4), 12), schema.time: np.tile(np.arange(12), 4)}
    table |= {state: rng.normal(size=48) for state in schema.state}
    table[schema.action[0]] = pa.array(rng.integers(0, 2, 48), mask=np.tile(np.arange(12) == 11, 4))
    recorded = trajectories_from_table(pa.table(table), schema, "table")
    population = fit_population(recorded, 0.0, 1, 0, False, rank=2, members=2, hidden_width=4).population
    asked = {schema.agent: [0, 0], schema.time: [12, 13], schema.action[0]: [1, 0]}
    ahead = PersonalizedSimulator(population, recorded, environment).forecast(asked)
    rolled = population.rollout(0, recorded.state[11].numpy(), np.array([1, 1])).mean(0)
    np.testing.assert_allclose(np.stack([ahead[state].to_numpy() for state in schema.state], 1), rolled[1:], rtol=1e-4)


def test_moments_of_a_single_row_and_durations_are_no_dates():
    table = {"who": [0, 1, 1, 1], "t": [5.0, 0.0, 7.0, 7.0], "x": [1.0, 2, 3, 4], "u": [1.0, 2, 3, 1]}
    simulator = PersonalizedSimulator.fit(table, **CODED, step="row", **QUICK)
    assert simulator.trajectories.lengths.tolist() == [1, 3]
    assert simulator.counterfactual(0, 5.0, {"u": [1.0]}).mean.shape == (2, 1)
    days = [datetime.timedelta(days=day) for day in (0, 1, 4, 5, 6, 7, 8, 11)]
    assert PersonalizedSimulator.fit({**coded(), "t": days * 4}, **CODED, **QUICK).schema.calendar == ""
    wide = {**coded(), "u": [(row % 8) * 2**59 for row in range(32)]}
    assert PersonalizedSimulator.fit(wide, **CODED, **QUICK).schema.action == ("u",)


def test_a_diverged_calibration_can_be_saved(tmp_path):
    errors = torch.full((12, 3, 1), torch.inf)
    calibration = Calibration.of(errors, torch.ones_like(errors), torch.ones(12, 3, dtype=torch.bool))
    loaded = Calibration.load(calibration.save(tmp_path / "calibration.json"))
    assert loaded.factors.shape == (len(LEVELS), 3, 1)
    assert loaded.factors.isfinite().all()


def test_spreading_events_is_the_sum_over_the_last_base_step(covered):
    rng = np.random.default_rng(1)
    hours = np.cumsum(rng.uniform(0.1, 2.0, 60))
    table = {"tank": ["a"] * 60, "hour": hours, "level": rng.uniform(1, 2, 60), "poured": rng.choice([0.0, 1, 2], 60)}
    simulator = PersonalizedSimulator.fit(table, **ROLES, events=["poured"], step=1.0, **QUICK)
    spread = simulator.trajectories
    times = hours[0] + np.r_[0, np.cumsum(spread.duration[:-1].double().numpy())]
    for row, time in enumerate(times[:-1]):
        active = (hours[:-1] <= time + 1e-4) & (hours[:-1] > time - 1 + 1e-4)
        assert float(spread.action[row, 0]) == pytest.approx(table["poured"][:-1][active].sum(), abs=1e-5)
    assert spread_events(spread, []) is spread


def test_ids_of_another_type_are_told_apart():
    simulator = PersonalizedSimulator.fit(tanks(4, 10), **ROLES, **QUICK)
    with pytest.raises(PersimError, match="unknown agent"):
        simulator.forecast({"tank": [0], "hour": [99.0], "poured": [0.0]})
