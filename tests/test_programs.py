"""Every program in benchmarks/ and examples/ runs; the worked example says what the documentation claims."""

import os
import runpy
import sys

import pyarrow.csv
import pytest

from persim_lightning.data.collecting.collect import ensure_test_data, ensure_training_data
from persim_lightning.envs import get_environment
from tests.commands import environment, run_tool
from tests.conftest import ROOT

SMALL_FIT = [
    *("--data.agents", "6", "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"),
    *("--model.hidden_width", "8", "--model.members", "2", "--model.spare_members", "0", "--check_theorem", "false"),
]


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """Runs a program in this process, in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)

    def run(path, *options):
        monkeypatch.setattr(sys, "argv", [path, *options])
        # As the interpreter does for a script.
        sys.path.insert(0, str((ROOT / path).parent))
        runpy.run_path(str(ROOT / path), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_no_program_is_left_out():
    programs = {path.name for folder in ("benchmarks", "examples") for path in (ROOT / folder).glob("*.py")}
    # patients.py is imported by dosing.py.
    assert programs == {
        *("collecting.py", "factorization.py", "own_table.py", "planning.py", "time_to_accuracy.py", "training.py"),
        "uneven.py",
        *("dosing.py", "patients.py"),
    }


def test_collecting(program):
    assert "5 agents, one trajectory each" in program("benchmarks/collecting.py", "--env", "cartpole", "--agents", "5")


def test_own_table(program):
    printed = program("benchmarks/own_table.py", "--rows", "30", "--many", "50", "--epochs", "2")
    assert "fit of 50 agents" in printed


def test_uneven(program):
    printed = program("benchmarks/uneven.py", "drug", "--agents", "4", "--span", "12", "--epochs", "1")
    assert "drug: uneven is" in printed


@pytest.mark.slow
def test_planning(program, tmp_path):
    done = run_tool("fit", tmp_path, "--config", "cartpole", *SMALL_FIT, "--run_dir", "run", "--wandb", "disabled")
    assert done.returncode == 0, done.stderr
    printed = program("benchmarks/planning.py", "--run", "run", "--agents", "1", "--steps", "1", "--threads", "1")
    assert "ms a decision" in printed


@pytest.mark.slow
def test_training(program, tmp_path):
    # The whole population, as conf/ says: collected small.
    ensure_training_data(tmp_path / "data", get_environment("cartpole"), "random", 500, 0)
    ensure_test_data(tmp_path / "data", get_environment("cartpole"), 0)
    assert "ratio" in program("benchmarks/training.py", "--epochs", "1", "--repeats", "1")


@pytest.mark.slow
def test_time_to_accuracy(program, tmp_path):
    tables = ensure_training_data(tmp_path / "data", get_environment("cartpole"), "random", 6, 0)
    test = ensure_test_data(tmp_path / "data", get_environment("cartpole"), 0)
    for name, path in (("random", tables.table), ("agents", tables.agents), ("test", test)):
        (tmp_path / f"cartpole_{name}.parquet").write_bytes(path.read_bytes())
    options = ["--env", "cartpole", "--reference", str(tmp_path), "--", *SMALL_FIT, "--wandb", "disabled"]
    assert "cartpole: whole fit in" in program("benchmarks/time_to_accuracy.py", *options)


@pytest.mark.slow
def test_factorization(program):
    printed = program("benchmarks/factorization.py", "--env", "mountaincar", "--out", "x.json", "--", *SMALL_FIT)
    assert "Tucker 2 × 3 × 2" in printed


@pytest.mark.slow
def test_dosing_from_a_csv_to_doses_for_every_patient(program, tmp_path):
    small = ["--patients", "40", "--visits", "25", "--judged", "4", "--epochs", "60"]
    assert "wrote" in program("examples/dosing.py", "--out", str(tmp_path / "dosing"), *small)
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
