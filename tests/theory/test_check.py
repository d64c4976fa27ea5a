"""The whole check on a simulator that equals the true dynamics by construction, and on one that does not."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.tables.sources import write_table
from persim_lightning.envs import get_environment
from persim_lightning.envs.mountain_car import FORCE
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.ensemble import select_members
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator
from persim_lightning.theory.check import check_theorem
from persim_lightning.theory.learned import check_learned
from persim_lightning.theory.lowrank import compress
from persim_lightning.theory.report import write_check
from persim_lightning.theory.results import AgentCovariates
from persim_lightning.theory.sample import Sample, sample_cells
from persim_lightning.theory.summary import summary
from persim_lightning.theory.tensors import coordinate_scales, learned_tensor, merged
from persim_lightning.theory.truth import TrueTensor, rank_curve
from persim_lightning.types import Schema
from tests.conftest import random_simulator

AGENTS = 30
CONFIG = SimulatorConfig(
    num_agents=AGENTS,
    state_dim=2,
    action_dim=1,
    num_actions=3,
    members=2,
    ranks=Ranks(3, 3, 3),
    state_hidden=(),
    # With its cosine as an input, an affine state encoder holds MountainCar exactly.
    angles=(0,),
)


@pytest.fixture(autouse=True)
def few_ranks(monkeypatch):
    """Four ranks take a tenth of the time of eleven."""
    monkeypatch.setattr("persim_lightning.theory.truth.RANKS", (1, 2, 3, 4))


@pytest.fixture
def trajectories(tmp_path):
    """Cars at random positions, away from the walls."""
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
def covariates():
    return AgentCovariates(("gravity",), np.linspace(1e-4, 3.5e-3, AGENTS)[:, None])


def exact_simulator(covariates):
    """Set the network's parameters to Proposition 1's factors, with the input cos 3x instead of cos x."""
    simulator = Simulator(CONFIG)
    encoder = simulator.state_encoder
    with torch.no_grad():
        for parameter in simulator.parameters():
            parameter.zero_()
        simulator.agent_encoder.shared.copy_(torch.tensor([1.0, 1.0, 0.0]).expand(2, 1, 3))
        simulator.agent_encoder.deviation[..., 2] = torch.from_numpy(covariates.values[:, 0]).float() * 1000
        weight = encoder.mlp.skip.weight.view(2, 4, 2, 3)
        bias = encoder.mlp.skip.bias.view(2, 1, 2, 3)
        weight[:, 1, 0, 0] = 1.0
        bias[:, 0, :, 1] = FORCE
        weight[:, 3, :, 2] = -1e-3
        actions = torch.tensor([[1.0, -1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        simulator.action_encoder.deviation.copy_(actions.expand(2, 3, 3))
    original = encoder.inputs

    def tripled(states):
        inputs = original(states).clone()
        inputs[..., 3] = torch.cos(3 * states[..., 0])
        return inputs

    encoder.inputs = tripled
    schema = get_environment("mountaincar").schema
    return FittedPopulation(simulator, schema, tuple(range(AGENTS)))


def test_a_simulator_that_is_the_truth_passes_everywhere(trajectories, covariates, tmp_path):
    personalized = exact_simulator(covariates)
    check = check_theorem("cars", personalized, trajectories, get_environment("mountaincar"), covariates)
    assert check.truth.merged.sufficient_rank(1e-6) == 3
    assert check.truth.merged.multilinear_ranks(1e-6) == (2, 3, 2)
    assert check.truth.coordinates["velocity"].sufficient_rank(1e-6) == 2
    learned = check.learned
    assert learned.against_truth.error < 1e-5
    assert max(learned.against_truth.coordinate_errors.values()) < 1e-5
    assert max(learned.against_truth.agent_angles) < 0.01
    assert learned.against_truth.projection_error < 1e-5
    assert learned.against_truth.unique is False
    assert learned.against_truth.match is None
    assert max(map(max, learned.covariates.angles)) < 0.01
    assert learned.covariates.linear["gravity"] > 0.9999
    assert learned.covariates.quadratic["gravity"] > 0.9999
    text = summary(check)
    assert "rank 3 explains the true dynamics" in text
    assert "Your model uses CP rank 3" in text
    written = write_check(check, tmp_path / "out")
    assert [path.name for path in written] == ["theorem.json", "theorem.png", "recovered_covariates.png"]
    assert json.loads(written[0].read_text())["summary"] == text


def test_a_simulator_with_shuffled_agents_is_told_apart(trajectories, covariates):
    personalized = exact_simulator(covariates)
    with torch.no_grad():
        deviation = personalized.simulator.agent_encoder.deviation
        deviation.copy_(deviation[:, torch.randperm(AGENTS, generator=torch.Generator().manual_seed(0))])
    check = check_theorem("cars", personalized, trajectories, get_environment("mountaincar"), covariates)
    assert check.learned.against_truth.error > 0.05
    assert max(check.learned.against_truth.agent_angles) > 10
    assert check.learned.covariates.quadratic["gravity"] < 0.5


def test_without_covariates_there_is_no_truth_but_a_spectrum(trajectories, covariates):
    check = check_theorem("cars", exact_simulator(covariates), trajectories, get_environment("mountaincar"), None)
    assert check.truth is None
    assert check.learned.against_truth is None
    assert check.learned.covariates is None
    values = np.array(check.learned.spectrum["agent"])
    assert (values > 1e-6).sum() == 2
    assert "the true dynamics is not known" in summary(check)
    assert "explains" not in summary(check)


def test_an_environment_alone(trajectories, covariates, tmp_path):
    check = check_theorem("cars", None, trajectories, get_environment("mountaincar"), covariates)
    assert check.learned is None
    assert "Your model" not in summary(check)
    assert [path.name for path in write_check(check, tmp_path)] == ["theorem.json", "theorem.png"]


def test_no_rank_suffices_is_said():
    rng = np.random.default_rng(0)
    curve = rank_curve(compress(rng.normal(size=(12, 13, 14)), 9), (1, 2, 3), inits=1)
    assert curve.sufficient_rank() is None
    assert len(curve.cp) == len(curve.tucker) == len(curve.converged) == 3
    assert all(math.isfinite(error) for error in curve.cp)


def test_directions_are_counted_beyond_those_that_are_decomposed():
    """A hundred equal singular values: an error of 1 % needs all of them, however few are compressed to."""
    tensor = np.zeros((100, 100, 2))
    tensor[np.arange(100), np.arange(100), 0] = 1
    curve = rank_curve(compress(tensor, 3), (1,), inits=1)
    assert curve.multilinear_ranks() == (100, 100, 1)


def test_factors_of_a_unique_decomposition_are_matched(monkeypatch):
    """The true tensor is the simulator's first member: its factors match, and those of another tensor do not."""
    monkeypatch.setattr("persim_lightning.theory.truth.RANKS", (4,))
    simulator = random_simulator("cp", None)
    simulator = select_members(simulator, torch.tensor([0]))
    schema = Schema(("x", "y", "z"), ("a", "b"), None)
    personalized = FittedPopulation(simulator, schema, tuple(range(6)))
    sample = Sample(torch.arange(6), torch.randn(20, 3), torch.randn(12, 2))
    tensor = learned_tensor(personalized, *sample)
    scale = coordinate_scales(tensor)
    truth = TrueTensor(tensor / scale, scale, compress(merged(tensor / scale), 12))
    check, _ = check_learned(personalized, sample, truth, None)
    assert check.against_truth.unique is True
    assert check.against_truth.match == pytest.approx(1, abs=1e-4)
    other = TrueTensor(*(value[::-1].copy() for value in truth[:1]), scale, compress(merged(truth.scaled[::-1]), 12))
    check, _ = check_learned(personalized, sample, other, None)
    assert check.against_truth.match < 0.97


