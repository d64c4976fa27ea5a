"""Measure the rank of a tensor: multilinear spectrum, CP and Tucker errors, core consistency.

TensorLy decomposes, in float64, arrays scaled to unit root mean square. In single precision, alternating least squares
stalls at relative errors of 1e-3.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorly as tl
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac, tucker
from tensorly.tenalg import multi_mode_dot

# Regularizes the normal equations of a tensor of norm one, in case factors become parallel.
_RIDGE = 1e-13
_TUCKER_ITERATIONS = 50
# Iterations stop when the error changes by less than this. Fits start with the coarse tolerance; those with an error
# below _PROMISING may become exact and continue with the fine one.
_COARSE, _FINE, _PROMISING = 1e-7, 1e-12, 1e-2
# TensorLy computes errors as a difference of squares. Below about 1e-8 these are rounding errors, and TensorLy stops.
# Fits with an error below this value therefore continue without a stopping criterion.
_NEARLY_EXACT = 1e-6
# Singular values below this fraction of the largest one are rounding errors.
_ROUNDING = 1e-13


class RankFit(NamedTuple):
    """The best of several decompositions of one rank.

    Attributes
    ----------
    rank : int
    error : float
        Frobenius norm of the residual, relative to the tensor's norm.
    errors : list of float
        Errors of all initializations that did not fail.
    converged : int
        Number of initializations that converged before the iteration limit.
    core_consistency : float
        100 if the factors interact exactly as the CP model says. Much lower, even negative, if the rank is too high
        (Bro and Kiers, 2003, https://doi.org/10.1002/cem.801). Also low if factors are not unique.
    cp : CPTensor or None
        None if every initialization failed.
    """

    rank: int
    error: float
    errors: list[float]
    converged: int
    core_consistency: float
    cp: CPTensor | None


class Compressed(NamedTuple):
    """A tensor expressed in orthonormal bases of its leading multilinear singular vectors.

    Attributes
    ----------
    spectra : list of ndarray
        All singular values of every mode's unfolding.
    bases : list of ndarray, shapes (I_k, J_k)
    core : ndarray, shape (J_1, J_2, J_3)
        Core of the tensor scaled to norm one.
    norm : float
        Norm of the tensor.
    lost : float
        Relative error of the compression.
    """

    spectra: list[np.ndarray]
    bases: list[np.ndarray]
    core: np.ndarray
    norm: float
    lost: float

    def relative_error(self, core_error: float) -> float:
        """Return the tensor's relative error for an error of the core; it is orthogonal to the compression error."""
        return float(np.hypot(core_error, self.lost))


def compress(tensor: np.ndarray, limit: int) -> Compressed:
    """Compress by higher-order SVD (De Lathauwer et al., 2000, https://doi.org/10.1137/S0895479896305696).

    Parameters
    ----------
    tensor : ndarray, three modes
    limit : int
        Largest number of directions per mode. Directions that are rounding errors are always dropped.
    """
    norm = float(np.linalg.norm(tensor))
    unit = tensor / norm if norm > 0 else tensor
    spectra, bases = [], []
    for mode in range(tensor.ndim):
        left, singular, _ = np.linalg.svd(tl.unfold(unit, mode), full_matrices=False)
        kept = max(1, int((singular > _ROUNDING * singular[0]).sum()))
        spectra.append(singular)
        bases.append(left[:, : min(kept, limit)])
    core = multi_mode_dot(unit, [basis.T for basis in bases])
    lost = float(np.linalg.norm(unit - multi_mode_dot(core, bases)))
    return Compressed(spectra, bases, core, norm, lost)


def cp_fit(compressed: Compressed, rank: int, inits: int = 3, iterations: int = 1000) -> RankFit:
    """Compute a CP decomposition by alternating least squares, the best of several initializations.

    Parameters
    ----------
    compressed : Compressed
    rank : int
    inits : int
        Number of initializations: the first from singular vectors, the others random.
    iterations : int
        Iteration limit of each.
    """
    candidates: list[CPTensor] = []
    errors, converged = [], 0
    for index in range(inits):
        start = "random" if index else "svd"
        try:
            cp, history = _descend(compressed.core, rank, start, iterations, _COARSE, index)
        except np.linalg.LinAlgError:
            # Factors became parallel despite the ridge, for example with a single agent.
            continue
        candidates.append(cp)
        errors.append(_relative_error(compressed, cp))
        converged += len(history) < iterations
    if not candidates:
        return RankFit(rank, math.inf, [math.inf] * inits, 0, math.nan, None)
    best = int(np.argmin(errors))
    if errors[best] < _PROMISING:
        refined, _ = _descend(compressed.core, rank, candidates[best], iterations, _FINE, 0)
        if _relative_error(compressed, refined) < _NEARLY_EXACT:
            refined = parafac(compressed.core, rank, init=refined, n_iter_max=iterations, tol=0, l2_reg=_RIDGE)
        error = _relative_error(compressed, refined)
        if error < errors[best]:
            candidates[best], errors[best] = refined, error
    weights, factors = candidates[best]
    cp = CPTensor(
        (weights * compressed.norm, [basis @ factor for basis, factor in zip(compressed.bases, factors, strict=True)])
    )
    return RankFit(rank, min(errors), errors, converged, _core_consistency(compressed.core, weights, factors), cp)


def _descend(
    core: np.ndarray, rank: int, start: str | CPTensor, iterations: int, tolerance: float, seed: int
) -> tuple[CPTensor, list[float]]:
    """Run alternating least squares with line search; return the decomposition and the error of every iteration."""
    with warnings.catch_warnings():
        # TensorLy warns when the rank exceeds a mode's length. It then adds random vectors, as intended.
        warnings.filterwarnings("ignore", category=UserWarning)
        cp, history = parafac(
            core,
            rank,
            init=start,
            n_iter_max=iterations,
            tol=tolerance,
            l2_reg=_RIDGE,
            linesearch=True,
            random_state=seed,
            return_errors=True,
        )
    return cp, history


def _relative_error(compressed: Compressed, cp: CPTensor) -> float:
    core_error = float(np.linalg.norm(compressed.core - tl.cp_to_tensor(cp)))
    return compressed.relative_error(core_error) if np.isfinite(core_error) else np.inf


def _core_consistency(tensor: np.ndarray, weights: np.ndarray, factors: Sequence[np.ndarray]) -> float:
    """Compute 100·(1 - ‖G - I‖²/R), where G is the least-squares Tucker core for the CP factors."""
    rank = len(weights)
    scaled = [factors[0] * weights, *factors[1:]]
    core = multi_mode_dot(tensor, [np.linalg.pinv(factor) for factor in scaled])
    ideal = np.zeros_like(core)
    ideal[(np.arange(rank),) * core.ndim] = 1
    return float(100 * (1 - np.square(core - ideal).sum() / rank))


def tucker_error(compressed: Compressed, ranks: Sequence[int]) -> float:
    """Return the relative error of a Tucker decomposition with these ranks (at most the core's shape)."""
    limited = [min(rank, size) for rank, size in zip(ranks, compressed.core.shape, strict=True)]
    decomposed = tucker(compressed.core, rank=limited, n_iter_max=_TUCKER_ITERATIONS, tol=1e-9)
    return compressed.relative_error(float(np.linalg.norm(compressed.core - tl.tucker_to_tensor(decomposed))))
