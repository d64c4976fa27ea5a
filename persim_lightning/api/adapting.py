"""Adds agents to a fitted population in closed form, from rows, covariates, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import torch

from persim_lightning.adaptation.covariate_map import CovariateMap
from persim_lightning.adaptation.covariate_prior import without_missing
from persim_lightning.adaptation.extend import extend_population
from persim_lightning.adaptation.posterior import FactorPosterior, FactorPrior, fit_posterior, population_prior
from persim_lightning.data.chains import sample_batches
from persim_lightning.data.tables.arrow import id_column
from persim_lightning.data.tables.covariates import covariates_from_table
from persim_lightning.data.tables.sources import as_table
from persim_lightning.data.tables.user import read_like
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.agent_posteriors import prior_of_covariates
from persim_lightning.models.population import FittedPopulation
from persim_lightning.types import Chains, Transitions


def adapt_population(
    population: FittedPopulation,
    rows: Any,
    covariates: Any = None,
    known_covariates: Any = None,
    recorded: Trajectories | None = None,
) -> tuple[FittedPopulation, Trajectories | None]:
    """Add agents to a population, with posterior means as factors.

    Parameters
    ----------
    population : FittedPopulation
    rows, covariates, known_covariates : table, optional
        As for :meth:`~persim_lightning.api.simulator.PersonalizedSimulator.adapt`; rows may also be trajectories.

    recorded : Trajectories, optional
        Training trajectories, whose covariates determine the prior of new agents that have covariates in their rows.

    Returns
    -------
    population : FittedPopulation
        Population of all agents, including the new ones.
    seen : Trajectories or None
        Rows of the new agents.

    Raises
    ------
    PersimError
        If a table is invalid, or an agent is in the population already.
    """
    if rows is None and covariates is None:
        raise ConfigurationError("adapt needs rows, covariates, or both")
    if len(population.agent_ids) < 2:
        raise ConfigurationError("adapt needs several fitted agents, to estimate how agents differ")
    seen = rows if rows is None or isinstance(rows, Trajectories) else read_like(population.schema, rows, "rows")
    if covariates is None:
        assert seen is not None
        own = prior_of_covariates(population, recorded, seen.covariates)
        prior, ids = own or population_prior(population.simulator), seen.agent_ids
    else:
        prior, ids = _covariate_prior(population, seen, covariates, known_covariates)
    _check_ids(ids, population.agent_ids)
    simulator = population.simulator
    if seen is None:
        return extend_population(population, ids, FactorPosterior(simulator, prior, len(ids)).mean), seen
    index = {label: row for row, label in enumerate(ids)}
    position = torch.tensor([index[label] for label in seen.agent_ids])
    rows = seen.split_rows(0.0)[0]

    def batches() -> Iterator[Transitions | Chains]:
        for batch in sample_batches(seen, rows, simulator.walls.contacts):
            yield batch._replace(agent=position[batch.agent])

    return extend_population(population, ids, fit_posterior(simulator, prior, len(ids), batches).mean), seen


def _covariate_prior(
    population: FittedPopulation, seen: Trajectories | None, covariates: Any, known_covariates: Any
) -> tuple[FactorPrior, tuple[int | str, ...]]:
    """Compute the prior of new agents from their covariates; return it with their ids."""
    if known_covariates is None:
        raise ConfigurationError("adapt: covariates need known_covariates, the covariates of the fitted agents")
    column = population.schema.agent
    table, source = as_table(covariates, "covariates", (column,))
    ids = _ids(table, column, source)
    names, values = covariates_from_table(table, ids, source, column)
    with_covariates = set(ids)
    absent = [] if seen is None else [label for label in seen.agent_ids if label not in with_covariates]
    if absent:
        raise ConfigurationError(f"{source}: no covariates of agent {absent[0]}, which has rows")
    known, known_source = as_table(known_covariates, "known_covariates", (column,))
    present = set(_ids(known, column, known_source))
    fitted = [label for label in population.agent_ids if label in present]
    known_names, known_values = covariates_from_table(known, fitted, known_source, column)
    if set(names) != set(known_names):
        raise ConfigurationError(f"covariates are {', '.join(names)}, but known_covariates {', '.join(known_names)}")
    order = [names.index(name) for name in known_names]
    factors = population.simulator.agent_encoder.table().detach()
    factors = factors[:, population.index(fitted)] if fitted else factors[:, :0]
    complete, wanted = without_missing(known_values, values[:, order])
    return CovariateMap(complete, factors)(wanted), ids


def _ids(table: pa.Table, column: str, source: str) -> tuple[int | str, ...]:
    """Ids in a table of covariates, in its order; none without the column."""
    if column not in table.column_names:
        return ()
    return tuple(id_column(table[column], column, source).to_pylist())


def _check_ids(ids: Sequence[int | str], fitted: Sequence[int | str]) -> None:
    """Refuse duplicate ids, and ids of another type than the fitted agents'."""
    kind = type(fitted[0])
    odd = [label for label in ids if type(label) is not kind]
    if odd:
        raise ConfigurationError(f"agent {odd[0]!r}: the fitted agents' ids are of type {kind.__name__}")
    twice = [label for label, count in Counter(ids).items() if count > 1]
    if twice:
        raise ConfigurationError(f"agent {twice[0]!r} is listed twice")
