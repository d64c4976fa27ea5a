"""Users' own tables by the commands: fit, evaluate, adapt, and the study of unseen agents."""

import json

import numpy as np
import pyarrow as pa
import pytest

from persim_lightning import PersonalizedSimulator
from persim_lightning.cli import adapt, evaluate, export, fit, scarcity, theorem, unseen
from persim_lightning.data.tables.sources import write_table
from persim_lightning.errors import ConfigurationError, PersimError, TableError
from tests import commands
from tests.conftest import ROOT
from tests.patients import patients
from tests.tanks import tanks

COLUMNS = [
    *("--data.columns.agent", "patient", "--data.columns.time", "day"),
    *("--data.columns.state", "[level]", "--data.columns.action", "[dose, drug]", "--data.columns.reward", "comfort"),
]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(folder)
    write_table(pa.table(patients(24, 40)), folder / "patients.csv")
    write_table(pa.table(patients(24, 30, seed=9)), folder / "test.csv")
    names = [f"p{agent}" for agent in range(24)]
    write_table(pa.table({"patient": names, "speed": np.arange(24.0)}), folder / "agents.csv")
    quick = ["--trainer.max_epochs", "250", "--model.hidden_width", "16", "--model.members", "2", "--model.rank", "4"]
    paths = ["--data.path", "patients.csv", "--data.test_path", "test.csv", "--data.agents_path", "agents.csv"]
    config = ["--config", str(ROOT / "conf/table.yaml"), "--run_dir", "run", "--wandb", "disabled"]
    fit.main([*config, *paths, *COLUMNS, *quick])
    yield folder
    monkeypatch.undo()


def test_a_fit_of_a_table_ends_in_a_run_like_any_other(fitted, capsys):
    run = fitted / "run"
    scores = json.loads((run / "prediction.json").read_text())
    assert len(scores) == 24
    assert np.median([record["r2"] for record in scores]) > 0.9
    checked = json.loads((run / "theorem.json").read_text())
    assert checked["truth"] is None
    assert checked["learned"]["covariates"]["quadratic"]["speed"] > 0.5
    evaluate.main(["--run", str(run), "--data", "test.csv"])
    evaluated = json.loads((run / "prediction-test.json").read_text())
    assert [record.pop("rmse_by_state")["level"] for record in evaluated] == pytest.approx(
        [record["rmse"] for record in scores]
    )
    assert evaluated == scores
    theorem.main(["--run", str(run)])
    assert "the true dynamics is not known" in capsys.readouterr().out
    moved = fitted / "patients-elsewhere.csv"
    (fitted / "patients.csv").rename(moved)
    simulator = PersonalizedSimulator.load(run)
    moved.rename(fitted / "patients.csv")
    assert simulator.plan("p3", {"level": 0.5}, horizon=5).value < 0
    assert simulator.counterfactual("p3", "2024-03-11", level=0.9).half_width.shape == (30, 1)
    assert simulator.counterfactual("p3", pa.scalar("2024-03-11").cast(pa.date32()).as_py()).recorded.shape == (30, 1)


def test_adapt_adds_agents_from_rows_or_covariates(fitted, capsys):
    write_table(pa.table(patients(2, 15, first=24, seed=5)), fitted / "new.csv")
    adapt.main(["--run", "run", "--data", "new.csv", "--out", "larger"])
    assert "added 2 agent(s) (p24, p25) to 24 in" in capsys.readouterr().out
    larger = PersonalizedSimulator.load("larger")
    assert larger.agents[-2:] == ("p24", "p25")
    write_table(pa.table({"patient": ["x"], "speed": [11.5]}), fitted / "x.csv")
    adapt.main(["--run", "run", "--covariates", "x.csv", "--out", "with-x"])
    assert PersonalizedSimulator.load("with-x").agents[-1] == "x"
    for options, error, message in (
        (["--data", "nowhere.csv", "--out", "a"], TableError, r"nowhere\.csv: no such file"),
        (["--data", "patients.csv", "--out", "a"], ConfigurationError, "'p0' is in the population already"),
        (["--data", "new.csv", "--out", "larger"], ConfigurationError, "larger holds a simulator"),
    ):
        with pytest.raises(error, match=message):
            adapt.main(["--run", "run", *options])
    with pytest.raises(SystemExit):
        adapt.main(["--run", "run", "--out", "a"])
    assert "give --data, --covariates, or both" in capsys.readouterr().err


