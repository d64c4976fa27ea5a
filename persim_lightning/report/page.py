"""Builds the report as a single HTML file, which needs neither a network nor other files."""

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

# Largest number of agents in the what-if panel, and initial number of steps.
_MAX_AGENTS, _STEPS = 100, 50


def report_page(folder: Path, simulator: PersonalizedSimulator, agents: tuple[int | str, ...], level: float) -> str:
    """Build a report as HTML.

    Parameters
    ----------
    folder : Path
        A run folder, or a folder that :meth:`PersonalizedSimulator.save` wrote.
    simulator : PersonalizedSimulator
        The simulator in the folder.
    agents : tuple of int or str
        Agents in the what-if panel.
    level : float
        Level of the intervals.

    Raises
    ------
    ConfigurationError
        If intervals of this level are not calibrated.
    """
    if simulator.calibration is not None:
        simulator.calibration.check(level)
    contents = sections(folder, simulator, level)
    plots = {section.key: json.loads(section.figure.to_json()) for section in contents if section.figure is not None}
    anchors = [("what-if", "What if?"), *((section.key, section.title) for section in contents)]
    schema = simulator.schema
    longest = int(simulator.trajectories.lengths.max()) - 1
    note = (
        f"Bands are intervals of level {level:g}."
        if simulator.calibration is not None
        else "Thin lines are the members of the ensemble; this run has no calibrated intervals."
    )
    return Template(_asset("page.html")).substitute(
        title=html.escape(folder.resolve().name),
        subtitle=html.escape(
            f"{len(simulator.agents)} agents; states {', '.join(schema.state)}; actions "
            f"{', '.join(column.name for column in schema.user_actions)}"
        ),
        style=_asset("page.css"),
        plotly=get_plotlyjs(),
        navigation=" ".join(f'<a href="#{key}">{html.escape(title)}</a>' for key, title in anchors),
        interval_note=note,
        steps=min(_STEPS, longest),
        sections="\n".join(map(_section, contents)),
        what_if_data=_json(what_if_data(simulator, agents, level)),
        what_if=_asset("what_if.js"),
        panel=_asset("panel.js"),
        figures=_json(plots),
    )


def offered_agents(simulator: PersonalizedSimulator) -> tuple[int | str, ...]:
    """Return the default agents of the what-if panel: the first 100 that have recorded rows."""
    recorded = set(simulator.trajectories.agent_ids)
    return tuple(label for label in simulator.agents if label in recorded)[:_MAX_AGENTS]


def _section(section: Section) -> str:
    plot = "" if section.figure is None else f'<div id="plot-{section.key}" class="plot"></div>'
    tables = "".join(_table(table) for table in section.tables)
    text = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    return f'<section id="{section.key}">\n<h2>{html.escape(section.title)}</h2>\n{text}{plot}{tables}\n</section>'


def _table(table: Table) -> str:
    headings, rows = table
    head = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _json(values: Any) -> str:
    """Format JSON for a script element; `<` is escaped, so that no text can close the element."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files("persim_lightning.report").joinpath(name).read_text(encoding="utf-8")
