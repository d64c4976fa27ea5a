"""Stops predicted states at walls that occur in the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persim_lightning.types import WallContacts


class Walls(nn.Module):
    """Stops states at walls: clamps the coordinate, and sets other coordinates to their values on contact.

    Walls break low rank (PerSim, Proposition 1, holds for MountainCar without walls) and smoothness, so the network
    learns free motion, and contacts are applied to its predictions.

    Parameters
    ----------
    state_dim : int
    learned : bool
        Whether walls of a training set are set.
    bounds : sequence of (float, float)
        Limits of every coordinate that states keep, beside walls; empty for none.

    Attributes
    ----------
    enabled : bool
        If False, the module does nothing.
    """

    low: Tensor
    high: Tensor
    low_contact: Tensor
    high_contact: Tensor

    def __init__(self, state_dim: int, learned: bool, bounds: Sequence[tuple[float, float]] = ()) -> None:
        super().__init__()
        self.enabled, self._learned = learned or bool(bounds), learned
        self.register_buffer("low", torch.full((state_dim,), -torch.inf))
        self.register_buffer("high", torch.full((state_dim,), torch.inf))
        self.register_buffer("low_contact", torch.full((state_dim, state_dim), torch.nan))
        self.register_buffer("high_contact", torch.full((state_dim, state_dim), torch.nan))
        self._bounds = tuple(bounds)
        if bounds:
            self._keep_bounds()

    def set(self, contacts: WallContacts) -> None:
        """Set the walls of a training set."""
        for name, value in contacts._asdict().items():
            getattr(self, name).copy_(value)
        if self._bounds:
            self._keep_bounds()

    def _keep_bounds(self) -> None:
        low, high = torch.tensor(self._bounds, dtype=self.low.dtype, device=self.low.device).unbind(1)
        self.low.copy_(torch.maximum(self.low, low))
        self.high.copy_(torch.minimum(self.high, high))

    @property
    def contacts(self) -> WallContacts | None:
        """Return the walls of the training set; None if there are none. Transitions to bounds are no contacts."""
        if not self._learned:
            return None
        return WallContacts(self.low, self.high, self.low_contact, self.high_contact)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if not self.enabled or torch.equal(states.clamp(self.low, self.high), states):
            return states
        return self.stop(states)

    def stop(self, states: Tensor) -> Tensor:
        """Apply enabled walls as :meth:`forward` does, without its early exit."""
        stopped = states.clamp(self.low, self.high)
        below, above = states < self.low, states > self.high
        for hit, contact in ((below, self.low_contact), (above, self.high_contact)):
            # Resets by another coordinate's wall take precedence over the coordinate's wall; the first applies.
            resets = (
                hit.unsqueeze(-1) & ~contact.isnan() & ~torch.eye(len(contact), dtype=torch.bool, device=hit.device)
            )
            first = resets.byte().argmax(-2)
            stopped = torch.where(resets.any(-2), contact.gather(0, first.flatten(0, -2)).view_as(stopped), stopped)
        return stopped
