"""Noise whose power falls with frequency: neighboring steps of a plan are alike (Timmer & König, 1995)."""

from __future__ import annotations

import torch
from torch import Tensor


def colored(noise: Tensor, exponent: float) -> Tensor:
    """Color white noise along the steps of plans.

    Parameters
    ----------
    noise : Tensor, shape (P, H, width)
        White, standard normal.
    exponent : float
        β of the spectrum 1/f^β: 0 leaves the noise white, 1 is pink, 2 red. The zeroth frequency counts as the first.

    Returns
    -------
    Tensor, shape (P, H, width)
        Gaussian, of zero mean and unit variance at every step.
    """
    steps = noise.shape[1]
    if exponent == 0 or steps == 1:
        return noise
    frequency = torch.fft.rfftfreq(steps, device=noise.device, dtype=noise.dtype).clamp(min=1 / steps)
    gain = frequency.pow(-exponent / 2)
    # rfft keeps one half of the spectrum: all but the zeroth (and an even number's last) frequency count twice.
    twice = torch.full_like(gain, 2.0)
    twice[0] = 1.0
    if steps % 2 == 0:
        twice[-1] = 1.0
    gain = gain / ((twice * gain.square()).sum() / steps).sqrt()
    return torch.fft.irfft(torch.fft.rfft(noise, dim=1) * gain[:, None], n=steps, dim=1)
