"""Training behavior policies: a short one on CartPole through the command, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from persim_lightning.data.collecting.episodes import play
from persim_lightning.envs import get_environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.policies.behavior import load_policy
from persim_lightning.training import behavior_policy
from persim_lightning.training.behavior_policy import train_behavior_policy
from tests.commands import run_tool
from tests.conftest import ROOT


def train(tmp_path, environment, *options):
    config = str(ROOT / f"conf/policies/{environment}.yaml")
    return run_tool("train_policy", tmp_path, "--config", config, "--out", "made", *options)


@pytest.mark.slow
def test_training_stops_at_the_wanted_return(tmp_path):
    """CartPole as far as 60 steps, three times the return of random pushes; the JSON states what the weights do."""
    done = train(tmp_path, "cartpole", "--agent", "1", "--pure_level", "60", "--tolerance", "0.4")
    assert done.returncode == 0, done.stderr
    assert "wrote made/cartpole_1" in done.stdout
    policy, info = load_policy("cartpole_1", tmp_path / "made")
    environment = get_environment("cartpole")
    assert info.covariates == {"force": 14.0, "length": 0.5}
    assert (info.algorithm, info.level, info.episodes) == ("DQN", 60.0, 100)
    assert "stable-baselines3" in info.versions
    covariates = torch.tensor([[14.0, 0.5]], dtype=torch.float64).expand(100, -1)
    returns = play(environment, policy, covariates, environment.max_steps, info.evaluation_seed).returns
    assert returns.mean().item() == pytest.approx(info.mean_return)
    assert 30 < info.mean_return < 100


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["mountaincar", "halfcheetah"])
def test_a_level_out_of_reach_ends_in_one_line_and_keeps_the_nearest_weights(tmp_path, environment):
    steps = ["--max_steps", "200", "--evaluate_every", "100", "--test_level", "5000"]
    done = train(tmp_path, environment, *steps)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "did not end near a return of 5000" in line
    assert "Traceback" not in done.stderr
    _, info = load_policy(f"{environment}_test", tmp_path / "made")
    assert info.environment_steps in (100, 200)


def test_an_existing_policy_is_not_overwritten(tmp_path):
    (tmp_path / "made/cartpole_1").mkdir(parents=True)
    (tmp_path / "made/cartpole_1/policy.json").write_text("mine")
    done = train(tmp_path, "cartpole", "--agent", "1")
    assert done.returncode == 1
    assert "made/cartpole_1 exists" in done.stderr.splitlines()[-1]
    assert (tmp_path / "made/cartpole_1/policy.json").read_text() == "mine"


def test_unknown_agent(tmp_path):
    done = train(tmp_path, "cartpole", "--agent", "7")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --agent 7: choose from 0, 1, 2, 3, 4, test"


def test_unknown_setting(tmp_path):
    done = train(tmp_path, "cartpole", "--settings", '{"learning_rat": 1}')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: invalid settings of DQN of stable-baselines3")


def call(environment="cartpole", **changed):
    settings = {"algorithm": "DQN", "settings": {}, "level": 1.0, "tolerance": 0.1, "max_steps": 10}
    settings |= {"evaluate_every": 5, "evaluation_episodes": 2, "seed": 0, "folder": Path("nowhere"), "name": "mine"}
    environment = get_environment(environment)
    return train_behavior_policy(environment, environment.policy_training_agents[0], **{**settings, **changed})


def test_algorithm_must_fit_the_actions():
    with pytest.raises(ConfigurationError, match="halfcheetah: DQN needs discrete actions"):
        call("halfcheetah")


def test_without_stable_baselines3_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'persim-lightning\[policies\]'"):
        behavior_policy._stable_baselines3()


@pytest.mark.parametrize("path", sorted((ROOT / "conf/policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_policies_were_trained_under_these_hyperparameters(path):
    """What the YAML says is what the shipped weights come from; seeds differ, and stand in the JSON."""
    wanted = yaml.safe_load(path.read_text())
    for agent in (*range(len(get_environment(path.stem).policy_training_agents)), "test"):
        _, info = load_policy(f"{path.stem}_{agent}")
        assert json.loads(json.dumps(info.settings)) == wanted["settings"]
        assert info.level == wanted["test_level" if agent == "test" else "pure_level"]
