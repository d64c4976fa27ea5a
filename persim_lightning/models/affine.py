"""Affine dynamics as a CP model: encoders whose products are the terms of an affine map of state and action.

With one rank for every term and coordinate, an agent's factor holds the coefficients of its own affine model,
`Δs_d = u_d · [1, s, a]`. The simulator is the same class as the neural one, without hidden layers, so everything that
works for one works for the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.encoders import ContinuousActionEncoder
from persim_lightning.models.simulator import Simulator, empty_simulator
from persim_lightning.types import Statistics

# Variance of factors that are the same for all agents.
_FIXED = 1e-12


@dataclass(frozen=True)
class AffineTerms:
    """Terms of an affine model; factors are the coefficients of D coordinates, one after the other.

    Attributes
    ----------
    coordinates : int
        D.
    inputs : int
        Inputs of the state encoder: D, and sines and cosines of angles.
    actions : int
        Coordinates of continuous actions, or discrete actions less one.
    """

    coordinates: int
    inputs: int
    actions: int

    @property
    def each(self) -> int:
        """Number of terms P of a coordinate: the intercept, the inputs and the actions."""
        return 1 + self.inputs + self.actions

    @property
    def rank(self) -> int:
        """Number of all coefficients, D·P."""
        return self.coordinates * self.each

    @classmethod
    def of(cls, config: SimulatorConfig) -> AffineTerms:
        actions = config.action_dim if config.num_actions is None else config.num_actions - 1
        return cls(config.state_dim, config.state_dim + 2 * len(config.angles), actions)


@torch.no_grad()
def affine_simulator(config: SimulatorConfig, statistics: Statistics) -> Simulator:
    """Build a simulator of one member that predicts no change: all coefficients are zero.

    Parameters
    ----------
    config : SimulatorConfig
        Sizes and options of the data; ranks, members and hidden layers are replaced.
    statistics : Statistics
        Normalization constants, in whose units the coefficients are.
    """
    terms = AffineTerms.of(config)
    rank, each = terms.rank, terms.each
    changed = replace(
        config, members=1, ranks=Ranks(rank, rank, rank), factorization="cp", state_hidden=(), action_hidden=()
    )
    simulator = empty_simulator(changed)
    simulator.set_statistics(statistics)
    encoder = simulator.state_encoder.mlp.skip
    weight = torch.zeros(terms.inputs, terms.coordinates, terms.coordinates, each)
    bias = torch.zeros(terms.coordinates, terms.coordinates, each)
    coordinate = torch.arange(terms.coordinates)
    bias[coordinate, coordinate, 0] = 1.0
    bias[coordinate, coordinate, 1 + terms.inputs :] = 1.0
    for place in range(terms.inputs):
        weight[place, coordinate, coordinate, 1 + place] = 1.0
    encoder.weight.copy_(weight.view(encoder.weight.shape))
    encoder.bias.copy_(bias.view(encoder.bias.shape))
    # Rows: a constant, then one action term each.
    acting = torch.zeros(1 + terms.actions, each)
    acting[0, : 1 + terms.inputs] = 1.0
    acting[1:, 1 + terms.inputs :] = torch.eye(terms.actions)
    acting = acting.repeat(1, terms.coordinates)
    if isinstance(simulator.action_encoder, ContinuousActionEncoder):
        simulator.action_encoder.mlp.skip.bias.copy_(acting[:1])
        simulator.action_encoder.mlp.skip.weight.copy_(acting[None, 1:])
    else:
        simulator.action_encoder.shared.copy_(acting[:1])
        simulator.action_encoder.deviation.zero_()
        simulator.action_encoder.deviation[0, 1:] = acting[1:]
    simulator.agent_encoder.shared.zero_()
    simulator.agent_encoder.deviation.zero_()
    return simulator.eval().requires_grad_(False)


def affine_features(simulator: Simulator, states: Tensor, actions: Tensor) -> Tensor:
    """Evaluate the terms of a coordinate: states (B, D), actions (B,)|(B, A) -> (B, P), float64."""
    terms = AffineTerms.of(simulator.config)
    inputs = simulator.state_encoder.inputs(states[None])[0]
    acting = simulator.action_encoder(actions[None])[0, :, 1 + terms.inputs : terms.each]
    return torch.cat((inputs.new_ones(len(inputs), 1), inputs, acting), dim=1).double()


@torch.no_grad()
def compact_affine(simulator: Simulator, varying: Tensor) -> Simulator:
    """Express an affine simulator with fewer ranks: those of the agents' mean, and one for each varying coefficient.

    Parameters
    ----------
    simulator : Simulator
        From :func:`affine_simulator`, with coefficients, prior and noise.
    varying : Tensor, shape (P,), bool
        Terms whose coefficients differ between agents.

    Returns
    -------
    Simulator
        Predicts the same. An agent's factor is 1 for the 1 + A ranks of the mean, and holds its deviations from it for
        the others.
    """
    terms = AffineTerms.of(simulator.config)
    shape = (terms.coordinates, terms.each)
    common = 1 + terms.actions
    own = varying.expand(shape).flatten().nonzero()[:, 0]
    rank = common + len(own)
    compact = empty_simulator(replace(simulator.config, ranks=Ranks(rank, rank, rank)))
    mean = simulator.agent_encoder.shared[0, 0].view(shape)
    before, after = simulator.state_encoder.mlp.skip, compact.state_encoder.mlp.skip
    for part in ("weight", "bias"):
        old = getattr(before, part)[0].unflatten(-1, (terms.coordinates, terms.rank))
        weighted = (old * mean.flatten()).unflatten(-1, shape).sum(-2)
        # Terms of the state share the first rank; every action has one.
        first, rest = weighted[..., : 1 + terms.inputs].sum(-1, keepdim=True), weighted[..., 1 + terms.inputs :]
        filled = torch.cat((first, rest, old[..., own]), dim=-1)
        getattr(after, part).copy_(filled.view(getattr(after, part).shape))
    for name, value in compact.action_encoder.state_dict().items():
        old = simulator.action_encoder.state_dict()[name]
        if old.shape == value.shape and name.startswith("action_"):
            value.copy_(old)
            continue
        value.copy_(torch.cat((old[..., :1], old[..., 1 + terms.inputs : terms.each], old[..., own]), dim=-1))
    compact.agent_encoder.shared.copy_(torch.cat((torch.ones(common), torch.zeros(len(own)))))
    compact.agent_encoder.deviation.zero_()
    compact.agent_encoder.deviation[..., common:] = simulator.agent_encoder.deviation[..., own]
    compact.prior_mean.copy_(compact.agent_encoder.shared[:, 0])
    variance = simulator.prior_covariance[0].diagonal()[own]
    compact.prior_covariance.copy_(torch.diag(torch.cat((variance.new_full((common,), _FIXED), variance)))[None])
    for name in ("noise", "delta_rms", "state_range"):
        getattr(compact, name).copy_(getattr(simulator, name))
    compact.walls.load_state_dict(simulator.walls.state_dict())
    for name in ("state_mean", "state_std"):
        getattr(compact.state_encoder, name).copy_(getattr(simulator.state_encoder, name))
    return compact.eval().requires_grad_(False)
