"""Users' own agents end to end: fit, roll out, ask what if, plan, adapt, save and load."""

import datetime
import doctest

import numpy as np
import pytest
import torch

import persim_lightning.api.simulator
from persim_lightning import PersonalizedSimulator
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError, PersimError, SimulatorFileError, TableError
from persim_lightning.evaluation.intervals import agent_posterior
from tests.fixtures.make import load_fixture
from tests.patients import DECAY, ROLES, effect, patients


@pytest.fixture(scope="module")
def simulator():
    return load_fixture("patients")


KNOWN = {"patient": [f"p{agent}" for agent in range(30)], "a": [0.1 * agent for agent in range(30)]}


def truth(agent, level, doses, drugs):
    levels = [level]
    for dose, drug in zip(doses, drugs, strict=True):
        levels.append(levels[-1] + dose - effect(agent, drug) * levels[-1])
    return np.array(levels)


def test_every_agent_is_predicted_as_it_is(simulator):
    doses, drugs = [0.1, 0.3, 0.0, 0.2] * 5, ["none", "strong", "weak", "strong"] * 5
    for agent in (0, 12, 29):
        predicted = simulator.rollout(f"p{agent}", {"level": 1.2, "constant": 7.0}, {"dose": doses, "drug": drugs})
        np.testing.assert_allclose(predicted.mean[:, 0], truth(agent, 1.2, doses, drugs), atol=0.03)
        np.testing.assert_array_equal(predicted.members[..., 1], 7.0)
    assert predicted.members.shape == (3, 21, 2)
    assert predicted.spread.shape == (21, 2)
    columns = predicted.to_dict()
    assert list(columns) == ["step", "level", "constant", "dose", "drug"]
    assert {len(values) for values in columns.values()} == {21}
    assert columns["drug"][:2] == ["none", "strong"]


def test_intervals_hold_the_truth_as_often_as_they_say(simulator):
    """Other courses of the same patients, the last five steps: where the calibrated tails lay."""
    inside = []
    # A single course of each holds between 91 and 99 %.
    for course in range(8):
        table = patients(30, 60, seed=9 + course)
        for agent in range(30):
            rows = slice(60 * agent + 54, 60 * agent + 60)
            level, acts = table["level"][rows], {name: table[name][rows][:-1] for name in ("dose", "drug")}
            asked = simulator.rollout(f"p{agent}", [level[0], 7.0], acts, level=0.9)
            low, high = asked.interval
            inside.append((low[1:, 0] <= level[1:]) & (level[1:] <= high[1:, 0]))
            assert asked.half_width[-1, 0] < 0.1
    assert 0.85 <= np.mean(inside) <= 0.98
    assert {"level low", "level high"} <= set(asked.to_dict())
    np.testing.assert_array_equal(asked.half_width[:, 1], 0)
    narrow = simulator.rollout("p29", [level[0], 7.0], acts, level=0.5)
    assert (narrow.half_width[1:, 0] < asked.half_width[1:, 0]).all()
    with pytest.raises(ConfigurationError, match=r"level 0\.99: intervals are calibrated from 0\.5 to 0\.95"):
        simulator.rollout("p29", [1.0, 7.0], acts, level=0.99)
    with pytest.raises(ConfigurationError, match="intervals need a level"):
        _ = simulator.rollout("p29", [1.0, 7.0], acts).interval


def test_counterfactuals_start_at_a_recorded_moment(simulator):
    table = patients(30, 60)
    day = datetime.date(2024, 3, 21)
    row = 5 * 60 + 20
    factual = simulator.counterfactual("p5", day)
    assert factual.recorded[0, 0] == pytest.approx(table["level"][row])
    assert factual.actions["drug"] == table["drug"][row : row + 39]
    np.testing.assert_allclose(factual.mean[:, 0], factual.recorded[:, 0], atol=0.03)
    other = {"dose": [0.0] * 10, "drug": ["strong"] * 10}
    asked = simulator.counterfactual("p5", day, other)
    np.testing.assert_allclose(asked.mean[:, 0], truth(5, table["level"][row], *other.values()), atol=0.03)
    with pytest.raises(ConfigurationError, match="agent p5: 0 recorded moment"):
        simulator.counterfactual("p5", datetime.date(2025, 1, 1))
    with pytest.raises(ConfigurationError, match="no actions are recorded after time"):
        simulator.counterfactual("p5", datetime.date(2024, 4, 29))


