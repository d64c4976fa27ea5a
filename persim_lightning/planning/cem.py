"""The cross-entropy method (Rubinstein, 1999; as in PerSim's HalfCheetah experiments)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.planning.actions import Distribution, blend
from persim_lightning.planning.planner import Best, Decision, Memory, Planner, Problem, evaluate, pick


def check_elites(elites: int, plans: int) -> None:
    """Refuse more elites than plans."""
    if elites > plans:
        raise ConfigurationError(f"elites {elites}: at most as many as plans ({plans})")


class CEM(Planner):
    """Sample plans, fit the distribution to the best of them, repeat.

    Parameters
    ----------
    plans : int
        Samples a round.
    rounds : int
    elites : int
        Best samples of a round, to which the distribution is fitted.
    momentum : float
        Share of the old distribution that is kept at every fit.
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
    """Rounds of sampling `count` plans and fitting the distribution to them.

    Parameters
    ----------
    problem, memory, generator
        As in :meth:`Planner.plan`.
    count, rounds : int
    momentum : float
        Share of the old distribution that is kept at every fit.
    fit : callable, (plans (B, P, H)|(B, P, H, A), scores (B, P)) -> distribution
    """
    space = problem.space
    fresh = space.start(problem.batch, problem.horizon, problem.device)
    distribution = fresh if memory is None else space.shift(memory)
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
    """
    top = scores.topk(min(elites, scores.shape[1]), dim=1)
    chosen = pick(plans, top.indices)
    # Plans that broke the model teach nothing, unless there is nothing else to learn from.
    usable = top.values.isfinite() | ~top.values.isfinite().any(1, keepdim=True)
    weights = usable / usable.sum(1, keepdim=True)
    return problem.space.fit(chosen, weights), chosen
