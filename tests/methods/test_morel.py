"""MOReL as a whole: its contract, its files, and that it learns where it should."""

import json
import random
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from jsonargparse import ArgumentParser

from persim_lightning.data.collecting.behavior import EpsilonPolicy, RandomPolicy
from persim_lightning.data.collecting.episodes import play
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.envs import Environment, get_environment
from persim_lightning.envs.functional import FunctionalBatch, rollout
from persim_lightning.errors import ConfigurationError, PersimError, TableError
from persim_lightning.methods.contract import Learner
from persim_lightning.methods.morel.learner import MOReL
from persim_lightning.policies.behavior import load_policy

QUICK = {"width": 16, "policy_steps": 400, "episodes": 10, "rollout": 20, "cloning_steps": 50}
# Enough to learn a small problem.
SMALL = {"width": 64, "policy_steps": 45_000, "episodes": 60, "rollout": 50}


def push(states, actions, covariates):
    """A point mass on a plane that actions accelerate: states (..., 4) are positions and velocities."""
    velocity = 0.9 * states[..., 2:] + 0.1 * actions.to(states.dtype).clamp(-1, 1) * covariates
    return torch.cat((states[..., :2] + velocity, velocity), -1)


def starts_of_mass(covariates, seed):
    generator = torch.Generator().manual_seed(seed)
    position = 2 * torch.rand(len(covariates), 2, generator=generator, dtype=torch.float64) - 1
    return FunctionalBatch(push, covariates, torch.cat((position, torch.zeros_like(position)), 1))


POINT_MASS = Environment(
    name="pointmass",
    gym_id="",
    state_names=("x", "y", "dx", "dy"),
    action_names=("push_x", "push_y"),
    num_actions=None,
    covariates=(),
    test_agents=(),
    policy_training_agents=(),
    max_steps=40,
    make_batch=starts_of_mass,
    reward=lambda states, actions, next_states: -next_states[..., :2].square().sum(-1),
    terminated=lambda states: torch.zeros(states.shape[:-1], dtype=torch.bool),
    rollout=partial(rollout, push),
    set_state=lambda environment, state: None,
)
CART_POLE = get_environment("cartpole")
STRENGTH = {"pointmass": (1.0,), "cartpole": CART_POLE.default_agent}


def covariates_of(environment, episodes):
    return torch.tensor([STRENGTH[environment.name]] * episodes, dtype=torch.float64)


def recorded(environment, episodes, policy=None, seed=0, steps=None):
    """Trajectories of one agent, random unless told otherwise, with rewards."""
    policy = policy or RandomPolicy(environment)
    steps = steps or environment.max_steps
    played = play(environment, policy, covariates_of(environment, episodes), steps, seed)
    names = ("agent", "episode", "t", *environment.state_names, *environment.action_names, "reward", "terminated")
    columns = {name: [] for name in names}
    for episode, length in enumerate(played.lengths.tolist()):
        count = length + 1
        actions = torch.cat((played.actions[episode, :length], played.actions[episode, -1:] * 0)).view(count, -1)
        values = {
            "agent": [0] * count,
            "episode": [episode] * count,
            "t": list(range(count)),
            **dict(zip(environment.state_names, played.states[episode, :count].T.tolist(), strict=True)),
            **dict(zip(environment.action_names, actions.T.tolist(), strict=True)),
            "reward": [*played.rewards[episode, :length].tolist(), None],
            "terminated": [False] * length + [bool(played.terminated[episode])],
        }
        for name, value in values.items():
            columns[name] += value
    return trajectories_from_table(pa.table(columns), environment.schema, "made up")


def mean_return(environment, policy, episodes=50, seed=99):
    return float(
        play(environment, policy, covariates_of(environment, episodes), environment.max_steps, seed).returns.mean()
    )


