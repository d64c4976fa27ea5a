"""Fitted population with agents by id and NumPy arrays in and out; saved without pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from persim_lightning.errors import PersimError, SimulatorFileError
from persim_lightning.models.agent_simulator import AgentSimulator, personalize
from persim_lightning.models.config import SimulatorConfig
from persim_lightning.models.simulator import Simulator
from persim_lightning.store.names import DESCRIPTION, WEIGHTS
from persim_lightning.support.files import atomic_write, write_json
from persim_lightning.types import Schema

FORMAT = 4
# Format without the prior of agent factors, which is then estimated from the agents.
_WITHOUT_PRIOR = 3


class KeptMap(NamedTuple):
    """A map from covariates to the prior of factors, and what it was estimated from.

    Attributes
    ----------
    covariates : Tensor, shape (N, C)
    key : tuple
        Further settings.
    map : callable, (ndarray (K, C)) -> prior, or None
        None if there is no map.
    """

    covariates: Tensor
    key: tuple[float, bool]
    map: Callable[[np.ndarray], Any] | None


class FittedPopulation:
    """Simulators of all agents of a population.

    Parameters
    ----------
    simulator : Simulator
    schema : Schema
    agent_ids : sequence of int or str
        The position of an id is the agent index.
    """

    def __init__(self, simulator: Simulator, schema: Schema, agent_ids: Sequence[int | str]) -> None:
        self.simulator, self.schema = simulator.eval(), schema
        self.agent_ids = tuple(agent_ids)
        self._index = {label: index for index, label in enumerate(self.agent_ids)}
        self.covariate_map: KeptMap | None = None

    def index(self, agents: Sequence[int | str]) -> Tensor:
        """Return the agent indices of ids, shape (B,).

        Raises
        ------
        PersimError
            If an id is unknown.
        """
        unknown = [label for label in agents if label not in self._index]
        if unknown:
            known = ", ".join(map(str, self.agent_ids[:5]))
            raise PersimError(f"unknown agent {unknown[0]!r}: the simulator has {len(self.agent_ids)} ({known}, …)")
        return torch.tensor([self._index[label] for label in agents])

    def personalize(self, *agents: int | str) -> AgentSimulator:
        """Contract the simulators of some agents, given by their ids."""
        return personalize(self.simulator, *self.index(agents).tolist())

    def rollout(self, agent: int | str, state: np.ndarray | Tensor, actions: np.ndarray | Tensor) -> np.ndarray:
        """Predict the agent's open-loop trajectory with every ensemble member.

        Parameters
        ----------
        agent : int or str
            Id.
        state : array, shape (D,)
            Initial state, raw units, columns as in `schema.state`.
        actions : array, shape (H,) integers, or (H, A)

        Returns
        -------
        ndarray, shape (M, H+1, D)
            Starts with the initial state. The prediction is the mean over members.
        """
        states = torch.as_tensor(state, dtype=self.schema.state_dtype)
        kind = torch.int64 if self.simulator.config.is_discrete else torch.float32
        plan = torch.as_tensor(actions, dtype=kind)
        shape = (self.schema.state_dim,)
        if states.shape != shape:
            raise PersimError(f"state has shape {tuple(states.shape)}, but must have {shape}: {self.schema.state}")
        if plan.shape[1:] != (() if self.simulator.config.is_discrete else (self.schema.action_dim,)):
            expected = "(H,)" if self.simulator.config.is_discrete else f"(H, {self.schema.action_dim})"
            raise PersimError(f"actions have shape {tuple(plan.shape)}, but must have {expected}: {self.schema.action}")
        known = self.simulator.config.num_actions
        if known is not None:
            given = torch.as_tensor(actions)
            if bool(((given != plan) | (plan < 0) | (plan >= known)).any()):
                raise PersimError(f"unknown action: actions are the integers 0 … {known - 1}")
        return self.simulator.rollout(self.index([agent]), states[None], plan[None])[:, 0].numpy()

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `simulator.safetensors` and `simulator.json` into `folder` atomically."""
        weights, description = Path(folder) / WEIGHTS, Path(folder) / DESCRIPTION
        state = {name: value.detach().cpu().contiguous() for name, value in self.simulator.state_dict().items()}
        with atomic_write(weights) as temporary:
            save_file(state, temporary)
        write_json(
            {
                "format": FORMAT,
                "architecture": self.simulator.config.to_dict(),
                "schema": self.schema.to_dict(),
                "agent_ids": list(self.agent_ids),
            },
            description,
        )
        return weights, description

    @classmethod
    def load(cls, folder: str | Path) -> FittedPopulation:
        """Read a saved population; needs neither configuration nor data, and executes no code.

        Raises
        ------
        SimulatorFileError
            If a file is missing, damaged or of an unknown format, or the two files do not match.
        """
        weights, description = Path(folder) / WEIGHTS, Path(folder) / DESCRIPTION
        for path in (weights, description):
            if not path.is_file():
                raise SimulatorFileError(f"{path}: no such file; is {folder} the folder of a finished run?")
        try:
            values = json.loads(description.read_text())
            if values["format"] not in (_WITHOUT_PRIOR, FORMAT):
                raise SimulatorFileError(
                    f"{description}: format {values['format']}, but this version reads {_WITHOUT_PRIOR} and {FORMAT}: "
                    "fit it again"
                )
            config = SimulatorConfig.from_dict(values["architecture"])
            _check_sizes(config, values["agent_ids"], weights)
            simulator = Simulator(config)
            state = load_file(weights)
            if values["format"] == _WITHOUT_PRIOR:
                state |= {"prior_mean": simulator.prior_mean, "prior_covariance": simulator.prior_covariance}
            simulator.load_state_dict(state)
            broken = [name for name, value in simulator.named_parameters() if not bool(value.isfinite().all())]
            if broken:
                raise ValueError(f"{broken[0]} is not finite")
            schema = Schema.from_dict(values["schema"])
        except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise SimulatorFileError(
                f"{folder}: not a readable simulator ({type(error).__name__}: {reason})"
            ) from error
        return cls(simulator, schema, values["agent_ids"])


def _check_sizes(config: SimulatorConfig, agent_ids: Sequence[int | str], weights: Path) -> None:
    """Compare the description with the weights before memory is taken for it.

    Raises
    ------
    ValueError
        If they do not belong together.
    """
    if len(agent_ids) != config.num_agents or len(set(agent_ids)) != len(agent_ids):
        raise ValueError(f"{len(set(agent_ids))} different agent ids for {config.num_agents} agents")
    with safe_open(weights, framework="pt") as file:
        shape = file.get_slice("agent_encoder.deviation").get_shape()
    expected = [config.members, config.num_agents, config.ranks.agent]
    if shape != expected:
        raise ValueError(f"agent factors have shape {shape}, but must have {expected}")
