"""Posteriors of agents' factors given what is recorded of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from persim_lightning.adaptation.covariate_prior import covariate_map, without_missing
from persim_lightning.adaptation.posterior import FactorPosterior, FactorPrior, fit_posterior, population_prior
from persim_lightning.data.chains import sample_batches
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.population import FittedPopulation, KeptMap
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
    index = {label: row for row, label in enumerate(recorded.agent_ids)}
    labels = [population.agent_ids[agent] for agent in agents.tolist()]
    prior = None
    # Agents that were adapted from covariates alone have no rows.
    if recorded.covariates is not None and all(label in index for label in labels):
        own = recorded.covariates[[index[label] for label in labels]]
        prior = prior_of_covariates(population, recorded, own, tail)
    return _posterior(population, recorded, agents, prior or population_prior(population.simulator), tail)


def _posterior(
    population: FittedPopulation, recorded: Trajectories, agents: Tensor, prior: FactorPrior, tail: float
) -> FactorPosterior:
    """Compute the posterior of agents (B,) under a prior; those without rows keep it."""
    place = {population.agent_ids[agent]: position for position, agent in enumerate(agents.tolist())}
    position = torch.tensor([place.get(label, -1) for label in recorded.agent_ids], dtype=torch.int64)
    rows, _ = recorded.split_rows(tail)
    rows = rows[position[recorded.row_agent()[rows]] >= 0]

    def batches() -> Iterator[Transitions | Chains]:
        for batch in sample_batches(recorded, rows, population.simulator.walls.contacts):
            yield batch._replace(agent=position[batch.agent])

    return fit_posterior(population.simulator, prior, len(agents), batches)


def prior_of_covariates(
    population: FittedPopulation, recorded: Trajectories | None, covariates: Tensor | None, tail: float = 0.0
) -> FactorPrior | None:
    """Predict the prior of agents from covariates (K, C) that are columns of their table.

    The map is estimated from posteriors under the population's prior: factors under the map's own prior would have been
    shrunk to it, and every new estimate would be narrower.

    Parameters
    ----------
    population : FittedPopulation
        Keeps the map, so that it is estimated once.
    recorded : Trajectories or None
        Trajectories of its agents, whose covariates and rows determine the map.
    covariates : Tensor, shape (K, C), or None
        NaN where missing.
    tail : float
        As for :func:`agent_posterior`.

    Returns
    -------
    FactorPrior or None
        None if there are no covariates, too few agents, or nothing differs between them.
    """
    if recorded is None or recorded.covariates is None or covariates is None:
        return None
    known = recorded.covariates.numpy()
    _, wanted = without_missing(known, covariates.numpy())
    logarithms = bool((wanted > 0).all())
    kept = population.covariate_map
    if kept is None or kept.covariates is not recorded.covariates or kept.key != (tail, logarithms):
        agents = population.index(recorded.agent_ids)
        factors = _posterior(population, recorded, agents, population_prior(population.simulator), tail).mean
        found = covariate_map(factors, known, logarithms)
        kept = population.covariate_map = KeptMap(recorded.covariates, (tail, logarithms), found)
    return None if kept.map is None else kept.map(wanted)


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
