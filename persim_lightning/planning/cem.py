"""The cross-entropy method (Rubinstein, 1999), used in PerSim's HalfCheetah experiments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.planning.actions import Distribution, blend
from persim_lightning.planning.planner import Best, Decision, Memory, Planner, Problem, evaluate, select_plans


def check_elites(elites: int, plans: int) -> None:
    """Raise ConfigurationError if there are more elites than plans."""
    if elites > plans:
        raise ConfigurationError(f"elites is {elites}: it must be at most the number of plans ({plans})")


class CEM(Planner):
    """Sample plans, fit the distribution to the best of them, repeat.

    Parameters
    ----------
    plans : int
        Samples per round.
    rounds : int
    elites : int
        Best samples of a round, to which the distribution is fitted.
    momentum : float
        Weight of the old distribution at every fit.
    """

    def __init__(
        self,
        plans: PositiveInt = 200,
        rounds: PositiveInt = 6,
        elites: PositiveInt = 50,
        momentum: ClosedUnitInterval = 0.1,
    ) -> None:
        check_elites(elites, plans)
        self._plans, self._rounds, self._elites, self._momentum = plans, rounds, elites, momentum

    def plan(self, problem: Problem, memory: Memory | None, generator: torch.Generator) -> Decision:
        def fit(plans: Tensor, scores: Tensor) -> Distribution:
            return fit_elites(problem, plans, scores, self._elites)[0]

        best, distribution = refine(problem, memory, generator, self._plans, self._rounds, self._momentum, fit)
        return Decision(best.plan, best.score, distribution)


def refine(
    problem: Problem,
    memory: Memory | None,
    generator: torch.Generator,
    count: int,
    rounds: int,
    momentum: float,
    fit: Callable[[Tensor, Tensor], Distribution],
) -> tuple[Best, Distribution]:
    """Repeat sampling `count` plans and fitting the distribution to them.

    Parameters
    ----------
    problem, memory, generator
        As in :meth:`Planner.plan`.
    count, rounds : int
    momentum : float
        Weight of the old distribution at every fit.
    fit : callable, (plans (B, P, H)|(B, P, H, A), scores (B, P)) -> distribution
    """
    space = problem.space
    start = space.start(problem.batch, problem.horizon, problem.device)
    distribution = start if memory is None else space.shift(memory)
    best: Best | None = None
    for _ in range(rounds):
        plans = space.sample(distribution, problem.noise(count, generator))
        scores = evaluate(problem, plans)
        best = Best.of(plans, scores) if best is None else best.or_better(plans, scores)
        distribution = blend(distribution, fit(plans, scores), momentum)
    assert best is not None
    return best, distribution


def fit_elites(problem: Problem, plans: Tensor, scores: Tensor, elites: int) -> tuple[Distribution, Tensor]:
    """Fit a distribution to each problem's best plans.

    Parameters
    ----------
    problem : Problem
    plans : Tensor, shape (B, P, H) or (B, P, H, A)
    scores : Tensor, shape (B, P)
    elites : int
        Number of best plans.

    Returns
    -------
    distribution : tuple of Tensor
    best : Tensor, shape (B, elites, H) or (B, elites, H, A)
        From the best plan to the worst.
    """
    top = scores.topk(min(elites, scores.shape[1]), dim=1)
    best = select_plans(plans, top.indices)
    # Ignore plans without a finite score, unless no plan has one.
    usable = top.values.isfinite() | ~top.values.isfinite().any(1, keepdim=True)
    weights = usable / usable.sum(1, keepdim=True)
    return problem.space.fit(best, weights), best
