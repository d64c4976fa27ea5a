"""The page itself: one HTML file that needs nothing else, neither network nor other files."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.report.contents import Section, Table, sections
from persim_lightning.report.what_if import what_if_data

# Agents that the what-if panel offers, and steps that it shows at first.
_MAX_AGENTS, _STEPS = 100, 50


def report_page(folder: Path, simulator: PersonalizedSimulator, agents: tuple[int | str, ...], level: float) -> str:
    """A report as HTML.

    Parameters
    ----------
    folder : Path
        A run folder of `tools/fit.py`, or what :meth:`PersonalizedSimulator.save` wrote.
    simulator : PersonalizedSimulator
        What lies there.
    agents : tuple of int or str
        Agents that the what-if panel offers.
    level : float
        Of intervals.
    """
    if simulator.calibration is not None:
        simulator.calibration.check(level)
    told = sections(folder, simulator, level)
    plots = {part.key: json.loads(part.figure.to_json()) for part in told if part.figure is not None}
    parts = [("what-if", "What if?"), *((part.key, part.title) for part in told)]
    schema = simulator.schema
    longest = int(simulator.trajectories.lengths.max()) - 1
    note = (
        f"Bands are intervals of level {level:g}."
        if simulator.calibration is not None
        else "Thin lines are the ensemble's members; this run has no calibrated intervals."
    )
    return Template(_asset("page.html")).substitute(
        title=html.escape(folder.resolve().name),
        subtitle=html.escape(
            f"{len(simulator.agents)} agents; states {', '.join(schema.state)}; actions "
            f"{', '.join(column.name for column in schema.user_actions)}"
        ),
        style=_asset("page.css"),
        plotly=get_plotlyjs(),
        navigation=" ".join(f'<a href="#{key}">{html.escape(title)}</a>' for key, title in parts),
        interval_note=note,
        steps=min(_STEPS, longest),
        sections="\n".join(_section(part) for part in told),
        what_if_data=_json(what_if_data(simulator, agents, level)),
        what_if=_asset("what_if.js"),
        panel=_asset("panel.js"),
        figures=_json(plots),
    )


def offered_agents(simulator: PersonalizedSimulator) -> tuple[int | str, ...]:
    """Agents of the what-if panel where none are named: up to 100 that have recorded rows, the first ones."""
    recorded = set(simulator.trajectories.agent_ids)
    return tuple(label for label in simulator.agents if label in recorded)[:_MAX_AGENTS]


def _section(part: Section) -> str:
    plot = "" if part.figure is None else f'<div id="plot-{part.key}" class="plot"></div>'
    tables = "".join(_table(table) for table in part.tables)
    text = f"<p>{html.escape(part.text)}</p>" if part.text else ""
    return f'<section id="{part.key}">\n<h2>{html.escape(part.title)}</h2>\n{text}{plot}{tables}\n</section>'


def _table(table: Table) -> str:
    headings, rows = table
    head = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _json(values: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files("persim_lightning.report").joinpath(name).read_text(encoding="utf-8")
