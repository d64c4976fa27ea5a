"""Keeps predicted states behind walls that the data have touched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from persim_lightning.types import WallContacts


class Walls(nn.Module):
    """Stops states at walls: the coordinate is clamped, and what the wall resets takes its value on contact.

    A wall breaks low rank (PerSim, Proposition 1, holds for MountainCar without walls) and smoothness, so the network
    learns free motion only and the contact is applied to its prediction.

    Parameters
    ----------
    state_dim : int
    enabled : bool
        Without it the module does nothing.
    """

    low: Tensor
    high: Tensor
    low_contact: Tensor
    high_contact: Tensor

    def __init__(self, state_dim: int, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.register_buffer("low", torch.full((state_dim,), -torch.inf))
        self.register_buffer("high", torch.full((state_dim,), torch.inf))
        self.register_buffer("low_contact", torch.full((state_dim, state_dim), torch.nan))
        self.register_buffer("high_contact", torch.full((state_dim, state_dim), torch.nan))

    def set(self, contacts: WallContacts) -> None:
        """Take the walls of a training set."""
        for name, value in contacts._asdict().items():
            getattr(self, name).copy_(value)

    @property
    def contacts(self) -> WallContacts | None:
        """The walls; None where they are not enabled."""
        if not self.enabled:
            return None
        return WallContacts(self.low, self.high, self.low_contact, self.high_contact)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if not self.enabled or torch.equal(states.clamp(self.low, self.high), states):
            return states
        return self.stop(states)

    def stop(self, states: Tensor) -> Tensor:
        """As :meth:`forward` of enabled walls, without looking first whether any state lies beyond one."""
        stopped = states.clamp(self.low, self.high)
        below, above = states < self.low, states > self.high
        for hit, contact in ((below, self.low_contact), (above, self.high_contact)):
            # A wall's effect on another coordinate goes before that one's own wall; of several, the first counts.
            resets = (
                hit.unsqueeze(-1) & ~contact.isnan() & ~torch.eye(len(contact), dtype=torch.bool, device=hit.device)
            )
            first = resets.byte().argmax(-2)
            stopped = torch.where(resets.any(-2), contact.gather(0, first.flatten(0, -2)).view_as(stopped), stopped)
        return stopped
