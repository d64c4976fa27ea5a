"""Model predictive path integral control (Williams et al., 2017; https://arxiv.org/abs/1509.01149)."""

from __future__ import annotations

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor

from persim_lightning.planning.actions import Distribution
from persim_lightning.planning.cem import refine
from persim_lightning.planning.planner import Decision, Memory, Planner, Problem, evaluate


class MPPI(Planner):
    """Fit the distribution to all plans, weighted by the exponential of their scores.

    Parameters
    ----------
    plans : int
        Samples per round.
    rounds : int
    temperature : float
        Temperature of the weights `exp(score / temperature)`, in standard deviations of a round's scores, so that the
        weights do not depend on the scale of scores.
    momentum : float
        Weight of the old distribution at every fit.
    """

    def __init__(
        self,
        plans: PositiveInt = 200,
        rounds: PositiveInt = 3,
        temperature: PositiveFloat = 0.2,
        momentum: ClosedUnitInterval = 0.1,
    ) -> None:
        self._plans, self._rounds, self._temperature, self._momentum = plans, rounds, temperature, momentum

    def plan(self, problem: Problem, memory: Memory | None, generator: torch.Generator) -> Decision:
        def fit(plans: Tensor, scores: Tensor) -> Distribution:
            return problem.space.fit(plans, _weights(scores, self._temperature))

        best, distribution = refine(problem, memory, generator, self._plans, self._rounds, self._momentum, fit)
        mode = problem.space.mode(distribution)
        best = best.or_better(mode[:, None], evaluate(problem, mode[:, None]))
        return Decision(best.plan, best.score, distribution)


def _weights(scores: Tensor, temperature: float) -> Tensor:
    """Compute weights that sum to one, (B, P) -> (B, P); they are equal if no score is finite."""
    usable = scores.isfinite()
    count = usable.sum(1, keepdim=True).clamp(min=1)
    finite = torch.where(usable, scores, 0.0)
    mean = finite.sum(1, keepdim=True) / count
    std = (torch.where(usable, finite - mean, 0.0).square().sum(1, keepdim=True) / count).sqrt()
    scaled = torch.where(usable, (finite - mean) / (temperature * std.clamp(min=1e-12)), -torch.inf)
    return torch.where(usable.any(1, keepdim=True), scaled, 0.0).softmax(1)
