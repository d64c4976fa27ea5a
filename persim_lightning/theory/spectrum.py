"""Multilinear singular values of a three-way dynamics tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MODES = ("agent", "state", "action")


def multilinear_rank(spectrum: np.ndarray, tolerance: float) -> int:
    """Count the directions of a mode that are needed for a relative error of at most `tolerance`."""
    square = np.square(spectrum)
    tail = np.sqrt(np.append(square[::-1].cumsum()[::-1], 0.0) / max(square.sum(), np.finfo(float).tiny))
    return int(np.argmax(tail <= tolerance))


def normalized_spectra(spectra: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Divide the singular values of every mode by the largest one; the keys are :data:`MODES`."""
    return {mode: (values / max(values[0], 1e-300)).tolist() for mode, values in zip(MODES, spectra, strict=True)}
