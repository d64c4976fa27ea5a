"""The construction that proves PerSim's Theorem 1: round latent features to the centers of a δ-cover.

If Δs_d(n, s, a) = f_d(θ_n, s, ω_a) with f_d L-Lipschitz in the latent features, rounding θ and ω to centers within δ
gives a sum of (agent centers · action centers) products, hence low rank, with an error of at most 2Lδ
(https://arxiv.org/abs/2102.06961, appendix).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Cover(NamedTuple):
    """Points rounded to centers.

    Attributes
    ----------
    centers : ndarray, shape (K, d)
    member : ndarray, shape (P,), int
        Center of each point.
    """

    centers: np.ndarray
    member: np.ndarray

    def indicators(self) -> np.ndarray:
        """Factor matrix (P, K): one where the point belongs to the center."""
        return np.eye(len(self.centers))[self.member]


def cover(points: np.ndarray, delta: float) -> Cover:
    """Cells of side 2δ: every point lies within δ of its cell's center in the maximum norm.

    Parameters
    ----------
    points : ndarray, shape (P, d)
    delta : float
        Positive. Only cells that hold a point are kept.
    """
    cells = np.floor(points / (2 * delta)).astype(np.int64)
    occupied, member = np.unique(cells, axis=0, return_inverse=True)
    return Cover((occupied + 0.5) * 2 * delta, member.reshape(-1))


class CoveringApproximation(NamedTuple):
    """A sum of products `Σ_ij 1[n ∈ i] · f(θ_i, s, ω_j) · 1[a ∈ j]`.

    Attributes
    ----------
    rank : int
        Number of products: agent centers times action centers.
    agents, actions : ndarray, shapes (N, rank), (A, rank)
    states : ndarray, shape (S, rank)
    """

    rank: int
    agents: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    def dense(self) -> np.ndarray:
        """(N, S, A)."""
        result: np.ndarray = np.einsum("nr,sr,ar->nsa", self.agents, self.states, self.actions, optimize=True)
        return result


def covering_approximation(
    f: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    agents: np.ndarray,
    states: np.ndarray,
    actions: np.ndarray,
    delta: float,
) -> CoveringApproximation:
    """Theorem 1's approximation of `f` on all (agent, state, action) triples.

    Parameters
    ----------
    f : callable, (θ (..., d_agent), s (..., D), ω (..., d_action)) -> (...)
    agents, states, actions : ndarray, shapes (N, d_agent), (S, D), (A, d_action)
    delta : float
    """
    theta, omega = cover(agents, delta), cover(actions, delta)
    count_agent, count_action = len(theta.centers), len(omega.centers)
    pairs_agent = np.repeat(np.arange(count_agent), count_action)
    pairs_action = np.tile(np.arange(count_action), count_agent)
    values = f(theta.centers[pairs_agent], states[:, None], omega.centers[pairs_action])
    return CoveringApproximation(
        len(pairs_agent), theta.indicators()[:, pairs_agent], values, omega.indicators()[:, pairs_action]
    )
