"""Noise of a probabilistic model, the same for all plans that are compared."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedNoise:
    """White standard normal noise, cached step by step.

    Plans are scored block by block. The cache gives every block the same noise, so that scores are comparable.

    Parameters
    ----------
    generator : torch.Generator
        Source of all randomness.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._cache: list[Tensor] = []
        self._step = 0

    def reset(self) -> None:
        """Discard cached noise and go back to the first step."""
        self._cache.clear()
        self._step = 0

    def rewind(self) -> None:
        """Go back to the first step and keep cached noise."""
        self._step = 0

    def next(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return the noise of the next step."""
        if self._step == len(self._cache):
            noise = torch.randn(shape, generator=self._generator, device=self._generator.device)
            self._cache.append(noise.to(device))
        self._step += 1
        return self._cache[self._step - 1]
