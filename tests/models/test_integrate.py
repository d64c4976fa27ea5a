"""Integration over durations: order of convergence, sub-steps, and stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from persim_lightning.models.agent_simulator import personalize
from persim_lightning.models.chained import predict_chains
from persim_lightning.models.integrate import integrate, substeps
from persim_lightning.types import Chains
from tests.conftest import random_actions, random_simulator


def unchanged(states):
    return states


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("rk4", 4)])
def test_errors_fall_with_the_order_of_the_integrator(integrator, order):
    """A pendulum over one time unit, in 4 to 32 sub-steps."""

    def rate(states):
        return torch.stack((states[..., 1], -states[..., 0].sin()), -1)

    start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = integrate(lambda s: rate(s) / 4096, start, torch.tensor([4096.0], dtype=torch.float64), "rk4", unchanged)
    counts = torch.tensor([4.0, 8, 16, 32], dtype=torch.float64)
    errors = [
        (integrate(lambda s, n=n: rate(s) / n, start, n[None], integrator, unchanged) - exact).norm() for n in counts
    ]
    logs = torch.stack(errors).log2()
    slopes = -logs.diff()
    assert abs(float(slopes[-1]) - order) < 0.25


def test_one_step_of_euler_is_the_map_of_an_evenly_spaced_table():
    states = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    once = integrate(torch.sin, states, None, "euler", unchanged)
    assert torch.equal(once, states + states.sin())
    assert torch.equal(integrate(torch.sin, states, torch.ones(5), "euler", unchanged), once)


def test_durations_are_divided_into_whole_base_steps_and_a_rest():
    states = torch.zeros(4, 1)
    spans = torch.tensor([0.0, 0.5, 2.0, 2.25])
    assert substeps(spans) == 3
    assert substeps(torch.tensor([2.0000001])) == 2
    moved = integrate(torch.ones_like, states, spans, "euler", unchanged)
    assert moved[:, 0].tolist() == [0.0, 0.5, 2.0, 2.25]
    clamped = integrate(torch.ones_like, states, spans, "euler", lambda s: s.clamp(max=1.5))
    assert clamped[:, 0].tolist() == [0.0, 0.5, 1.5, 1.5]


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_personalized_simulators_integrate_as_the_population_does(integrator):
    simulator = random_simulator("cp", 3, torch.inf)
    simulator.config = replace(simulator.config, integrator=integrator)
    states, actions = torch.randn(4, 3), random_actions(3, 7).expand(4, -1)
    spans = torch.rand(4, 7) * 2
    agents = torch.tensor([2, 2, 2, 2])
    whole = simulator.rollout(agents, states, actions, spans)
    step = states.expand(simulator.members, -1, -1)
    own = personalize(simulator, 2)
    for h in range(7):
        step = own.step(step, actions[:, h], duration=spans[:, h])
        torch.testing.assert_close(step, whole[:, :, h + 1], rtol=1e-3, atol=1e-3)


def test_chains_replace_what_was_observed_and_carry_the_rest():
    """Against one member, chain and step at a time."""
    simulator = random_simulator("cp", 3, torch.inf)
    generator = torch.Generator().manual_seed(1)
    members, batch, length = simulator.members, 4, 3
    shape = (members, batch, length, 3)
    chains = Chains(
        agent=torch.randint(6, (members, batch), generator=generator),
        state=torch.randn(members, batch, 3, generator=generator),
        action=torch.randint(3, shape[:3], generator=generator),
        duration=torch.randint(3, shape[:3], generator=generator).float(),
        target=torch.randn(shape, generator=generator),
        observed=torch.rand(shape, generator=generator) < 0.5,
        scored=torch.ones(shape, dtype=torch.bool),
    )
    with torch.no_grad():
        found = predict_chains(simulator, simulator.agent_encoder(chains.agent), chains)
        for member in range(members):
            for row in range(batch):
                state = chains.state[member, row]
                for step in range(length):
                    for _ in range(int(chains.duration[member, row, step])):
                        agent, action = chains.agent[member, row], chains.action[member, row, step]
                        every = state.expand(members, 1, 3)
                        state = simulator.step(agent[None], every, action[None])[member, 0]
                    torch.testing.assert_close(found[member, row, step], state, rtol=1e-4, atol=1e-4)
                    state = torch.where(chains.observed[member, row, step], chains.target[member, row, step], state)
