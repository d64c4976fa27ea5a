"""Behavior policies of the data sets, including those that ship with the package."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persim_lightning.envs import get_environment
from persim_lightning.errors import SimulatorFileError
from persim_lightning.policies.learned import LearnedPolicy, load_learned_policy, read_facts
from persim_lightning.policies.networks import Layer, Net
from persim_lightning.policies.rules import HighestValue, SquashedMean

_SHIPPED = Path(__file__).parent / "trained"


@dataclass(frozen=True)
class PolicyInfo:
    """Training and evaluation of a policy.

    Attributes
    ----------
    environment : str
    covariates : dict of str to float
        Agent that it was trained on.
    algorithm : str
    settings : dict
        Hyperparameters.
    level : float
        Mean return at which training stopped.
    seed, environment_steps : int
        Seed of training, and number of steps until these weights.
    episodes, evaluation_seed : int
        Number and seed of the evaluation episodes, on the training agent and without exploration.
    mean_return, std_return : float
    versions : dict of str to str
        Versions of the libraries that trained it.
    """

    environment: str
    covariates: dict[str, float]
    algorithm: str
    settings: dict[str, Any]
    level: float
    seed: int
    environment_steps: int
    episodes: int
    evaluation_seed: int
    mean_return: float
    std_return: float
    versions: dict[str, str]


def greedy_policy(weights: dict[str, Tensor], discrete: bool) -> LearnedPolicy:
    """Build the policy of a trained network without exploration.

    Parameters
    ----------
    weights : dict of str to Tensor
        `0.weight`, `0.bias`, `2.weight`, … of its linear layers, with ReLU between them.
    discrete : bool
        True if the outputs are values of discrete actions, of which the highest is chosen; otherwise the action is the
        tanh of the outputs.

    Raises
    ------
    ValueError
        If the sizes of the layers do not match.
    """
    indices = sorted({int(name.split(".")[0]) for name in weights})
    net = Net(tuple(Layer(weights[f"{index}.weight"], weights[f"{index}.bias"]) for index in indices))
    inputs, _ = net.size
    rule = HighestValue(net) if discrete else SquashedMean(net)
    return LearnedPolicy(rule, torch.zeros(inputs), torch.ones(inputs))


def policy_name(environment: str, agent: int | str) -> str:
    """Return the name of the policy trained on a policy-training agent (its index) or the default agent (`test`)."""
    return f"{environment}_{agent}"


def save_policy(folder: Path, name: str, policy: LearnedPolicy, info: PolicyInfo) -> Path:
    """Write a policy and its description into the folder `<folder>/<name>`, and return it."""
    replace(policy, facts=asdict(info)).save(folder / name)
    return folder / name


def load_policy(name: str, folder: Path | None = None) -> tuple[LearnedPolicy, PolicyInfo]:
    """Read a policy that :func:`save_policy` wrote.

    Parameters
    ----------
    name : str
        Result of :func:`policy_name`.
    folder : Path, optional
        The shipped policies by default.

    Raises
    ------
    SimulatorFileError
        If there is no such policy, or its files are damaged.
    """
    place = (folder or _SHIPPED) / name
    facts = read_facts(place)
    try:
        info = PolicyInfo(**facts)
    except TypeError as error:
        raise SimulatorFileError(f"{place}: not a behavior policy ({error})") from error
    environment = get_environment(info.environment)
    rule = SquashedMean if environment.num_actions is None else HighestValue
    return load_learned_policy(place, rule, environment), info
