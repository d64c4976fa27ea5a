"""Is the true dynamics tensor low-rank, and at which rank?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.theory.lowrank import Compressed, compress, cp_fit, tucker_error
from persim_lightning.theory.observed import observed_curve, visited_cells
from persim_lightning.theory.results import RankCurve, TruthCheck
from persim_lightning.theory.sample import Sample
from persim_lightning.theory.spectrum import normalized_spectra
from persim_lightning.theory.tensors import coordinate_scales, merged, true_tensor

RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
_COORDINATE_RANKS = (1, 2, 3, 5)


class TrueTensor(NamedTuple):
    """The true tensor of a sample.

    Attributes
    ----------
    scaled : ndarray, shape (N, S, A, D)
        Coordinates divided by `scale`.
    scale : ndarray, shape (D,)
    compressed : Compressed
        The tensor (N, S·D, A), compressed.
    """

    scaled: np.ndarray
    scale: np.ndarray
    compressed: Compressed

    @classmethod
    def of(cls, environment: Environment, covariates: Tensor, sample: Sample) -> TrueTensor:
        """Simulate one step of the environment for agents with covariates (N, C)."""
        tensor = true_tensor(environment, covariates, sample.states, sample.actions)
        scale = coordinate_scales(tensor)
        return cls(tensor / scale, scale, compress(merged(tensor / scale), 3 * max(RANKS)))


def rank_curve(compressed: Compressed, ranks: Sequence[int], inits: int = 3, iterations: int = 1000) -> RankCurve:
    """Decompose a three-way tensor at several ranks; `inits` and `iterations` are those of :func:`cp_fit`."""
    fits = [cp_fit(compressed, rank, inits, iterations) for rank in ranks]
    return RankCurve(
        spectrum=normalized_spectra(compressed.spectra),
        ranks=list(ranks),
        cp=[fit.error for fit in fits],
        cp_errors=[fit.errors for fit in fits],
        converged=[fit.converged for fit in fits],
        core_consistency=[fit.core_consistency for fit in fits],
        tucker=[tucker_error(compressed, (rank,) * 3) for rank in ranks],
    )


def check_truth(
    truth: TrueTensor, coordinate_names: Sequence[str], sample: Sample, trajectories: Trajectories
) -> TruthCheck:
    """Decompose the true dynamics tensor.

    Parameters
    ----------
    truth : TrueTensor
    coordinate_names : sequence of str
    sample : Sample
    trajectories : Trajectories
        Determine which cells are visited.
    """
    coordinates = {
        name: rank_curve(
            compress(merged(truth.scaled[..., index : index + 1]), 3 * max(_COORDINATE_RANKS)),
            _COORDINATE_RANKS,
            inits=1,
            iterations=200,
        )
        for index, name in enumerate(coordinate_names)
    }
    observed = observed_curve(truth.scaled, visited_cells(trajectories, *sample), _COORDINATE_RANKS)
    return TruthCheck(rank_curve(truth.compressed, RANKS), coordinates, observed)
