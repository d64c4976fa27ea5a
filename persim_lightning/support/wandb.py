"""Chooses the mode of Weights & Biases; never prompts, and works offline without an account."""

from __future__ import annotations

import netrc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb import Settings

PROJECT = "persim-lightning"
MODES = ("auto", "online", "offline", "disabled")


def wandb_mode(requested: str) -> str:
    """Return the mode of a run: online, offline or disabled.

    Parameters
    ----------
    requested : {'auto', 'online', 'offline', 'disabled'}
        `auto`: the value of WANDB_MODE if it is set; otherwise online if there is an API key, else offline.
    """
    if requested != "auto":
        return requested
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def wandb_settings(mode: str) -> Settings:
    """Return settings that keep W&B silent."""
    # Imported late: it takes a second, and most commands never log.
    import wandb

    return wandb.Settings(mode="online" if mode == "online" else "offline", silent=True, console="off")


def _has_key() -> bool:
    """Whether there is an API key for W&B. W&B's own check may prompt, or use the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