def test_agents_whose_covariates_are_not_the_environments_leave_the_truth_unknown(trajectories, covariates):
    other = AgentCovariates(("mass", "age"), np.column_stack([covariates.values, np.full(AGENTS, 0.1)]))
    check = check_theorem("cars", exact_simulator(covariates), trajectories, get_environment("mountaincar"), other)
    assert check.truth is None
    assert check.learned.covariates.quadratic["mass"] > 0.9999
    assert check.learned.covariates.quadratic["age"] is None
    assert "age R²" not in summary(check)


def test_a_single_agent_is_no_obstacle(trajectories, covariates, tmp_path):
    sample = sample_cells(trajectories)
    one = sample._replace(agents=sample.agents[:1])
    check = check_theorem(
        "car", exact_simulator(covariates), trajectories, get_environment("mountaincar"), covariates, one
    )
    assert check.truth.merged.multilinear_ranks()[0] == 1
    assert [path.stat().st_size > 0 for path in write_check(check, tmp_path)] == [True] * 3


def test_samples_hold_every_discrete_action_and_depend_on_the_seed(trajectories):
    first, again, other = sample_cells(trajectories), sample_cells(trajectories), sample_cells(trajectories, seed=1)
    assert first.actions.tolist() == [0, 1, 2]
    assert torch.equal(first.states, again.states)
    assert not torch.equal(first.states, other.states)
    assert first.agents.tolist() == list(range(AGENTS))
