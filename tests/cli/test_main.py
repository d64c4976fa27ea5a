"""The command `persim`: its list, its errors, and what its subcommands import."""

import subprocess
import sys

import pytest

from persim_lightning.cli.main import COMMANDS, main
from tests.conftest import ROOT

# They work on a saved run, so they must not wait for Lightning.
WITHOUT_LIGHTNING = ("adapt", "collect", "evaluate", "export", "plan", "report", "scarcity", "theorem", "unseen")


def persim(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["persim", *arguments])
    main()


def test_help_lists_every_command(monkeypatch, capsys):
    for arguments in ((), ("--help",)):
        persim(monkeypatch, *arguments)
        printed = capsys.readouterr().out
        assert all(f"  {name} " in printed for name in COMMANDS)
    persim(monkeypatch, "--version")
    assert capsys.readouterr().out.startswith("persim-lightning 0.")


def test_unknown_commands_and_configurations_list_what_exists(monkeypatch):
    for arguments, message in (
        (("fitt",), "error: unknown command 'fitt': choose from fit, adapt"),
        (("fit", "--config", "walker"), "error: no configuration 'walker': choose from cartpole, halfcheetah"),
        (("plan", "--run", "nowhere"), "error: nowhere/simulator.safetensors: no such file"),
    ):
        with pytest.raises(SystemExit) as ended:
            persim(monkeypatch, *arguments)
        assert str(ended.value.code).startswith(message)


def test_every_command_has_a_tool_and_a_module():
    names = {name.replace("-", "_") for name in COMMANDS}
    assert {path.stem for path in (ROOT / "tools").glob("*.py")} == names
    assert names < {path.stem for path in (ROOT / "persim_lightning/cli").glob("*.py")}


def imported_by(code):
    """Modules that a fresh interpreter holds after running code."""
    program = f"import sys, contextlib\nwith contextlib.suppress(SystemExit):\n    {code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_list_of_commands_needs_no_library():
    code = "sys.argv = ['persim', '--help']; from persim_lightning.cli.main import main; main()"
    assert not {"torch", "numpy", "pyarrow", "pytorch_lightning"} & imported_by(code)


def test_commands_on_saved_runs_do_not_import_lightning():
    calls = "; ".join(f"import persim_lightning.cli.{name}" for name in (*WITHOUT_LIGHTNING, "train_policy"))
    heavy = {"pytorch_lightning", "wandb", "matplotlib.pyplot", "mujoco", "sklearn", "tensorly", "scipy.signal"}
    assert not heavy & imported_by(calls)