def test_what_a_table_needs_is_said(fitted):
    config = ["--config", str(ROOT / "conf/table.yaml"), "--run_dir", "other", "--wandb", "disabled"]
    for options, message in (
        (COLUMNS, "data.path is missing"),
        (["--data.path", "patients.csv"], r"patients\.csv: missing column\(s\) agent"),
        (["--data.path", "patients.csv", *COLUMNS, "--data.env", "cartpole"], "give either data.env, or data.columns"),
        (["--data.path", "patients.csv", *COLUMNS, "--mpc_episodes", "1"], "needs a real environment"),
    ):
        with pytest.raises((PersimError, ValueError), match=message):
            fit.main([*config, *options])


def test_unseen_agents_get_better_with_rows(tmp_path, monkeypatch, capsys):
    """Gravity is all that MountainCars differ in: fifty rows tell it, nothing does not."""
    monkeypatch.chdir(tmp_path)
    small = ["--data.agents", "30", "--model.members", "2", "--trainer.max_epochs", "12", "--model.spare_members", "0"]
    common = ["--env", "mountaincar", "--root", str(commands.data_root), "--", *small]
    unseen.main(common)
    values = json.loads((tmp_path / "runs/unseen/unseen-mountaincar.json").read_text())
    scores = {record["known_by"]: record for record in values}
    assert list(scores)[:2] == ["nothing", "5 rows"]
    assert len(scores) == 12
    assert np.mean(scores["50 rows"]["rmse"]) < 0.5 * np.mean(scores["nothing"]["rmse"])
    assert np.mean(scores["covariates"]["rmse"]) < 0.5 * np.mean(scores["nothing"]["rmse"])
    before = (tmp_path / "runs/unseen/mountaincar-all/simulator.safetensors").stat().st_mtime_ns
    unseen.main(common)
    assert (tmp_path / "runs/unseen/mountaincar-all/simulator.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigurationError, match="was made under other settings"):
        unseen.main([*common, "--model.rank", "4"])
    assert "mountaincar: mean RMSE" in capsys.readouterr().out


def test_scarcity_scores_the_same_agents_from_smaller_populations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [
        "--model.members",
        "2",
        "--model.spare_members",
        "0",
        "--trainer.max_epochs",
        "2",
        "--model.hidden_width",
        "8",
    ]
    common = ["--env", "cartpole", "--root", str(commands.data_root), "--episodes", "1", "--", *small]
    scarcity.main(["--agents", "12", "6", *common])
    scores = json.loads((tmp_path / "runs/scarcity/scarcity-cartpole.json").read_text())
    assert [record["agents"] for record in scores] == [6, 12]
    assert {len(record[name]) for record in scores for name in ("rmse", "r2", "returns")} == {5}
    smaller = json.loads((tmp_path / "runs/scarcity/cartpole-6of12/simulator.json").read_text())
    assert smaller["agent_ids"] == list(range(6))
    assert (tmp_path / "runs/scarcity/scarcity-cartpole.png").stat().st_size > 0
    before = (tmp_path / "runs/scarcity/cartpole-6of12/simulator.safetensors").stat().st_mtime_ns
    scarcity.main(["--agents", "12", "6", *common])
    assert (tmp_path / "runs/scarcity/cartpole-6of12/simulator.safetensors").stat().st_mtime_ns == before
    assert "mean return of 1 MPC episodes" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="4 agents are too few: the first 5 are the test agents"):
        scarcity.main(["--agents", "4", *common])


