"""MOReL's pessimistic MDP: a learned model that ends episodes, at a price, where it does not know what happens next.

Kidambi et al., 2020, Definition 2 (https://arxiv.org/abs/2005.05951): an unknown state-action pair leads to HALT, an
absorbing state whose every step costs κ.
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
    """What is unknown, and what it costs.

    Attributes
    ----------
    threshold : float
        State-action pairs whose disagreement exceeds it are unknown.
    halt_reward : float
        Reward of the step into HALT: it stands for everything that would follow.
    """

    threshold: float
    halt_reward: float


def pessimism_of(disagreement: Tensor, rewards: Tensor, beta: float, kappa: float, discount: float) -> Pessimism:
    """The rule of the paper's appendix: threshold mean + β·std, HALT by κ a step below the worst recorded reward.

    Whoever maximizes discounted rewards loses nothing when an episode ends early, other than what would have followed.
    So HALT is charged as the whole stream of the absorbing state, (r - κ) / (1 - discount), where r is the worst
    recorded reward, or zero if that is positive: terminated episodes get zeros for ever. In MountainCar, where every
    step costs 1, a single penalty could be cheaper than going on.

    Parameters
    ----------
    disagreement : Tensor, shape (T,)
        Of the recorded state-action pairs.
    rewards : Tensor, shape (T,)
        Recorded ones.
    beta, kappa : float
    discount : float
        Less than one.
    """
    scores = disagreement.double()
    threshold = scores.mean() + beta * scores.std(correction=0)
    worst = min(float(rewards.min()), 0.0)
    return Pessimism(float(threshold), (worst - kappa) / (1 - discount))


class PessimisticMDP(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B episodes of a pessimistic MDP, stepped together; an ended row begins anew in the same step.

    An episode follows one member of the ensemble, drawn at its start, as the authors sample it: their mean would hide
    from the policy that any of them may be right. Rewards and terminations are the environment's own.

    Parameters
    ----------
    ensemble : DynamicsEnsemble
    environment : Environment
        Rewards, terminations, actions and length of episodes; its dynamics are not used.
    starts : Tensor, shape (S, D)
        States in which episodes begin, drawn uniformly.
    pessimism : Pessimism
    num_envs : int
        B.

    Notes
    -----
    The information of a step says in which rows it led into HALT (`halted`, (B,) bool; terminated, too), and holds the
    last observations of ended episodes (`final_obs`, (B, D), valid where `_final_obs` is True). HALT has no
    state: its row shows the state that the episode came from.
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
        """Begin all episodes anew: observations (B, D)."""
        if isinstance(seed, list):
            raise ConfigurationError("give one seed: all episodes draw from one source of chance")
        super().reset(seed=seed)
        self._restart(torch.ones(self.num_envs, dtype=torch.bool))
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions (B,) or (B, A); amounts beyond [-1, 1] count as its ends."""
        before, taken = self._states, self._realized(actions)
        deltas = self._ensemble.deltas(before, taken)
        after = before + deltas[self._members, torch.arange(self.num_envs)] * self._ensemble.scales.delta_rms
        reward = self._environment.reward(before, taken, after)
        known = discrepancy(deltas) <= self._pessimism.threshold
        # Comparisons with NaN are False, so members that fail count as unknown; so does what overflows afterwards.
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
        """Begin anew in the rows that `chosen`, (B,) bool, marks."""
        count = int(chosen.sum())
        start = torch.from_numpy(self.np_random.integers(len(self._starts), size=count))
        self._states = self._states.index_put((chosen,), self._starts[start])
        self._members[chosen] = torch.from_numpy(self.np_random.integers(self._ensemble.members, size=count))
        self._steps[chosen] = 0

    def _observe(self) -> np.ndarray:
        observed: np.ndarray = self._states.numpy().copy()
        return observed

    def _realized(self, actions: np.ndarray) -> Tensor:
        if self._environment.num_actions is not None:
            return torch.from_numpy(np.asarray(actions, dtype=np.int64))
        return torch.from_numpy(np.asarray(actions, dtype=np.float32)).clamp(-1, 1)
