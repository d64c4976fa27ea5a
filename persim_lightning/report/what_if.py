"""Data with which the page simulates agents: weights, samples of factors, recorded rows, interval widths."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persim_lightning.adaptation.intervals import SPREAD_FLOOR
from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.evaluation.intervals import believed_factors
from persim_lightning.models.encoders import ContinuousActionEncoder
from persim_lightning.models.factorization import TuckerLayer
from persim_lightning.models.layers import MemberLinear, SkipMLP
from persim_lightning.models.simulator import Simulator

# Largest number of recorded rows per agent in the page, and of simulated steps.
MAX_ROWS = 200
MAX_STEPS = 200


def what_if_data(simulator: PersonalizedSimulator, agents: tuple[int | str, ...], level: float) -> dict[str, Any]:
    """Collect the data of `what_if.js`, ready for JSON.

    Parameters
    ----------
    simulator : PersonalizedSimulator
    agents : tuple of int or str
        Agents in the panel; all must have recorded rows.
    level : float
        Level of the intervals, which are left out if the simulator is not calibrated.
    """
    recorded, schema = simulator.trajectories, simulator.schema
    index = simulator.population.index(agents)
    data: dict[str, Any] = {
        "agents": [str(label) for label in agents],
        "state": list(schema.state),
        "columns": [
            {
                "name": column.name,
                "categories": None if column.categories is None else list(map(str, column.categories)),
            }
            for column in schema.user_actions
        ],
        "discrete": schema.num_actions is not None,
        "maxSteps": MAX_STEPS,
        "model": model_data(simulator.population.simulator, index),
        "recorded": [_first_rows(simulator, label) for label in agents],
    }
    if schema.num_actions is None:
        data["low"], data["high"] = (values.tolist() for values in recorded.action_range())
    if simulator.calibration is not None:
        shape = (1, MAX_STEPS, schema.state_dim)
        data["draws"] = _array(believed_factors(simulator.population, recorded, index))
        data["level"], data["floor"] = level, SPREAD_FLOOR
        data["widths"] = _array(simulator.calibration.half_width(torch.ones(shape), level)[0])
    return data


def model_data(simulator: Simulator, agents: Tensor) -> dict[str, Any]:
    """Collect weights and constants of a population's simulator, and the factors of some agents, ready for JSON."""
    walls, encoder, actions = simulator.walls, simulator.state_encoder, simulator.action_encoder
    model: dict[str, Any] = {
        "members": simulator.members,
        "integrator": simulator.config.integrator,
        "angles": encoder.angles,
        "stateMean": _array(encoder.state_mean),
        "stateStd": _array(encoder.state_std),
        "deltaRms": _array(simulator.delta_rms),
        "stateNet": _net(encoder.mlp),
        "factors": _array(simulator.agent_encoder.table()[:, agents]),
        "core": _array(simulator.factorization.core) if isinstance(simulator.factorization, TuckerLayer) else None,
        "walls": None,
    }
    if isinstance(actions, ContinuousActionEncoder):
        model["actionNet"] = _net(actions.mlp)
        model["actionMean"], model["actionStd"] = _array(actions.action_mean), _array(actions.action_std)
    else:
        model["actionFactors"] = _array(actions.table())
    if walls.enabled:
        names = {
            "low": walls.low,
            "high": walls.high,
            "lowContact": walls.low_contact,
            "highContact": walls.high_contact,
        }
        model["walls"] = {name: _array(value) for name, value in names.items()}
    return model


def _net(mlp: SkipMLP) -> dict[str, Any]:
    return {
        "hidden": [_layer(layer) for layer in mlp.hidden],  # type: ignore[arg-type]
        "output": None if mlp.output is None else _layer(mlp.output),
        "skip": _layer(mlp.skip),
    }


def _layer(layer: MemberLinear) -> dict[str, Any]:
    return {"weight": _array(layer.weight), "bias": _array(layer.bias)}


def _array(values: Tensor) -> dict[str, Any]:
    """Shape, and base64 of little-endian float32: shorter than JSON numbers, and allows infinities and NaN."""
    array = values.detach().cpu().numpy().astype("<f4")
    return {"shape": list(array.shape), "base64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}


def _first_rows(simulator: PersonalizedSimulator, agent: int | str) -> dict[str, Any]:
    """First rows of the agent's first trajectory with a transition; there is one action less than states."""
    recorded = simulator.trajectories
    candidates = (recorded.agent == recorded.agent_ids.index(agent)) & (recorded.lengths > 1)
    first = int(candidates.nonzero()[0, 0])
    start, end = recorded.offsets[first : first + 2].tolist()
    end = min(end, start + MAX_ROWS + 1)
    duration = torch.ones(end - start) if recorded.duration is None else recorded.duration[start:end]
    observed = recorded.observed_mask()[start:end]
    return {
        "time": recorded.row_time()[start:end].tolist(),
        "duration": duration[:-1].tolist(),
        "state": _array(recorded.state[start:end]),
        # Estimated states are not drawn as recorded ones.
        "shown": _array(torch.where(observed, recorded.state[start:end], torch.nan)),
        "action": _array(recorded.action[start : end - 1].float()),
    }
