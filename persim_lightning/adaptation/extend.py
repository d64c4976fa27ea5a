"""Adds agents to populations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from persim_lightning.errors import ConfigurationError
from persim_lightning.models.population import FittedPopulation
from persim_lightning.models.simulator import empty_simulator


@torch.no_grad()
def extend_population(
    population: FittedPopulation, agent_ids: Sequence[int | str], factors: Tensor
) -> FittedPopulation:
    """Append agents to the fitted ones.

    Parameters
    ----------
    population : FittedPopulation
        It is not changed.
    agent_ids : sequence of int or str
        K new ids.
    factors : Tensor, shape (M, K, R)

    Raises
    ------
    ConfigurationError
        If an id exists already.
    """
    present = set(population.agent_ids)
    known = [label for label in agent_ids if label in present]
    if known:
        raise ConfigurationError(f"agent {known[0]!r} is in the population already")
    before = population.simulator
    config = before.config.with_agents(before.num_agents + len(agent_ids))
    simulator = empty_simulator(config).to(before.delta_rms.device)
    state = before.state_dict()
    deviation = factors.to(before.delta_rms) - before.agent_encoder.shared
    state["agent_encoder.deviation"] = torch.cat((before.agent_encoder.deviation, deviation), dim=1)
    simulator.load_state_dict(state)
    return FittedPopulation(simulator, population.schema, (*population.agent_ids, *agent_ids))
