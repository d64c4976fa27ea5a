"""Draws the figures of the report (plotly)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

_BLUE, _BAND, _GRAY = "#1f63b5", "rgba(31,99,181,0.18)", "#444"
_MODES = ("agent", "state", "action")
# Largest number of panels that stay readable.
MAX_COORDINATES = 6
# Smaller values are rounding errors.
_FLOOR = 1e-14


class Episode(NamedTuple):
    """A predicted and a recorded trajectory.

    Attributes
    ----------
    agent : str
    elapsed : ndarray, shape (H+1,)
        Base steps since the start.
    mean, recorded : ndarray, shape (H+1, D)
        Recorded states are NaN where nothing was observed.
    half_width : ndarray, shape (H+1, D), or None
    """

    agent: str
    elapsed: np.ndarray
    mean: np.ndarray
    recorded: np.ndarray
    half_width: np.ndarray | None


class Horizon(NamedTuple):
    """Errors against steps ahead, for one agent or all agents together.

    Attributes
    ----------
    label : str
    error : ndarray, shape (H,)
        Root mean square, in standard deviations of the recorded states.
    covered : ndarray, shape (H,), or None
        Share of states inside intervals.
    """

    label: str
    error: np.ndarray
    covered: np.ndarray | None


def latent_map(
    points: np.ndarray, share: np.ndarray, labels: Sequence[str], covariates: dict[str, np.ndarray]
) -> go.Figure:
    """Draw agents in the plane of their factors' two principal components, colored by covariates.

    Parameters
    ----------
    points : ndarray, shape (N, 2)
    share : ndarray, shape (2,)
        Share of the variance that each direction explains.
    labels : sequence of str
    covariates : dict of name to ndarray of shape (N,)
    """
    figure = go.Figure()
    names = list(covariates) or [""]
    for name in names:
        values = covariates.get(name)
        marker: dict[str, Any] = {"size": 7, "color": _BLUE if values is None else values, "opacity": 0.8}
        hover = "agent %{text}<extra></extra>"
        if values is not None:
            marker |= {"colorscale": "Viridis", "colorbar": {"title": {"text": name}}}
            hover = f"agent %{{text}}<br>{name} %{{marker.color:.4g}}<extra></extra>"
        figure.add_scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers",
            text=list(labels),
            marker=marker,
            hovertemplate=hover,
            visible=name == names[0],
            name=name or "agents",
        )
    if len(names) > 1:
        buttons = [
            {"label": f"by {name}", "method": "update", "args": [{"visible": [other == name for other in names]}]}
            for name in names
        ]
        figure.update_layout(updatemenus=[_menu(buttons)])
    figure.update_xaxes(title=f"first component ({share[0]:.0%} of the variance)")
    figure.update_yaxes(title=f"second component ({share[1]:.0%})")
    return _styled(figure, 480)


def rollouts(episodes: Sequence[Episode], state: Sequence[str], level: float) -> go.Figure:
    """Draw predictions with intervals, and recorded states; a menu selects the agent."""
    shown = state[:MAX_COORDINATES]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = make_subplots(rows, columns, subplot_titles=list(shown), vertical_spacing=0.28 / rows)
    for index, episode in enumerate(episodes):
        steps = episode.elapsed
        for d in range(len(shown)):
            place = {"row": d // columns + 1, "col": d % columns + 1}
            common: dict[str, Any] = {"visible": index == 0, "showlegend": d == 0, "mode": "lines"}
            if episode.half_width is not None:
                low, high = (episode.mean[:, d] + sign * episode.half_width[:, d] for sign in (-1, 1))
                band = {"x": [*steps, *steps[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": _BAND}
                figure.add_scatter(
                    **band, **common, line={"width": 0}, hoverinfo="skip", name=f"{level:.0%} interval", **place
                )
            line = {"color": _BLUE, "width": 2}
            figure.add_scatter(x=steps, y=episode.mean[:, d], line=line, name="predicted", **common, **place)
            known = np.isfinite(episode.recorded[:, d])
            # Markers, since between missing states there may be single points.
            common["mode"] = "lines" if known.all() else "lines+markers"
            recorded = {"x": steps[known], "y": episode.recorded[known, d], "name": "recorded"}
            figure.add_scatter(line={"color": _GRAY, "width": 1.5, "dash": "dot"}, **recorded, **common, **place)
    traces = len(figure.data) // len(episodes)
    buttons = [
        {
            "label": f"agent {episode.agent}",
            "method": "update",
            "args": [{"visible": [trace // traces == index for trace in range(len(figure.data))]}],
        }
        for index, episode in enumerate(episodes)
    ]
    figure.update_layout(updatemenus=[_menu(buttons)])
    figure.update_xaxes(title="steps ahead", row=rows)
    return _styled(figure, 140 + 240 * rows)


def horizon(curves: Sequence[Horizon], level: float) -> go.Figure:
    """Draw the error and the coverage of intervals against steps ahead."""
    calibrated = curves[0].covered is not None
    titles = ["error, in standard deviations of the states", f"share inside {level:.0%} intervals"]
    figure = make_subplots(1, 1 + calibrated, subplot_titles=titles[: 1 + calibrated])
    palette = ["#1f63b5", "#d97706", "#15803d", "#b91c1c", "#7c3aed", "#0e7490", "#a16207", "#be185d"]
    for index, curve in enumerate(curves):
        steps, color = np.arange(1, len(curve.error) + 1), palette[index % len(palette)]
        common = {"mode": "lines", "line": {"color": color}, "name": curve.label, "legendgroup": curve.label}
        figure.add_scatter(x=steps, y=curve.error, row=1, col=1, **common)
        if curve.covered is not None:
            figure.add_scatter(x=steps, y=curve.covered, row=1, col=2, showlegend=False, **common)
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", row=1, col=1)
    if calibrated:
        figure.add_hline(y=level, line={"dash": "dash", "color": _GRAY}, row=1, col=2)
        figure.update_yaxes(range=[0, 1.03], row=1, col=2)
    figure.update_xaxes(title="steps ahead")
    return _styled(figure, 400)


def ranks(theorem: dict[str, Any] | None, selection: dict[str, Any] | None) -> go.Figure:
    """Draw the errors of decompositions and of short fits against the rank, and the modes' singular values."""
    truth = None if theorem is None else theorem["truth"]
    panels = [name for name, values in (("truth", truth), ("selection", selection), ("spectra", theorem)) if values]
    titles = {
        "truth": "best decomposition of the true dynamics",
        "selection": "held-out error of short fits",
        "spectra": "singular values of the model's modes",
    }
    figure = make_subplots(1, len(panels), subplot_titles=[titles[name] for name in panels])
    for column, name in enumerate(panels, start=1):
        place = {"row": 1, "col": column}
        if name == "truth":
            assert theorem is not None
            _draw_truth(figure, theorem, place)
        elif name == "selection":
            assert selection is not None
            errors = sorted((int(rank), error) for rank, error in selection["errors"].items())
            candidates, held_out = zip(*errors, strict=True)
            figure.add_scatter(x=candidates, y=held_out, name="short fits", **place)
            figure.add_vline(x=selection["rank"], line={"dash": "dot", "color": _GRAY}, **place)
        else:
            assert theorem is not None
            source = theorem["learned"] or theorem["truth"]["merged"]
            for mode in _MODES:
                values = [value for value in source["spectrum"][mode][:25] if value > _FLOOR]
                figure.add_scatter(
                    x=np.arange(1, len(values) + 1), y=values, mode="lines+markers", name=f"{mode}s", **place
                )
        figure.update_xaxes(title="direction" if name == "spectra" else "rank", **place)
    figure.update_yaxes(type="log", dtick=2, exponentformat="power")
    return _styled(figure, 420)


