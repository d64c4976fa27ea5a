"""Test learned agent factors: compare subspaces, predict covariates, match unique factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import subspace_angles
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from tensorly.metrics.factors import congruence_coefficient

_FOLDS = 10
_PENALTIES = np.logspace(-6, 3, 19)
# Singular values below this fraction of the largest one count as zero.
_DEPENDENT = 1e-3
# Limit on the number of tested subsets of columns: there are 2^R.
_MAX_SUBSETS = 20_000


class Recovery(NamedTuple):
    """Covariates predicted from factors, with cross-validation over agents.

    Attributes
    ----------
    linear, quadratic : ndarray, shape (M, C)
        R² for every ensemble member and covariate; NaN if a covariate is constant.
    predicted : ndarray, shape (N, C)
        Predictions of the quadratic map for held-out agents, averaged over members.
    """

    linear: np.ndarray
    quadratic: np.ndarray
    predicted: np.ndarray


def recover_covariates(factors: np.ndarray, covariates: np.ndarray) -> Recovery:
    """Regress covariates on agent factors, separately for every member, because each has a different basis.

    Uses ridge regression on standardized factors (quadratic: and their products), with 10 folds over agents. The
    penalty is selected within each fold.

    Parameters
    ----------
    factors : ndarray, shape (M, N, R)
    covariates : ndarray, shape (N, C)
        Seed of the folds.
    """
    constant = (covariates == covariates[0]).all(0)
    folds = KFold(min(_FOLDS, len(covariates)), shuffle=True, random_state=0)
    scores: dict[int, list[np.ndarray]] = {1: [], 2: []}
    held_out = []
    for degree, values in scores.items():
        for member in factors:
            regression = make_pipeline(
                StandardScaler(),
                PolynomialFeatures(degree, include_bias=False),
                StandardScaler(),
                RidgeCV(_PENALTIES),
            )
            predicted = cross_val_predict(regression, member, covariates, cv=folds).reshape(covariates.shape)
            values.append(np.where(constant, np.nan, r2_score(covariates, predicted, multioutput="raw_values")))
            if degree == 2:
                held_out.append(predicted)
    return Recovery(np.stack(scores[1]), np.stack(scores[2]), np.mean(held_out, axis=0))


def leading_directions(tensor: np.ndarray, count: int) -> np.ndarray:
    """Compute an orthonormal basis (N, count) of the leading agent directions of a tensor (N, ...)."""
    left, _, _ = np.linalg.svd(tensor.reshape(len(tensor), -1), full_matrices=False)
    return left[:, :count]


def projection_error(tensor: np.ndarray, directions: np.ndarray) -> float:
    """Return the relative error of a tensor (N, ...) after projecting agents onto orthonormal directions (N, k)."""
    flat = tensor.reshape(len(tensor), -1)
    residual = float(np.linalg.norm(flat - directions @ (directions.T @ flat)))
    return residual / max(float(np.linalg.norm(flat)), 1e-300)


def principal_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the min(p, q) angles in degrees, ascending, between the column spaces of (N, p) and (N, q).

    All are near zero if one space contains the other.
    """
    return np.sort(np.degrees(subspace_angles(first, second)))


def covariate_features(covariates: np.ndarray) -> np.ndarray:
    """Standardize covariates and add a constant column: (N, C) -> (N, 1 + C)."""
    return np.column_stack([np.ones(len(covariates)), StandardScaler().fit_transform(covariates)])


def kruskal_rank(matrix: np.ndarray) -> int:
    """Find the largest k such that any k columns are linearly independent.

    Independence is tested numerically on columns of unit length. If there are too many subsets, the result is a lower
    bound.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    if (lengths == 0).any():
        return 0
    # Shorten the columns: express them in a basis of their span. There are many subsets to test.
    columns: np.ndarray = np.linalg.qr(matrix / lengths)[1]
    if _independent(columns):
        return columns.shape[1]
    subsets = 0
    for size in range(1, columns.shape[1] + 1):
        subsets += math.comb(columns.shape[1], size)
        if size > len(columns) or subsets > _MAX_SUBSETS:
            return size - 1
        for subset in itertools.combinations(range(columns.shape[1]), size):
            if not _independent(columns[:, list(subset)]):
                return size - 1
    return columns.shape[1]


def _independent(columns: np.ndarray) -> bool:
    """Test whether columns of unit length are linearly independent; then all their subsets are, too."""
    singular = np.linalg.svd(columns, compute_uv=False)
    return len(columns) >= columns.shape[1] and bool(singular[-1] > _DEPENDENT * singular[0])


def is_unique(factors: Sequence[np.ndarray]) -> bool:
    """Test Kruskal's condition, which implies that a CP decomposition's factors are unique up to order and scale.

    The condition is `k_1 + k_2 + k_3 >= 2R + 2` (Kruskal, 1977, https://doi.org/10.1016/0024-3795(77)90069-6).
    """
    rank = factors[0].shape[1]
    return sum(kruskal_rank(factor) for factor in factors) >= 2 * rank + 2


def factor_match(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Compute Tucker's congruence of two sets of CP factors, for the best pairing of their columns.

    It is 1 if the factors are equal up to order and scale. It is meaningful only if :func:`is_unique` is true for both.
    """
    score, _ = congruence_coefficient(list(first), list(second), absolute_value=True)
    return float(score)
