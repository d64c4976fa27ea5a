"""Whether learned agent factors are the right ones: subspaces, covariates that they give back, unique factors."""

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
# Singular values below this share of the largest one do not count toward a rank.
_DEPENDENT = 1e-3
# Subsets of columns that are tried at most: there are 2^R.
_MAX_SUBSETS = 20_000


class Recovery(NamedTuple):
    """Covariates predicted from factors, by cross-validation over agents.

    Attributes
    ----------
    linear, quadratic : ndarray, shape (M, C)
        R² of every ensemble member and covariate; NaN where a covariate is constant.
    predicted : ndarray, shape (N, C)
        The quadratic map's predictions of held-out agents, mean over members.
    """

    linear: np.ndarray
    quadratic: np.ndarray
    predicted: np.ndarray


def recover_covariates(factors: np.ndarray, covariates: np.ndarray, seed: int = 0) -> Recovery:
    """Regress covariates on agent factors, each member by itself: members have bases of their own.

    Ridge regression on standardized factors (and their products of degree two); 10 folds over agents, penalty chosen
    within each fold.

    Parameters
    ----------
    factors : ndarray, shape (M, N, R)
    covariates : ndarray, shape (N, C)
    seed : int
        Of the folds.
    """
    constant = (covariates == covariates[0]).all(0)
    folds = KFold(min(_FOLDS, len(covariates)), shuffle=True, random_state=seed)
    scores: dict[int, list[np.ndarray]] = {1: [], 2: []}
    held_out = []
    for degree, values in scores.items():
        for own in factors:
            regression = make_pipeline(
                StandardScaler(),
                PolynomialFeatures(degree, include_bias=False),
                StandardScaler(),
                RidgeCV(_PENALTIES),
            )
            predicted = cross_val_predict(regression, own, covariates, cv=folds).reshape(covariates.shape)
            values.append(np.where(constant, np.nan, r2_score(covariates, predicted, multioutput="raw_values")))
            if degree == 2:
                held_out.append(predicted)
    return Recovery(np.stack(scores[1]), np.stack(scores[2]), np.mean(held_out, axis=0))


def leading_directions(tensor: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal basis (N, count) of the agents' most important directions in a tensor (N, ...)."""
    left, _, _ = np.linalg.svd(tensor.reshape(len(tensor), -1), full_matrices=False)
    return left[:, :count]


def projection_error(tensor: np.ndarray, directions: np.ndarray) -> float:
    """Relative norm of what (N, ...) loses by projecting its agents onto orthonormal directions (N, k)."""
    flat = tensor.reshape(len(tensor), -1)
    lost = float(np.linalg.norm(flat - directions @ (directions.T @ flat)))
    return lost / max(float(np.linalg.norm(flat)), 1e-300)


def principal_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles in degrees between the column spaces of (N, p) and (N, q), ascending, one a dimension of the smaller one.

    All are near zero where the smaller space lies in the larger one.
    """
    return np.sort(np.degrees(subspace_angles(first, second)))


def covariate_features(covariates: np.ndarray) -> np.ndarray:
    """A constant and the standardized covariates: (N, C) -> (N, 1 + C)."""
    return np.column_stack([np.ones(len(covariates)), StandardScaler().fit_transform(covariates)])


def kruskal_rank(matrix: np.ndarray) -> int:
    """Largest k such that any k columns are linearly independent (numerically, columns scaled to unit length).

    A lower bound where finding it would take too many subsets.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    if (lengths == 0).any():
        return 0
    # Columns in the basis of their span: as short as can be, because there are many subsets to try.
    columns: np.ndarray = np.linalg.qr(matrix / lengths)[1]
    if _independent(columns):
        return columns.shape[1]
    tried = 0
    for size in range(1, columns.shape[1] + 1):
        tried += math.comb(columns.shape[1], size)
        if size > len(columns) or tried > _MAX_SUBSETS:
            return size - 1
        for chosen in itertools.combinations(range(columns.shape[1]), size):
            if not _independent(columns[:, list(chosen)]):
                return size - 1
    return columns.shape[1]


def _independent(columns: np.ndarray) -> bool:
    """Whether columns of unit length are linearly independent; then all their subsets are."""
    singular = np.linalg.svd(columns, compute_uv=False)
    return len(columns) >= columns.shape[1] and bool(singular[-1] > _DEPENDENT * singular[0])


def is_unique(factors: Sequence[np.ndarray]) -> bool:
    """Kruskal's condition, sufficient for a CP decomposition's factors to be unique up to order and scale.

    `k_1 + k_2 + k_3 >= 2R + 2` (Kruskal, 1977, https://doi.org/10.1016/0024-3795(77)90069-6).
    """
    rank = factors[0].shape[1]
    return sum(kruskal_rank(factor) for factor in factors) >= 2 * rank + 2


def factor_match(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Tucker's congruence of two sets of CP factors under the best pairing: 1 where they agree up to order and scale.

    Meaningful only where :func:`is_unique` holds.
    """
    score, _ = congruence_coefficient(list(first), list(second), absolute_value=True)
    return float(score)