def _draw_truth(figure: go.Figure, theorem: dict[str, Any], place: dict[str, int]) -> None:
    truth, learned = theorem["truth"]["merged"], theorem["learned"]
    for kind, label in (("cp", "CP"), ("tucker", "Tucker")):
        figure.add_scatter(x=truth["ranks"], y=np.maximum(truth[kind], _FLOOR), name=label, **place)
    if learned is not None and learned["against_truth"] is not None:
        rank, error = max(learned["ranks"]), learned["against_truth"]["error"]
        marker = {"symbol": "star", "size": 13, "color": "#b91c1c"}
        figure.add_scatter(x=[rank], y=[error], mode="markers", marker=marker, name="your model", **place)


def training(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> go.Figure:
    """Draw losses against epochs; `curves` maps a name to (epochs, values)."""
    figure = go.Figure()
    for name, (epochs, values) in curves.items():
        mode = "lines+markers" if len(epochs) < 30 else "lines"
        figure.add_scatter(x=epochs, y=values, mode=mode, name=name)
    figure.update_yaxes(type="log", title="mean squared error, scaled", dtick=1, exponentformat="power")
    figure.update_xaxes(title="epoch")
    return _styled(figure, 380)


def coverage(states: np.ndarray, names: Sequence[str]) -> go.Figure:
    """Draw histograms of recorded states, shape (R, D)."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = make_subplots(rows, columns, subplot_titles=list(names), vertical_spacing=0.35 / rows)
    for d in range(len(names)):
        # Counted here, so that the page does not contain every row.
        counts, edges = np.histogram(states[:, d].astype(np.float64), bins=40)
        figure.add_bar(
            x=(edges[1:] + edges[:-1]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": _BLUE},
            showlegend=False,
            row=d // columns + 1,
            col=d % columns + 1,
        )
    figure.update_yaxes(type="log")
    return _styled(figure, 90 + 180 * rows)


def _menu(buttons: list[dict[str, Any]]) -> dict[str, Any]:
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "bgcolor": "white"}


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"t": 80, "r": 20, "b": 50, "l": 60},
        # To the right of the menu, and below the tools of the modebar.
        legend={"orientation": "h", "y": 1 + 28 / height, "yanchor": "bottom", "x": 0.15, "xanchor": "left"},
        font={"family": "system-ui, sans-serif", "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#b9c2cd", "activecolor": _BLUE, "remove": ["select", "lasso"]},
    )
    figure.update_annotations(font={"size": 13})
    return figure
