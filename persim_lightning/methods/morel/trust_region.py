"""Trust-region policy optimization by sb3-contrib, on a batched gymnasium environment.

This module imports stable-baselines3, an optional dependency, so it must be imported late.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from sb3_contrib import TRPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from persim_lightning.policies.networks import Net, copy_layers

_RATE, _BATCH = 1e-3, 256
# Keep exploration in a policy cloned from deterministic actions: label smoothing of discrete actions, and the log
# standard deviation of continuous ones.
_SMOOTHING, _LOG_STD = 0.2, -0.5


@dataclass(frozen=True)
class TrustRegion:
    """Hyperparameters of policy optimization.

    Attributes
    ----------
    width : int
        Width of the policy's two hidden layers.
    cloning_steps : int
        Gradient steps of the warm start, behavior cloning.
    policy_steps : int
        Total environment steps, rounded up to whole updates.
    rollout : int
        Steps of each parallel episode between two updates.
    discount, trace, divergence : float
        Discount, λ of the generalized advantages, and the Kullback-Leibler divergence of an update.
    """

    width: int
    cloning_steps: int
    policy_steps: int
    rollout: int
    discount: float
    trace: float
    divergence: float


class StandardizedEpisodes(VecEnv):
    """Adapts a vector environment to stable-baselines3, with standardized observations and scaled rewards.

    Parameters
    ----------
    episodes : VectorEnv
        Environment that resets in the same step, with `final_obs` in `info`.
    mean, std : ndarray, shape (D,)
        Mean and standard deviation of observations.
    reward_scale : float
        Factor of rewards.
    """

    def __init__(
        self,
        episodes: VectorEnv[np.ndarray, np.ndarray, np.ndarray],
        mean: np.ndarray,
        std: np.ndarray,
        reward_scale: float,
    ) -> None:
        self._episodes, self._mean, self._std, self._reward_scale = episodes, mean, std, reward_scale
        super().__init__(episodes.num_envs, episodes.single_observation_space, episodes.single_action_space)

    def reset(self) -> np.ndarray:
        """Reset all episodes, from the seed given to :meth:`seed`."""
        observations, _ = self._episodes.reset(seed=self._seeds[0])
        self._reset_seeds()
        return self._standardized(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Apply the stored actions; return observations (B, D) after resets, rewards (B,), dones (B,) and infos."""
        observations, rewards, terminated, truncated, info = self._episodes.step(self._actions)
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended.any():
            last = self._standardized(info["final_obs"])
            for row in np.flatnonzero(ended):
                cut = bool(truncated[row] and not terminated[row])
                infos[row] = {"terminal_observation": last[row], "TimeLimit.truncated": cut}
        scaled = (rewards * self._reward_scale).astype(np.float32)
        return self._standardized(observations), scaled, ended, infos

    def close(self) -> None:
        """Do nothing, since nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return the batch's attribute for each of the rows."""
        return [getattr(self._episodes, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse, since rows have no separate attributes."""
        raise NotImplementedError("all episodes are one batch")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Refuse, since rows have no separate methods."""
        raise NotImplementedError("all episodes are one batch")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for every row."""
        return [False] * len(list(self._get_indices(indices)))

    def _standardized(self, observations: np.ndarray) -> np.ndarray:
        standardized: np.ndarray = ((observations - self._mean) / self._std).astype(np.float32)
        return standardized


def optimize_policy(
    episodes: StandardizedEpisodes, states: Tensor, actions: Tensor, settings: TrustRegion, seed: int
) -> Net:
    """Clone the recorded behavior, then improve it by TRPO.

    Parameters
    ----------
    episodes : StandardizedEpisodes
    states : Tensor, shape (T, D)
        Recorded states, standardized.
    actions : Tensor, shape (T,) int64 or (T, A)
    settings : TrustRegion
    seed : int
        Global generators, which stable-baselines3 seeds, are restored.

    Returns
    -------
    Net
        The policy's linear layers, with tanh between them.
    """
    size = episodes.num_envs * settings.rollout
    with _generators_restored():
        model = TRPO(
            "MlpPolicy",
            episodes,
            n_steps=settings.rollout,
            # A divisor of the rollout, to avoid a warning about a smaller last batch.
            batch_size=next(count for count in range(min(500, size), 0, -1) if size % count == 0),
            gamma=settings.discount,
            gae_lambda=settings.trace,
            target_kl=settings.divergence,
            policy_kwargs={"net_arch": {"pi": [settings.width] * 2, "vf": [64, 64]}, "log_std_init": _LOG_STD},
            verbose=0,
            seed=seed,
            device="cpu",
        )
        # The default logger creates a folder.
        model.set_logger(Logger(None, []))
        _clone(model.policy, states, actions, settings.cloning_steps, seed)
        if settings.policy_steps:
            model.learn(settings.policy_steps)
        policy: Any = model.policy
        layers = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
        return copy_layers([*layers, policy.action_net])


def _clone(policy: Any, states: Tensor, actions: Tensor, steps: int, seed: int) -> None:
    """Train the policy's network on recorded actions: squared error of mean actions, or log loss."""
    parameters = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    optimizer = Adam(parameters, lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(states), (min(_BATCH, len(states)),), generator=generator)
        outputs = policy.action_net(policy.mlp_extractor.policy_net(states[index]))
        if actions.ndim == 1:
            loss = F.cross_entropy(outputs, actions[index], label_smoothing=_SMOOTHING)
        else:
            loss = F.mse_loss(outputs, actions[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@contextlib.contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore the states of the global generators of Python, NumPy and torch."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
