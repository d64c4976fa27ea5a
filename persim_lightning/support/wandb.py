"""Chooses the mode of Weights & Biases; never prompts, and works offline without an account."""

from __future__ import annotations

import netrc
import os
import socket
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wandb import Settings

PROJECT = "persim-lightning"
MODES = ("auto", "online", "offline", "disabled")
_SERVER = "https://api.wandb.ai"
# Seconds.
_PATIENCE = 5.0


def wandb_mode(requested: str) -> str:
    """Return the mode of a run: online, offline or disabled.

    Parameters
    ----------
    requested : {'auto', 'online', 'offline', 'disabled'}
        `auto`: the value of WANDB_MODE if it is set; otherwise online if there is an API key, else offline. A run that
        would be online is offline if the server cannot be reached, and a note says so.
    """
    mode = requested
    if requested == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    if mode == "online" and not _server_is_reachable():
        print("note: Weights & Biases cannot be reached, so the run is logged offline", file=sys.stderr)
        return "offline"
    return mode


def wandb_settings(mode: str) -> Settings:
    """Return settings that keep W&B silent."""
    # Imported late: it takes a second, and most commands never log.
    import wandb

    return wandb.Settings(mode="online" if mode == "online" else "offline", silent=True, console="off")


def _server_is_reachable() -> bool:
    """Whether the server accepts a connection within seconds. W&B itself would try for minutes."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or _SERVER)
    port = address.port or (80 if address.scheme == "http" else 443)
    if any(name in os.environ for name in ("HTTPS_PROXY", "https_proxy")):
        # Only the proxy knows.
        return True
    try:
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _has_key() -> bool:
    """Whether there is an API key for W&B. W&B's own check may prompt, or use the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
