"""Theorem 1 (PerSim): the covering construction is within 2Lδ, and its error falls with rank as predicted."""

import numpy as np
import pytest

from tests.theory.covering import cover, covering_approximation


def latent_model(theta, state, omega):
    """Smooth in θ (d = 1) and ω (d = 1); the slopes below bound its Lipschitz constants in either."""
    return np.sin(2 * theta[..., 0] + state[..., 0]) + np.tanh(state[..., 1]) * np.cos(3 * omega[..., 0])


LIPSCHITZ = 3.0


@pytest.fixture
def latents():
    rng = np.random.default_rng(0)
    return rng.random((200, 1)), rng.normal(size=(6, 2)), rng.random((160, 1))


def full(agents, states, actions):
    return latent_model(agents[:, None, None], states[None, :, None], actions[None, None])


def test_every_point_is_within_delta_of_its_center():
    points = np.random.default_rng(1).normal(size=(500, 3))
    for delta in (0.5, 0.1):
        covered = cover(points, delta)
        assert np.abs(points - covered.centers[covered.member]).max() <= delta + 1e-12
        assert (covered.indicators().sum(1) == 1).all()


@pytest.mark.parametrize("delta", [0.25, 0.1, 0.05, 0.02, 0.01])
def test_error_is_within_the_bound(latents, delta):
    approximation = covering_approximation(latent_model, *latents, delta)
    error = np.abs(approximation.dense() - full(*latents)).max()
    assert error <= 2 * LIPSCHITZ * delta
    # The bound says something: the error is of its order.
    assert error >= 0.3 * LIPSCHITZ * delta
    unfolded = approximation.dense().reshape(len(latents[0]), -1)
    assert np.linalg.matrix_rank(unfolded) <= approximation.rank


def test_error_falls_with_rank_as_predicted(latents):
    """With r ≤ C δ^-(d_agent + d_action) and d = 1 each, the error falls like r^(-1/2)."""
    deltas = np.array([0.1, 0.05, 0.025, 0.0125, 0.00625])
    approximations = [covering_approximation(latent_model, *latents, delta) for delta in deltas]
    ranks = np.array([approximation.rank for approximation in approximations])
    errors = [np.abs(approximation.dense() - full(*latents)).max() for approximation in approximations]
    slope = np.polyfit(np.log(ranks), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.06)
    growth = np.polyfit(np.log(1 / deltas), np.log(ranks), 1)[0]
    assert growth == pytest.approx(2, abs=0.15)


def test_discrete_actions_cost_a_factor_of_their_number(latents):
    """Finitely many action features are their own centers, up to δ: the error is then the agents' alone."""
    agents, states, _ = latents
    # Centers of cells of side 0.1, so that rounding moves no action.
    actions = np.array([[0.05], [0.45], [0.85]])
    approximation = covering_approximation(latent_model, agents, states, actions, 0.05)
    assert approximation.rank == 10 * 3
    assert np.abs(approximation.dense() - full(agents, states, actions)).max() <= 2 * 0.05 + 1e-9
