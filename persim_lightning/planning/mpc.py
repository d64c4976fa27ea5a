"""Model predictive control: plan, take the first action, observe, plan again (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from persim_lightning.planning.actions import ActionSpace
from persim_lightning.planning.objective import Termination
from persim_lightning.planning.planner import Memory, Planner, Problem, Score


class MPC:
    """A policy for B episodes that run together. It stops planning for episodes that have ended.

    It stores the last decision, so every batch of episodes needs a new object.

    Parameters
    ----------
    planner : Planner
    space : ActionSpace
    horizon : int
        H, steps of a plan.
    make_score : callable, (states (B', D), rows (B',)) -> score
        Returns the score to maximize. `rows` are the indices, ascending, of the episodes that run; `states` are their
        current states.
    terminated : callable, (states (..., D)) -> (...) bool
    device : torch.device
        Device of the planner. It plans in float32, whatever the dtype of the environment's states.
    """

    def __init__(
        self,
        planner: Planner,
        space: ActionSpace,
        horizon: int,
        make_score: Callable[[Tensor, Tensor], Score],
        terminated: Termination,
        device: torch.device,
    ) -> None:
        self._planner, self._space, self._horizon = planner, space, horizon
        self._make_score, self._terminated, self._device = make_score, terminated, device
        self._rows: Tensor | None = None
        self._memory: Memory | None = None

    @torch.inference_mode()
    def __call__(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """States (B, D) -> actions, (B,) int64 or (B, A) of the states' dtype."""
        if self._rows is None:
            self._rows = torch.arange(len(states))
        running = ~self._terminated(states[self._rows])
        if not running.all():
            self._rows = self._rows[running]
            if self._memory is not None:
                self._memory = tuple(part[running.to(part.device)] for part in self._memory)
        current = states[self._rows].to(self._device, torch.float32)
        score = self._make_score(current, self._rows.to(self._device))
        problem = Problem(score, self._space, len(current), self._horizon, self._device)
        plan, _, self._memory = self._planner.plan(problem, self._memory, generator)
        first = plan[:, 0].to(states.device)
        actions = first.new_zeros(len(states), *first.shape[1:])
        actions[self._rows] = first
        return actions.to(states.dtype) if actions.is_floating_point() else actions
