"""What every planner is given and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.planning.actions import ActionSpace

# Plans (B, P, H) or (B, P, H, A) -> scores (B, P), to be maximized.
Score = Callable[[Tensor], Tensor]
# What a planner carries from one decision to the next: tensors with the batch of problems first.
Memory = tuple[Tensor, ...]


class Problem(NamedTuple):
    """B planning problems that are solved together.

    Attributes
    ----------
    score : callable, (plans (B, P, H)|(B, P, H, A)) -> (B, P)
        What to maximize; NaN and infinities count as the worst.
    space : ActionSpace
    batch, horizon : int
        B and H.
    device : torch.device
    """

    score: Score
    space: ActionSpace
    batch: int
    horizon: int
    device: torch.device = torch.device("cpu")

    def noise(self, plans: int, generator: torch.Generator) -> Tensor:
        """White standard normal noise that all problems share, shape (P, H, width)."""
        drawn = torch.randn(plans, self.horizon, self.space.width, generator=generator, device=generator.device)
        return drawn.to(self.device)


class Decision(NamedTuple):
    """Solutions of B problems.

    Attributes
    ----------
    plan : Tensor, shape (B, H) or (B, H, A)
        The best plan found.
    score : Tensor, shape (B,)
        Its score.
    memory : tuple of Tensor
        To be given back at the next decision.
    """

    plan: Tensor
    score: Tensor
    memory: Memory


class Planner(ABC):
    """Maximizes a score over action sequences."""

    def __repr__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def plan(self, problem: Problem, memory: Memory | None, generator: torch.Generator) -> Decision:
        """Solve B problems.

        Parameters
        ----------
        problem : Problem
        memory : tuple of Tensor, optional
            Of the previous decision, one step earlier; none starts afresh.
        generator : torch.Generator
            Source of all randomness.
        """


def evaluate(problem: Problem, plans: Tensor) -> Tensor:
    """Float32 scores (B, P) of plans, -inf where they are not finite: a plan that breaks the model is never best."""
    score = problem.score(plans).float()
    return torch.where(score.isfinite(), score, -torch.inf)


def pick(plans: Tensor, index: Tensor) -> Tensor:
    """The chosen plans of every problem: (B, P, …), (B, k) -> (B, k, …)."""
    return plans[torch.arange(len(plans), device=plans.device)[:, None], index]


class Best(NamedTuple):
    """The best plans seen so far: (B, H)|(B, H, A) and their scores (B,)."""

    plan: Tensor
    score: Tensor

    @classmethod
    def of(cls, plans: Tensor, scores: Tensor) -> Best:
        score, index = scores.max(1)
        return cls(pick(plans, index[:, None])[:, 0], score)

    def or_better(self, plans: Tensor, scores: Tensor) -> Best:
        """The best of these and of some more."""
        other = Best.of(plans, scores)
        better = other.score > self.score
        chosen = torch.where(better.view(-1, *[1] * (self.plan.ndim - 1)), other.plan, self.plan)
        return Best(chosen, torch.where(better, other.score, self.score))
