"""Random shooting: select the best of many uniformly random plans (PerSim, section 4.2)."""

from __future__ import annotations

import torch
from jsonargparse.typing import PositiveInt

from persim_lightning.planning.actions import shift_plans
from persim_lightning.planning.planner import Best, Decision, Memory, Planner, Problem, evaluate


class RandomShooting(Planner):
    """Select the best of uniformly random plans and the previous best plan, shifted by one step.

    Parameters
    ----------
    plans : int
        Candidates per decision, including the shifted plan.
    """

    def __init__(
        self,
        plans: PositiveInt = 1000,
    ) -> None:
        self._plans = plans

    def plan(self, problem: Problem, memory: Memory | None, generator: torch.Generator) -> Decision:
        samples = problem.space.uniform(problem.noise(self._plans, generator))
        plans = samples.expand(problem.batch, *samples.shape)
        if memory is not None:
            plans = torch.cat((shift_plans(memory[0], dim=1)[:, None], plans[:, 1:]), dim=1)
        best = Best.of(plans, evaluate(problem, plans))
        return Decision(best.plan, best.score, (best.plan,))
