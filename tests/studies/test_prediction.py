"""Table 1 from end to end on a small population: fits, reuses, goes on, refuses."""

import json
import shutil

import pytest
import yaml

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.studies.prediction import Cell, table_rows
from tests.commands import run_tool
from tests.conftest import ROOT

SMALL = ["--data.agents", "6", "--model.hidden_width", "8", "--model.members", "2", "--trainer.max_epochs", "2"]
SMALL += ["--check_theorem", "false"]
ALL_METHODS = ["--without_agents", "--completion"]


def evaluate_all(folder, *options, fit_options=SMALL):
    table = ["--all", "--env", "cartpole", "--conf", str(ROOT / "conf"), *options]
    return run_tool("evaluate", folder, *table, "--", "--wandb", "disabled", *fit_options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table1")
    done = evaluate_all(folder, *ALL_METHODS)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_for_every_data_set_and_method(finished):
    folder, printed = finished
    cells = json.loads((folder / "runs/table1/table1-cartpole.json").read_text())
    methods = ("PerSim", "without agent factors", "tensor completion")
    assert [(cell["dataset"], cell["method"]) for cell in cells] == [(d, m) for d in DATASETS for m in methods]
    for cell in cells:
        assert cell["scores"] == json.loads((folder / cell["run"] / "prediction.json").read_text())
        if cell["method"] == "tensor completion":
            continue
        config = yaml.safe_load((folder / cell["run"] / "config.yaml").read_text())
        assert config["data"]["dataset"] == cell["dataset"]
        assert config["model"]["init_args"]["agent_factors"] == (cell["method"] == "PerSim")
    assert "wrote runs/table1/table1-cartpole.md" in printed
    page = (folder / "runs/table1/table1-cartpole.md").read_text()
    assert "| data | method | agent 0 | agent 1 | agent 2 | agent 3 | agent 4 |" in page
    assert "| pure-eps-40 | without agent factors |" in page
    assert "| pure-eps-40 | tensor completion |" in page


def test_without_agent_factors_all_agents_are_one(finished):
    folder, _ = finished
    table = json.loads((folder / "runs/table1/cartpole-random-without-agent-factors/latent_factors.json").read_text())
    names = [name for name in table["columns"] if name.startswith("u")]
    factors = {tuple(row[table["columns"].index(name)] for name in names) for row in table["rows"]}
    assert (len(names), len(factors)) == (5, 1)


def test_tensor_completion_has_the_rank_and_the_data_of_the_network(finished):
    folder, _ = finished
    runs = folder / "runs/table1"
    asked = json.loads((runs / "cartpole-pure-tensor-completion/completion.json").read_text())["asked"]
    assert (asked["ranks"], asked["factorization"], asked["seed"]) == ([5, 5, 5], "cp", 0)
    data = json.loads((runs / "cartpole-pure-PerSim/provenance.json").read_text())["data"]
    assert asked["data"] == {"sha256": data["sha256"], "test_sha256": data["test_sha256"]}


def test_a_finished_completion_is_kept_and_a_lost_or_unfinished_one_made_again(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    runs = tmp_path / "copy/runs/table1"
    shutil.rmtree(runs / "cartpole-random-tensor-completion")
    (runs / "cartpole-pure-eps-20-tensor-completion/completion.json").unlink()
    (runs / "cartpole-pure-eps-20-tensor-completion/prediction.json").write_text("[]")
    kept = (runs / "cartpole-pure-tensor-completion/completion.json").read_text()
    before = (runs / "table1-cartpole.md").read_text()
    done = evaluate_all(tmp_path / "copy", *ALL_METHODS)
    assert done.returncode == 0, done.stderr
    assert (runs / "cartpole-pure-tensor-completion/completion.json").read_text() == kept
    assert (runs / "table1-cartpole.md").read_text() == before


def test_a_completion_under_other_settings_is_not_reused(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy/runs/table1/cartpole-pure-tensor-completion/completion.json"
    facts = json.loads(path.read_text())
    facts["asked"]["settings"]["state_cells"] = 7
    path.write_text(json.dumps(facts))
    done = evaluate_all(tmp_path / "copy", "--completion")
    assert done.returncode == 1
    assert "cartpole-pure-tensor-completion was fitted under other settings" in done.stderr.splitlines()[-1]


def test_finished_runs_are_kept_and_a_lost_one_is_made_again(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    runs = tmp_path / "copy/runs/table1"
    kept = json.loads((runs / "cartpole-pure-PerSim/provenance.json").read_text())
    shutil.rmtree(runs / "cartpole-random-PerSim")
    before = (runs / "table1-cartpole.md").read_text()
    done = evaluate_all(tmp_path / "copy", *ALL_METHODS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 6 agents") == 1
    assert (runs / "table1-cartpole.md").read_text() == before
    assert json.loads((runs / "cartpole-pure-PerSim/provenance.json").read_text()) == kept


def test_runs_under_other_settings_are_not_reused(finished):
    folder, _ = finished
    done = evaluate_all(folder, fit_options=[*SMALL, "--model.rank", "2"])
    assert done.returncode == 1
    assert "cartpole-pure-PerSim was fitted under other settings" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("table", ["sha256", "test_sha256"])
def test_runs_on_a_changed_table_are_not_reused(finished, tmp_path, table):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy/runs/table1/cartpole-pure-PerSim/provenance.json"
    facts = json.loads(path.read_text())
    facts["data"][table] = "0" * 64
    path.write_text(json.dumps(facts))
    done = evaluate_all(tmp_path / "copy", "--without_agents")
    assert done.returncode == 1
    assert "was fitted on another" in done.stderr.splitlines()[-1]


def test_a_mistyped_option_does_not_spoil_the_folder(tmp_path):
    done = evaluate_all(tmp_path, fit_options=[*SMALL, "--model.rnk", "2"])
    assert "rnk" in done.stderr
    done = evaluate_all(tmp_path, fit_options=[*SMALL, "--trainer.max_epochs", "0"])
    assert "max_epochs must be at least 1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("option", ["--data.dataset=random", "--data.path=x.csv", "--trainer.devices=2"])
def test_options_that_the_table_sets_itself(tmp_path, option):
    done = evaluate_all(tmp_path, fit_options=[option])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {option} cannot be given for all runs of the table"


def test_run_and_data_or_all(tmp_path):
    done = run_tool("evaluate", tmp_path)
    assert done.returncode == 2
    assert "give --run and --data and nothing after them, or --all" in done.stderr


def test_missing_configuration(tmp_path):
    done = evaluate_all(tmp_path, "--conf", "nowhere")
    assert done.returncode == 1
    assert "nowhere/cartpole.yaml: no such file" in done.stderr.splitlines()[-1]


def test_scores_that_cannot_be_written_as_numbers():
    scores = [
        {"agent": 0, "rmse": 0.012345, "r2": 0.98765},
        {"agent": 1, "rmse": 12.5, "r2": -1234.5},
        {"agent": 2, "rmse": None, "r2": None},
    ]
    [headings, row] = table_rows([Cell("cartpole", "pure", "PerSim", "run", scores)], "cartpole")
    assert headings == ["data", "method", "agent 0", "agent 1", "agent 2"]
    assert row == ["pure", "PerSim", "0.0123 (0.988)", "12.5 (< -10)", "–"]
