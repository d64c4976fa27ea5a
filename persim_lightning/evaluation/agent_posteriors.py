"""Posteriors of agents' factors given what is recorded of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from persim_lightning.adaptation.covariate_prior import covariate_prior
from persim_lightning.adaptation.posterior import FactorPosterior, FactorPrior, fit_posterior, population_prior
from persim_lightning.data.chains import sample_batches
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Chains, Transitions


def agent_posterior(
    population: FittedPopulation, recorded: Trajectories, agents: Tensor, tail: float = 0.0
) -> FactorPosterior:
    """Compute the posterior of agents' factors given their recorded rows.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        Recorded rows of its agents; agents without rows keep the population's prior.
    agents : Tensor, shape (B,), int64
        Distinct indices in the population.
    tail : float
        Share of every trajectory, at its tail, that is left out.
    """
    simulator = population.simulator
    index = {label: row for row, label in enumerate(recorded.agent_ids)}
    # Agents that were adapted from covariates alone have no rows.
    positions = {
        index[population.agent_ids[agent]]: position
        for position, agent in enumerate(agents.tolist())
        if population.agent_ids[agent] in index
    }
    position = torch.full((recorded.num_agents,), -1)
    position[torch.tensor(list(positions), dtype=torch.int64)] = torch.tensor(
        list(positions.values()), dtype=torch.int64
    )
    rows, _ = recorded.split_rows(tail)
    rows = rows[position[recorded.row_agent()[rows]] >= 0]

    def batches() -> Iterator[Transitions | Chains]:
        for batch in sample_batches(recorded, rows, simulator.walls.contacts):
            yield batch._replace(agent=position[batch.agent])

    prior = None
    if len(positions) == len(agents) and recorded.covariates is not None:
        own = torch.argsort(position)[-len(agents) :]
        prior = prior_of_covariates(population, recorded, recorded.covariates[own])
    return fit_posterior(simulator, prior or population_prior(simulator), len(agents), batches)


def prior_of_covariates(
    population: FittedPopulation, recorded: Trajectories | None, covariates: Tensor | None
) -> FactorPrior | None:
    """Predict the prior of agents from covariates (K, C) that are columns of their table.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories or None
        Trajectories of its agents, whose covariates and factors determine the map.
    covariates : Tensor, shape (K, C), or None
        NaN where missing.

    Returns
    -------
    FactorPrior or None
        None if there are no covariates, too few agents, or nothing differs between them.
    """
    if recorded is None or recorded.covariates is None or covariates is None:
        return None
    factors = population.simulator.agent_encoder.table()[:, population.index(recorded.agent_ids)]
    return covariate_prior(factors, recorded.covariates.numpy(), covariates.numpy())


@torch.no_grad()
def refit_on_all_rows(population: FittedPopulation, recorded: Trajectories) -> None:
    """Replace agents' factors, in place, by their posterior means given all recorded rows, held-out tails included.

    The encoders stay as they were trained. A population that was fitted without agent factors stays as it is.

    Parameters
    ----------
    population : FittedPopulation
    recorded : Trajectories
        Trajectories of all its agents.
    """
    encoder = population.simulator.agent_encoder
    if not bool(encoder.deviation.any()):
        return
    posterior = agent_posterior(population, recorded, population.index(population.agent_ids))
    encoder.deviation.copy_(posterior.mean - encoder.shared)
