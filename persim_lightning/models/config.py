"""Sizes and options of a simulator."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from persim_lightning.errors import ConfigurationError


class Ranks(NamedTuple):
    """Sizes of the agent, state and action factors."""

    agent: int
    state: int
    action: int


@dataclass(frozen=True)
class SimulatorConfig:
    """Architecture of a simulator.

    Attributes
    ----------
    num_agents, state_dim : int
        N and D.
    action_dim : int
        Number of action coordinates (1 for discrete actions).
    num_actions : int or None
        Number of discrete actions; None for continuous ones.
    members : int
        M.
    ranks : Ranks
    factorization : {'cp', 'tucker'}
    state_hidden, action_hidden : tuple of int
        Hidden widths of the state encoder and of the encoder of continuous actions.
    angles : tuple of int
        State coordinates that are unbounded angles.
    walls : bool
        Whether predictions stop at :class:`~persim_lightning.models.walls.Walls`.
    action_spread : float
        Standard deviation of discrete actions' initial factors, which must differ from the start.
    integrator : {'euler', 'rk4'}
        How predicted changes per base step are integrated, see :mod:`persim_lightning.models.integrate`.
    bounds : tuple of (float, float)
        Limits of every state coordinate that predictions keep, infinite where there is none; empty for no limits.
    """

    num_agents: int
    state_dim: int
    action_dim: int
    num_actions: int | None
    members: int
    ranks: Ranks
    factorization: str = "cp"
    state_hidden: tuple[int, ...] = (64, 64)
    action_hidden: tuple[int, ...] = (64,)
    angles: tuple[int, ...] = ()
    walls: bool = False
    action_spread: float = 1.0
    integrator: str = "euler"
    bounds: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        outside = [index for index in self.angles if not 0 <= index < self.state_dim]
        if outside:
            raise ConfigurationError(
                f"angles: {outside[0]} is not a state coordinate (there are {self.state_dim}, from 0)"
            )

    @property
    def is_discrete(self) -> bool:
        """Return whether actions are discrete."""
        return self.num_actions is not None

    def with_agents(self, num_agents: int) -> SimulatorConfig:
        """Copy with another number of agents."""
        return replace(self, num_agents=num_agents)

    def with_members(self, members: int) -> SimulatorConfig:
        """Copy with another number of ensemble members."""
        return replace(self, members=members)

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dict, ready for JSON."""
        values = asdict(self)
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        # JSON has no infinities.
        bounds = [[bound if math.isfinite(bound) else None for bound in pair] for pair in self.bounds]
        return {**plain, "bounds": bounds}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SimulatorConfig:
        """Restore from the dict of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError
            If a value is missing or unknown.
        """
        names = ("state_hidden", "action_hidden", "angles")
        tuples: dict[str, Any] = {name: tuple(values[name]) for name in names}
        bounds = tuple(
            (-math.inf if low is None else low, math.inf if high is None else high)
            for low, high in values.get("bounds", ())
        )
        return cls(**{**values, **tuples, "ranks": Ranks(*values["ranks"]), "bounds": bounds})
