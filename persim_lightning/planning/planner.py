"""The interface of planners: a Problem in, a Decision out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from persim_lightning.planning.actions import ActionSpace

# Plans (B, P, H) or (B, P, H, A) -> scores (B, P), to be maximized.
Score = Callable[[Tensor], Tensor]
# A planner's state between decisions: tensors whose first dimension is the batch of problems.
Memory = tuple[Tensor, ...]


class Problem(NamedTuple):
    """B planning problems that are solved together.

    Attributes
    ----------
    score : callable, (plans (B, P, H)|(B, P, H, A)) -> (B, P)
        The function to maximize; NaN and infinities count as the worst.
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
        """Draw white standard normal noise that all problems share, shape (P, H, width)."""
        noise = torch.randn(plans, self.horizon, self.space.width, generator=generator, device=generator.device)
        return noise.to(self.device)


class Decision(NamedTuple):
    """Solutions of B problems.

    Attributes
    ----------
    plan : Tensor, shape (B, H) or (B, H, A)
        The best plan.
    score : Tensor, shape (B,)
        Its score.
    memory : tuple of Tensor
        Argument of the next call of :meth:`Planner.plan`.
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
            From the previous decision, one step earlier; None starts without one.
        generator : torch.Generator
            Source of all randomness.
        """


def evaluate(problem: Problem, plans: Tensor) -> Tensor:
    """Score plans, (B, P) float32. Scores that are not finite become -inf, so that such a plan is never the best."""
    score = problem.score(plans).float()
    return torch.where(score.isfinite(), score, -torch.inf)


def select_plans(plans: Tensor, index: Tensor) -> Tensor:
    """Select plans of every problem by index: (B, P, …), (B, k) -> (B, k, …)."""
    return plans[torch.arange(len(plans), device=plans.device)[:, None], index]


class Best(NamedTuple):
    """The best plans so far, (B, H)|(B, H, A), and their scores, (B,)."""

    plan: Tensor
    score: Tensor

    @classmethod
    def of(cls, plans: Tensor, scores: Tensor) -> Best:
        """Select the best plan of every problem: plans (B, P, H)|(B, P, H, A), scores (B, P)."""
        score, index = scores.max(1)
        return cls(select_plans(plans, index[:, None])[:, 0], score)

    def or_better(self, plans: Tensor, scores: Tensor) -> Best:
        """Select the best of these and further plans."""
        other = Best.of(plans, scores)
        better = other.score > self.score
        plan = torch.where(better.view(-1, *[1] * (self.plan.ndim - 1)), other.plan, self.plan)
        return Best(plan, torch.where(better, other.score, self.score))
