"""Sections of the report: their texts, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow.csv

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.callbacks.latents import principal_plane
from persim_lightning.data.collecting.card import summary
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.report import figures
from persim_lightning.report.rollouts import compare_rollouts
from persim_lightning.store.names import LATENT_FACTORS, METRICS, PROVENANCE, RANK_SELECTION, THEOREM
from persim_lightning.support.files import read_json

# Headings and rows.
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
# The map of a larger population shows only every k-th agent.
_MAX_POINTS = 2000


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    key : str
        Anchor in the page.
    title, text : str
    figure : Figure, optional
    tables : sequence of (headings, rows)
    """

    key: str
    title: str
    text: str
    figure: go.Figure | None = None
    tables: Sequence[Table] = ()


def sections(folder: Path, simulator: PersonalizedSimulator, level: float) -> list[Section]:
    """Create all sections except the what-if panel.

    Parameters
    ----------
    folder : Path
        A run folder, or a folder that :meth:`PersonalizedSimulator.save` wrote. If files are missing, the sections that
        need them say so.
    simulator : PersonalizedSimulator
        The simulator in the folder.
    level : float
        Level of the intervals.
    """
    return [
        _map(folder, simulator),
        *_predictions(folder, simulator, level),
        *_choice(simulator),
        _ranks(folder),
        _training(folder),
        _card(simulator.trajectories),
        *_about(folder),
    ]


