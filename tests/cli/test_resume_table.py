"""Fits of a user's table resume: killed at random moments, they end in the same simulator."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from persim_lightning.data.tables.sources import write_table
from tests.commands import environment
from tests.conftest import ROOT
from tests.patients import patients

OPTIONS = [
    *("--config", str(ROOT / "conf/table.yaml"), "--data.path", "patients.csv", "--wandb", "disabled"),
    *("--data.columns.agent", "patient", "--data.columns.time", "day", "--data.columns.state", "[level]"),
    *("--data.columns.action", "[dose, drug]", "--data.columns.reward", "comfort", "--trainer.max_epochs", "60"),
    *("--model.hidden_width", "8", "--model.members", "2", "--model.rank", "2"),
]
FILES = ("simulator.safetensors", "outcomes.safetensors")


def start_fit(folder, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "persim_lightning.cli", "fit", *OPTIONS, *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_fit(folder, *options):
    process = start_fit(folder, *options)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def resume(folder, run):
    """Resume as the user would: from the last checkpoint, or from the start if there is none."""
    last = folder / run / "checkpoints/last.ckpt"
    finish_fit(folder, *(["--ckpt_path", str(last)] if last.exists() else ["--run_dir", run]))


def assert_same_run(folder, one, other):
    for name in FILES:
        first, second = (load_file(folder / run / name) for run in (one, other))
        assert all(torch.equal(first[key].nan_to_num(), second[key].nan_to_num()) for key in first)
    assert (folder / one / "calibration.json").read_text() == (folder / other / "calibration.json").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_table(pa.table(patients(12, 40)), folder / "patients.csv")
    return folder


def test_a_fit_of_a_table_that_is_killed_in_training_resumes_to_the_same_simulator(folder):
    finish_fit(folder, "--run_dir", "whole")
    process = start_fit(folder, "--run_dir", "broken")
    last = folder / "broken/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < torch.load(last, weights_only=True)["epoch"] < 60
    resume(folder, "broken")
    assert_same_run(folder, "whole", "broken")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_of_the_command(folder):
    start = time.monotonic()
    finish_fit(folder, "--run_dir", "undisturbed")
    seconds = time.monotonic() - start
    moments = random.Random(0)
    for attempt in range(20):
        run = f"killed{attempt}"
        process = start_fit(folder, "--run_dir", run)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not (folder / run / "provenance.json").exists():
            resume(folder, run)
        assert_same_run(folder, "undisturbed", run)


@pytest.mark.slow
def test_a_fit_that_runs_out_of_time_resumes_to_the_same_simulator(folder):
    longer = ["--trainer.max_epochs", "600"]
    finish_fit(folder, "--run_dir", "in-time", *longer)
    finish_fit(folder, "--run_dir", "late", "--trainer.max_time", "00:00:00:01", *longer)
    last = folder / "late/checkpoints/last.ckpt"
    assert 0 < torch.load(last, weights_only=True)["epoch"] < 600
    assert (folder / "late/simulator.safetensors").exists()
    finish_fit(folder, "--ckpt_path", str(last), *longer)
    assert_same_run(folder, "in-time", "late")


def test_two_fits_do_not_share_a_folder(folder):
    first = start_fit(folder, "--run_dir", "shared", "--trainer.max_epochs", "3000")
    deadline = time.monotonic() + 120
    while not (folder / "shared/config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start_fit(folder, "--run_dir", "shared")
    _, errors = second.communicate()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.returncode == 1
    assert "another fit is writing to it" in errors or "holds a run" in errors


def test_a_folder_with_foreign_files_is_not_taken_over(folder):
    (folder / "mine").mkdir()
    (folder / "mine/notes.txt").write_text("do not touch")
    process = start_fit(folder, "--run_dir", "mine")
    _, errors = process.communicate()
    assert "mine holds other files: choose another --run_dir" in errors
    assert [path.name for path in (folder / "mine").iterdir()] == ["notes.txt"]


def test_a_terminated_fit_says_how_to_resume(folder):
    process = start_fit(folder, "--run_dir", "stopped", "--trainer.max_epochs", "6000")
    last = folder / "stopped/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].endswith("interrupted: resume with --ckpt_path stopped/checkpoints/last.ckpt")
    assert "Traceback" not in errors
