"""How low the rank of a tensor is: multilinear spectrum, CP and Tucker errors against rank, core consistency.

Everything is float64 on arrays scaled to unit root mean square: in single precision alternating least squares stalls at
relative errors of 1e-3. Decompositions are TensorLy's.
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

# Keeps the normal equations regular where factors become parallel, of a tensor of norm one.
_RIDGE = 1e-13
# Iterations stop when the error changes by less: coarse first, and fine for what may become exact.
_COARSE, _FINE, _PROMISING = 1e-7, 1e-12, 1e-2
# TensorLy computes errors as a difference of squares, which rounding hides below about 1e-8: it stops there. What comes
# this near goes on without looking at errors.
_NEARLY_EXACT = 1e-6
# Singular directions below this share of the largest one are rounding errors.
_ROUNDING = 1e-13


class RankFit(NamedTuple):
    """The best of several decompositions of one rank.

    Attributes
    ----------
    rank : int
    error : float
        Frobenius norm of what is left, relative to the tensor's.
    errors : list of float
        Of every initialization that did not fail.
    converged : int
        How many initializations stopped by themselves, before the limit on iterations.
    core_consistency : float
        100 where the CP model is all that there is between the factors; far below, even negative, where the rank is too
        high (Bro and Kiers, 2003, https://doi.org/10.1002/cem.801). Low, too, where factors are not unique.
    cp : CPTensor or None
        None where every initialization failed.
    """

    rank: int
    error: float
    errors: list[float]
    converged: int
    core_consistency: float
    cp: CPTensor | None


class Compressed(NamedTuple):
    """A tensor in the orthonormal bases of its leading multilinear singular vectors.

    Attributes
    ----------
    spectra : list of ndarray
        All singular values of every mode's unfolding.
    bases : list of ndarray, shapes (I_k, J_k)
    core : ndarray, shape (J_1, J_2, J_3)
        Of the tensor scaled to norm one.
    norm : float
        Of the tensor.
    lost : float
        Norm of what the core lacks, relative to the tensor's.
    """

    spectra: list[np.ndarray]
    bases: list[np.ndarray]
    core: np.ndarray
    norm: float
    lost: float

    def relative(self, remainder: float) -> float:
        """Error of what leaves `remainder` of the core, relative to the tensor: the two parts are orthogonal."""
        return float(np.hypot(remainder, self.lost))


def compress(tensor: np.ndarray, limit: int) -> Compressed:
    """Higher-order SVD (De Lathauwer et al., 2000, https://doi.org/10.1137/S0895479896305696).

    Parameters
    ----------
    tensor : ndarray, three modes
    limit : int
        At most so many directions a mode are kept; rounding errors never are.
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


def multilinear_rank(spectrum: np.ndarray, tolerance: float) -> int:
    """Directions of a mode that are needed to leave a relative error of at most `tolerance`."""
    square = np.square(spectrum)
    tail = np.sqrt(np.append(square[::-1].cumsum()[::-1], 0.0) / max(square.sum(), np.finfo(float).tiny))
    return int(np.argmax(tail <= tolerance))


def cp_fit(compressed: Compressed, rank: int, inits: int = 3, iterations: int = 1000, seed: int = 0) -> RankFit:
    """CP decomposition by alternating least squares, the best of several initializations.

    Parameters
    ----------
    compressed : Compressed
    rank : int
    inits : int
        The first starts from singular vectors, the others at random.
    iterations : int
        Limit of each.
    seed : int
    """
    candidates: list[CPTensor] = []
    errors, converged = [], 0
    for index in range(inits):
        start = "random" if index else "svd"
        try:
            cp, history = _descend(compressed.core, rank, start, iterations, _COARSE, seed + index)
        except np.linalg.LinAlgError:
            # Factors have become parallel beyond what the ridge mends, as with a single agent.
            continue
        candidates.append(cp)
        errors.append(_relative_error(compressed, cp))
        converged += len(history) < iterations
    if not candidates:
        return RankFit(rank, math.inf, [math.inf] * inits, 0, math.nan, None)
    best = int(np.argmin(errors))
    if errors[best] < _PROMISING:
        refined, _ = _descend(compressed.core, rank, candidates[best], iterations, _FINE, seed)
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
    """Alternating least squares with line search, and the errors along the way."""
    with warnings.catch_warnings():
        # Ranks above a mode's length are filled up at random, as intended.
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
    remainder = float(np.linalg.norm(compressed.core - tl.cp_to_tensor(cp)))
    return compressed.relative(remainder) if np.isfinite(remainder) else np.inf


def _core_consistency(tensor: np.ndarray, weights: np.ndarray, factors: Sequence[np.ndarray]) -> float:
    """100·(1 - ‖G - I‖²/R), where G is the least-squares Tucker core between the CP factors."""
    rank = len(weights)
    scaled = [factors[0] * weights, *factors[1:]]
    core = multi_mode_dot(tensor, [np.linalg.pinv(factor) for factor in scaled])
    ideal = np.zeros_like(core)
    ideal[(np.arange(rank),) * core.ndim] = 1
    return float(100 * (1 - np.square(core - ideal).sum() / rank))


def tucker_error(compressed: Compressed, ranks: Sequence[int], iterations: int = 50) -> float:
    """Relative error of the Tucker decomposition of these ranks (cut to the core's shape)."""
    chosen = [min(rank, size) for rank, size in zip(ranks, compressed.core.shape, strict=True)]
    decomposed = tucker(compressed.core, rank=chosen, n_iter_max=iterations, tol=1e-9)
    return compressed.relative(float(np.linalg.norm(compressed.core - tl.tucker_to_tensor(decomposed))))
