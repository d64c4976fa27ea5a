"""The rungs below the neural model: simple dynamics that are fitted in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from persim_lightning.adaptation.hierarchical import fit_affine
from persim_lightning.data.batches import PART_ROWS
from persim_lightning.data.chains import ChainGather, rollout_chains, sample_batches
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.models.affine import AffineTerms, affine_simulator, compact_affine
from persim_lightning.models.config import SimulatorConfig
from persim_lightning.models.simulator import Simulator
from persim_lightning.support.sampling import thinned
from persim_lightning.types import Chains, Statistics, Transitions

# Coefficients of uneven tables, and of chains, that are solved for together at most.
_MAX_COUPLED = 72
# Largest number of entries of all agents' matrices.
_MAX_ENTRIES = 1 << 27
# Rows of chains of several steps, at most.
_MAX_CHAIN_ROWS = 1 << 15


@dataclass(frozen=True)
class Rung:
    """Simple dynamics.

    Attributes
    ----------
    name : str
    varying : {'nothing', 'none', 'intercept', 'all'}
        Which coefficients differ between agents; with 'nothing', states stay as they are.
    steps : int
        Rows that are predicted in open loop in the fit.
    """

    name: str
    varying: Literal["nothing", "none", "intercept", "all"]
    steps: int = 1


def rungs(steps: int) -> tuple[Rung, ...]:
    """List the rungs from the simplest on.

    Parameters
    ----------
    steps : int
        Rows that are predicted in open loop by the rungs that are fitted on rollouts.
    """
    one = [
        Rung("persistence", "nothing"),
        Rung("affine", "none"),
        Rung("affine with intercepts of agents", "intercept"),
        Rung("affine model of each agent", "all"),
    ]
    if steps > 1:
        one.append(Rung(f"affine over {steps} rows", "none", steps))
    return tuple(one)


def fit_rung(
    rung: Rung, trajectories: Trajectories, rows: Tensor, config: SimulatorConfig, statistics: Statistics
) -> Simulator | None:
    """Fit simple dynamics.

    Parameters
    ----------
    rung : Rung
    trajectories : Trajectories
    rows : Tensor, shape (T,), int64
        Rows that start a transition to learn from.
    config : SimulatorConfig
        Sizes and options of the data.
    statistics : Statistics

    Returns
    -------
    Simulator or None
        One member; None if the table has too many columns or agents.
    """
    terms = AffineTerms.of(config)
    coupled = rung.steps > 1 or not trajectories.is_regular
    size = terms.rank**2 if coupled else terms.coordinates * terms.each**2
    if rung.varying != "nothing" and (
        (coupled and terms.rank > _MAX_COUPLED) or size * trajectories.num_agents > _MAX_ENTRIES
    ):
        return None
    simulator = affine_simulator(config, statistics)
    varying = torch.full((terms.each,), rung.varying == "all")
    varying[0] = rung.varying in ("intercept", "all")
    if rung.varying == "nothing":
        simulator.prior_covariance.zero_()
        simulator.noise.fill_(1.0)
        return compact_affine(simulator, varying)

    def batches() -> Iterator[Transitions | Chains]:
        if rung.steps == 1:
            yield from sample_batches(trajectories, rows, simulator.walls.contacts)
            return
        starts, lengths = rollout_chains(trajectories, rows, rung.steps)
        if len(starts):
            gather = ChainGather(trajectories, starts, lengths, simulator.walls.contacts, open_loop=True)
            for part in thinned(starts, _MAX_CHAIN_ROWS // rung.steps).split(max(1, PART_ROWS // rung.steps)):
                yield gather(part)

    fit_affine(simulator, batches, varying, weight=1 / rung.steps)
    return compact_affine(simulator, varying)
