"""The command `tools/export.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from persim_lightning.api.simulator import PersonalizedSimulator
from persim_lightning.data.tables.minari import check_minari, write_minari
from persim_lightning.errors import ConfigurationError
from persim_lightning.interop.onnx_export import export_onnx
from persim_lightning.interop.synthetic import simulated_trajectories
from persim_lightning.support.files import check_writable
from persim_lightning.support.parsing import choose_agents


def export_command(args: list[str] | None = None) -> None:
    """Hand a fitted population on: one agent's simulator as ONNX, or trajectories as a Minari data set."""
    parser = argparse.ArgumentParser(
        prog="export.py",
        description=f"{export_command.__doc__} Example: "
        "python tools/export.py --run RUN --to minari --synthetic 5 --id patients/simulated-v0 --out data/simulated",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of tools/fit.py, or what adapt.py wrote")
    parser.add_argument("--to", choices=["onnx", "minari"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="an .onnx file, or a new folder")
    parser.add_argument("--agents", help="ids and ranges, such as 0-4,17; one for ONNX (Minari: default all)")
    minari = parser.add_argument_group("minari")
    minari.add_argument("--id", help="of the data set, such as patients/real-v0")
    minari.add_argument(
        "--synthetic", type=int, help="so many simulated episodes of each agent, random actions (default: the recorded)"
    )
    minari.add_argument("--max_steps", type=int, help="of simulated episodes (default: as the longest recorded)")
    minari.add_argument("--seed", type=int, default=0, help="of simulated episodes (default: %(default)s)")
    given = parser.parse_args(args)
    if given.to == "onnx":
        if given.agents is None:
            parser.error("--to onnx needs --agents: whose simulator?")
        if any(value is not None for value in (given.id, given.synthetic, given.max_steps)):
            parser.error("--id, --synthetic and --max_steps belong to --to minari")
        _export_onnx(given)
    elif given.id is None:
        parser.error("--to minari needs --id, such as patients/real-v0")
    elif given.max_steps is not None and given.synthetic is None:
        parser.error("--max_steps belongs to --synthetic")
    else:
        _export_minari(given)


def _export_onnx(given: argparse.Namespace) -> None:
    check_writable(given.out)
    population = PersonalizedSimulator.load(given.run).population
    agents = choose_agents(population.agent_ids, given.agents)
    if len(agents) > 1:
        raise ConfigurationError(f"--agents {given.agents}: an ONNX file holds one agent's simulator")
    path = export_onnx(population, agents[0], given.out)
    print(f"wrote agent {agents[0]}'s simulator, (state, action) -> next_state, to {path}")


def _export_minari(given: argparse.Namespace) -> None:
    check_writable(given.out)
    check_minari(given.out, given.id)
    simulator = PersonalizedSimulator.load(given.run)
    trajectories = simulator.trajectories
    agents = trajectories.agent_ids if given.agents is None else choose_agents(trajectories.agent_ids, given.agents)
    if given.synthetic is not None:
        trajectories = simulated_trajectories(
            simulator, agents, given.synthetic, seed=given.seed, max_steps=given.max_steps
        )
    elif given.agents is not None:
        trajectories = trajectories.restricted(agents)
    kind = "recorded" if given.synthetic is None else "simulated"
    write_minari(trajectories, given.out, given.id, f"{kind} trajectories of {len(agents)} agents")
    steps = int((trajectories.lengths - 1).sum())
    print(
        f"wrote {trajectories.num_trajectories} {kind} trajectories of {len(agents)} agents ({steps} steps) to "
        f"{given.out}; minari.MinariDataset('{given.out.absolute()}/data') reads them"
    )
