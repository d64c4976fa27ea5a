"""`persim export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.files import check_writable
from persim_lightning.support.parsing import CommandParser, choose_agents


def main(arguments: list[str]) -> None:
    """Export one agent's simulator as ONNX, or recorded or simulated trajectories as a Minari data set."""
    parser = CommandParser(
        prog="persim export",
        description=f"{main.__doc__} Example: "
        "persim export --run RUN --to minari --synthetic 5 --id patients/simulated-v0 --out data/simulated",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of persim fit, or of persim adapt")
    parser.add_argument("--to", choices=["onnx", "minari"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="an .onnx file, or a new folder")
    parser.add_argument("--agents", help="ids and ranges, such as 0-4,17; one for ONNX (Minari: default all)")
    minari = parser.add_argument_group("minari")
    minari.add_argument("--id", help="of the data set, such as patients/real-v0")
    minari.add_argument(
        "--synthetic", type=int, help="simulated episodes of each agent, random actions (default: recorded episodes)"
    )
    minari.add_argument("--max_steps", type=int, help="of simulated episodes (default: as the longest recorded)")
    minari.add_argument("--seed", type=int, default=0, help="of simulated episodes (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.to == "onnx":
        if args.agents is None:
            parser.error("--to onnx needs --agents, the agent whose simulator is exported")
        if any(value is not None for value in (args.id, args.synthetic, args.max_steps)):
            parser.error("--id, --synthetic and --max_steps are options of --to minari")
        _export_onnx(args)
    elif args.id is None:
        parser.error("--to minari needs --id, such as patients/real-v0")
    elif args.max_steps is not None and args.synthetic is None:
        parser.error("--max_steps is an option of --synthetic")
    else:
        _export_minari(args)


def _export_onnx(args: argparse.Namespace) -> None:
    from persim_lightning.interop.onnx_export import export_onnx

    check_writable(args.out)
    population = PersonalizedSimulator.load(args.run).population
    agents = choose_agents(population.agent_ids, args.agents)
    if len(agents) > 1:
        raise ConfigurationError(f"--agents {args.agents}: an ONNX file holds one agent's simulator")
    path = export_onnx(population, agents[0], args.out)
    print(f"wrote agent {agents[0]}'s simulator, (state, action) -> next_state, to {path}")


def _export_minari(args: argparse.Namespace) -> None:
    from persim_lightning.data.tables.minari import check_minari, write_minari
    from persim_lightning.interop.synthetic import simulated_trajectories

    check_writable(args.out)
    check_minari(args.out, args.id)
    simulator = PersonalizedSimulator.load(args.run)
    trajectories = simulator.trajectories
    agents = trajectories.agent_ids if args.agents is None else choose_agents(trajectories.agent_ids, args.agents)
    if args.synthetic is not None:
        trajectories = simulated_trajectories(
            simulator, agents, args.synthetic, seed=args.seed, max_steps=args.max_steps
        )
    elif args.agents is not None:
        trajectories = trajectories.restricted(agents)
    kind = "recorded" if args.synthetic is None else "simulated"
    write_minari(trajectories, args.out, args.id, f"{kind} trajectories of {len(agents)} agents")
    steps = int((trajectories.lengths - 1).sum())
    print(
        f"wrote {trajectories.num_trajectories} {kind} trajectories of {len(agents)} agents ({steps} steps) to "
        f"{args.out}; minari.MinariDataset('{args.out.absolute()}/data') reads them"
    )
