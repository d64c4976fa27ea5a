"""Trained behavior policies: weights in safetensors, what they are in JSON beside them."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn import functional as F

from persim_lightning.envs import get_environment
from persim_lightning.errors import PersimError
from persim_lightning.support.files import atomic_write, write_json


@dataclass(frozen=True)
class PolicyInfo:
    """Where a policy comes from and how good it is.

    Attributes
    ----------
    environment : str
    covariates : dict of str to float
        The agent that it was trained on.
    algorithm : str
    settings : dict
        The algorithm's hyperparameters.
    level : float
        Mean return at which training was stopped.
    seed, environment_steps : int
        Seed of the training, and steps until these weights.
    episodes, evaluation_seed : int
        How the returns were measured: episodes on the agent trained on, without exploration.
    mean_return, std_return : float
    versions : dict of str to str
        Of the libraries that trained it.
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


class NetworkPolicy:
    """A deterministic policy: linear layers with ReLU between them.

    Parameters
    ----------
    weights : dict of str to Tensor
        `0.weight`, `0.bias`, `2.weight`, … of the linear layers, in order.
    discrete : bool
        Whether the outputs are values of discrete actions, of which the highest is taken; otherwise their tanh is the
        action.

    Raises
    ------
    ValueError
        If the layers do not fit together.
    """

    def __init__(self, weights: dict[str, Tensor], discrete: bool) -> None:
        self._discrete = discrete
        indices = sorted({int(name.split(".")[0]) for name in weights})
        # Plain tensors: torch's layers would draw from the global generator, and so change what is seeded next.
        self._layers = [(weights[f"{index}.weight"], weights[f"{index}.bias"]) for index in indices]
        for (before, _), (after, _) in itertools.pairwise(self._layers):
            if after.shape[1] != len(before):
                raise ValueError(f"a layer of {len(before)} outputs precedes one of {after.shape[1]} inputs")

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and outputs."""
        return self._layers[0][0].shape[1], len(self._layers[-1][0])

    @torch.no_grad()
    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64 in [-1, 1]; the generator is not used."""
        values = states.float()
        *hidden, output = self._layers
        for layer in hidden:
            values = F.linear(values, *layer).relu()
        values = F.linear(values, *output)
        return values.argmax(-1) if self._discrete else values.tanh().double()


def policy_name(environment: str, agent: int | str) -> str:
    """Name of the policy trained on a policy-training agent (its position), or on the default agent (`test`)."""
    return f"{environment}_{agent}"


def save_policy(folder: Path, name: str, weights: dict[str, Tensor], info: PolicyInfo) -> tuple[Path, Path]:
    """Write `<name>.safetensors` and `<name>.json`, each whole or not at all."""
    paths = folder / f"{name}.safetensors", folder / f"{name}.json"
    with atomic_write(paths[0]) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, temporary)
    write_json(asdict(info), paths[1])
    return paths


def load_policy(name: str, folder: Path | None = None) -> tuple[NetworkPolicy, PolicyInfo]:
    """Read what :func:`save_policy` wrote.

    Parameters
    ----------
    name : str
        As :func:`policy_name` makes it.
    folder : Path, optional
        The policies that ship with the package, where not given.

    Raises
    ------
    PersimError
        If there is no such policy, or its files are damaged.
    """
    source: Traversable = files("persim_lightning") / "policies" if folder is None else folder
    weights, description = source / f"{name}.safetensors", source / f"{name}.json"
    for path in (weights, description):
        if not path.is_file():
            raise PersimError(f"{path}: no such file, so there is no policy '{name}'")
    try:
        info = PolicyInfo(**json.loads(description.read_text()))
        environment = get_environment(info.environment)
        policy = NetworkPolicy(load(weights.read_bytes()), environment.num_actions is not None)
        shape = len(environment.state_names), environment.num_actions or len(environment.action_names)
        if policy.shape != shape:
            raise ValueError(
                f"{policy.shape[0]} inputs and {policy.shape[1]} outputs, but {info.environment} has {shape}"
            )
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise PersimError(f"{weights} and .json: not a readable policy ({type(error).__name__}: {error})") from error
    return policy, info
