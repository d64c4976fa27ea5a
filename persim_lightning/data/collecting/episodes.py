"""Plays episodes of many agents in one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from persim_lightning.data.collecting.behavior import Policy
from persim_lightning.envs import Environment


class Episodes(NamedTuple):
    """B episodes, padded to the longest of T steps.

    Attributes
    ----------
    states : Tensor, shape (B, T+1, D), float64
    actions : Tensor, shape (B, T) int64 or (B, T, A) float64
    rewards : Tensor, shape (B, T), float64
        Zero after the end of the episode.
    lengths : Tensor, shape (B,), int64
        Steps of each episode; later states and actions are meaningless.
    terminated : Tensor, shape (B,), bool
        Whether the episode terminated (it was truncated otherwise).
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    lengths: Tensor
    terminated: Tensor

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each episode, shape (B,)."""
        return self.rewards.sum(1)


def play(
    environment: Environment,
    policy: Policy,
    covariates: Tensor,
    max_steps: int,
    seed: int,
    description: str | None = None,
) -> Episodes:
    """Run one episode per row of `covariates`.

    Parameters
    ----------
    environment : Environment
    policy : Policy
    covariates : Tensor, shape (B, C)
    max_steps : int
        Truncate episodes after this many steps.
    seed : int
        Seed of initial states and of the policy: same seed, same episodes.
    description : str, optional
        Label of a progress bar; without it, no progress bar is shown.
    """
    batch = environment.make_batch(covariates, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    states, actions, rewards = [batch.states], [], []
    running = torch.ones(len(covariates), dtype=torch.bool)
    lengths = torch.full((len(covariates),), max_steps)
    for t in track(range(max_steps), description or "", transient=True, disable=description is None):
        actions.append(policy(states[-1], generator))
        states.append(batch.step(actions[-1]))
        reward = environment.reward(states[-2], actions[-1], states[-1])
        rewards.append(torch.where(running, reward, 0.0))
        ended = running & environment.terminated(states[-1])
        lengths[ended] = t + 1
        running &= ~ended
        if not running.any():
            break
    return Episodes(
        torch.stack(states, dim=1), torch.stack(actions, dim=1), torch.stack(rewards, dim=1), lengths, ~running
    )
