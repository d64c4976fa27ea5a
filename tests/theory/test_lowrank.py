"""Decompositions against tensors of known rank, and Proposition 1 (PerSim): MountainCar without walls is rank 3."""

import numpy as np
import pytest
import tensorly as tl
import torch

from persim_lightning.envs.mountain_car import FORCE, MOUNTAIN_CAR
from persim_lightning.theory.lowrank import compress, cp_fit, tucker_error
from persim_lightning.theory.spectrum import multilinear_rank
from persim_lightning.theory.tensors import coordinate_scales, merged, state_grid, true_tensor


def random_cp(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    return tl.cp_to_tensor((None, [rng.normal(size=(size, rank)) for size in shape]))


def relative(found, tensor):
    return np.linalg.norm(found - tensor) / np.linalg.norm(tensor)


def test_spectra_are_the_singular_values_of_the_unfoldings():
    tensor = random_cp((7, 11, 5), 4)
    compressed = compress(tensor, limit=20)
    for mode, spectrum in enumerate(compressed.spectra):
        unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
        expected = np.linalg.svd(unfolded / np.linalg.norm(tensor), compute_uv=False)
        np.testing.assert_allclose(spectrum, expected[: len(spectrum)], atol=1e-12)
        assert multilinear_rank(spectrum, 1e-9) == 4
    assert compressed.core.shape == (4, 4, 4)
    assert compressed.lost < 1e-12


def test_multilinear_rank_is_the_smallest_that_leaves_the_tolerance():
    spectrum = np.array([3.0, 0.4, 0.3, 0.0])
    assert multilinear_rank(spectrum, 0.5 / np.sqrt(9.25) + 1e-9) == 1
    assert multilinear_rank(spectrum, 0.3 / np.sqrt(9.25) + 1e-9) == 2
    assert multilinear_rank(spectrum, 1e-6) == 3
    assert multilinear_rank(spectrum, 1.0) == 0


@pytest.mark.parametrize("limit", [30, 4])
def test_reported_errors_are_those_of_the_whole_tensor(limit):
    """Compression does not hide errors: they equal those of dense reconstructions."""
    rng = np.random.default_rng(1)
    tensor = random_cp((8, 30, 6), 3) + 0.1 * rng.normal(size=(8, 30, 6))
    compressed = compress(tensor, limit)
    for rank in (1, 3):
        fit = cp_fit(compressed, rank)
        assert fit.error == pytest.approx(relative(tl.cp_to_tensor(fit.cp), tensor), rel=1e-6)
        assert fit.error == min(fit.errors)
        assert len(fit.errors) == 3
    assert cp_fit(compressed, 3).error < cp_fit(compressed, 2).error
    best = [np.sqrt(np.square(spectrum[2:]).sum()) for spectrum in compress(tensor, 30).spectra]
    assert max(best) <= tucker_error(compressed, (2, 2, 2)) <= np.sqrt(np.square(best).sum()) + 0.05


def test_right_rank_is_exact_and_core_consistent_and_more_is_not_consistent():
    tensor = random_cp((10, 12, 9), 3)
    compressed = compress(tensor, 30)
    right = cp_fit(compressed, 3)
    assert right.error < 1e-8
    assert right.core_consistency == pytest.approx(100, abs=1e-3)
    assert right.converged == 3
    noisy = compress(tensor + 0.01 * np.random.default_rng(0).normal(size=tensor.shape), 30)
    assert cp_fit(noisy, 3).core_consistency > 99
    assert cp_fit(noisy, 5).core_consistency < 60


def mountain_car_tensor(states):
    covariates = torch.linspace(1e-4, 3.5e-3, 20, dtype=torch.float64)[:, None]
    tensor = true_tensor(MOUNTAIN_CAR, covariates, states, torch.arange(3))
    return tensor, covariates


def free_states():
    """A grid from which no transition reaches a wall or the speed limit."""
    return state_grid(torch.tensor([-1.0, -0.06]), torch.tensor([0.5, 0.06]), 12)


def test_proposition_1_the_stated_factors_are_the_dynamics():
    """(1, [x + v, v], 1), (1, force, a - 1) and (g, -cos 3x, 1), here for Δs, so without x."""
    states = free_states()
    tensor, covariates = mountain_car_tensor(states)
    velocity, push = states[:, 1].numpy(), np.arange(3) - 1.0
    zero, one = np.zeros_like(velocity), np.ones_like(velocity)
    pull = -np.cos(3 * states[:, 0].numpy())
    agents = np.stack([np.ones(20), np.ones(20), covariates[:, 0].numpy()], axis=1)
    state_factors = np.stack(
        [np.stack([velocity, zero], 1), FORCE * np.stack([one, one], 1), np.stack([pull, pull], 1)], axis=-1
    )
    actions = np.stack([np.ones(3), push, np.ones(3)], axis=1)
    exact = tl.cp_to_tensor((None, [agents, state_factors.reshape(-1, 3), actions]))
    assert relative(exact, merged(tensor)) < 1e-12


def test_proposition_1_rank_three_is_found_and_rank_two_is_impossible():
    tensor, _ = mountain_car_tensor(free_states())
    compressed = compress(merged(tensor / coordinate_scales(tensor)), 30)
    assert cp_fit(compressed, 3).error < 1e-8
    # No tensor of rank 2 comes nearer than the third singular value of any unfolding (Eckart and Young).
    bound = max(np.sqrt(np.square(spectrum[2:]).sum()) for spectrum in compressed.spectra)
    assert bound > 0.05
    assert cp_fit(compressed, 2).error >= bound - 1e-9


def test_walls_break_the_exact_rank():
    whole = state_grid(torch.tensor([-1.2, -0.07]), torch.tensor([0.6, 0.07]), 12)
    tensor, _ = mountain_car_tensor(whole)
    compressed = compress(merged(tensor / coordinate_scales(tensor)), 30)
    assert cp_fit(compressed, 3).error > 1e-3
    assert multilinear_rank(compressed.spectra[0], 1e-6) > 2
