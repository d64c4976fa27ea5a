"""The noise of a model that predicts distributions, the same for all plans that are compared."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedChance:
    """White standard normal noise, step by step.

    Plans are scored in blocks, one block after the other: whatever block a plan is in, it must meet the same noise.

    Parameters
    ----------
    generator : torch.Generator
        Source of all randomness.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._drawn: list[Tensor] = []
        self._step = 0

    def renew(self) -> None:
        """Other plans will be compared: draw anew."""
        self._drawn.clear()
        self._step = 0

    def rewind(self) -> None:
        """Go back to the first step."""
        self._step = 0

    def draw(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Noise of the next step."""
        if self._step == len(self._drawn):
            noise = torch.randn(shape, generator=self._generator, device=self._generator.device)
            self._drawn.append(noise.to(device))
        self._step += 1
        return self._drawn[self._step - 1]
