"""What a report tells of a run: texts, tables and figures, section by section."""

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
from persim_lightning.report.rollouts import compared_rollouts
from persim_lightning.support.files import read_json

# Headings and rows.
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
# Points of the map: beyond, every k-th agent.
_MAX_POINTS = 2000


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    key : str
        Its anchor.
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
    """Everything but the what-if panel.

    Parameters
    ----------
    folder : Path
        A run folder of `tools/fit.py`, or what :meth:`PersonalizedSimulator.save` wrote; sections of what it does not
        hold say so.
    simulator : PersonalizedSimulator
        What lies there.
    level : float
        Of intervals.
    """
    return [
        _map(folder, simulator),
        *_predictions(folder, simulator, level),
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
        f"Every point is one of {len(points)} agents"
        + (f" (every {step}th is shown)" if step > 1 else "")
        + ", where its learned factors put it: agents that act alike lie together."
    )
    covariates = _covariates(folder, population.agent_ids)
    if covariates:
        text += " Colors are covariates that training never saw."
    labels = [str(label) for label in population.agent_ids]
    colored = {name: values[shown] for name, values in covariates.items()}
    return Section("map", "Agents", text, figures.latent_map(points[shown], share, labels[shown], colored))


def _covariates(folder: Path, agent_ids: Sequence[int | str]) -> dict[str, np.ndarray]:
    """Covariates (N,) by name, as the run noted them; none where agents were added since."""
    path = folder / "latent_factors.json"
    if not path.is_file():
        return {}
    table = read_json(path)
    names, rows = table["columns"], table["rows"]
    # agent, two directions, the factors u0 …, covariates
    start = 3 + sum(name.startswith("u") and name[1:].isdigit() for name in names[3:])
    if [row[0] for row in rows] != list(agent_ids):
        return {}
    return {name: np.array([row[column] for row in rows]) for column, name in enumerate(names) if column >= start}


def _predictions(folder: Path, simulator: PersonalizedSimulator, level: float) -> list[Section]:
    compared = compared_rollouts(folder, simulator, level)
    if compared is None:
        text = "No trajectory is long enough to predict a part of it."
        return [Section("rollouts", "Predictions", text), Section("horizon", "Error by horizon", text)]
    state, told = simulator.schema.state, compared.told
    text = f"Open-loop rollouts of {told}: the simulator is given the first state and all actions, nothing else."
    growth = f"How errors grow along rollouts of {told}"
    if compared.half_width is None:
        text += " This run has no calibrated intervals."
        growth += "."
    else:
        text += f" Bands are intervals that should hold the truth {level:.0%} of the time."
        growth += f", and how often intervals of level {level:g} hold the truth." if compared.unseen else "."
    if not compared.unseen:
        text += " No test trajectories are known: these may have been trained on, or intervals calibrated on them."
    if len(state) > figures.MAX_COORDINATES:
        text += f" The first {figures.MAX_COORDINATES} of {len(state)} coordinates are shown."
    return [
        Section("rollouts", "Predictions", text, figures.rollouts(compared.episodes(), state, level)),
        Section("horizon", "Error by horizon", growth, figures.horizon(compared.curves(), level)),
    ]


def _ranks(folder: Path) -> Section:
    title = "Rank"
    theorem, selection = (
        read_json(folder / name) if (folder / name).is_file() else None
        for name in ("theorem.json", "rank_selection.json")
    )
    if theorem is None and selection is None:
        return Section("rank", title, f"Not examined yet: python tools/theorem.py --run {folder}")
    text = "" if theorem is None else theorem["summary"]
    if selection is not None:
        text += f" The rank was chosen by short fits: {selection['rank']}."
    return Section("rank", title, text.strip(), figures.ranks(theorem, selection))


def _training(folder: Path) -> Section:
    title = "Training"
    paths = sorted(folder.glob("metrics/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for path in paths:
        table = pyarrow.csv.read_csv(path)
        for name in ("train/loss", "val/loss"):
            if name in table.column_names:
                rows = zip(table["epoch"].to_pylist(), table[name].to_pylist(), strict=True)
                known = [(epoch, value) for epoch, value in rows if value is not None]
                epochs, values = curves.setdefault(name, ([], []))
                epochs += [epoch for epoch, _ in known]
                values += [value for _, value in known]
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if not curves:
        return Section("training", title, "No metrics of its training lie in this folder.")
    text = "One-step losses while training, over members and coordinates; validation is the ends of the trajectories."
    return Section("training", title, text, figures.training(curves))


def _card(trajectories: Trajectories) -> Section:
    card = summary(trajectories)
    lengths = card["lengths"]
    text = (
        f"{card['trajectories']} trajectories of {card['agents']} agents, {card['transitions']:,} transitions; lengths "
        f"{lengths['min']} to {lengths['max']} steps, median {lengths['median']:.0f}; {card['terminated']} ended by "
        "themselves."
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
    path = folder / "provenance.json"
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
