"""One contract for every method in conf/methods: fit, act, be judged, save, load; same seed, same result."""

from dataclasses import replace

import pytest
import torch
import yaml

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.evaluation.control import play_agents
from persim_lightning.methods.cadm.method import CaDM
from persim_lightning.methods.method_file import build_method
from persim_lightning.support.files import read_json
from tests.conftest import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "conf/methods").glob("*.yaml"))}
# What would take long, and only that.
QUICK = {"MOReL": {"policy_steps": 400, "episodes": 4, "rollout": 50, "cloning_steps": 10, "width": 16}}
EPISODES = 2


def quick_method(name):
    values = yaml.safe_load(FILES[name].read_text())
    learner = values.get("init_args", {}).get("learner")
    if learner is not None:
        learner["init_args"] = learner.get("init_args", {}) | QUICK.get(learner["class_path"].split(".")[-1], {})
    return build_method(values, str(FILES[name]))


def results(fitted, task):
    """Everything that a fitted method is asked for."""
    policy = fitted.policy(task, EPISODES)
    if policy is None:
        return None, fitted.score(task)
    return play_agents(task.environment, policy, task.covariates(), EPISODES, task.seed), fitted.score(task)


def check_same(one, two):
    (played, scores), (again, scores_again) = one, two
    assert (played is None) == (again is None)
    if played is not None:
        assert torch.equal(played.episodes.actions, again.episodes.actions)
        assert torch.equal(played.returns, again.returns)
    assert (scores is None) == (scores_again is None)
    if scores is not None:
        assert torch.equal(scores.rmse, scores_again.rmse)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("environment", ["cartpole", "halfcheetah"])
def test_contract(name, environment, small_task, tmp_path):
    task = small_task(environment, tmp_path / "first")
    task = replace(task, environment=replace(task.environment, max_steps=6))
    method = quick_method(name)
    fitted = method.fit(task)

    policy, generator = fitted.policy(task, EPISODES), torch.Generator().manual_seed(0)
    assert (policy is None) == (name == "completion")
    if policy is not None:
        states = task.environment.make_batch(task.covariates().repeat_interleave(EPISODES, dim=0), 0).states
        actions = policy(states, generator)
        if task.environment.num_actions is None:
            assert actions.shape == (4, 6)
            assert actions.dtype == torch.float64
            assert actions.abs().max() <= 1
        else:
            assert actions.shape == (4,)
            assert set(actions.tolist()) <= {0, 1}

    played, scores = judged = results(fitted, task)
    if played is not None:
        assert played.returns.shape == (2, EPISODES)
        assert bool(played.returns.isfinite().all())
    predicts = name in ("persim", "persim-no-agents", "completion", "vanilla-cadm", "pets-cadm")
    assert (scores is not None) == predicts
    if scores is not None:
        assert scores.rmse.shape == (5,)

    fitted.save(tmp_path / "saved")
    check_same(judged, results(method.load(tmp_path / "saved", task), task))
    again = replace(task, workspace=tmp_path / "second")
    check_same(judged, results(quick_method(name).fit(again), again))


@pytest.mark.parametrize("name", [name for name in FILES if name != "true-env"])
def test_nothing_or_something_else_to_load(name, cartpole_task, tmp_path):
    task, method = cartpole_task(), quick_method(name)
    with pytest.raises(PersimError, match=str(tmp_path)):
        method.load(tmp_path, task)


def test_labels_are_the_paper_s():
    labels = {name: build_method(yaml.safe_load(path.read_text()), name).label for name, path in FILES.items()}
    assert labels == {
        "persim": "PerSim",
        "persim-no-agents": "PerSim without agent factors",
        "completion": "Tensor completion",
        "vanilla-cadm": "Vanilla CaDM",
        "pets-cadm": "PE-TS CaDM",
        "bcq-p": "BCQ-P",
        "bcq-a": "BCQ-A",
        "cql-p": "CQL-P",
        "cql-a": "CQL-A",
        "morel-p": "MOReL-P",
        "morel-a": "MOReL-A",
        "persim-bcq": "PerSim-BCQ-5",
        "persim-cql": "PerSim-CQL-5",
        "true-env": "True env + MPC",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_path": "no.such.Class"}, "bad.yaml"),
        ({"class_path": "persim_lightning.methods.cadm.method.CaDM", "init_args": {"widht": 3}}, "widht"),
        ({"class_path": "persim_lightning.methods.cadm.method.CaDM", "init_args": {"width": 0}}, "width"),
        (
            {"class_path": "persim_lightning.methods.cadm.method.CaDM", "init_args": {"members": 2, "particles": 3}},
            "bad.yaml: particles 3 must be a multiple of members 2",
        ),
    ],
)
def test_bad_descriptions_name_the_file(values, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        build_method(values, "bad.yaml")
    assert "bad.yaml" in str(error.value)


def test_simulated_trajectories_are_of_the_agents_and_differ(cartpole_task):
    task, method = cartpole_task(), quick_method("persim-cql")
    task = replace(task, environment=replace(task.environment, max_steps=12))
    simulated = method.simulate(task)
    assert simulated.agent_ids == task.agents
    assert simulated.agent.tolist() == [0] * 5 + [1] * 5
    starts = simulated.state[simulated.offsets[:-1]]
    recorded = task.recordings.train
    known = recorded.state[recorded.offsets[:-1]]
    assert all(bool(torch.isclose(known, start, atol=1e-6).all(-1).any()) for start in starts)
    for agent in (0, 1):
        own = starts[simulated.agent == agent]
        assert (own[:, None] - own).abs().amax() > 0.01
        assert len(own.unique(dim=0)) > 1


def test_without_agent_factors_all_agents_are_one(cartpole_task):
    """In a folder of its own: PerSim's fit is not taken for it."""
    task = cartpole_task()
    quick_method("persim").fit(task)
    fitted = quick_method("persim-no-agents").fit(task)
    table = fitted.population.simulator.agent_encoder.table()
    assert torch.equal(table, table[:, :1].expand_as(table))


def test_completion_has_the_ranks_of_persim(cartpole_task, tmp_path):
    task = cartpole_task()
    quick_method("completion").fit(task).save(tmp_path)
    facts = read_json(tmp_path / "completion.json")
    assert (facts["ranks"], facts["factorization"]) == ([5, 5, 5], "cp")
    model = {**task.configuration["model"], "init_args": {"rank": "auto"}}
    with pytest.raises(ConfigurationError, match=r"needs a number as model\.rank, not 'auto'"):
        quick_method("completion").fit(replace(task, configuration={**task.configuration, "model": model}))


def test_persim_is_fitted_once_for_all_methods_of_a_workspace(cartpole_task):
    task, method = cartpole_task(), quick_method("persim")
    method.fit(task)
    weights = task.workspace / "persim/simulator.safetensors"
    before = weights.stat().st_mtime_ns
    method.fit(task)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ConfigurationError, match="was made under other settings"):
        method.fit(replace(task, steps=5))


def test_variants_with_the_same_label_share_a_workspace(cartpole_task):
    task = cartpole_task()
    small, large = (CaDM(width=width, layers=1).fit(task) for width in (8, 9))
    assert [fitted.model.forward_net.from_inputs.bias.shape[-1] for fitted in (small, large)] == [8, 9]
