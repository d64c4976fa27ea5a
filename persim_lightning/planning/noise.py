"""Colored noise: its power falls with frequency, so neighboring steps of a plan are similar (Timmer & König, 1995)."""

from __future__ import annotations

import torch
from torch import Tensor


def colored(noise: Tensor, exponent: float) -> Tensor:
    """Transform white noise to colored noise along the steps of plans.

    Parameters
    ----------
    noise : Tensor, shape (P, H, width)
        White, standard normal.
    exponent : float
        β of the spectrum 1/f^β: 0 is white, 1 pink, 2 red noise. Frequency 0 has the power of the lowest other one.

    Returns
    -------
    Tensor, shape (P, H, width)
        Gaussian, with zero mean and unit variance at every step.
    """
    steps = noise.shape[1]
    if exponent == 0 or steps == 1:
        return noise
    frequency = torch.fft.rfftfreq(steps, device=noise.device, dtype=noise.dtype).clamp(min=1 / steps)
    gain = frequency.pow(-exponent / 2)
    # rfft returns half of the spectrum. Every frequency occurs twice in the full one, except frequency 0 and, for an
    # even number of steps, the last one.
    multiplicity = torch.full_like(gain, 2.0)
    multiplicity[0] = 1.0
    if steps % 2 == 0:
        multiplicity[-1] = 1.0
    gain = gain / ((multiplicity * gain.square()).sum() / steps).sqrt()
    return torch.fft.irfft(torch.fft.rfft(noise, dim=1) * gain[:, None], n=steps, dim=1)
