"""Tests of learned agent factors on factors with known properties."""

import numpy as np
import pytest

from persim_lightning.theory.recovery import (
    covariate_features,
    factor_match,
    is_unique,
    kruskal_rank,
    leading_directions,
    principal_angles,
    projection_error,
    recover_covariates,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_linear_and_quadratic_maps_find_what_they_can(rng):
    covariates = rng.uniform(1, 2, size=(120, 2))
    # Factors depend on the square root of the second covariate: linear maps miss a little, quadratic ones nothing.
    mixing = rng.normal(size=(3, 2, 4))
    factors = np.stack([np.column_stack([covariates[:, 0], np.sqrt(covariates[:, 1])]) @ mix for mix in mixing])
    recovery = recover_covariates(factors, covariates)
    assert recovery.linear.shape == recovery.quadratic.shape == (3, 2)
    assert (recovery.linear[:, 0] > 0.999999).all()
    assert (recovery.linear[:, 1] < 0.9995).all()
    assert (recovery.quadratic > 0.99999).all()
    assert np.abs(recovery.predicted - covariates).max() < 0.01


def test_noise_gives_back_nothing(rng):
    """Scores are of held-out agents: twenty features would explain much of forty agents in sample."""
    recovery = recover_covariates(rng.normal(size=(1, 40, 5)), rng.uniform(size=(40, 1)))
    assert recovery.quadratic.max() < 0.3


def test_a_single_covariate_works(rng):
    covariates = rng.uniform(size=(50, 1))
    recovery = recover_covariates((3 * covariates - 1)[None], covariates)
    assert recovery.predicted.shape == (50, 1)
    assert recovery.linear.min() > 0.99999


def test_angles_see_containment_and_orthogonality(rng):
    basis = np.linalg.qr(rng.normal(size=(30, 6)))[0]
    assert principal_angles(basis[:, :3] @ rng.normal(size=(3, 3)), basis[:, :2]).max() < 1e-5
    np.testing.assert_allclose(principal_angles(basis[:, :3], basis[:, 2:6]), [0, 90, 90], atol=1e-5)


def test_projection_error_of_leading_directions_is_the_tail_of_the_spectrum(rng):
    tensor = rng.normal(size=(9, 4, 5))
    singular = np.linalg.svd(tensor.reshape(9, -1), compute_uv=False)
    expected = np.sqrt(np.square(singular[3:]).sum() / np.square(singular).sum())
    assert projection_error(tensor, leading_directions(tensor, 3)) == pytest.approx(expected)
    other = np.linalg.qr(rng.normal(size=(9, 3)))[0]
    assert projection_error(tensor, other) > expected


def test_covariate_features_hold_the_constant(rng):
    features = covariate_features(rng.normal(size=(20, 2)))
    assert features.shape == (20, 3)
    assert (features[:, 0] == 1).all()


def test_a_constant_covariate_has_no_score(rng):
    covariates = np.column_stack([rng.uniform(size=30), np.full(30, 0.1)])
    recovery = recover_covariates(rng.normal(size=(2, 30, 3)), covariates)
    assert np.isnan(recovery.quadratic[:, 1]).all()
    assert np.isfinite(recovery.quadratic[:, 0]).all()


def test_kruskal_rank_of_many_columns_is_found_at_once_or_bounded(rng):
    """2^40 subsets: full rank needs none of them; otherwise the result is a lower bound."""
    assert kruskal_rank(rng.normal(size=(60, 40))) == 40
    assert 2 <= kruskal_rank(rng.normal(size=(60, 20)) @ rng.normal(size=(20, 40))) <= 20


def test_kruskal_rank_counts_the_worst_subset(rng):
    columns = rng.normal(size=(8, 4))
    assert kruskal_rank(columns) == 4
    # The third column in the span of the first two: some three are dependent, no two are.
    columns[:, 2] = columns[:, 0] - 2 * columns[:, 1]
    assert kruskal_rank(columns) == 2
    columns[:, 3] = -5 * columns[:, 0]
    assert kruskal_rank(columns) == 1
    columns[:, 1] = 0
    assert kruskal_rank(columns) == 0
    assert kruskal_rank(rng.normal(size=(2, 5))) == 2


def test_mountain_car_factors_are_not_unique_and_random_ones_are(rng):
    """Proposition 1's agent factors (1, 1, g) repeat a column, so Kruskal's condition fails."""
    gravity = rng.uniform(size=20)
    agents = np.stack([np.ones(20), np.ones(20), gravity], axis=1)
    actions = np.stack([np.ones(3), np.arange(3) - 1.0, np.ones(3)], axis=1)
    assert not is_unique([agents, rng.normal(size=(30, 3)), actions])
    assert is_unique([rng.normal(size=(20, 3)), rng.normal(size=(30, 3)), rng.normal(size=(3, 3))])


def test_factors_match_up_to_order_and_scale(rng):
    factors = [rng.normal(size=(size, 3)) for size in (20, 30, 4)]
    order, scale = [2, 0, 1], np.array([2.0, -3.0, 0.5])
    same = [factors[0][:, order] * scale, factors[1][:, order] / scale, factors[2][:, order]]
    assert factor_match(factors, same) == pytest.approx(1)
    assert factor_match(factors, [rng.normal(size=factor.shape) for factor in factors]) < 0.6