def acts(policy, environment, count=50):
    states = torch.randn(count, len(environment.state_names), generator=torch.Generator().manual_seed(1)).double()
    return policy(states, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("environment", [CART_POLE, POINT_MASS], ids=["discrete", "continuous"])
def test_contract_on_a_tiny_table(environment, tmp_path, capfd):
    tiny = recorded(environment, 1, steps=9)
    assert len(tiny.state) <= 10
    learner = MOReL(**QUICK)
    assert isinstance(learner, Learner)
    assert learner.name == "MOReL"
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        policy = learner.learn(tiny, environment, 20, seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    np.testing.assert_array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002
    assert capfd.readouterr() == ("", "")

    actions = acts(policy, environment)
    if environment.num_actions:
        assert actions.dtype == torch.int64
        assert actions.shape == (50,)
        assert set(actions.tolist()) <= set(range(environment.num_actions))
    else:
        assert actions.dtype == torch.float64
        assert actions.shape == (50, 2)
        assert float(actions.abs().max()) <= 1
    policy.save(tmp_path / "new" / "folder")
    assert torch.equal(acts(MOReL().load(tmp_path / "new" / "folder", environment), environment), actions)
    again, other = (learner.learn(tiny, environment, 20, seed=seed) for seed in (3, 4))
    weights, repeated, different = (
        torch.cat([part.flatten() for layer in own.rule.actor.layers for part in layer])
        for own in (policy, again, other)
    )
    assert torch.equal(weights, repeated)
    assert not torch.equal(weights, different)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    MOReL(**{**QUICK, "policy_steps": 0}).learn(recorded(CART_POLE, 1), CART_POLE, 5, seed=0).save(folder)
    return folder


def test_what_was_saved_tells_how_it_was_learned(saved):
    facts = json.loads((saved / "policy.json").read_text())["facts"]
    assert facts["halt_reward"] == pytest.approx(-100)
    assert facts["threshold"] > 0
    assert 0.9 < facts["recorded_pairs_known"] <= 1
    assert sorted(path.name for path in saved.iterdir()) == ["policy.json", "policy.safetensors"]


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
def test_files_that_are_missing_or_damaged_are_named(saved, tmp_path, name):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"[1]", b"{}"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(PersimError, match="policy"):
            MOReL().load(tmp_path, CART_POLE)
    (tmp_path / name).unlink()
    with pytest.raises(PersimError, match=name):
        MOReL().load(tmp_path, CART_POLE)


def test_a_policy_of_another_environment_is_refused(saved):
    for other in (POINT_MASS, get_environment("mountaincar")):
        with pytest.raises(PersimError, match=other.name):
            MOReL().load(saved, other)


def test_rewards_are_needed():
    table = recorded(CART_POLE, 1)
    with pytest.raises(TableError, match="reward"):
        MOReL(**QUICK).learn(replace(table, reward=None), CART_POLE, 5, seed=0)


def test_without_the_library_policies_act_but_cannot_be_learned(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "persim_lightning.methods.morel.trust_region", raising=False)
    acts(MOReL().load(saved, CART_POLE), CART_POLE)
    with pytest.raises(
        ConfigurationError, match=r"MOReL needs sb3-contrib: pip install 'persim-lightning\[baselines\]'"
    ):
        MOReL(**QUICK).learn(recorded(CART_POLE, 1), CART_POLE, 5, seed=0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"members": 1}, "disagree"), ({"discount": 1.0}, "discount"), ({"episodes": 1, "rollout": 1}, "one step")],
)
def test_settings_that_contradict_themselves_are_refused(arguments, problem):
    with pytest.raises(ConfigurationError, match=problem):
        MOReL(**arguments)


def test_a_yaml_says_what_the_constructor_takes():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Learner, "learner")
    values = {"class_path": "persim_lightning.methods.morel.learner.MOReL", "init_args": {"beta": 3, "starts": "first"}}
    assert isinstance(parser.instantiate(parser.parse_object({"learner": values})).learner, MOReL)


def test_first_states_are_those_of_trajectories_that_move():
    table = recorded(POINT_MASS, 3, steps=5)
    torch.testing.assert_close(MOReL._first(table), table.state[[0, 6, 12]])


@pytest.mark.slow
def test_cart_pole_is_learned_from_plentiful_data_of_one_agent():
    """The recorded policies reach about 22 (random) and 75 (mediocre) of 200 steps."""
    good, _ = load_policy("cartpole_test")
    table = recorded(CART_POLE, 60, EpsilonPolicy(good, CART_POLE, 0.5))
    table = table.joined(replace(recorded(CART_POLE, 60, seed=1), agent_ids=(1,)))
    recorded_return = float(table.returns().mean())
    policy = MOReL(**SMALL).learn(table, CART_POLE, 1500, seed=0)
    assert recorded_return < 100
    assert mean_return(CART_POLE, policy) > 150


@pytest.mark.slow
def test_a_point_mass_is_brought_to_the_origin_from_random_data():
    table = recorded(POINT_MASS, 50)
    policy = MOReL(**SMALL).learn(table, POINT_MASS, 1000, seed=0)
    random_return, best = mean_return(POINT_MASS, RandomPolicy(POINT_MASS)), mean_return(POINT_MASS, pull)
    achieved = mean_return(POINT_MASS, policy)
    # Most of the way from random actions to a controller that knows the dynamics.
    assert achieved > random_return + 0.8 * (best - random_return)


def pull(states, generator):
    """Critically damped."""
    return (-4 * states[:, :2] - 8 * states[:, 2:]).clamp(-1, 1)
