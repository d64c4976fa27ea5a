"""`persim evaluate`."""

from __future__ import annotations

from pathlib import Path

from persim_lightning.evaluation.report import evaluate, print_scores, without_agents
from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import write_json
from persim_lightning.support.parsing import CommandParser


def main(arguments: list[str]) -> None:
    """Score 50-step rollouts of a run on a table of test trajectories, per agent."""
    parser = CommandParser(
        prog="persim evaluate",
        description=f"{main.__doc__} Example: persim evaluate --run RUN --data test.parquet. The paper's Table 1 is "
        "made by persim benchmark --preset table.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of persim fit, or of persim adapt")
    parser.add_argument("--data", type=Path, required=True, help="test trajectories, .parquet or .csv")
    parser.add_argument(
        "--mean_agent", action="store_true", help="give every agent the population's mean factor, for comparison"
    )
    parser.add_argument("--out", type=Path, help="JSON to write (default: RUN/prediction-NAME[-mean-agent].json)")
    args = parser.parse_args(arguments)
    population = FittedPopulation.load(args.run)
    if args.mean_agent:
        population = without_agents(population)
    records = evaluate(population, args.data)
    suffix = "-mean-agent" if args.mean_agent else ""
    out = args.out or args.run / f"prediction-{args.data.stem}{suffix}.json"
    write_json(records, out)
    print_scores(records, f"50-step rollouts on {args.data.name}")
    print(f"wrote {out}")
