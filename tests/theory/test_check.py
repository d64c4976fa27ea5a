"""The whole check on a simulator that is the truth by construction, and on one that is not."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from persim_lightning.data.table import load_trajectories, write_table
from persim_lightning.envs import get_environment
from persim_lightning.envs.mountain_car import FORCE
from persim_lightning.models.personalized import PersonalizedSimulator, build_simulator
from persim_lightning.theory.check import AgentFacts, RankCurve, check_theorem
from persim_lightning.theory.report import write_check
from persim_lightning.theory.sample import sample_cells
from persim_lightning.theory.summary import summary

AGENTS = 30
ARCHITECTURE = {
    "num_agents": AGENTS,
    "state_dim": 2,
    "action_dim": 1,
    "num_actions": 3,
    "members": 2,
    "ranks": [3, 3, 3],
    "factorization": "cp",
    "state_hidden": [],
    # With its cosine as an input, an affine state encoder holds MountainCar exactly.
    "angles": [0],
}


@pytest.fixture(autouse=True)
def few_ranks(monkeypatch):
    """Four ranks take a tenth of the time of eleven."""
    monkeypatch.setattr("persim_lightning.theory.check.RANKS", (1, 2, 3, 4))


@pytest.fixture
def trajectories(tmp_path):
    """Cars that were seen at random places, away from the walls."""
    rng = np.random.default_rng(0)
    rows = 20
    columns = {
        "agent": np.repeat(np.arange(AGENTS), rows),
        "t": np.tile(np.arange(rows), AGENTS),
        "position": rng.uniform(-1, 0.4, AGENTS * rows),
        "velocity": rng.uniform(-0.05, 0.05, AGENTS * rows),
        "action": rng.integers(3, size=AGENTS * rows),
    }
    write_table(pa.table(columns), tmp_path / "cars.parquet")
    return load_trajectories(tmp_path / "cars.parquet", get_environment("mountaincar").schema)


@pytest.fixture
def facts():
    return AgentFacts(("gravity",), np.linspace(1e-4, 3.5e-3, AGENTS)[:, None])


def exact_simulator(facts):
    """Proposition 1 written into the network's parameters, on the input cos 3x in the place of cos x."""
    simulator = build_simulator(ARCHITECTURE)
    encoder = simulator.state_encoder
    with torch.no_grad():
        for parameter in simulator.parameters():
            parameter.zero_()
        simulator.agent_encoder.shared.copy_(torch.tensor([1.0, 1.0, 0.0]).expand(2, 1, 3))
        simulator.agent_encoder.deviation[..., 2] = torch.from_numpy(facts.covariates[:, 0]).float() * 1000
        weight = encoder.mlp.skip.weight.view(2, 4, 2, 3)
        bias = encoder.mlp.skip.bias.view(2, 1, 2, 3)
        weight[:, 1, 0, 0] = 1.0
        bias[:, 0, :, 1] = FORCE
        weight[:, 3, :, 2] = -1e-3
        actions = torch.tensor([[1.0, -1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        simulator.action_encoder.deviation.copy_(actions.expand(2, 3, 3))
    plain = encoder.inputs

    def tripled(states):
        inputs = plain(states).clone()
        inputs[..., 3] = torch.cos(3 * states[..., 0])
        return inputs

    encoder.inputs = tripled
    schema = get_environment("mountaincar").schema
    return PersonalizedSimulator(simulator, ARCHITECTURE, schema, tuple(range(AGENTS)))


def test_a_simulator_that_is_the_truth_passes_everywhere(trajectories, facts, tmp_path):
    personalized = exact_simulator(facts)
    check = check_theorem("cars", personalized, trajectories, get_environment("mountaincar"), facts)
    assert check.truth.merged.needed_rank(1e-6) == 3
    assert check.truth.merged.multilinear_ranks(1e-6) == (2, 3, 2)
    assert check.truth.coordinates["velocity"].needed_rank(1e-6) == 2
    learned = check.learned
    assert learned.error < 1e-5
    assert max(learned.coordinate_errors.values()) < 1e-5
    assert max(learned.agent_angles) < 0.01
    assert learned.projection_error < 1e-5
    assert max(map(max, learned.covariate_angles)) < 0.01
    assert learned.linear["gravity"] > 0.9999
    assert learned.quadratic["gravity"] > 0.9999
    assert learned.unique is False
    assert learned.match is None
    text = summary(check)
    assert "rank 3 explains the true dynamics" in text
    assert "Your model uses CP rank 3" in text
    written = write_check(check, tmp_path / "out")
    assert [path.name for path in written] == ["theorem.json", "theorem.png", "recovered_covariates.png"]
    assert json.loads(written[0].read_text())["summary"] == text


def test_a_simulator_with_shuffled_agents_is_told_apart(trajectories, facts):
    personalized = exact_simulator(facts)
    with torch.no_grad():
        deviation = personalized.simulator.agent_encoder.deviation
        deviation.copy_(deviation[:, torch.randperm(AGENTS, generator=torch.Generator().manual_seed(0))])
    check = check_theorem("cars", personalized, trajectories, get_environment("mountaincar"), facts)
    assert check.learned.error > 0.05
    assert max(check.learned.agent_angles) > 10
    assert check.learned.quadratic["gravity"] < 0.5


def test_without_covariates_there_is_no_truth_but_a_spectrum(trajectories, facts):
    check = check_theorem("cars", exact_simulator(facts), trajectories, get_environment("mountaincar"), None)
    assert check.truth is None
    assert check.learned.error is None
    assert check.learned.quadratic is None
    values = np.array(check.learned.spectrum["agent"])
    assert (values > 1e-6).sum() == 2
    assert "true dynamics" not in summary(check)


def test_an_environment_alone(trajectories, facts, tmp_path):
    check = check_theorem("cars", None, trajectories, get_environment("mountaincar"), facts)
    assert check.learned is None
    assert "Your model" not in summary(check)
    assert [path.name for path in write_check(check, tmp_path)] == ["theorem.json", "theorem.png"]


def test_no_rank_suffices_is_said():
    rng = np.random.default_rng(0)
    curve = RankCurve.of(rng.normal(size=(12, 13, 14)), (1, 2, 3), inits=1)
    assert curve.needed_rank() is None
    assert len(curve.cp) == len(curve.tucker) == len(curve.converged) == 3
    assert all(math.isfinite(error) for error in curve.cp)


def test_samples_hold_every_discrete_action_and_depend_on_the_seed(trajectories):
    first, again, other = sample_cells(trajectories), sample_cells(trajectories), sample_cells(trajectories, seed=1)
    assert first.actions.tolist() == [0, 1, 2]
    assert torch.equal(first.states, again.states)
    assert not torch.equal(first.states, other.states)
    assert first.agents.tolist() == list(range(AGENTS))
