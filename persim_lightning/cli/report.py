"""`persim report`."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError, MissingPackageError
from persim_lightning.store.names import REPORT
from persim_lightning.support.files import atomic_write, check_writable
from persim_lightning.support.parsing import CommandParser, choose_agents


def main(arguments: list[str]) -> None:
    """Make one HTML page of a run: its agents, predictions, errors, rank, training, data, and a what-if panel."""
    parser = CommandParser(
        prog="persim report",
        description=f"{main.__doc__} It needs no network and no other file. Example: persim report --run RUN",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of persim fit, or of persim adapt")
    parser.add_argument("--out", type=Path, help="HTML file to write (default: RUN/report.html)")
    parser.add_argument("--level", type=float, default=0.9, help="of intervals (default: %(default)s)")
    parser.add_argument(
        "--agents", help="of the what-if panel: ids and ranges, such as 0-4,17 (default: the first hundred)"
    )
    args = parser.parse_args(arguments)
    try:
        from persim_lightning.report.page import offered_agents, report_page
    except ImportError as error:
        raise MissingPackageError("a report", "plotly", "report") from error
    out = args.out or args.run / REPORT
    if not args.run.is_dir():
        raise ConfigurationError(f"{args.run}: no such folder")
    if out.is_dir():
        raise ConfigurationError(f"{out} is a folder: give the name of an HTML file")
    check_writable(out)
    simulator = PersonalizedSimulator.load(args.run)
    agents = offered_agents(simulator)
    if args.agents is not None:
        agents = choose_agents(simulator.trajectories.agent_ids, args.agents)
    page = report_page(args.run, simulator, agents, args.level)
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB): open it in any browser")
