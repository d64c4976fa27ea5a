"""MOReL's pessimistic MDP: a learned model that ends episodes with a penalty in unknown state-action pairs.

Kidambi et al., 2020, Definition 2 (https://arxiv.org/abs/2005.05951): an unknown state-action pair leads to HALT, an
absorbing state with a penalty κ in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from persim_lightning.envs import Environment
from persim_lightning.errors import ConfigurationError
from persim_lightning.methods.morel.dynamics_ensemble import DynamicsEnsemble, discrepancy


@dataclass(frozen=True)
class Pessimism:
    """Threshold and penalty of unknown state-action pairs.

    Attributes
    ----------
    threshold : float
        State-action pairs with a larger disagreement are unknown.
    halt_reward : float
        Reward of the step into HALT, which includes all steps after it.
    """

    threshold: float
    halt_reward: float


def pessimism_of(disagreement: Tensor, rewards: Tensor, beta: float, kappa: float, discount: float) -> Pessimism:
    """Compute threshold and penalty as in the paper's appendix: mean + β·std, and κ per step below the worst reward.

    A step into HALT gets the discounted sum of the absorbing state's rewards, (r - κ) / (1 - discount), where r is the
    worst recorded reward, or zero if that is positive, since terminated episodes get zeros forever. A single penalty
    could be cheaper than continuing: in MountainCar every step costs 1.

    Parameters
    ----------
    disagreement : Tensor, shape (T,)
        Disagreement on the recorded state-action pairs.
    rewards : Tensor, shape (T,)
        Recorded rewards.
    beta, kappa : float
    discount : float
        Less than one.
    """
    scores = disagreement.double()
    threshold = scores.mean() + beta * scores.std(correction=0)
    worst = min(float(rewards.min()), 0.0)
    return Pessimism(float(threshold), (worst - kappa) / (1 - discount))


class PessimisticMDP(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B parallel episodes of a pessimistic MDP; a row that ends is reset in the same step.

    An episode follows one ensemble member, drawn at its start as in the authors' code, since the mean would hide the
    members' disagreement from the policy. Rewards and terminations are those of the environment.

    Parameters
    ----------
    ensemble : DynamicsEnsemble
    environment : Environment
        Source of rewards, terminations, actions and episode length; its dynamics are not used.
    starts : Tensor, shape (S, D)
        Initial states, drawn uniformly.
    pessimism : Pessimism
    num_envs : int
        B.

    Notes
    -----
    The `info` of a step holds `halted` (B,) bool, the rows that entered HALT and so terminated, and `final_obs` (B, D),
    the last observations of ended episodes, valid where `_final_obs` is True. HALT has no state: its row shows the
    state before it.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        ensemble: DynamicsEnsemble,
        environment: Environment,
        starts: Tensor,
        pessimism: Pessimism,
        num_envs: int = 1,
    ) -> None:
        self._ensemble, self._environment, self._pessimism = ensemble, environment, pessimism
        self._starts = starts.float()
        self.num_envs, self.render_mode = num_envs, None
        dim = starts.shape[1]
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (dim,), np.float32)
        self.single_action_space: gymnasium.Space[Any] = (
            gymnasium.spaces.Box(-1.0, 1.0, (len(environment.action_names),), np.float32)
            if environment.num_actions is None
            else gymnasium.spaces.Discrete(environment.num_actions)
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._states = torch.zeros(num_envs, dim)
        self._members = torch.zeros(num_envs, dtype=torch.int64)
        self._steps = torch.zeros(num_envs, dtype=torch.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset all episodes; return observations (B, D)."""
        if isinstance(seed, list):
            raise ConfigurationError("give one seed: all episodes draw from one generator")
        super().reset(seed=seed)
        self._restart(torch.ones(self.num_envs, dtype=torch.bool))
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions (B,) or (B, A), clipped to [-1, 1]."""
        before, taken = self._states, self._realized(actions)
        deltas = self._ensemble.deltas(before, taken)
        after = before + deltas[self._members, torch.arange(self.num_envs)] * self._ensemble.scales.delta_rms
        reward = self._environment.reward(before, taken, after)
        known = discrepancy(deltas) <= self._pessimism.threshold
        # Comparisons with NaN are False, so non-finite predictions count as unknown.
        halted = ~(known & after.isfinite().all(-1) & reward.isfinite())
        self._states = torch.where(halted[:, None], before, after)
        self._steps += 1
        terminated = halted | self._environment.terminated(self._states)
        truncated = (self._steps >= self._environment.max_steps) & ~terminated
        rewards = torch.where(halted, self._pessimism.halt_reward, reward.double())
        info: dict[str, Any] = {"halted": halted.numpy()}
        ended = terminated | truncated
        if bool(ended.any()):
            info["final_obs"], info["_final_obs"] = self._observe(), ended.numpy()
            self._restart(ended)
        return self._observe(), rewards.numpy(), terminated.numpy(), truncated.numpy(), info

    def _restart(self, chosen: Tensor) -> None:
        """Reset the rows that `chosen`, (B,) bool, marks."""
        count = int(chosen.sum())
        start = torch.from_numpy(self.np_random.integers(len(self._starts), size=count))
        self._states = self._states.index_put((chosen,), self._starts[start])
        self._members[chosen] = torch.from_numpy(self.np_random.integers(self._ensemble.members, size=count))
        self._steps[chosen] = 0

    def _observe(self) -> np.ndarray:
        observation: np.ndarray = self._states.numpy().copy()
        return observation

    def _realized(self, actions: np.ndarray) -> Tensor:
        if self._environment.num_actions is not None:
            return torch.from_numpy(np.asarray(actions, dtype=np.int64))
        return torch.from_numpy(np.asarray(actions, dtype=np.float32)).clamp(-1, 1)
