"""Plans actions of an agent of a table; inputs, which nobody decides, are given and never chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persim_lightning.api.action_space import decided_coordinates, table_action_space
from persim_lightning.data.tables.actions import encode_actions
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.models.agent_simulator import AgentSimulator
from persim_lightning.planning.icem import ICEM
from persim_lightning.planning.objective import Objective, check_reward
from persim_lightning.planning.planner import Planner, Problem
from persim_lightning.planning.returns import EnsembleReturns
from persim_lightning.types import Schema


def encoded_inputs(inputs: Mapping[str, Sequence[Any]] | None, schema: Schema, horizon: int) -> Tensor | None:
    """Encode future values of inputs.

    Parameters
    ----------
    inputs : mapping of input column to H values or a scalar, or None
    schema : Schema
    horizon : int
        H.

    Returns
    -------
    Tensor, shape (H, I), or None
        The last coordinates of actions; None if the table has no inputs.

    Raises
    ------
    PersimError
        If inputs are missing, unknown, or of another length.
    """
    given = dict(inputs or {})
    unknown = [name for name in given if name not in schema.inputs]
    if unknown:
        raise ConfigurationError(f"inputs: '{unknown[0]}' is not an input; the table has {list(schema.inputs)}")
    if not schema.inputs:
        return None
    missing = [name for name in schema.inputs if name not in given]
    if missing:
        raise ConfigurationError(f"inputs: '{missing[0]}' is missing; give {horizon} values of {list(schema.inputs)}")
    given = {name: values if np.ndim(values) else [values] * horizon for name, values in given.items()}
    for name, values in given.items():
        if len(values) != horizon:
            raise ConfigurationError(f"inputs: '{name}' has {len(values)} values, but the horizon is {horizon}")
    # Decided columns are encoded first, so any of their values will do here.
    decided = {
        name: [0.0 if categories is None else categories[0]] * horizon
        for name, categories in schema.user_actions
        if name not in schema.inputs
    }
    coordinates = decided_coordinates(schema)
    return torch.from_numpy(np.asarray(encode_actions({**decided, **given}, schema, "inputs"))[:, coordinates:])


def plan_actions(
    simulator: AgentSimulator,
    recorded: Trajectories,
    goal: Objective,
    start: Tensor,
    inputs: Tensor | None,
    horizon: int,
    planner: Planner | None,
    pessimism: float,
    seed: int,
) -> tuple[np.ndarray, float]:
    """Plan a sequence of actions within the range of recorded ones.

    Parameters
    ----------
    simulator : AgentSimulator
        Of one agent.
    recorded : Trajectories
    goal : Objective
    start : Tensor, shape (1, D)
    inputs : Tensor, shape (H, I), or None
    horizon : int
    planner : Planner, optional
        iCEM by default.
    pessimism : float
    seed : int

    Returns
    -------
    actions : ndarray, shape (H,) or (H, A)
    value : float

    Raises
    ------
    ConfigurationError
        If there is nothing to decide, or no plan has a finite value.
    """
    schema = recorded.schema
    if not schema.action or (schema.inputs and not decided_coordinates(schema)):
        raise ConfigurationError("there is nothing to plan: the table has no action columns")
    space, realize = table_action_space(recorded)
    complete = _with_inputs(realize, inputs)
    check_reward(goal.reward, "the objective", start[0], recorded.action[0])
    score = EnsembleReturns(simulator, goal, start, torch.zeros(1, dtype=torch.int64), pessimism)
    with torch.inference_mode():
        problem = Problem(lambda plans: score(complete(plans)), space, 1, horizon)
        decision = (planner or ICEM(plans=500, rounds=20, elites=50)).plan(
            problem, None, torch.Generator().manual_seed(seed)
        )
        if not bool(decision.score.isfinite().all()):
            raise ConfigurationError("no plan has a finite value: check the objective and the state")
        actions: np.ndarray = complete(decision.plan[:, None])[0, 0].numpy()
    return actions, float(decision.score[0])


def _with_inputs(realize: Callable[[Tensor], Tensor], inputs: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Append inputs to realized plans (..., H, A)."""
    if inputs is None:
        return realize

    def complete(plans: Tensor) -> Tensor:
        decided = realize(plans)
        return torch.cat((decided, inputs.to(decided).expand(*decided.shape[:-1], -1)), dim=-1)

    return complete
