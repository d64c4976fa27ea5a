"""The command `tools/report.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.files import atomic_write, check_writable
from persim_lightning.support.parsing import choose_agents


def report_command(args: list[str] | None = None) -> None:
    """Make one HTML page of a run: its agents, predictions, errors, rank, training, data, and a what-if panel."""
    parser = argparse.ArgumentParser(
        prog="report.py",
        description=f"{report_command.__doc__} It needs no network and no other file. "
        "Example: python tools/report.py --run RUN",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of tools/fit.py, or what adapt.py wrote")
    parser.add_argument("--out", type=Path, help="HTML file to write (default: RUN/report.html)")
    parser.add_argument("--level", type=float, default=0.9, help="of intervals (default: %(default)s)")
    parser.add_argument(
        "--agents", help="of the what-if panel: ids and ranges, such as 0-4,17 (default: the first hundred)"
    )
    given = parser.parse_args(args)
    try:
        from persim_lightning.report.page import offered_agents, report_page
    except ImportError as error:
        raise ConfigurationError(f"reports need plotly: pip install 'persim-lightning[report]' ({error})") from error
    out = given.out or given.run / "report.html"
    if not given.run.is_dir():
        raise ConfigurationError(f"{given.run}: no such folder")
    if out.is_dir():
        raise ConfigurationError(f"{out} is a folder: give the name of an HTML file")
    check_writable(out)
    simulator = PersonalizedSimulator.load(given.run)
    agents = offered_agents(simulator)
    if given.agents is not None:
        agents = choose_agents(simulator.trajectories.agent_ids, given.agents)
    page = report_page(given.run, simulator, agents, given.level)
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB): open it in any browser")
