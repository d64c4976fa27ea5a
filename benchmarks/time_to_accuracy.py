"""Whole fits on the tables that the authors' code was measured on: seconds, RMSE and R², beside the authors' scores.

`python benchmarks/time_to_accuracy.py --env cartpole --reference FOLDER`, where FOLDER holds `<env>_random.parquet`,
`<env>_test.parquet` and `<env>_agents.parquet`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from persim_lightning.support.terminal import print_table

ROOT = Path(__file__).parents[1]
# RMSE of the authors' implementation after 300 epochs on the same tables, agents 0-4.
AUTHORS = {
    "cartpole": (0.00465, 0.00679, 0.01568, 0.00679, 0.27722),
    "mountaincar": (0.00221, 0.00476, 0.00239, 0.00360, 0.00304),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True, choices=list(AUTHORS))
    parser.add_argument("--reference", required=True, type=Path)
    parser.add_argument("options", nargs="*", help="further options for persim fit, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = {"path": "random", "test_path": "test", "agents_path": "agents"}
        data = [f"--data.{name}={given.reference / f'{given.env}_{table}.parquet'}" for name, table in tables.items()]
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, str(ROOT / "tools/fit.py"), "--config", str(ROOT / f"conf/{given.env}.yaml")),
                *(*data, "--run_dir", f"{folder}/run", *given.options),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        records = json.loads(Path(folder, "run/prediction.json").read_text())
    rows = []
    for record, authors in zip(records, AUTHORS[given.env], strict=True):
        numbers = (f"{record['rmse']:.5f}", f"{record['r2']:.4f}", f"{authors:.5f}", f"{record['rmse'] / authors:.2f}")
        rows.append((str(record["agent"]), *numbers))
    headings = ("agent", "RMSE", "median R²", "authors' RMSE", "ratio")
    print_table(f"{given.env}: whole fit in {seconds:.0f} s", headings, rows)


if __name__ == "__main__":
    main()
