"""BCQ and CQL on a sledge that is pushed toward the middle of a line."""

import json
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from persim_lightning.data.collecting.behavior import RandomPolicy
from persim_lightning.data.collecting.collect import episodes_table
from persim_lightning.data.collecting.episodes import play
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.envs import Environment
from persim_lightning.envs.environment import Covariate
from persim_lightning.envs.functional import FunctionalBatch, rollout, set_state
from persim_lightning.errors import ConfigurationError, PersimError, SimulatorFileError, TableError
from persim_lightning.methods.offline import learners as model_free
from persim_lightning.methods.offline.d3rlpy_training import TransitionTable
from persim_lightning.methods.offline.learners import BCQ, CQL
from persim_lightning.policies.learned import LearnedPolicy
from persim_lightning.policies.networks import Layer, Net
from persim_lightning.policies.rules import HighestLikelyValue, HighestValue

pytest.importorskip("d3rlpy")

STEPS = 40
QUICK = {"hidden": (32,), "batch": 32}
LEARNERS = [BCQ, CQL]


def slide(states, actions, covariates):
    """Position and velocity after a push; positions are meters, velocities tiny (per millisecond)."""
    position, velocity = states[..., 0], 1000 * states[..., 1]
    push = actions[..., 0] if actions.is_floating_point() else actions - 1.0
    velocity = 0.9 * velocity + covariates[..., 0] * push
    return torch.stack((position + 0.2 * velocity, velocity / 1000), -1)


def sledge(num_actions):
    def start(covariates, seed):
        generator = torch.Generator().manual_seed(seed)
        position = 4 * torch.rand(len(covariates), generator=generator, dtype=torch.float64) - 2
        return FunctionalBatch(slide, covariates, torch.stack((position, torch.zeros_like(position)), -1))

    return Environment(
        name="sledge",
        gym_id="",
        state_names=("position", "velocity"),
        action_names=("push",),
        num_actions=num_actions,
        covariates=(Covariate("force", 0.2, 0.4, 0.3),),
        test_agents=((0.3,),),
        policy_training_agents=((0.3,),),
        max_steps=STEPS,
        make_batch=start,
        reward=lambda states, actions, next_states: -(next_states[..., 0] ** 2),
        # Off the track.
        terminated=lambda states: states[..., 0].abs() > 3,
        rollout=partial(rollout, slide),
        set_state=set_state,
    )


def record(environment, policy, episodes, seed=0):
    covariates = torch.full((episodes, 1), 0.3, dtype=torch.float64)
    table = episodes_table(environment, play(environment, policy, covariates, STEPS, seed))
    table = table.rename_columns(["agent", *table.column_names[1:]])
    return trajectories_from_table(table, environment.schema, "sledges")


@pytest.fixture(scope="module", params=[3, None], ids=["discrete", "continuous"])
def environment(request):
    return sledge(request.param)


@pytest.fixture(scope="module")
def few(environment):
    """Eight trajectories, of which some end off the track and some are cut."""
    trajectories = record(environment, RandomPolicy(environment), 8)
    terminated = torch.arange(8) % 2 == 0
    return replace(trajectories, terminated=terminated)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(count=500):
    return torch.randn(count, 2, generator=generator(9), dtype=torch.float64) * torch.tensor([1.0, 1e-3])


@pytest.mark.parametrize("learner", LEARNERS)
def test_contract(environment, few, learner, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state()
    method = learner(**QUICK)
    policy = method.learn(few, environment, steps=20, seed=0)
    actions = policy(states(), generator())
    if environment.num_actions is None:
        assert actions.shape == (500, 1)
        assert actions.dtype == torch.float64
        assert actions.abs().max() <= 1
    else:
        assert actions.shape == (500,)
        assert actions.dtype == torch.int64
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())

    policy.save(tmp_path / "policy")
    assert {path.suffix for path in (tmp_path / "policy").iterdir()} == {".safetensors", ".json"}
    assert torch.equal(method.load(tmp_path / "policy", environment)(states(), generator()), actions)

    def weights(seed):
        method.learn(few, environment, steps=20, seed=seed).save(tmp_path / f"seed{seed}")
        return load_file(tmp_path / f"seed{seed}" / "policy.safetensors")

    first = load_file(tmp_path / "policy" / "policy.safetensors")
    again, other = weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("learner", LEARNERS)
