"""The behavior policies that collect the paper's data sets (PerSim, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.policies.behavior import load_policy, policy_name

# Name of a data set -> probability of a random action; None: all actions are random.
DATASETS: dict[str, float | None] = {"pure": 0.0, "random": None, "pure-eps-20": 0.2, "pure-eps-40": 0.4}
# Probability of a random action under the test policy of the prediction protocol.
TEST_EPSILON = 0.1


class Policy(Protocol):
    """Selects actions for a batch of states."""

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
    """Follow `policy`, but with probability `epsilon` take a uniformly random action."""

    def __init__(self, policy: Policy, environment: Environment, epsilon: float) -> None:
        self._policy, self._random, self._epsilon = policy, RandomPolicy(environment), epsilon

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        actions, random = self._policy(states, generator), self._random(states, generator)
        explore = torch.rand(len(states), generator=generator) < self._epsilon
        return torch.where(explore.view(-1, *[1] * (actions.ndim - 1)), random, actions)


class AssignedPolicy:
    """Lets row b of a batch follow `policies[assignment[b]]`.

    Parameters
    ----------
    policies : sequence of Policy
    assignment : Tensor, shape (B,), int64
    """

    def __init__(self, policies: Sequence[Policy], assignment: Tensor) -> None:
        groups = [(assignment == index).nonzero()[:, 0] for index in range(len(policies))]
        self._groups = [(policy, rows) for policy, rows in zip(policies, groups, strict=True) if len(rows)]
        self._inverse = torch.cat([rows for _, rows in self._groups]).argsort()

    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([policy(states[rows], generator) for policy, rows in self._groups])[self._inverse]


def nearest_training_agent(environment: Environment, covariates: Tensor) -> Tensor:
    """Find the policy-training agent that is most similar to each agent.

    Parameters
    ----------
    environment : Environment
    covariates : Tensor, shape (B, C)

    Returns
    -------
    Tensor, shape (B,), int64
        Index of the nearest agent by Euclidean distance of covariates, each divided by the width of its range; the
        first index if several are equally near.
    """
    width = np.array([covariate.high - covariate.low for covariate in environment.covariates])
    difference = covariates.numpy()[:, None] - np.array(environment.policy_training_agents)
    # Rounded, so that equal distances compare as equal on every machine.
    distance = np.linalg.norm(difference / width, axis=-1).round(9)
    return torch.from_numpy(distance.argmin(1))


def dataset_policy(environment: Environment, dataset: str, covariates: Tensor) -> Policy:
    """Build the behavior policy of a data set.

    Parameters
    ----------
    environment : Environment
    dataset : {'pure', 'random', 'pure-eps-20', 'pure-eps-40'}
        `pure`: every agent follows the policy of the most similar policy-training agent. `pure-eps-E`: the same, with a
        random action in E % of the steps. `random`: all actions are random.
    covariates : Tensor, shape (B, C)

    Raises
    ------
    ConfigurationError
        If there is no data set of that name.
    """
    epsilon = _epsilon(environment, dataset)
    if epsilon is None:
        return RandomPolicy(environment)
    agents = range(len(environment.policy_training_agents))
    policies = [load_policy(policy_name(environment.name, agent))[0] for agent in agents]
    pure = AssignedPolicy(policies, nearest_training_agent(environment, covariates))
    return EpsilonPolicy(pure, environment, epsilon) if epsilon else pure


def describe_dataset(environment: Environment, dataset: str) -> str:
    """Describe the behavior policy of a data set; raises the same errors as :func:`dataset_policy`."""
    epsilon = _epsilon(environment, dataset)
    if epsilon is None:
        return "uniformly random actions"
    description = "each agent acts by the policy of the policy-training agent with the nearest covariates"
    return f"{description}; a random action in {epsilon:.0%} of the steps" if epsilon else description


def _epsilon(environment: Environment, dataset: str) -> float | None:
    if dataset not in DATASETS:
        raise ConfigurationError(
            f"unknown dataset '{dataset}' for {environment.name}: choose from {', '.join(DATASETS)}"
        )
    return DATASETS[dataset]


def test_policy(environment: Environment) -> Policy:
    """Build the policy of the test trajectories: trained on the default agent, random in 10 % of the steps."""
    policy, _ = load_policy(policy_name(environment.name, "test"))
    return EpsilonPolicy(policy, environment, TEST_EPSILON)
