"""The worked examples run, and say what the documentation claims."""

import subprocess
import sys

import pyarrow.csv

from tests.conftest import ROOT


def test_dosing_from_a_csv_to_doses_of_their_own(tmp_path):
    small = ["--patients", "40", "--visits", "25", "--judged", "4", "--epochs", "60"]
    command = [sys.executable, str(ROOT / "examples/dosing.py"), "--out", str(tmp_path / "dosing"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "wrote" in done.stdout
    found = pyarrow.csv.read_csv(tmp_path / "dosing/figures.csv").to_pydict()
    figures = dict(zip(found["figure"], found["value"], strict=True))
    error, foreign, covered, given, few, *distances = figures.values()
    assert error < 0.4 * foreign
    assert few < 3
    assert covered > 0.5
    assert given > 0.8
    own, other, rule = distances
    assert own < 0.7 * min(other, rule)
    assert (tmp_path / "dosing/dosing.png").stat().st_size > 10_000
    assert (tmp_path / "dosing/simulator/simulator.safetensors").is_file()
