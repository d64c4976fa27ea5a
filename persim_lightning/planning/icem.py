"""iCEM: cross-entropy planning with few samples (Pinneri et al., 2020; https://arxiv.org/abs/2008.06389)."""

from __future__ import annotations

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from persim_lightning.planning.actions import blend, shift_plans
from persim_lightning.planning.cem import check_elites, fit_elites
from persim_lightning.planning.noise import colored
from persim_lightning.planning.planner import Best, Decision, Memory, Planner, Problem, evaluate


class ICEM(Planner):
    """CEM with colored noise, populations that shrink, and elites that live on in later rounds and decisions.

    For discrete actions the distribution is one of categorical probabilities, and colored noise makes actions persist.

    Parameters
    ----------
    plans : int
        Samples of the first round; at least twice the elites are drawn.
    rounds : int
    elites : int
    momentum : float
        Share of the old distribution that is kept at every fit.
    color : float
        Exponent β of the noise's spectrum; 0 is white.
    decay : float
        Every round has 1/decay times the samples of the one before it, but at least twice the elites.
    kept : float
        Share of the elites (at least one) that join the next round, or, shifted by a step, the first one of the next
        decision.
    """

    def __init__(
        self,
        plans: PositiveInt = 64,
        rounds: PositiveInt = 3,
        elites: PositiveInt = 10,
        momentum: ClosedUnitInterval = 0.1,
        color: NonNegativeFloat = 2.0,
        decay: PositiveFloat = 1.25,
        kept: ClosedUnitInterval = 0.3,
    ) -> None:
        check_elites(elites, plans)
        self._plans, self._rounds, self._elites = plans, rounds, elites
        self._momentum, self._color, self._decay, self._kept = momentum, color, decay, kept

    def plan(self, problem: Problem, memory: Memory | None, generator: torch.Generator) -> Decision:
        space = problem.space
        distribution = space.start(problem.batch, problem.horizon, problem.device)
        survivors = None
        if memory is not None:
            *old, elites = memory
            distribution, survivors = space.shift(tuple(old)), shift_plans(elites, dim=2)
        best: Best | None = None
        for index in range(self._rounds):
            samples = max(int(self._plans * self._decay**-index), 2 * self._elites)
            plans = space.sample(distribution, colored(problem.noise(samples, generator), self._color))
            if index == self._rounds - 1:
                plans = torch.cat((plans, space.mode(distribution)[:, None]), dim=1)
            if survivors is not None:
                plans = torch.cat((plans, survivors), dim=1)
            scores = evaluate(problem, plans)
            best = Best.of(plans, scores) if best is None else best.or_better(plans, scores)
            fitted, elites = fit_elites(problem, plans, scores, self._elites)
            distribution = blend(distribution, fitted, self._momentum)
            survivors = elites[:, : max(1, round(self._kept * self._elites))]
        assert best is not None
        assert survivors is not None
        return Decision(best.plan, best.score, (*distribution, survivors))
