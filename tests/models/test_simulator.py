"""Every fast path of the simulator against a slow, obvious one."""

import json

import numpy as np
import pytest
import tensorly as tl
import torch

from persim_lightning.errors import ConfigurationError, PersimError, SimulatorFileError
from persim_lightning.models.agent_simulator import personalize
from persim_lightning.models.config import Ranks
from persim_lightning.models.factorization import build_factorization, to_dense
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import Simulator
from persim_lightning.models.walls import Walls
from persim_lightning.types import Schema, WallContacts
from tests.conftest import ROOT, random_actions, random_simulator

KINDS = [("cp", 4), ("cp", None), ("tucker", 4), ("tucker", None)]


def predict_one(simulator, member, agent, state, action):
    """Δs by the formula, one number at a time: Σ G_ijk u_i v_j w_k."""
    members = simulator.members
    u = simulator.agent_encoder(torch.full((members, 1), agent))[member, 0]
    v = simulator.state_encoder(state.expand(members, 1, -1))[member, 0]
    w = simulator.action_encoder(action.expand(members, 1, *action.shape))[member, 0]
    out = torch.zeros(simulator.state_dim)
    for d in range(simulator.state_dim):
        if hasattr(simulator.factorization, "core"):
            core = simulator.factorization.core[member]
            for i in range(len(u)):
                for j in range(v.shape[1]):
                    for k in range(len(w)):
                        out[d] += core[i, j, k] * u[i] * v[d, j] * w[k]
        else:
            for rank in range(len(u)):
                out[d] += u[rank] * v[d, rank] * w[rank]
    return out * simulator.delta_rms


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_forward_is_the_sum_of_products(kind, num_actions):
    simulator = random_simulator(kind, num_actions)
    agents = torch.randint(6, (3, 5))
    states, actions = torch.randn(3, 5, 3), random_actions(num_actions, 3, 5)
    predicted = simulator(agents, states, actions)
    for member in range(3):
        for row in range(5):
            expected = predict_one(
                simulator, member, int(agents[member, row]), states[member, row], actions[member, row]
            )
            torch.testing.assert_close(predicted[member, row], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_tensorly_tensor_equals_the_ensemble_mean(kind, num_actions):
    simulator = random_simulator(kind, num_actions)
    agents, states = torch.tensor([5, 0, 2]), torch.randn(4, 3)
    actions = torch.arange(4) if num_actions else torch.randn(7, 2)
    tensor = simulator.as_tensor(agents, states, actions)
    assert isinstance(tensor, tl.cp_tensor.CPTensor if kind == "cp" else tl.tucker_tensor.TuckerTensor)
    dense = to_dense(tensor).reshape(3, 4, 3, len(actions))
    for i, agent in enumerate(agents):
        for j, state in enumerate(states):
            for k, action in enumerate(actions):
                predicted = simulator(
                    agent.expand(3, 1), state.expand(3, 1, 3), action.expand(3, 1, *action.shape)
                ).mean(0)[0]
                np.testing.assert_allclose(dense[i, j, :, k], predicted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("wall", [torch.inf, 0.6])
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_personalized_simulator_equals_the_plain_path(kind, num_actions, wall):
    simulator = random_simulator(kind, num_actions, wall)
    states, actions = torch.randn(9, 3), random_actions(num_actions, 9, 6)
    for agent in (0, 5):
        one_step = simulator.step(torch.full((9,), agent), states.expand(3, 9, 3), actions[:, 0])
        personal = personalize(simulator, agent)
        torch.testing.assert_close(personal.step(states.expand(3, 9, 3), actions[:, 0]), one_step, atol=1e-5, rtol=1e-5)
    # Long rollouts of a random network amplify rounding, so they are compared in float64.
    simulator, states, actions = (
        simulator.double(),
        states.double(),
        actions.double() if num_actions is None else actions,
    )
    for agent in (0, 5):
        plain = simulator.rollout(torch.full((9,), agent), states, actions)
        rolled = personalize(simulator, agent).rollout(states, actions)
        torch.testing.assert_close(rolled, plain, atol=1e-5, rtol=1e-9)


@torch.no_grad()
def test_rollout_keeps_members_apart():
    simulator = random_simulator("cp", 4)
    agents, states, actions = torch.tensor([1, 4]), torch.randn(2, 3), torch.randint(4, (2, 5))
    rolled = simulator.rollout(agents, states, actions)
    assert rolled.shape == (3, 2, 6, 3)
    for member in range(3):
        for row in range(2):
            state = states[row]
            for h in range(5):
                state = state + predict_one(simulator, member, int(agents[row]), state, actions[row, h])
                torch.testing.assert_close(rolled[member, row, h + 1], state, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_contact_with_a_wall_resets_what_it_reset_in_the_data():
    walls = random_simulator("cp", 4, wall=0.75).walls
    states = torch.tensor([[-0.8, 0.1, 0.5], [0.0, 0.9, 0.5], [0.9, -2.0, 0.5], [0.1, 0.2, 0.3]])
    expected = torch.tensor([[-0.75, 0.1, 0.25], [0.0, 0.75, 0.5], [0.75, -0.75, 0.25], [0.1, 0.2, 0.3]])
    assert torch.equal(walls(states), expected)


def test_a_contact_goes_before_the_wall_of_the_coordinate_that_it_resets():
    """A car at the wall and over the speed limit stands still; contacts of two walls are not added."""
    walls = Walls(2, learned=True)
    low_contact, high_contact = torch.tensor([[-1.2, 0.0], [torch.nan, -0.07]]), torch.full((2, 2), torch.nan)
    walls.set(WallContacts(torch.tensor([-1.2, -0.07]), torch.tensor([torch.inf, 0.07]), low_contact, high_contact))
    torch.testing.assert_close(walls(torch.tensor([[-1.3, -0.08]])), torch.tensor([[-1.2, 0.0]]))
    walls = Walls(3, learned=True)
    contact = torch.full((3, 3), torch.nan)
    contact[0, 2] = contact[1, 2] = 0.25
    walls.set(WallContacts(torch.zeros(3), torch.full((3,), torch.inf), contact, torch.full((3, 3), torch.nan)))
    assert walls(torch.tensor([[-1.0, -1.0, 0.5]])).tolist() == [[0.0, 0.0, 0.25]]


@torch.no_grad()
def test_walls_stop_predicted_states():
    agents, states, actions = torch.tensor([1]), torch.zeros(1, 3), torch.randint(4, (1, 30))
    free = random_simulator("cp", 4).rollout(agents, states, actions)
    clamped = random_simulator("cp", 4, wall=0.75).rollout(agents, states, actions)
    assert free.abs().max() > 0.75
    assert clamped.abs().max() <= 0.75


def test_agents_start_as_copies_of_one_another():
    table = Simulator(random_simulator("cp", 4).config).agent_encoder.table()
    assert table.shape == (3, 6, 4)
    assert torch.equal(table, table[:, :1].expand_as(table))
    assert table.abs().min() > 0.5


def test_unknown_factorization_and_unequal_cp_ranks():
    with pytest.raises(ConfigurationError, match="choose cp or tucker"):
        build_factorization("svd", 1, Ranks(2, 2, 2))
    with pytest.raises(ConfigurationError, match="one rank"):
        build_factorization("cp", 1, Ranks(2, 3, 2))


def personalized(kind="cp", num_actions=4):
    simulator = random_simulator(kind, num_actions)
    names = ("action",) if num_actions else ("a", "b")
    schema = Schema(("x", "y", "z"), names, num_actions)
    return FittedPopulation(simulator, schema, ["ann", "bob", "cy", "di", "ed", "flo"])


@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_saved_simulator_loads_alone_and_predicts_the_same(tmp_path, kind, num_actions):
    original = personalized(kind, num_actions)
    original.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["simulator.json", "simulator.safetensors"]
    loaded = FittedPopulation.load(tmp_path)
    state, actions = torch.randn(3), random_actions(num_actions, 6)
    assert np.array_equal(loaded.rollout("cy", state, actions), original.rollout("cy", state, actions))
    assert loaded.schema == original.schema


def test_rollout_by_id_is_that_agents(tmp_path):
    one = personalized()
    state, actions = torch.randn(3), torch.randint(4, (6,))
    expected = one.simulator.rollout(torch.tensor([4]), state[None], actions[None])[:, 0]
    assert np.array_equal(one.rollout("ed", state, actions), expected)
    for bad in ([0.5], [4], [-1]):
        with pytest.raises(PersimError, match="unknown action"):
            one.rollout("ed", state, bad)
    with pytest.raises(PersimError, match="unknown agent 'zoe'"):
        one.rollout("zoe", state, actions)
    with pytest.raises(PersimError, match=r"must have \(3,\)"):
        one.rollout("ed", state[:2], actions)
    with pytest.raises(PersimError, match=r"must have \(H,\)"):
        one.rollout("ed", state, actions[:, None])


def test_files_of_format_3_load_and_predict_as_they_did():
    """Written by the version that introduced the format; later versions must go on reading it."""
    folder = ROOT / "tests/fixtures/format3"
    expected = json.loads((folder / "expected.json").read_text())
    population = FittedPopulation.load(folder)
    assert json.loads((folder / "simulator.json").read_text())["format"] == 3
    predicted = population.rollout(expected["agent"], expected["state"], expected["actions"])
    np.testing.assert_allclose(predicted, expected["rollout"], rtol=1e-5, atol=1e-6)


def test_damaged_or_missing_simulator_files(tmp_path):
    with pytest.raises(SimulatorFileError, match="no such file"):
        FittedPopulation.load(tmp_path)
    personalized().save(tmp_path)
    description = tmp_path / "simulator.json"
    values = json.loads(description.read_text())
    for change in (
        {"format": 99},
        {"format": 2},
        {"architecture": {**values["architecture"], "members": 2}},
        {"schema": {}},
    ):
        description.write_text(json.dumps({**values, **change}))
        with pytest.raises(SimulatorFileError):
            FittedPopulation.load(tmp_path)
    description.write_text(json.dumps(values))
    (tmp_path / "simulator.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(SimulatorFileError, match="not a readable simulator"):
        FittedPopulation.load(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "num_actions"), KINDS)
def test_several_agents_are_simulated_together_as_alone(kind, num_actions):
    simulator = random_simulator(kind, num_actions, wall=0.6)
    states, actions = torch.randn(3, 9, 3), random_actions(num_actions, 9)
    owner = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2, 2])
    together = personalize(simulator, 5, 1, 3)
    stepped = together.step(states, actions, owner)
    for rows, agent in ((slice(0, 4), 5), (slice(4, 9), 3)):
        alone = personalize(simulator, agent).step(states[:, rows], actions[rows])
        torch.testing.assert_close(stepped[:, rows], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="give the agent of every row"):
        together.step(states, actions)