def test_plans_reach_what_rewards_ask_for_and_a_users_own_goal(simulator):
    planned = simulator.plan("p20", {"level": 0.4, "constant": 7.0}, horizon=12)
    assert np.abs(planned.prediction.mean[5:, 0] - 1).max() < 0.15
    assert set(planned.actions["drug"]) <= set(DECAY)
    assert min(planned.actions["dose"]) >= 0
    assert max(planned.actions["dose"]) <= 0.4
    low = simulator.plan("p20", [1.0, 7.0], objective=lambda s, a, after: -after[..., 0].abs(), horizon=8)
    constant = [
        -simulator.rollout("p20", [1.0, 7.0], {"dose": [dose] * 8, "drug": [drug] * 8}).mean[1:, 0].sum()
        for dose in (0.01, 0.2)
        for drug in DECAY
    ]
    assert low.value > max(constant) - 0.05
    assert low.actions["drug"][0] == "strong"
    assert low.value == pytest.approx(-low.prediction.mean[1:, 0].sum(), rel=1e-3)


def test_a_new_agent_from_a_few_rows(simulator):
    """Twenty rows of patients beyond the range of the fitted ones; the fitted ones stay as they are."""
    larger = simulator.adapt(patients(2, 21, first=30, seed=1, start=datetime.date(2025, 5, 5)))
    assert larger.agents == (*simulator.agents, "p30", "p31")
    doses, drugs = [0.1, 0.3, 0.0, 0.2] * 5, ["none", "strong", "weak", "strong"] * 5
    asked = {"dose": doses, "drug": drugs}
    predicted = larger.rollout("p31", [1.2, 7.0], asked).mean[:, 0]
    expected = truth(31, 1.2, doses, drugs)
    # The population's mean agent is much further away.
    mean = simulator.rollout("p15", [1.2, 7.0], asked).mean[:, 0]
    assert np.abs(predicted - expected).max() < 0.03
    assert np.abs(mean - expected).max() > 0.1
    np.testing.assert_array_equal(larger.rollout("p3", [1, 7], asked).mean, simulator.rollout("p3", [1, 7], asked).mean)
    with pytest.raises(ConfigurationError, match="'p3' is in the population already"):
        simulator.adapt(patients(1, 5, first=3))
    assert larger.counterfactual("p30", datetime.date(2025, 5, 6)).recorded.shape == (20, 2)


def test_adapting_to_the_rows_that_an_agent_was_fitted_on_gives_its_factor(simulator):
    """One posterior: fit, adaptation and intervals agree."""
    table = patients(30, 60)
    rows = [row for row, name in enumerate(table["patient"]) if name == "p7"]
    # Held-out rows included, once they have calibrated the intervals.
    kept = {name: [values[row] for row in rows] for name, values in table.items()}
    kept["patient"] = ["twin"] * 60
    factors = simulator.adapt(kept).population.simulator.agent_encoder.table().detach()
    index = simulator.population.index(["p7"])
    torch.testing.assert_close(factors[:, 30], factors[:, int(index)], rtol=2e-3, atol=2e-4)
    posterior = agent_posterior(simulator.population, simulator.trajectories, index)
    torch.testing.assert_close(posterior.mean[:, 0].float(), factors[:, int(index)], rtol=2e-3, atol=2e-4)