def test_roles_of_columns_in_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [(agent, hour + rng.uniform(0, 0.4)) for agent in range(12) for hour in range(14)]
    table = {
        "who": [agent for agent, _ in rows],
        "hour": [hour for _, hour in rows],
        "level": [None if rng.uniform() < 0.2 else float(rng.uniform(0, 2)) for _ in rows],
        "dial": [None if rng.uniform() < 0.2 else 1.0 for _ in rows],
        "weather": [str(rng.choice(["dry", "wet"])) for _ in rows],
        "weight": [float(agent) for agent, _ in rows],
    }
    write_table(pa.table(table), tmp_path / "table.csv")
    columns = [
        *("--data.columns.agent", "who", "--data.columns.time", "hour", "--data.columns.state", "[level]"),
        *(
            "--data.columns.action",
            "[dial]",
            "--data.columns.inputs",
            "[weather]",
            "--data.columns.covariates",
            "[weight]",
        ),
        *("--data.columns.fill", "{dial: last}", "--data.columns.bounds", "{level: [0, null]}"),
    ]
    quick = ["--trainer.max_epochs", "2", "--model.hidden_width", "8", "--model.members", "2", "--wandb", "disabled"]
    fit.main(["--config", "table", "--data.path", "table.csv", *columns, *quick, "--run_dir", "run"])
    assert "trained 12 agents" in capsys.readouterr().out
    simulator = PersonalizedSimulator.load("run")
    schema = simulator.schema
    assert (schema.inputs, schema.bounds, schema.covariates[0].name) == (("weather",), {"level": (0, None)}, "weight")
    assert simulator.population.simulator.config.integrator == "rk4"
    assert simulator.population.simulator.walls.low.tolist() == [0.0]
    future = {"who": [3, 3], "hour": [20.0, 21.5], "dial": [1.0, 1.0], "weather": ["wet", "dry"]}
    answer = simulator.forecast(future, level=0.9)
    assert min(answer["level_low"].to_pylist()) >= 0


def test_short_trajectories_have_intervals(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_table(pa.table(patients(12, 6)), tmp_path / "short.csv")
    config = ["--config", str(ROOT / "conf/table.yaml"), "--run_dir", "run", "--wandb", "disabled"]
    quick = ["--trainer.max_epochs", "3", "--model.hidden_width", "8", "--model.members", "2", "--model.rank", "2"]
    fit.main([*config, "--data.path", "short.csv", *COLUMNS, *quick])
    assert "models are compared without the last 34% of each" in capsys.readouterr().out
    simulator = PersonalizedSimulator.load("run")
    assert simulator.rollout("p1", [1.0], {"dose": 0.1, "drug": "weak"}, level=0.9).half_width[1, 0] > 0


def test_runs_of_incomplete_uneven_tables_are_scored_alike_at_the_end_of_the_fit_and_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(pa.table(tanks(6, 20, missing=0.3)), tmp_path / "tanks.csv")
    write_table(pa.table(tanks(6, 20, seed=4, missing=0.3)), tmp_path / "test.csv")
    config = ["--config", str(ROOT / "conf/table.yaml"), "--run_dir", "run", "--wandb", "disabled"]
    quick = ["--trainer.max_epochs", "3", "--model.hidden_width", "8", "--model.members", "2", "--model.rank", "2"]
    columns = ["--data.columns.agent", "tank", "--data.columns.time", "hour", "--data.columns.state", "[level]"]
    paths = ["--data.path", "tanks.csv", "--data.test_path", "test.csv", "--data.columns.action", "[poured]"]
    fit.main([*config, *paths, *columns, *quick])
    evaluate.main(["--run", "run", "--data", "test.csv"])
    before, after = (json.loads((tmp_path / "run" / f"prediction{name}.json").read_text()) for name in ("", "-test"))
    for record in after:
        record.pop("rmse_by_state")
    assert before == after
    with pytest.raises(ConfigurationError, match="neither uneven times nor missing states"):
        export.main(["--run", "run", "--to", "minari", "--id", "tanks/real-v0", "--out", "minari"])
