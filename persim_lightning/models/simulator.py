"""The PerSim simulator: an ensemble of factorized dynamics for a whole population (section 4, equation 3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from persim_lightning.models.config import SimulatorConfig
from persim_lightning.models.encoders import ContinuousActionEncoder, MemberEmbedding, StateEncoder
from persim_lightning.models.factorization import build_factorization
from persim_lightning.models.integrate import integrate
from persim_lightning.models.rollout import rollout
from persim_lightning.models.walls import Walls
from persim_lightning.types import Statistics

if TYPE_CHECKING:
    from tensorly.cp_tensor import CPTensor
    from tensorly.tucker_tensor import TuckerTensor


def empty_simulator(config: SimulatorConfig) -> Simulator:
    """Build a simulator whose weights will be replaced, and leave the global random generator as it is."""
    with torch.random.fork_rng(devices=[]):
        return Simulator(config)


class Simulator(nn.Module):
    """Predicts Δs for any agent, state and action with M ensemble members at once.

    Parameters
    ----------
    config : SimulatorConfig
    """

    delta_rms: Tensor
    noise: Tensor
    state_range: Tensor
    prior_mean: Tensor
    prior_covariance: Tensor

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__()
        self.config = config
        members, state_dim, ranks = config.members, config.state_dim, config.ranks
        self.walls = Walls(state_dim, config.walls, config.bounds)
        self.agent_encoder = MemberEmbedding(members, config.num_agents, ranks.agent, spread=0.0)
        self.state_encoder = StateEncoder(members, state_dim, ranks.state, config.state_hidden, config.angles)
        self.action_encoder: ContinuousActionEncoder | MemberEmbedding = (
            ContinuousActionEncoder(members, config.action_dim, ranks.action, config.action_hidden)
            if config.num_actions is None
            else MemberEmbedding(members, config.num_actions, ranks.action, spread=config.action_spread)
        )
        self.factorization = build_factorization(config.factorization, members, ranks)
        self.register_buffer("delta_rms", torch.ones(state_dim))
        # Noise variance of each member and coordinate, normalized units; NaN before it is estimated.
        self.register_buffer("noise", torch.full((members, state_dim), torch.nan))
        # Gaussian prior of agent factors from the fit; NaN if unknown.
        covariance = torch.full((members, ranks.agent, ranks.agent), torch.nan, dtype=torch.float64)
        self.register_buffer("prior_mean", covariance[..., 0].clone())
        self.register_buffer("prior_covariance", covariance)
        limits = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
        self.register_buffer("state_range", limits[:, None].repeat(1, state_dim))

    @property
    def members(self) -> int:
        """Number of ensemble members M."""
        return self.config.members

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.config.num_agents

    @property
    def state_dim(self) -> int:
        """Number of state coordinates D."""
        return self.config.state_dim

    def set_statistics(self, statistics: Statistics) -> None:
        """Set normalization constants from the training set.

        Targets are divided by their root mean square but not centered, so that raw predictions remain sums of products.
        """
        self.state_encoder.state_mean.copy_(statistics.state_mean)
        self.state_encoder.state_std.copy_(statistics.state_std)
        self.delta_rms.copy_(statistics.delta_rms)
        self.state_range.copy_(torch.stack((statistics.state_low, statistics.state_high)))
        if isinstance(self.action_encoder, ContinuousActionEncoder):
            self.action_encoder.action_mean.copy_(statistics.action_mean)
            self.action_encoder.action_std.copy_(statistics.action_std)

    def normalized_delta(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Predict Δs in units of the training set's root mean square.

        Parameters
        ----------
        agents : Tensor, shape (M, B), int64
        states : Tensor, shape (M, B, D)
        actions : Tensor, shape (M, B) int64 or (M, B, A)

        Returns
        -------
        Tensor, shape (M, B, D)
        """
        return self._normalized_delta(self.agent_encoder(agents), states, actions)

    def _normalized_delta(self, factors: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Predict as :meth:`normalized_delta` does, from agent factors (M, B, R)."""
        output: Tensor = self.factorization(factors, self.state_encoder(states), self.action_encoder(actions))
        return output

    def forward(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Predict Δs in raw units; shapes as for :meth:`normalized_delta`."""
        return self.normalized_delta(agents, states, actions) * self.delta_rms

    def step(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Predict the next state of every member: agents (B,), states (M, B, D), actions (B,)|(B, A) -> (M, B, D)."""
        return self._step(self.agent_encoder(agents.expand(self.members, -1)), states, actions)

    def _step(self, factors: Tensor, states: Tensor, actions: Tensor, duration: Tensor | None = None) -> Tensor:
        """Predict as :meth:`step` does, from agent factors (M, B, R), after `duration` (B,) base steps."""
        return self.advance(factors, states, actions.expand(self.members, *actions.shape), duration, self.walls)

    def advance(
        self,
        factors: Tensor,
        states: Tensor,
        actions: Tensor,
        duration: Tensor | None = None,
        stop: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Predict states after some time under constant actions.

        Parameters
        ----------
        factors : Tensor, shape (M, B, R)
        states : Tensor, shape (M, B, D)
        actions : Tensor, shape (M, B) int64 or (M, B, A)
        duration : Tensor, shape (B,) or (M, B), optional
            Base steps; 1 by default.
        stop : callable, optional
            Applied after every sub-step; by default :meth:`~persim_lightning.models.walls.Walls.stop`, and a range far
            beyond that of the training states, so that long chains cannot overflow.

        Returns
        -------
        Tensor, shape (M, B, D)
        """
        if stop is None:
            stop = self._contain
        # Actions are constant, so they are encoded once.
        action = self.action_encoder(actions)

        def rate(state: Tensor) -> Tensor:
            output: Tensor = self.factorization(factors, self.state_encoder(state), action)
            return output * self.delta_rms

        return integrate(rate, states, duration, self.config.integrator, stop)

    def _contain(self, states: Tensor) -> Tensor:
        """Stop at walls, and at the limits of a range three times as wide as that of the training states."""
        low, high = self.state_range.to(states.dtype)
        width = high - low
        stopped = self.walls.stop(states) if self.walls.enabled else states
        return torch.where(width.isfinite(), stopped.clamp(low - width, high + width), stopped)

    def rollout(self, agents: Tensor, states: Tensor, actions: Tensor, duration: Tensor | None = None) -> Tensor:
        """Roll out every member separately in open loop.

        Parameters
        ----------
        agents : Tensor, shape (B,), int64
        states : Tensor, shape (B, D)
            Initial states.
        actions : Tensor, shape (B, H) int64 or (B, H, A)
        duration : Tensor, shape (B, H), optional
            Base steps from each state to the next; 1 by default.

        Returns
        -------
        Tensor, shape (M, B, H+1, D)
            Starts with the initial state.
        """
        return self.rollout_factors(self.agent_encoder(agents.expand(self.members, -1)), states, actions, duration)

    @torch.no_grad()
    def rollout_factors(
        self, factors: Tensor, states: Tensor, actions: Tensor, duration: Tensor | None = None
    ) -> Tensor:
        """Roll out agents given by their factors (M, B, R); otherwise as :meth:`rollout`."""
        return rollout(partial(self._step, factors), self.members, states, actions, duration)

    @torch.no_grad()
    def as_tensor(self, agents: Tensor, states: Tensor, actions: Tensor) -> CPTensor | TuckerTensor:
        """Evaluate the encoders on a grid, which gives the factor matrices of the dynamics tensor.

        Parameters
        ----------
        agents : Tensor, shape (N',), int64
        states : Tensor, shape (S, D)
        actions : Tensor, shape (A',) int64 or (A', A)

        Returns
        -------
        CPTensor or TuckerTensor
            NumPy-backed, float64, modes (agent, state × coordinate, action): its dense form, of shape (N', S·D, A'),
            equals the ensemble's mean Δs in raw units at every grid point.
        """
        agent = self.agent_encoder.table()[:, agents]
        state = self.state_encoder(states.expand(self.members, *states.shape)) * self.delta_rms[:, None]
        action = self.action_encoder(actions.expand(self.members, *actions.shape))
        return self.factorization.as_tensor(agent.cpu(), state.flatten(1, 2).cpu(), action.cpu())
