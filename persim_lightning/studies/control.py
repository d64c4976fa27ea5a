"""The paper's Table 2: returns of MPC on the simulators of every data set, and on the true dynamics."""

from __future__ import annotations

import argparse
from pathlib import Path

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import return_cell
from persim_lightning.runs.play import PERSIM, TRUE_ENV, played_once
from persim_lightning.support.files import atomic_write, markdown_table
from persim_lightning.support.terminal import print_table


def reward_table_command(args: list[str] | None = None) -> None:
    """Play MPC episodes on the runs of `tools/evaluate.py --all`, or reuse what was played, and print returns."""
    parser = argparse.ArgumentParser(prog="reward_table.py", description=reward_table_command.__doc__)
    parser.add_argument("--env", required=True, choices=list(ENVIRONMENTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/table1"), help="run folders (default: %(default)s)")
    parser.add_argument(
        "--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS), help="default: all four"
    )
    parser.add_argument("options", nargs="*", help="further options of tools/plan.py for every run, after --")
    given = parser.parse_args(args)
    rows, true = [], None
    for dataset in given.datasets:
        run = given.runs / f"{given.env}-{dataset}-PerSim"
        if not (run / "simulator.json").is_file():
            raise ConfigurationError(f"{run}: no finished run; tools/evaluate.py --all --env {given.env} makes it")
        results = played_once(run, [*given.options, "--true_env", str(true is None).lower()])
        rows.append([dataset, *map(return_cell, results[PERSIM]["agents"])])
        true = true or results[TRUE_ENV]
    assert true is not None
    rows.append([TRUE_ENV, *map(return_cell, true["agents"])])
    headings = ["data", *(f"agent {record['agent']}" for record in true["agents"])]
    title = f"{given.env}: return, mean ± std over {len(true['agents'][0]['returns'])} episodes"
    print_table(title, headings, rows)
    page = given.runs / f"table2-{given.env}.md"
    lines = [f"{title}; settings in each run's control.json", "", *markdown_table(headings, rows)]
    with atomic_write(page) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print(f"wrote {page}")
