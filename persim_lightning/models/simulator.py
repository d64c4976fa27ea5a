"""The PerSim simulator: an ensemble of factorized dynamics for a whole population (section 4, equation 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensorly.cp_tensor import CPTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor, nn

from persim_lightning.models.agent_simulator import AgentSimulator
from persim_lightning.models.encoders import ContinuousActionEncoder, MemberEmbedding, StateEncoder
from persim_lightning.models.factorization import Ranks, build_factorization
from persim_lightning.models.rollout import rollout
from persim_lightning.models.walls import Walls
from persim_lightning.types import Statistics


class Simulator(nn.Module):
    """Predicts Δs for any agent, state and action with M ensemble members at once.

    Parameters
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
    state_hidden, action_hidden : sequence of int
        Hidden widths of the state encoder and of the encoder of continuous actions.
    angles : sequence of int
        State coordinates that are unbounded angles.
    walls : bool
        Whether predictions stop at :class:`~persim_lightning.models.walls.Walls`.
    action_spread : float
        Standard deviation of discrete actions' initial factors. They must differ from the start; agents must not.
    """

    delta_rms: Tensor
    noise: Tensor
    state_range: Tensor

    def __init__(
        self,
        *,
        num_agents: int,
        state_dim: int,
        action_dim: int,
        num_actions: int | None,
        members: int,
        ranks: Ranks,
        factorization: str = "cp",
        state_hidden: Sequence[int] = (64, 64),
        action_hidden: Sequence[int] = (64,),
        angles: Sequence[int] = (),
        walls: bool = False,
        action_spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.walls = Walls(state_dim, walls)
        self.ranks = ranks
        self.num_agents, self.state_dim, self.members = num_agents, state_dim, members
        self.num_actions, self.action_dim = num_actions, action_dim
        self.agent_encoder = MemberEmbedding(members, num_agents, ranks.agent, spread=0.0)
        self.state_encoder = StateEncoder(members, state_dim, ranks.state, state_hidden, angles)
        self.action_encoder: ContinuousActionEncoder | MemberEmbedding = (
            ContinuousActionEncoder(members, action_dim, ranks.action, action_hidden)
            if num_actions is None
            else MemberEmbedding(members, num_actions, ranks.action, spread=action_spread)
        )
        self.factorization = build_factorization(factorization, members, ranks)
        self.register_buffer("delta_rms", torch.ones(state_dim))
        # Mean squared error of each member and coordinate on the training set, normalized; NaN until it is known.
        self.register_buffer("noise", torch.full((members, state_dim), torch.nan))
        self.register_buffer("state_range", torch.tensor([-torch.inf, torch.inf])[:, None].repeat(1, state_dim))

    @property
    def is_discrete(self) -> bool:
        return self.num_actions is not None

    def set_statistics(self, statistics: Statistics) -> None:
        """Take normalization constants from the training set.

        Targets are divided by their root mean square and not centered: only a scale keeps the raw prediction a sum of
        products.
        """
        self.state_encoder.state_mean.copy_(statistics.state_mean)
        self.state_encoder.state_std.copy_(statistics.state_std)
        self.delta_rms.copy_(statistics.delta_rms)
        self.state_range.copy_(torch.stack((statistics.state_low, statistics.state_high)))
        if isinstance(self.action_encoder, ContinuousActionEncoder):
            self.action_encoder.action_mean.copy_(statistics.action_mean)
            self.action_encoder.action_std.copy_(statistics.action_std)

    def normalized_delta(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Δs in units of the training set's root mean square.

        Parameters
        ----------
        agents : Tensor, shape (M, B), int64
        states : Tensor, shape (M, B, D)
        actions : Tensor, shape (M, B) int64 or (M, B, A)

        Returns
        -------
        Tensor, shape (M, B, D)
        """
        output: Tensor = self.factorization(
            self.agent_encoder(agents), self.state_encoder(states), self.action_encoder(actions)
        )
        return output

    def forward(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Δs in raw units; shapes as for :meth:`normalized_delta`."""
        return self.normalized_delta(agents, states, actions) * self.delta_rms

    def step(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Next state of every member: agents (B,), states (M, B, D), actions (B,)|(B, A) -> (M, B, D)."""
        shared = (self.members, *actions.shape)
        following: Tensor = self.walls(states + self(agents.expand(self.members, -1), states, actions.expand(shared)))
        return following

    @torch.no_grad()
    def rollout(self, agents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Open-loop rollouts, each member along a trajectory of its own.

        Parameters
        ----------
        agents : Tensor, shape (B,), int64
        states : Tensor, shape (B, D)
            Initial states.
        actions : Tensor, shape (B, H) int64 or (B, H, A)

        Returns
        -------
        Tensor, shape (M, B, H+1, D)
            Starts with the initial state.
        """
        return rollout(lambda s, a: self.step(agents, s, a), self.members, states, actions)

    def personalize(self, *agents: int) -> AgentSimulator:
        """Some agents' own simulators, with their factors (and every discrete action's) folded into the last layer.

        Parameters
        ----------
        *agents : int
            Agent indices, 0 … N-1.
        """
        for agent in agents:
            if not 0 <= agent < self.num_agents:
                raise IndexError(f"agent index {agent} is outside 0 … {self.num_agents - 1}")
        return AgentSimulator(self, self.agent_encoder.table()[:, list(agents)])

    @torch.no_grad()
    def as_tensor(self, agents: Tensor, states: Tensor, actions: Tensor) -> CPTensor | TuckerTensor:
        """The encoders evaluated on a grid, as the factor matrices of the dynamics tensor that they define.

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
