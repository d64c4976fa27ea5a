"""Factors from chains: the linearization against finite differences, and the posterior against a complete table."""

from __future__ import annotations

import torch

from persim_lightning.adaptation.designs import agent_designs, linearized
from persim_lightning.adaptation.posterior import FactorPosterior, fit_posterior, moment_prior
from persim_lightning.models.chained import expand_members, predict_chains
from persim_lightning.types import Chains, Transitions
from tests.conftest import random_simulator


def chains(steps, batch=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, steps, 3)
    return Chains(
        agent=torch.randint(2, (batch,), generator=generator),
        state=torch.randn(batch, 3, generator=generator),
        action=torch.randint(3, shape[:2], generator=generator),
        duration=torch.ones(shape[:2]),
        target=torch.randn(shape, generator=generator),
        observed=torch.rand(shape, generator=generator) < 0.6,
        scored=torch.rand(shape, generator=generator) < 0.8,
    )


def test_one_complete_step_is_the_linear_design():
    simulator = random_simulator("tucker", 3, torch.inf)
    batch = chains(1)
    batch = batch._replace(scored=torch.ones_like(batch.scored))
    factors = simulator.agent_encoder.table()[:, batch.agent].detach()
    linear = linearized(simulator, batch, factors)
    transitions = Transitions(batch.agent, batch.state, batch.action[:, 0], batch.target[:, 0] - batch.state)
    torch.testing.assert_close(linear.design, agent_designs(simulator, transitions), rtol=1e-4, atol=1e-5)
    target = (transitions.delta / simulator.delta_rms).double().expand_as(linear.target)
    torch.testing.assert_close(linear.target, target, rtol=1e-3, atol=1e-3)


def test_the_design_of_chains_is_their_derivative():
    simulator = random_simulator("cp", 3, torch.inf).double()
    batch = Chains(*(part.double() if part.is_floating_point() else part for part in chains(3)))
    shared = expand_members(batch, simulator.members)
    factors = simulator.agent_encoder.table()[:, batch.agent].detach()
    linear = linearized(simulator, batch, factors)
    scored = shared.scored.flatten(2)
    with torch.no_grad():
        for rank in range(factors.shape[-1]):
            moved = factors.clone()
            moved[..., rank] += 1e-6
            difference = predict_chains(simulator, moved, shared) - predict_chains(simulator, factors, shared)
            expected = (difference / 1e-6 / simulator.delta_rms).flatten(2)
            expected = torch.where(scored, expected, 0.0)
            torch.testing.assert_close(linear.design[..., rank], expected, rtol=1e-3, atol=1e-3)


def test_chains_of_one_complete_step_give_the_posterior_of_transitions():
    simulator = random_simulator("cp", 3, torch.inf)
    simulator.noise.fill_(0.3)
    batch = chains(1, batch=40)
    batch = batch._replace(observed=torch.ones_like(batch.observed), scored=torch.ones_like(batch.scored))
    transitions = Transitions(batch.agent, batch.state, batch.action[:, 0], batch.target[:, 0] - batch.state)
    prior = moment_prior(simulator.agent_encoder.table().detach())
    whole = FactorPosterior(simulator, prior, 2).update(transitions)
    chained = fit_posterior(simulator, prior, 2, lambda: iter([batch]))
    torch.testing.assert_close(chained.mean, whole.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(chained.root @ chained.root.mT, whole.root @ whole.root.mT, rtol=1e-3, atol=1e-4)


def test_factors_are_found_again_from_chains_with_missing_values():
    """Exact chains of an agent, noise small: a few rounds reach its factor."""
    simulator = random_simulator("cp", 3, torch.inf)
    simulator.noise.fill_(1e-6)
    truth = simulator.agent_encoder.table()[:, 3:4].detach()
    batch = chains(2, batch=200)._replace(agent=torch.zeros(200, dtype=torch.int64))
    batch = batch._replace(duration=torch.full((200, 2), 0.2), scored=batch.observed)
    # Without measurements on the way, so that the states are the agent's own.
    free = expand_members(batch._replace(observed=torch.zeros_like(batch.observed)), simulator.members)
    prior = moment_prior(simulator.agent_encoder.table().detach())
    for member in range(simulator.members):
        with torch.no_grad():
            exact = predict_chains(simulator, truth.expand(-1, 200, -1), free)[member]
        own = batch._replace(target=exact)
        found = fit_posterior(simulator, prior, 1, lambda own=own: iter([own]))
        torch.testing.assert_close(found.mean[member].float(), truth[member], atol=2e-2, rtol=2e-2)
