"""Policies that make data: uniformly random, scripted controllers, and trained networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Protocol

import torch
from safetensors.torch import load
from torch import Tensor, nn

from persim_lightning.envs import Environment


class Policy(Protocol):
    """Chooses actions for a batch of states."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) float64."""
        ...


class RandomPolicy:
    """Uniform over the discrete actions, or over [-1, 1] in each coordinate."""

    def __init__(self, environment: Environment) -> None:
        self._num_actions, self._action_dim = environment.num_actions, len(environment.action_names)

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        batch = len(states)
        if self._num_actions is not None:
            return torch.randint(self._num_actions, (batch,), generator=generator)
        return 2 * torch.rand(batch, self._action_dim, generator=generator, dtype=torch.float64) - 1


class EpsilonPolicy:
    """Follow `policy`, but with probability `epsilon` take a uniformly random action (PerSim, section 5)."""

    def __init__(self, policy: Policy, environment: Environment, epsilon: float) -> None:
        self._policy, self._random, self._epsilon = policy, RandomPolicy(environment), epsilon

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        actions, random = self._policy(states, generator), self._random(states, generator)
        explore = torch.rand(len(states), generator=generator) < self._epsilon
        return torch.where(explore.view(-1, *[1] * (actions.ndim - 1)), random, actions)


class PumpPolicy:
    """MountainCar: push in the direction of motion, which adds energy at every step."""

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(states[:, 1] >= 0, 2, 0)


class BalancePolicy:
    """CartPole: push to the side where a linear feedback of all four coordinates points."""

    GAINS = (0.05, 0.2, 1.0, 0.3)

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return (states @ states.new_tensor(self.GAINS) > 0).long()


class NetworkPolicy(nn.Module):
    """A deterministic policy: ReLU layers and a tanh, as TD3 trains them.

    Parameters
    ----------
    weights : dict of str to Tensor
        `0.weight`, `0.bias`, `2.weight`, … of the linear layers, in order.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        names = sorted({int(name.split(".")[0]) for name in weights})
        layers: list[nn.Module] = []
        for name in names:
            out_features, in_features = weights[f"{name}.weight"].shape
            layers += [nn.Linear(in_features, out_features), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])
        self.network.load_state_dict(weights)

    @classmethod
    def load_packaged(cls, name: str) -> NetworkPolicy:
        """Load a policy that ships with the package, `persim_lightning/policies/<name>.safetensors`."""
        return cls(load((files("persim_lightning") / "policies" / f"{name}.safetensors").read_bytes()))

    @torch.no_grad()
    def forward(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions (B, A) in [-1, 1]; the generator is not used."""
        actions: Tensor = self.network(states.float()).tanh()
        return actions.double()


def packaged_policy_info(name: str) -> dict[str, object]:
    """What the JSON beside a packaged policy says: environment, covariates, algorithm, seed, steps, returns."""
    info: dict[str, object] = json.loads((files("persim_lightning") / "policies" / f"{name}.json").read_text())
    return info


def test_policy(environment: Environment) -> Policy:
    """The policy of the test trajectories: one that does the task, acting randomly in 10 % of the steps."""
    policies: dict[str, Callable[[], Policy]] = {
        "mountaincar": PumpPolicy,
        "cartpole": BalancePolicy,
        "halfcheetah": lambda: NetworkPolicy.load_packaged("halfcheetah_test"),
    }
    return EpsilonPolicy(policies[environment.name](), environment, epsilon=0.1)
