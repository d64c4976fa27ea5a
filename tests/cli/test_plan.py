"""`persim plan`, and MPC at the end of a fit."""

import json
import shutil

import pytest

from persim_lightning.cli import plan as plan_command
from persim_lightning.cli.main import run as run_command
from persim_lightning.errors import ConfigurationError, SimulatorFileError
from tests.cli.test_fit import fit
from tests.commands import run_tool
from tests.conftest import ROOT
from tests.wandb_records import values_when_written


def plan(run, *options):
    quick = ["--planner.plans", "20", "--planner.rounds", "1", "--planner.elites", "5", "--threads", "1"]
    config = str(ROOT / "conf/planning/cartpole.yaml")
    return run_tool("plan", run.parent, "--run", str(run), "--config", config, *quick, *options)


def per_coordinate(states, actions, next_states):
    return next_states


def of_two(states, actions):
    return states.sum(-1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A Tucker run, whose unequal ranks would show if planning took it for a CP one."""
    folder = tmp_path_factory.mktemp("plan")
    planning = ["--mpc_episodes", "2", "--planning", str(ROOT / "conf/planning/cartpole.yaml")]
    tucker = ["--model.factorization", "tucker", "--model.rank_agent", "4", "--model.rank_action", "2"]
    done = fit(folder, "cartpole", "--trainer.max_epochs", "2", "--run_dir", str(folder / "run"), *planning, *tucker)
    return folder / "run", done.stdout


def test_fit_plays_episodes_when_it_ends(fitted):
    run, printed = fitted
    result = json.loads((run / "mpc_episodes.json").read_text())
    assert [record["agent"] for record in result["agents"]] == [0, 1, 2, 3, 4]
    [log] = run.glob("wandb/offline-run-*/*.wandb")
    logged = values_when_written(log, "figures/mpc_episodes/path")
    assert "figures/mpc_episodes" in " ".join(logged)
    for record in result["agents"]:
        assert len(record["returns"]) == 2
        # CartPole: one a step.
        assert record["returns"] == record["lengths"]
        assert logged[f"mpc_return/agent_{record['agent']}"] == [record["mean_return"]]
    assert (run / "figures/mpc_episodes.png").is_file()
    assert "MPC in the real environment" in " ".join(printed.split())


def test_plan_reports_both_and_says_what_it_made(fitted):
    run, _ = fitted
    done = plan(run, "--agents", "0-1,5", "--episodes", "2")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "control.json").read_text())
    assert result["request"]["settings"]["planner"]["init_args"]["plans"] == 20
    for method in ("PerSim + MPC", "True env + MPC"):
        records = result["results"][method]["agents"]
        assert [record["agent"] for record in records] == [0, 1, 5]
        assert all(record["returns"] == record["lengths"] for record in records)
        assert result["results"][method]["decisions"] == sum(sum(record["lengths"]) for record in records)
    assert f"wrote {run / 'control.json'}" in done.stdout
    assert f"wrote {run / 'control.png'}" in done.stdout
    again = plan(run, "--agents", "0-1,5", "--episodes", "2", "--true_env", "false", "--out", str(run / "again.json"))
    assert again.returncode == 0, again.stderr
    repeated = json.loads((run / "again.json").read_text())["results"]
    assert list(repeated) == ["PerSim + MPC"]
    assert repeated["PerSim + MPC"]["agents"] == result["results"]["PerSim + MPC"]["agents"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agents", "15-25"], "unknown agent '20': choose from the 20 agents"),
        (["--video", "film.avi"], "videos are written as .gif or .mp4"),
        (["--planner.plans", "0"], "plans"),
        (["--planner.elites", "500"], "elites is 500: it must be at most the number of plans (100)"),
        (["--horizon", "0"], "horizon"),
        (["--agents", "5-2"], "names no agent"),
        (["--reward", "tests.cli.test_plan.per_coordinate"], "for states (2, 3, 4) it returned (2, 3, 4), not (2, 3)"),
        (["--reward", "tests.cli.test_plan.of_two"], "reward tests.cli.test_plan.of_two failed on a batch: TypeError"),
        (["--video", "/proc/film.gif"], "/proc/film.gif cannot be written"),
        (["--reward", "no.such.function"], "reward"),
        (["--peak_coordinate", "height"], "choose from position, velocity, angle"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_options_are_told_in_one_line(fitted, tmp_path, monkeypatch, capsys, options, message):
    run, _ = fitted
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        run_command("plan", ["--run", str(run), "--out", str(tmp_path / "bad.json"), *options])
    told = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(SimulatorFileError, match="the folder of a finished run"):
        plan_command.main(["--run", str(tmp_path)])


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
def test_a_damaged_run(fitted, tmp_path, name):
    shutil.copytree(fitted[0], tmp_path / "run", ignore=shutil.ignore_patterns("wandb"))
    (tmp_path / "run" / name).write_text("{ no: [")
    with pytest.raises(ConfigurationError, match="is damaged"):
        plan_command.main(["--run", str(tmp_path / "run")])