def _map(folder: Path, simulator: PersonalizedSimulator) -> Section:
    population = simulator.population
    factors = population.simulator.agent_encoder.table().detach().double().numpy()
    points, share = principal_plane(factors)
    step = -(-len(points) // _MAX_POINTS)
    shown = slice(None, None, step)
    text = (
        f"Each point is one of {len(points)} agents"
        + (f" (every {step}th is shown)" if step > 1 else "")
        + ", placed by its learned factors: agents with similar dynamics are close to each other."
    )
    covariates = _covariates(folder, population.agent_ids)
    if covariates:
        text += " Colors show covariates, which training did not use."
    labels = [str(label) for label in population.agent_ids]
    colored = {name: values[shown] for name, values in covariates.items()}
    return Section("map", "Agents", text, figures.latent_map(points[shown], share, labels[shown], colored))


def _covariates(folder: Path, agent_ids: Sequence[int | str]) -> dict[str, np.ndarray]:
    """Read the covariates (N,) by name from the run's file of factors; none if agents were added later."""
    path = folder / LATENT_FACTORS
    if not path.is_file():
        return {}
    table = read_json(path)
    names, rows = table["columns"], table["rows"]
    # Columns: agent, two directions, the factors u0 …, covariates.
    start = 3 + sum(name.startswith("u") and name[1:].isdigit() for name in names[3:])
    if [row[0] for row in rows] != list(agent_ids):
        return {}
    return {name: np.array([row[column] for row in rows]) for column, name in enumerate(names) if column >= start}


def _predictions(folder: Path, simulator: PersonalizedSimulator, level: float) -> list[Section]:
    compared = compare_rollouts(folder, simulator, level)
    if compared is None:
        text = "All trajectories are too short for a comparison of predictions."
        return [Section("rollouts", "Predictions", text), Section("horizon", "Error by horizon", text)]
    state, recorded = simulator.schema.state, compared.recorded
    text = f"Open-loop rollouts of {recorded}: the simulator receives only the first state and all actions."
    growth = f"Error of rollouts of {recorded} against the number of steps"
    if compared.half_width is None:
        text += " This run has no calibrated intervals."
        growth += "."
    else:
        text += f" Bands are intervals that should contain the true state {level:.0%} of the time."
        growth += f", and how often intervals of level {level:g} contain the true state." if compared.unseen else "."
    if not compared.unseen:
        text += " There are no test trajectories: training or the calibration of intervals may have used these."
    if len(state) > figures.MAX_COORDINATES:
        text += f" The first {figures.MAX_COORDINATES} of {len(state)} coordinates are shown."
    return [
        Section("rollouts", "Predictions", text, figures.rollouts(compared.episodes(), state, level)),
        Section("horizon", "Error by horizon", growth, figures.horizon(compared.curves(), level)),
    ]


def _choice(simulator: PersonalizedSimulator) -> list[Section]:
    choice = simulator.choice
    if choice is None:
        return []
    text = (
        f"Rollouts over the last {choice.tail:.0%} of every trajectory, which models were not fitted to: root mean "
        "squared errors in standard deviations of the state. "
        f"The ensemble, {choice.composition()}, is {choice.verdict()}."
    )
    return [Section("models", "Simple and neural models", text, None, [choice.table()])]


def _ranks(folder: Path) -> Section:
    title = "Rank"
    theorem, selection = (
        read_json(folder / name) if (folder / name).is_file() else None for name in (THEOREM, RANK_SELECTION)
    )
    if theorem is None and selection is None:
        return Section("rank", title, f"Not examined yet: persim theorem --run {folder}")
    text = "" if theorem is None else theorem["summary"]
    if selection is not None:
        text += f" Short fits selected the rank {selection['rank']}."
    return Section("rank", title, text.strip(), figures.ranks(theorem, selection))


def _training(folder: Path) -> Section:
    title = "Training"
    paths = sorted((folder / METRICS).glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for path in paths:
        table = pyarrow.csv.read_csv(path)
        for name in ("train/loss", "val/loss"):
            if name in table.column_names:
                rows = zip(table["epoch"].to_pylist(), table[name].to_pylist(), strict=True)
                logged = [(epoch, value) for epoch, value in rows if value is not None]
                epochs, values = curves.setdefault(name, ([], []))
                epochs += [epoch for epoch, _ in logged]
                values += [value for _, value in logged]
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if not curves:
        return Section("training", title, "No metrics of the training are in this folder.")
    text = "One-step losses during training, over members and coordinates; the ends of trajectories are for validation."
    return Section("training", title, text, figures.training(curves))


def _card(trajectories: Trajectories) -> Section:
    card = summary(trajectories)
    lengths = card["lengths"]
    text = (
        f"{card['trajectories']} trajectories of {card['agents']} agents, {card['transitions']:,} transitions; lengths "
        f"{lengths['min']} to {lengths['max']} steps, median {lengths['median']:.0f}; {card['terminated']} terminated."
    )
    keys = ("min", "5%", "50%", "95%", "max", "std")
    states = [[record["name"], *(f"{record[key]:.4g}" for key in keys)] for record in card["states"]]
    tables: list[Table] = [(("state", *keys), states)]
    schema = trajectories.schema
    if schema.num_actions is not None:
        names = schema.user_actions[0].categories or range(schema.num_actions)
        rows = [[str(name), f"{record['share']:.1%}"] for name, record in zip(names, card["actions"], strict=True)]
        tables.append(((schema.user_actions[0].name, "share"), rows))
    else:
        rows = [[record["name"], f"{record['mean']:.4g}", f"{record['std']:.4g}"] for record in card["actions"]]
        tables.append((("action", "mean", "std"), rows))
    return Section("data", "Data set", text, figures.coverage(trajectories.state.numpy(), schema.state), tables)


def _about(folder: Path) -> list[Section]:
    path = folder / PROVENANCE
    if not path.is_file():
        return []
    facts: dict[str, Any] = read_json(path)
    rows: list[Sequence[str]] = [
        (name, " ".join(map(str, facts[name])) if isinstance(facts[name], list) else str(facts[name]))
        for name in ("command", "started", "seconds", "seed", "threads", "python", "platform")
        if facts.get(name) is not None
    ]
    rows += [(name, str(value)) for name, value in facts.get("data", {}).items() if value is not None]
    rows += [(name, str(value)) for name, value in facts.get("versions", {}).items()]
    return [Section("about", "How it was made", "", None, [(("", ""), rows)])]
