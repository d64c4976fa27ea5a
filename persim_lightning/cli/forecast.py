"""`persim forecast`."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.sources import write_table
from persim_lightning.support.files import check_writable
from persim_lightning.support.parsing import CommandParser


def main(arguments: list[str]) -> None:
    """Predict the states of rows to come, from the last recorded row of every agent."""
    parser = CommandParser(
        prog="persim forecast",
        description=f"{main.__doc__} Example: persim forecast --run RUN --data future.csv --level 0.9",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of persim fit, or of persim adapt")
    parser.add_argument(
        "--data", type=Path, required=True, help="rows to come: agent, time, actions and inputs; others are ignored"
    )
    parser.add_argument("--history", type=Path, help="recent rows to start from; unknown agents in it are adapted to")
    parser.add_argument("--level", type=float, help="of intervals, such as 0.9 (default: no intervals)")
    parser.add_argument("--out", type=Path, help=".csv or .parquet file to write (default: RUN/forecast-NAME.csv)")
    args = parser.parse_args(arguments)
    out = args.out or args.run / f"forecast-{args.data.stem}.csv"
    check_writable(out)
    simulator = PersonalizedSimulator.load(args.run)
    answer = simulator.forecast(args.data, args.history, args.level)
    write_table(answer, out)
    print(f"wrote {answer.num_rows} rows of {len(simulator.schema.state)} state column(s) to {out}")