def test_a_new_agent_from_covariates_and_from_both(simulator):
    known = {"patient": [f"p{agent}" for agent in range(30)], "speed": [0.01 * agent for agent in range(30)]}
    new = {"speed": [0.155, 0.285], "patient": ["x", "y"]}
    told = simulator.adapt(covariates=new, known_covariates=known)
    doses, drugs = [0.2] * 20, ["strong", "none"] * 10
    asked = {"dose": doses, "drug": drugs}
    for label, agent in (("x", 15.5), ("y", 28.5)):
        predicted = told.rollout(label, [1.2, 7.0], asked).mean[:, 0]
        np.testing.assert_allclose(predicted, truth(agent, 1.2, doses, drugs), atol=0.04)
    rows = {**patients(1, 6, first=28, seed=3), "patient": ["y"] * 6}
    both = simulator.adapt(rows, covariates=new, known_covariates=known)
    assert both.agents[-2:] == ("x", "y")
    with pytest.raises(ConfigurationError, match="agent x: it has no recorded rows"):
        both.counterfactual("x", datetime.date(2024, 3, 2))
    # An agent that only covariates tell of is less certain than one with rows.
    x, y = (both.rollout(label, [1.2, 7.0], asked, level=0.9).half_width[-1, 0] for label in "xy")
    assert x > y
    np.testing.assert_allclose(
        both.rollout("x", [1.2, 7.0], asked).mean, told.rollout("x", [1.2, 7.0], asked).mean, atol=1e-5
    )
    assert not np.allclose(both.rollout("y", [1.2, 7.0], asked).mean, told.rollout("y", [1.2, 7.0], asked).mean)
    for bad, message in (
        ({"covariates": new}, "covariates need known_covariates"),
        ({}, "needs rows, covariates, or both"),
        ({"covariates": {**new, "age": [1, 2]}, "known_covariates": known}, "covariates are speed, age"),
        (
            {"rows": patients(1, 6, first=40), "covariates": new, "known_covariates": known},
            "no covariates of agent p40",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            simulator.adapt(**bad)
    with pytest.raises(TableError, match="column 'speed', agent y: infinite"):
        simulator.adapt(covariates={**new, "speed": [1.0, np.inf]}, known_covariates=known)
    with pytest.raises(TableError, match="known_covariates: column 'patient': agent p0 is listed twice"):
        simulator.adapt(covariates=new, known_covariates={name: [*values, values[0]] for name, values in known.items()})


def test_empty_cells_of_covariate_tables_are_means_and_unnamed_columns_are_none(simulator):
    known = {"patient": [f"p{agent}" for agent in range(30)], "speed": [0.01 * agent for agent in range(30)]}
    known["speed"][4] = None
    mean = np.mean([speed for speed in known["speed"] if speed is not None])
    asked = {"dose": [0.2] * 5, "drug": ["strong"] * 5}
    new = {"patient": ["x", "y"], "speed": [None, mean], "Unnamed: 0": [0, 1]}
    told = simulator.adapt(covariates=new, known_covariates=known)
    x, y = (told.rollout(label, [1.2, 7.0], asked).mean for label in "xy")
    np.testing.assert_allclose(x, y, rtol=1e-5)


def test_saved_is_what_is_loaded(simulator, tmp_path):
    written = simulator.save(tmp_path / "model")
    loaded = PersonalizedSimulator.load(tmp_path / "model")
    assert [path.name for path in written] == [
        *("simulator.safetensors", "simulator.json", "trajectories.parquet", "outcomes.safetensors"),
        *("calibration.json", "choice.json"),
    ]
    assert (loaded.schema, loaded.agents) == (simulator.schema, simulator.agents)
    day = datetime.date(2024, 3, 21)
    for one, other in zip(
        (simulator.counterfactual("p5", day), simulator.plan("p1", [1.0, 7.0], horizon=5).prediction),
        (loaded.counterfactual("p5", day), loaded.plan("p1", [1.0, 7.0], horizon=5).prediction),
        strict=True,
    ):
        np.testing.assert_array_equal(one.members, other.members)
        assert one.actions == other.actions
    one, other = (
        told.rollout("p5", [1.0, 7.0], {"dose": [0.1], "drug": ["weak"]}, level=0.9) for told in (simulator, loaded)
    )
    np.testing.assert_array_equal(one.half_width, other.half_width)
    (tmp_path / "model/outcomes.safetensors").write_bytes(b"junk")
    with pytest.raises(SimulatorFileError, match=r"outcomes\.safetensors: not readable"):
        PersonalizedSimulator.load(tmp_path / "model")
    (tmp_path / "model/trajectories.parquet").unlink()
    with pytest.raises(TableError, match=r"trajectories\.parquet: no such file"):
        PersonalizedSimulator.load(tmp_path / "model")


def test_same_seed_same_simulator_and_the_global_generator_stays():
    table = patients(6, 12)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (
        PersonalizedSimulator.fit(table, **ROLES, rank=2, epochs=3, seed=seed, progress=False, models="neural")
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(3), expected)
    states = [fitted.population.simulator.state_dict() for fitted in (one, same, other)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(states[0]["agent_encoder.deviation"], states[2]["agent_encoder.deviation"])
    assert one.outcomes is None
    with pytest.raises(ConfigurationError, match="the table has no rewards"):
        one.plan("p0", [1.0, 7.0])


def test_a_single_column_of_categories_is_planned_as_a_discrete_action():
    table = patients(6, 30)
    fitted = PersonalizedSimulator.fit(
        table, **{**ROLES, "action": ["drug"]}, terminated="gone", rank=2, epochs=20, progress=False
    )
    assert fitted.population.simulator.config.num_actions == 3
    planned = fitted.plan("p1", [1.0, 7.0], objective=lambda s, a, after: -after[..., 0], horizon=3)
    assert planned.actions == {"drug": ["strong"] * 3}
    assert fitted.outcomes.end_net is not None


def test_what_is_wrong_with_a_question_is_said(simulator):
    good = {"dose": [0.1], "drug": ["weak"]}
    for ask, message in (
        (lambda: simulator.rollout("nobody", [1.0, 7.0], good), "unknown agent 'nobody'"),
        (lambda: simulator.rollout("p1", {"level": 1.0}, good), "state: 'constant' is missing"),
        (lambda: simulator.rollout("p1", [1.0, np.nan], good), "must be a finite number"),
        (lambda: simulator.rollout("p1", [1.0], good), r"state has shape \(1,\)"),
        (lambda: simulator.rollout("p1", [1.0, 7.0], {"dose": [0.1]}), "missing column.*drug"),
        (lambda: simulator.rollout("p1", [1.0, 7.0], {**good, "drug": ["?"]}), "unknown category"),
        (lambda: simulator.rollout("p1", [1.0, 7.0], np.zeros((3, 2))), r"actions have shape \(3, 2\)"),
        (lambda: simulator.rollout("p1", [1.0, 7.0], [["weak"]]), "actions: give values by column"),
        (lambda: simulator.rollout("p1", [1.0, 7.0], np.full((3, 4), np.nan)), "actions: every value must be a finite"),
        (lambda: simulator.rollout("p1", {"level": "high", "constant": 7.0}, good), "must be a finite number"),
        (lambda: simulator.plan("p1", [1.0], horizon=3), r"state has shape \(1,\)"),
        (lambda: simulator.plan("p1", [1.0, 7.0], horizon=0), "horizon 0 must be a positive integer"),
        (lambda: simulator.plan("p1", [1.0, 7.0], objective=lambda s, a, n: 1.0), "must return a tensor of floats"),
        (lambda: simulator.plan("p1", [1.0, 7.0], objective=lambda s, a: 1.0), "the objective failed on a batch"),
        (
            lambda: simulator.plan("p1", [1, 7], objective=lambda s, a, n: n[..., 0] * np.nan),
            "no plan has a finite value",
        ),
        (lambda: simulator.counterfactual("p1", "soon"), "contains text that is not a date"),
        (lambda: simulator.counterfactual("p1", object()), "is not a time"),
        (lambda: simulator.adapt({**patients(1, 5, 40), "patient": [3] * 5}), "ids are of type str"),
        (lambda: simulator.adapt(covariates={"patient": ["z", "z"], "a": [1.0, 2.0]}, known_covariates=KNOWN), "twice"),
        (lambda: simulator.adapt(3), "rows: give a path"),
    ):
        with pytest.raises(PersimError, match=message):
            ask()


def test_what_is_wrong_with_a_fit_is_said():
    table = patients(1, 8)
    for options, message in (
        ({"rank": 0}, "rank 0 must be a positive integer"),
        ({"epochs": 1.5}, r"epochs 1\.5 must be a positive integer"),
        ({"state": "level"}, "columns.state must be a list"),
        ({"gaps": "skip"}, "choose 'keep', 'error' or 'split'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PersonalizedSimulator.fit(table, **{**ROLES, **options}, progress=False)
    alone = PersonalizedSimulator.fit(table, **ROLES, rank=2, epochs=2, progress=False)
    with pytest.raises(ConfigurationError, match="adapt needs several fitted agents"):
        alone.adapt(patients(1, 5, first=1))


def test_rows_that_stand_close_together_are_told_apart_and_a_column_may_be_called_clock(tmp_path):
    table = patients(3, 20)
    table["day"] = [2e-4 * row for _ in range(3) for row in range(20)]
    table["clock"] = table.pop("level")
    roles = {**ROLES, "state": ["clock"], "step": "row"}
    fitted = PersonalizedSimulator.fit(table, **roles, rank=2, epochs=2, progress=False)
    fitted.save(tmp_path)
    for simulator in (fitted, PersonalizedSimulator.load(tmp_path)):
        assert simulator.counterfactual("p0", 0.001).recorded[0, 0] == pytest.approx(table["clock"][5])


def test_actions_may_come_as_data_frames_series_and_scalars(simulator, switched):
    pandas = pytest.importorskip("pandas")
    asked = {"dose": [0.1, 0.2], "drug": ["weak", "none"]}
    one, other = (simulator.rollout("p2", [1.0, 7.0], given) for given in (asked, pandas.DataFrame(asked)))
    np.testing.assert_array_equal(one.members, other.members)
    step = {"dose": 0.1, "drug": "weak"}
    for given in (step, pandas.Series(step), {"dose": [0.1], "drug": "weak"}, np.array([0.1, 0.0, 0.0, 1.0])):
        np.testing.assert_array_equal(simulator.rollout("p2", [1.0, 7.0], given).members, one.members[:, :2])
    with pytest.raises(ConfigurationError, match="a series must hold one step of dose, drug"):
        simulator.rollout("p2", [1.0, 7.0], pandas.Series([0.1, 0.2]))
    agent = switched.agents[0]
    heated = [switched.rollout(agent, [18.0], given) for given in ({"heater": ["on"]}, pandas.Series(["on"]), 1)]
    for other in heated[1:]:
        np.testing.assert_array_equal(other.members, heated[0].members)


def test_objectives_may_return_arrays_of_any_type(simulator):
    def goal(states, actions, after):
        return -(after[..., 0] - 1).abs()

    usual = simulator.plan("p2", [1.2, 7.0], objective=goal, horizon=3)
    for other in (
        lambda s, a, after: goal(s, a, after).numpy(),
        lambda s, a, after: goal(s, a, after).double(),
        lambda s, a, after: goal(s, a, after)[..., None],
    ):
        planned = simulator.plan("p2", [1.2, 7.0], objective=other, horizon=3)
        assert (planned.actions, planned.value) == (usual.actions, usual.value)
    counted = simulator.plan("p2", [1.2, 7.0], objective=lambda s, a, after: after[..., 0] > 0, horizon=3)
    assert counted.value == 3


def test_the_default_type_of_tensors_does_not_matter(simulator):
    asked = "p2", [1.2, 7.0], {"dose": [0.1], "drug": ["weak"]}
    usual = simulator.rollout(*asked, level=0.9), simulator.plan("p2", [1.2, 7.0], horizon=3).value
    torch.set_default_dtype(torch.float64)
    try:
        again = load_fixture("patients")
        other = again.rollout(*asked, level=0.9), again.plan("p2", [1.2, 7.0], horizon=3).value
        fitted = PersonalizedSimulator.fit(patients(4, 8), **ROLES, rank=2, epochs=2, progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(usual[0].interval, other[0].interval)
    assert usual[1] == other[1]
    assert fitted.population.simulator.delta_rms.dtype == torch.float32


def test_examples_in_docstrings_run():
    results = doctest.testmod(persim_lightning.api.simulator)
    assert results.attempted >= 5
    assert results.failed == 0


def test_saving_over_another_simulator_leaves_nothing_of_it(simulator, tmp_path):
    simulator.save(tmp_path)
    bare = PersonalizedSimulator(simulator.population, simulator.trajectories)
    bare.save(tmp_path)
    again = PersonalizedSimulator.load(tmp_path)
    assert again.outcomes is None
    assert again.calibration is None


def test_runs_of_environments_know_their_rewards_when_saved(simulator, tmp_path):
    known = PersonalizedSimulator(simulator.population, simulator.trajectories, get_environment("cartpole"))
    known.save(tmp_path)
    assert PersonalizedSimulator.load(tmp_path).outcomes is get_environment("cartpole")
    (tmp_path / "environment.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="names an unknown environment"):
        PersonalizedSimulator.load(tmp_path)
