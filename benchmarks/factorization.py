"""CP against Tucker on the same data: parameters, errors and seconds of whole fits.

`python benchmarks/factorization.py --env cartpole --root data` (from the project's folder, on an idle machine; what is
missing of the data is made).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from persim_lightning.models.population import FittedPopulation
from persim_lightning.support.files import write_json
from persim_lightning.support.terminal import print_table

ROOT = Path(__file__).parents[1]
# (agent, state, action) ranks: one number is a CP rank. The last Tucker ranks are the true tensor's own.
VARIANTS: dict[str, list[tuple[int, ...]]] = {
    "mountaincar": [(3,), (3, 3, 3), (2, 3, 2)],
    "cartpole": [(5,), (4, 5, 2), (5, 5, 2)],
}


def ranks_options(ranks: tuple[int, ...]) -> list[str]:
    """Options of persim fit."""
    if len(ranks) == 1:
        return ["--model.rank", str(ranks[0])]
    named = zip(("agent", "state", "action"), ranks, strict=True)
    return ["--model.factorization", "tucker", *(f"--model.rank_{mode}={rank}" for mode, rank in named)]


def measure(env: str, ranks: tuple[int, ...], root: Path, options: list[str]) -> dict[str, object]:
    """Fit once in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, str(ROOT / "tools/fit.py"), "--config", str(ROOT / f"conf/{env}.yaml")),
                *("--data.root", str(root), "--run_dir", str(run), "--wandb", "disabled", "--check_theorem", "false"),
                *(*ranks_options(ranks), *options),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        records = json.loads((run / "prediction.json").read_text())
        simulator = FittedPopulation.load(run).simulator
    own = sum(parameter.numel() for parameter in simulator.agent_encoder.parameters())
    total = sum(parameter.numel() for parameter in simulator.parameters())
    return {
        "ranks": "CP " + str(ranks[0]) if len(ranks) == 1 else "Tucker " + " × ".join(map(str, ranks)),
        "parameters": total,
        "of_agents": own,
        "rmse": [record["rmse"] for record in records],
        "median_r2": [record["r2"] for record in records],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, choices=list(VARIANTS))
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="JSON to write as well")
    parser.add_argument("options", nargs="*", help="further options for persim fit, after --")
    given = parser.parse_args()
    results = [measure(given.env, ranks, given.root, given.options) for ranks in VARIANTS[given.env]]
    rows = [
        (
            str(result["ranks"]),
            f"{result['parameters']:,} ({result['of_agents']:,})",
            " ".join(f"{value:.2g}" for value in result["rmse"]),  # type: ignore[attr-defined]
            f"{statistics.median(result['median_r2']):.4f}",  # type: ignore[call-overload]
            f"{result['seconds']:.0f}",
        )
        for result in results
    ]
    headings = ("factorization", "parameters (agents')", "RMSE of agents 0-4", "median R²", "whole fit, s")
    print_table(f"{given.env}, random data", headings, rows)
    if given.out is not None:
        write_json(results, given.out)
        print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
