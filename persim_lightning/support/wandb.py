"""Whether and how to use Weights & Biases: never prompts, offline without an account."""

from __future__ import annotations

import netrc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb import Settings

PROJECT = "persim-lightning"
MODES = ("auto", "online", "offline", "disabled")


def wandb_mode(requested: str) -> str:
    """Mode of a run: online, offline or disabled.

    Parameters
    ----------
    requested : {'auto', 'online', 'offline', 'disabled'}
        `auto` follows WANDB_MODE where it is set; otherwise online where an API key is found, and offline elsewhere.
    """
    if requested != "auto":
        return requested
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def wandb_settings(mode: str) -> Settings:
    """Settings that keep W&B silent."""
    # Imported late: it takes a second, and most commands never log.
    import wandb

    return wandb.Settings(mode="online" if mode == "online" else "offline", silent=True, console="off")


def _has_key() -> bool:
    """Whether W&B would find an API key. Asking W&B itself might prompt, or use the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
