"""Methods that plan, on plentiful data of one cart: each must balance it."""

from pathlib import Path

import pytest
import torch
import yaml

from persim_lightning.data.collecting.behavior import EpsilonPolicy
from persim_lightning.data.collecting.collect import episodes_table
from persim_lightning.data.collecting.episodes import play
from persim_lightning.data.recordings import Recordings
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.envs import get_environment
from persim_lightning.evaluation.control import PlanningSettings, play_agents
from persim_lightning.methods.cadm.method import CaDM
from persim_lightning.methods.contract import Task
from persim_lightning.methods.persim import PerSim
from persim_lightning.methods.true_dynamics import TrueEnvironment
from persim_lightning.planning.shooting import RandomShooting
from persim_lightning.policies.behavior import load_policy, policy_name
from tests.conftest import ROOT

CART_POLE = get_environment("cartpole")
EPISODES, CARTS = 3, 40
METHODS = {
    "PerSim": PerSim(),
    "Vanilla CaDM": CaDM(width=48, layers=2, learning_rate=5e-3),
    "PE-TS CaDM": CaDM(members=2, probabilistic=True, particles=4, width=48, layers=2, learning_rate=5e-3),
    "True env + MPC": TrueEnvironment(),
}


@pytest.fixture(scope="module")
def recordings():
    """Forty carts that are all the default one, whose policy acts at random half of the time."""
    covariates = torch.tensor([CART_POLE.default_agent], dtype=torch.float64).repeat(CARTS, 1)
    policy = EpsilonPolicy(load_policy(policy_name("cartpole", "test"))[0], CART_POLE, 0.5)
    table = episodes_table(CART_POLE, play(CART_POLE, policy, covariates, 200, seed=0))
    train = trajectories_from_table(
        table.rename_columns(["agent", *table.column_names[1:]]), CART_POLE.schema, "a population of one cart"
    )
    names = tuple(covariate.name for covariate in CART_POLE.covariates)
    return Recordings(train, covariate_names=names, covariates=covariates.numpy(), environment=CART_POLE)


@pytest.mark.slow
@pytest.mark.parametrize("label", METHODS)
def test_balances_the_cart_for_150_of_200_steps(label, recordings, tmp_path: Path):
    configuration = yaml.safe_load((ROOT / "conf/cartpole.yaml").read_text())
    planning = PlanningSettings(RandomShooting(plans=60), horizon=40)
    task = Task(CART_POLE, recordings, (0,), planning, configuration, 1200, 0, tmp_path)
    method = METHODS[label]
    assert method.label == label
    policy = method.fit(task).policy(task, EPISODES)
    returns = play_agents(CART_POLE, policy, task.covariates(), EPISODES, seed=3).returns
    assert returns.mean() > 150
