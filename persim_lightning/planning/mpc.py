"""Model predictive control: plan, play the first action, observe, plan again (PerSim, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from persim_lightning.planning.actions import ActionSpace
from persim_lightning.planning.objective import Termination
from persim_lightning.planning.planner import Memory, Planner, Problem, Score


class MPC:
    """A policy for B episodes that are played together; an episode that has ended is not planned for any more.

    It remembers the last decision, so every batch of episodes needs an object of its own.

    Parameters
    ----------
    planner : Planner
    space : ActionSpace
    horizon : int
        H, steps of a plan.
    make_score : callable, (states (B', D), rows (B',)) -> score
        Makes what is to be maximized for the episodes `rows`, ascending, that are in `states`.
    terminated : callable, (states (..., D)) -> (...) bool
    device : torch.device
        Where plans are made; in float32, whatever the environment's states come in.
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
        going = ~self._terminated(states[self._rows])
        if not going.all():
            self._rows = self._rows[going]
            if self._memory is not None:
                self._memory = tuple(part[going.to(part.device)] for part in self._memory)
        now = states[self._rows].to(self._device, torch.float32)
        score = self._make_score(now, self._rows.to(self._device))
        problem = Problem(score, self._space, len(now), self._horizon, self._device)
        plan, _, self._memory = self._planner.plan(problem, self._memory, generator)
        first = plan[:, 0].to(states.device)
        actions = first.new_zeros(len(states), *first.shape[1:])
        actions[self._rows] = first
        return actions.to(states.dtype) if actions.is_floating_point() else actions
