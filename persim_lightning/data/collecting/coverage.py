"""Draws which states a data set covers."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from persim_lightning.data.trajectories import Trajectories

# Up to so many coordinates, panels show pairs of coordinates.
_MAX_PAIRED = 4


def draw_coverage(trajectories: Trajectories, title: str) -> plt.Figure:
    """Draw the distribution of recorded states.

    Up to four coordinates, the panels show every pair of them; beyond, each coordinate alone.
    """
    names, states = trajectories.schema.state, trajectories.state.numpy()
    paired = len(names) <= _MAX_PAIRED
    panels = list(itertools.combinations(range(len(names)), 2)) if paired else [(index,) for index in range(len(names))]
    columns = min(3 if paired else 6, len(panels))
    rows = -(-len(panels) // columns)
    size = (5.0, 4.0) if paired else (3.0, 2.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
    )
    for axis, panel in itertools.zip_longest(axes.flat, panels):
        if panel is None:
            axis.set_axis_off()
        elif paired:
            _draw_pair(axis, states[:, panel[0]], states[:, panel[1]])
            axis.set(xlabel=names[panel[0]], ylabel=names[panel[1]])
        else:
            axis.hist(states[:, panel[0]], bins=60, log=True)
            axis.set_xlabel(names[panel[0]], fontsize="small")
            axis.tick_params(labelsize="small")
    figure.suptitle(f"states recorded in {title} (number of rows, log scale)")
    return figure


def _draw_pair(axis: Axes, x: Any, y: Any) -> None:
    *_, image = axis.hist2d(x, y, bins=80, norm="log", cmap="viridis")
    axis.figure.colorbar(image, ax=axis)
