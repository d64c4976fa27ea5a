"""Saves matplotlib figures; the only place that knows resolution and format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from persim_lightning.support.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG, atomically, and close it."""
    # Imported late: commands that draw nothing should not wait for matplotlib.
    import matplotlib.pyplot as plt

    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
    return path
