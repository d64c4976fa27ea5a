"""Whoever has only pip-installed the package has every command and configuration."""

import json
import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.commands import environment
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `persim` of an environment into which the wheel alone was installed; libraries come from the tested one."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools leaves folders beside its sources.
    source = folder / "source"
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True).stdout
    for name in tracked.split("\n"):
        if (
            name
            and (ROOT / name).is_file()
            and name.startswith(("persim_lightning/", "conf/", "setup.py", "README", "pyproject"))
        ):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "-q", "--no-input"]
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", str(source), "-w", str(folder), *options], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    [packages] = (folder / "env/lib").glob("*/site-packages")
    (packages / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", "--ignore-installed", str(wheel)],
        check=True,
        capture_output=True,
    )
    return folder / "env/bin/persim"


def run(installed, folder, *arguments):
    # The package must come from the wheel, not from a path of the tested environment.
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed), *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fit_plan_and_report_in_an_empty_folder(installed, tmp_path):
    small = ["--data.agents", "12", "--trainer.max_epochs", "2", "--check_theorem", "false", "--model.members", "2"]
    printed = run(installed, tmp_path, "fit", "--config", "mountaincar", "--run_dir", "run", *small)
    assert "median R²" in printed
    quick = ["--episodes", "1", "--agents", "1", "--planner.plans", "20", "--horizon", "5", "--true_env", "false"]
    run(installed, tmp_path, "plan", "--run", "run", *quick)
    assert list(json.loads((tmp_path / "run/control.json").read_text())["results"]) == ["PerSim + MPC"]
    run(installed, tmp_path, "report", "--run", "run")
    assert (tmp_path / "run/report.html").stat().st_size > 1e6
    facts = json.loads((tmp_path / "run/provenance.json").read_text())
    assert facts["command"][0] == str(installed)
