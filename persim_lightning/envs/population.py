"""Populations of agents: the test agents have ids 0-4, the others have random covariates."""

from __future__ import annotations

import torch
from torch import Tensor

from persim_lightning.envs.environment import Environment
from persim_lightning.errors import ConfigurationError


def sample_population(environment: Environment, num_agents: int, seed: int) -> Tensor:
    """Draw the covariates of a population.

    Parameters
    ----------
    environment : Environment
    num_agents : int
        N, at least the number of test agents.
    seed : int

    Returns
    -------
    Tensor, shape (N, C), float64
        Rows 0-4 are the test agents; the others are uniform in the covariates' ranges (PerSim, section 5).

    Raises
    ------
    ConfigurationError
        If N is smaller than the number of test agents.
    """
    test = torch.tensor(environment.test_agents, dtype=torch.float64)
    if num_agents < len(test):
        raise ConfigurationError(
            f"num_agents={num_agents} is too small: a population contains the {len(test)} test agents"
        )
    low = torch.tensor([covariate.low for covariate in environment.covariates], dtype=torch.float64)
    high = torch.tensor([covariate.high for covariate in environment.covariates], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(num_agents - len(test), len(low), generator=generator, dtype=torch.float64)
    return torch.cat((test, low + (high - low) * uniform))
