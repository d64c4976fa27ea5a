"""The low-rank theorem, checked: are the true dynamics low-rank, at which rank, and did training find the factors?"""

from __future__ import annotations

import torch

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.models.population import FittedPopulation
from persim_lightning.theory.learned import check_learned
from persim_lightning.theory.results import AgentCovariates, TheoremCheck
from persim_lightning.theory.sample import Sample, sample_cells
from persim_lightning.theory.truth import TrueTensor, check_truth


def check_theorem(
    name: str,
    personalized: FittedPopulation | None,
    trajectories: Trajectories,
    environment: Environment | None,
    covariates: AgentCovariates | None,
    sample: Sample | None = None,
) -> TheoremCheck:
    """Check the true dynamics, if known, and a fitted simulator, if given.

    Parameters
    ----------
    name : str
        Name of the environment or the run.
    personalized : FittedPopulation or None
    trajectories : Trajectories
        Recorded trajectories of the same agents: states and actions are sampled from them.
    environment : Environment or None
    covariates : AgentCovariates or None
        Covariates of all agents. The true dynamics are known if these include the environment's covariates.
    sample : Sample, optional
        Drawn from the trajectories if not given.
    """
    sample = sample or sample_cells(trajectories)
    truth, tensor = None, None
    if environment is not None and covariates is not None:
        required = [covariate.name for covariate in environment.covariates]
        if set(required) <= set(covariates.names):
            values = covariates.values[:, [covariates.names.index(covariate) for covariate in required]]
            tensor = TrueTensor.of(environment, torch.from_numpy(values)[sample.agents], sample)
            truth = check_truth(tensor, environment.state_names, sample, trajectories)
    learned, recovered = None, None
    if personalized is not None:
        learned, recovered = check_learned(personalized, sample, tensor, covariates)
    return TheoremCheck(name, sample.to_dict(), truth, learned, covariates, recovered)
