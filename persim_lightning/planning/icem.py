"""iCEM: the cross-entropy method with few samples (Pinneri et al., 2020; https://arxiv.org/abs/2008.06389)."""

from __future__ import annotations

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from persim_lightning.planning.actions import blend, shift_plans
from persim_lightning.planning.cem import check_elites, fit_elites
from persim_lightning.planning.noise import colored
from persim_lightning.planning.planner import Best, Decision, Memory, Planner, Problem, evaluate


class ICEM(Planner):
    """CEM with colored noise, fewer samples in every round, and elites that are reused in later rounds and decisions.

    Discrete actions have categorical distributions; there, colored noise makes actions change rarely.

    Parameters
    ----------
    plans : int
        Samples of the first round. Every round draws at least twice the elites.
    rounds : int
    elites : int
        Best samples of a round, to which the distribution is fitted.
    momentum : float
        Weight of the old distribution at every fit.
    color : float
        Exponent β of the noise's spectrum 1/f^β; 0 is white.
    decay : float
        Every round draws 1/decay times the samples of the previous one.
    kept : float
        Fraction of the elites (at least one) that is reused in the next round and, shifted by one step, in the first
        round of the next decision.
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
        reused = None
        if memory is not None:
            *old, elites = memory
            distribution, reused = space.shift(tuple(old)), shift_plans(elites, dim=2)
        best: Best | None = None
        for index in range(self._rounds):
            samples = max(int(self._plans * self._decay**-index), 2 * self._elites)
            plans = space.sample(distribution, colored(problem.noise(samples, generator), self._color))
            if index == self._rounds - 1:
                plans = torch.cat((plans, space.mode(distribution)[:, None]), dim=1)
            if reused is not None:
                plans = torch.cat((plans, reused), dim=1)
            scores = evaluate(problem, plans)
            best = Best.of(plans, scores) if best is None else best.or_better(plans, scores)
            fitted, elites = fit_elites(problem, plans, scores, self._elites)
            distribution = blend(distribution, fitted, self._momentum)
            reused = elites[:, : max(1, round(self._kept * self._elites))]
        assert best is not None
        assert reused is not None
        return Decision(best.plan, best.score, (*distribution, reused))