def test_acts_as_d3rlpy_does(environment, few, learner, monkeypatch):
    kept, train = [], model_free.train

    def keep(*arguments):
        kept.append(train(*arguments))
        return kept[0]

    monkeypatch.setattr(model_free, "train", keep)
    policy = learner(**QUICK).learn(few, environment, steps=200, seed=0)
    actions = policy(states(), generator(4))
    with torch.random.fork_rng(devices=[]):
        # Its samples come from the global generator.
        torch.manual_seed(4)
        expected = kept[0].predict(((states() - policy.mean) / policy.std).float().numpy())
    assert len(actions.unique()) > 1
    torch.testing.assert_close(actions, torch.from_numpy(expected).to(actions.dtype), atol=1e-5, rtol=1e-5)


def test_chance_comes_from_the_generator(few, environment):
    policy = BCQ(**QUICK).learn(few, environment, steps=5, seed=0)
    same = torch.equal(policy(states(), generator(1)), policy(states(), generator(2)))
    assert same == (environment.num_actions is not None)
    assert torch.equal(policy(states(), generator(1)), policy(states(), generator(1)))


def test_transitions(environment, few):
    table = TransitionTable.of(few, environment, reward_size=2.0)
    rows, _ = few.split_rows(0.0)
    torch.testing.assert_close(table.state * table.std + table.mean, few.state[rows])
    torch.testing.assert_close(table.next_state * table.std + table.mean, few.state[rows + 1])
    # Velocities are of about 1e-3, and count as much as positions.
    torch.testing.assert_close(table.state.std(0), torch.ones(2), atol=0.1, rtol=0)
    assert table.reward.square().mean().sqrt() == pytest.approx(2)
    last = torch.isin(rows + 2, few.offsets[1:])
    assert torch.equal(table.terminal[:, 0], (last & few.terminated[few.row_agent()[rows]]).float())
    assert table.terminal.sum() == 4
    constant = few.state.clone()
    constant[:, 1] = 0.1
    scaled = TransitionTable.of(replace(few, state=constant), environment, 1.0)
    assert scaled.std[1] == 1
    assert scaled.state[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("learner", LEARNERS)
def test_values_go_on_where_a_trajectory_was_cut(learner):
    """Trajectories of one step with reward 1: worth 1 if that was the end, 1/(1 - .5) if they were cut."""
    environment = sledge(3)
    recorded = record(environment, RandomPolicy(environment), 8)
    rows = len(recorded.state) // 2 * 2
    single = {
        "agent": torch.arange(rows // 2) % 8,
        "offsets": 2 * torch.arange(rows // 2 + 1),
        "reward": torch.ones(rows),
        **{name: getattr(recorded, name)[:rows] for name in ("state", "action", "delta")},
    }
    settings = {"discount": 0.5, "reward_size": 1.0, "target_interval": 10, "learning_rate": 3e-3, **QUICK}
    # Conservatism shifts values.
    method = BCQ(**settings) if learner is BCQ else CQL(conservatism=1e-3, **settings)
    value = {}
    for ended in (True, False):
        terminated = torch.full((rows // 2,), ended)
        policy = method.learn(replace(recorded, terminated=terminated, **single), environment, steps=900, seed=0)
        near = torch.randn(200, 2, generator=generator())
        value[ended] = float(policy.rule.value(near).mean())
    assert value[True] == pytest.approx(1, abs=0.1)
    assert value[False] == pytest.approx(2, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_learns_from_random_play_to_reach_the_middle(environment, learner):
    trajectories = record(environment, RandomPolicy(environment), 200)
    policy = learner(hidden=(64, 64), batch=64, target_interval=50, samples=5).learn(
        trajectories, environment, steps=700, seed=0
    )
    agents = torch.full((50, 1), 0.3, dtype=torch.float64)
    returns = play(environment, policy, agents, STEPS, seed=5).returns.mean()
    # Random play loses about 70; braking in time would lose about 4.
    assert trajectories.returns().mean() < -60
    assert returns > -30


def test_only_likely_actions_are_chosen():
    def constant(*outputs):
        return Net((Layer(torch.zeros(len(outputs), 2), torch.tensor(outputs)),))

    value, behavior = constant(-1.0, -3.0, 5.0), constant(0.0, 1.0, -2.0)
    state = torch.zeros(1, 2)
    assert HighestLikelyValue(value, behavior, 0.5)(state, generator()) == 1
    assert HighestLikelyValue(value, behavior, 0.3)(state, generator()) == 0
    assert HighestLikelyValue(value, behavior, 0.01)(state, generator()) == 2
    assert HighestValue(value)(state, generator()) == 2


@pytest.mark.parametrize("learner", LEARNERS)
def test_tables_that_do_not_suffice(environment, few, learner):
    method = learner(**QUICK)
    with pytest.raises(TableError, match="'reward'"):
        method.learn(replace(few, reward=None), environment, 1, 0)
    single = replace(few, agent=few.agent[:1], offsets=torch.tensor([0, 1]), terminated=few.terminated[:1])
    first = {name: getattr(few, name)[:1] for name in ("state", "action", "delta", "reward")}
    with pytest.raises(TableError, match="two rows"):
        method.learn(replace(single, **first), environment, 1, 0)
    if environment.num_actions is None:
        with pytest.raises(TableError, match=r"\[-1, 1\]"):
            method.learn(replace(few, action=3 * few.action), environment, 1, 0)


def test_without_d3rlpy(few, environment, monkeypatch, tmp_path):
    policy = BCQ(**QUICK).learn(few, environment, steps=1, seed=0)
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    with pytest.raises(ConfigurationError, match=r"persim-lightning\[baselines\]"):
        CQL(**QUICK).learn(few, environment, 1, 0)
    # What was learned can still be stored, loaded and used.
    policy.save(tmp_path)
    BCQ().load(tmp_path, environment)(states(), generator())


@pytest.mark.parametrize("learner", LEARNERS)
def test_damaged_files(environment, few, learner, tmp_path):
    method = learner(**QUICK)
    weights, settings = tmp_path / "policy.safetensors", tmp_path / "policy.json"
    policy = method.learn(few, environment, steps=1, seed=0)

    def refused():
        with pytest.raises(SimulatorFileError, match=str(tmp_path)):
            method.load(tmp_path, environment)
        policy.save(tmp_path)
        assert isinstance(method.load(tmp_path, environment), LearnedPolicy)

    refused()
    weights.unlink()
    refused()
    settings.unlink()
    refused()
    weights.write_bytes(weights.read_bytes()[:200])
    refused()
    for text in ("{", "[]", "{}", "\ufffe", json.dumps(json.loads(settings.read_text()) | {"more": 1})):
        settings.write_text(text)
        refused()
    settings.write_bytes(b"\xff\xfe")
    refused()
    tensors = load_file(weights)
    for name in tensors:
        save_file({key: value for key, value in tensors.items() if key != name}, weights)
        refused()
        save_file({**tensors, name: torch.zeros(7, 7)}, weights)
        refused()
    # Another method's policy, and one of another kind of actions.
    for other, kind in ((CQL if learner is BCQ else BCQ, environment.num_actions), (learner, "other")):
        world = sledge(environment.num_actions if kind != "other" else (None if environment.num_actions else 3))
        other(**QUICK).learn(record(world, RandomPolicy(world), 2), world, 1, 0).save(tmp_path)
        with pytest.raises(PersimError, match="readable"):
            method.load(tmp_path, environment)
