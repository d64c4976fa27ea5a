"""Writes matplotlib figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from persim_lightning.support.files import atomic_write


def save_figure(figure: Figure, path: Path) -> Path:
    """Save as PNG, whole or not at all, and close the figure."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
    return path
