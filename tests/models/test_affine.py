"""Affine dynamics are CP models, and merged ensembles predict as their members do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.affine import AffineTerms, affine_simulator, compact_affine
from persim_lightning.models.agent_simulator import personalize
from persim_lightning.models.config import Ranks, SimulatorConfig
from persim_lightning.models.factorization import to_dense
from persim_lightning.models.merging import merge_members
from persim_lightning.models.simulator import Simulator
from persim_lightning.types import Statistics

CONTINUOUS = SimulatorConfig(3, 2, 2, None, 1, Ranks(1, 1, 1), state_hidden=(6, 5), action_hidden=(4,))
DISCRETE = SimulatorConfig(3, 2, 1, 3, 1, Ranks(1, 1, 1), state_hidden=(6, 5), angles=(1,))


def statistics(config):
    amounts = config.action_dim if config.num_actions is None else 0
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    return Statistics(mean, std, mean - std, mean + std, torch.tensor([0.1, 2.0]), mean[:amounts], std[:amounts])


def drawn(config, varying):
    """An affine simulator with random coefficients, of which those that vary differ between agents."""
    terms, generator = AffineTerms.of(config), torch.Generator().manual_seed(3)
    simulator = affine_simulator(config, statistics(config))
    shape = (terms.coordinates, terms.each)
    simulator.agent_encoder.shared.copy_(torch.randn(terms.rank, generator=generator))
    deviation = torch.randn(1, config.num_agents, *shape, generator=generator) * varying
    simulator.agent_encoder.deviation.copy_(deviation.flatten(2))
    simulator.prior_mean.copy_(simulator.agent_encoder.shared[:, 0])
    simulator.prior_covariance.copy_(torch.eye(terms.rank, dtype=torch.float64))
    simulator.noise.fill_(0.5)
    return simulator, terms


def questions(config):
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(7, 2, generator=generator)
    if config.num_actions is not None:
        return states, torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    return states, torch.randn(7, 2, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("config", [CONTINUOUS, DISCRETE])
def test_factors_are_coefficients_of_the_terms(config):
    simulator, terms = drawn(config, torch.ones(AffineTerms.of(config).each))
    states, actions, agents = questions(config)
    known = statistics(config)
    scaled = (states - known.state_mean) / known.state_std
    inputs = [scaled, states[:, [1]].sin(), states[:, [1]].cos()] if config.angles else [scaled]
    if config.num_actions is None:
        acting = (actions - known.action_mean) / known.action_std
    else:
        acting = torch.nn.functional.one_hot(actions, 3)[:, 1:].float()
    features = torch.cat((torch.ones(7, 1), *inputs, acting), dim=1)
    coefficients = simulator.agent_encoder.table()[0].view(3, terms.coordinates, terms.each)
    expected = torch.einsum("bp,bdp->bd", features, coefficients[agents]) * known.delta_rms
    torch.testing.assert_close(simulator(agents[None], states[None], actions[None])[0], expected)


@pytest.mark.parametrize("config", [CONTINUOUS, DISCRETE])
@pytest.mark.parametrize("which", ["none", "intercept", "all"])
def test_fewer_ranks_predict_the_same(config, which):
    each = AffineTerms.of(config).each
    varying = torch.full((each,), which == "all")
    varying[0] = which != "none"
    simulator, terms = drawn(config, varying)
    compact = compact_affine(simulator, varying)
    assert compact.config.ranks.agent == 1 + terms.actions + 2 * int(varying.sum())
    states, actions, agents = questions(config)
    before, after = (each(agents[None], states[None], actions[None]) for each in (simulator, compact))
    torch.testing.assert_close(after, before)
    assert torch.equal(compact.noise, simulator.noise)
    assert bool((compact.prior_covariance[0].diagonal() > 0).all())


@torch.no_grad()
@pytest.mark.parametrize("config", [CONTINUOUS, DISCRETE])
def test_merged_members_predict_as_before_in_every_form(config):
    torch.manual_seed(0)
    neural = Simulator(replace(config, members=2, ranks=Ranks(4, 4, 4)))
    neural.set_statistics(statistics(config))
    neural.noise.fill_(1.0)
    neural.prior_mean.zero_()
    neural.prior_covariance.copy_(torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    varying = torch.ones(AffineTerms.of(config).each, dtype=torch.bool)
    affine = compact_affine(drawn(config, varying)[0], varying)
    merged = merge_members([affine, neural], config)
    states, actions, agents = questions(config)
    parts = []
    for each in (affine, neural):
        shared = (value.expand(each.members, *value.shape) for value in (agents, states, actions))
        parts.append(each(*shared))
    many = agents.expand(3, -1), states.expand(3, -1, -1), actions.expand(3, *actions.shape)
    torch.testing.assert_close(merged(*many), torch.cat(parts), rtol=1e-4, atol=1e-5)
    # Contracted for planning, and as a tensor.
    one = personalize(merged, 1)(many[1], actions)
    torch.testing.assert_close(one, merged(torch.ones_like(many[0]), *many[1:]), rtol=1e-4, atol=1e-5)
    grid = torch.arange(3) if config.num_actions else actions
    dense = to_dense(merged.as_tensor(torch.arange(3), states, grid))
    for a in range(len(grid)):
        acted = grid[a].expand(7, *grid.shape[1:])
        direct = merged(torch.full((3, 7), 2), many[1], acted.expand(3, *acted.shape)).mean(0)
        np.testing.assert_allclose(dense[2, :, a], direct.flatten().detach(), rtol=1e-3, atol=1e-4)
    assert bool((torch.linalg.eigvalsh(merged.prior_covariance) > 0).all())


def test_tucker_models_are_not_merged():
    tucker = Simulator(replace(CONTINUOUS, ranks=Ranks(2, 3, 2), factorization="tucker"))
    with pytest.raises(ConfigurationError, match="only CP factorizations can be merged"):
        merge_members([tucker], CONTINUOUS)
