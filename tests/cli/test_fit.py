"""The fit command as users run it: every YAML, resuming after a kill, two processes, W&B offline, and bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import load_file

from persim_lightning.cli import theorem
from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.errors import ConfigurationError
from persim_lightning.runs.trainer import slow_precision_note
from tests import commands
from tests.commands import environment, run_tool
from tests.conftest import ROOT, rendered
from tests.wandb_records import values_when_written

SMALL = ["--data.agents", "20", "--model.hidden_width", "8", "--model.members", "2", "--check_theorem", "false"]
CHECK = ["--check_theorem", "true"]


def arguments(folder, config, *options):
    own = ["--config", str(ROOT / f"conf/{config}.yaml"), "--data.root", str(commands.data_root), "--threads", "1"]
    return [*own, *SMALL, *options]


def fit(folder, config, *options, check=True):
    done = run_tool("fit", folder, *arguments(folder, config, *options))
    if check:
        assert done.returncode == 0, done.stderr
    return done


def start_fit(folder, config, *options):
    """The same in a process of its own, which can be killed, or start others."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools/fit.py"), *arguments(folder, config, *options)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short MountainCar run: folder and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    with rendered():
        done = fit(folder, "mountaincar", "--trainer.max_epochs", "3", "--run_dir", str(folder / "run"), *CHECK)
    return folder / "run", done


@pytest.mark.parametrize("config", sorted(path.stem for path in (ROOT / "conf").glob("*.yaml") if path.stem != "table"))
def test_every_yaml_runs(tmp_path, monkeypatch, config):
    """One epoch on a small population, Tucker this time, through to the printed table."""
    monkeypatch.setattr("persim_lightning.theory.truth.RANKS", (1, 2, 3))
    monkeypatch.setattr("persim_lightning.theory.truth._COORDINATE_RANKS", (1, 2))
    options = ["--model.factorization", "tucker", "--model.rank_agent", "2", "--wandb", "disabled"]
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        # It would only emulate bfloat16, for minutes.
        options += ["--trainer.precision", "32-true"]
    done = fit(tmp_path, config, "--trainer.max_epochs", "1", "--run_dir", "run", *options, *CHECK)
    assert "median R²" in done.stdout
    assert "Your model uses Tucker rank 2 × " in done.stdout
    assert len(json.loads((tmp_path / "run/prediction.json").read_text())) == 5


def test_run_folder(finished):
    run, done = finished
    assert f"wrote {run}" in done.stdout.replace("\n", " ")
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and "wandb" not in path.parts}
    assert names >= {
        "config.yaml",
        "simulator.safetensors",
        "simulator.json",
        "prediction.json",
        "rollout_r2.json",
        "latent_factors.json",
        "theorem.json",
        "provenance.json",
        "checkpoints/last.ckpt",
        "figures/rollout_r2.png",
        "figures/latent_factors.png",
        "figures/theorem.png",
        "figures/recovered_covariates.png",
        "metrics/version_0/metrics.csv",
    }
    assert not [name for name in names if Path(name).name.startswith(".")]
    facts = json.loads((run / "provenance.json").read_text())
    assert len(facts["data"]["sha256"]) == 64
    assert facts["seed"] == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["rank"] == 3
    history = json.loads((run / "rollout_r2.json").read_text())
    assert history["horizons"] == [1, 5, 10, 25, 50]
    assert [entry["epoch"] for entry in history["history"]] == [1, 2, 3]
    latents = json.loads((run / "latent_factors.json").read_text())
    assert latents["columns"] == ["agent", "pc1", "pc2", "u0", "u1", "u2", "gravity"]
    assert len(latents["rows"]) == 20


def test_checkpoints_need_no_pickle(finished):
    checkpoint = torch.load(finished[0] / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["rank"] == 3


def test_what_an_offline_wandb_run_contains(finished):
    """Read the run's own record file back: losses, rollout scores, the tables and pictures."""
    [path] = (finished[0] / "wandb").glob("offline-run-*/run-*.wandb")
    # Rank zero logs it last.
    values = values_when_written(path, "theorem/recovered_r2/gravity")
    assert len(values["train/loss"]) == 3
    assert len(values["rollout_r2/agent_0/h50"]) == 3
    assert values["prediction/_type"] == ["table-file"]
    assert values["prediction/nrows"] == [5]
    assert values["latent_factors/nrows"] == [20]
    assert values["theorem/rank_curve/nrows"] == [11]
    assert values["theorem/summary/_type"] == ["html-file"]
    assert len(values["theorem/recovered_r2/gravity"]) == 1
    assert values["figures/latent_factors/_type"] == ["image-file"]
    files = path.parent / "files"
    pictures = ("figures/latent_factors", "figures/rollout_r2", "figures/theorem", "figures/recovered_covariates")
    for key in ("prediction", "latent_factors", *pictures):
        assert (files / values[f"{key}/path"][0]).stat().st_size > 0


def test_evaluate_repeats_the_scores_of_the_fit(finished, tmp_path):
    run, _ = finished
    test = commands.data_root / "mountaincar/test-seed0/test.parquet"
    done = run_tool("evaluate", tmp_path, "--run", str(run), "--data", str(test), "--out", "scores.json")
    assert "median R²" in done.stdout
    repeated = json.loads((tmp_path / "scores.json").read_text())
    for one, other in zip(repeated, json.loads((run / "prediction.json").read_text()), strict=True):
        assert list(one.pop("rmse_by_state")) == ["position", "velocity"]
        assert one == pytest.approx(other, rel=1e-4)


def test_same_seed_same_weights_and_another_seed_others(finished, tmp_path):
    for name, seed in (("same", "0"), ("other", "1")):
        options = ["--seed_everything", seed, "--run_dir", name, "--wandb", "disabled"]
        fit(tmp_path, "mountaincar", "--trainer.max_epochs", "3", *options)
    first = load_file(finished[0] / "simulator.safetensors")
    same, other = (load_file(tmp_path / name / "simulator.safetensors") for name in ("same", "other"))
    assert_identical(first, same)
    assert not torch.equal(first["agent_encoder.deviation"], other["agent_encoder.deviation"])


def assert_identical(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_resuming_after_a_kill_ends_in_the_same_weights(tmp_path):
    """SIGKILL in mid-training; the resumed run equals an uninterrupted one to the last bit."""
    options = ["--trainer.max_epochs", "60", "--wandb", "disabled"]
    fit(tmp_path, "mountaincar", *options, "--run_dir", "whole")
    last = tmp_path / "broken/checkpoints/last.ckpt"
    process = start_fit(tmp_path, "mountaincar", *options, "--run_dir", "broken")
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "broken/simulator.safetensors").exists()
    assert 0 < torch.load(last, weights_only=True)["epoch"] < 59
    fit(tmp_path, "mountaincar", *options, "--ckpt_path", str(last))
    whole, resumed = (load_file(tmp_path / name / "simulator.safetensors") for name in ("whole", "broken"))
    assert_identical(whole, resumed)


@pytest.mark.slow
def test_two_processes_train_and_score_like_one(tmp_path):
    """DDP over gloo: the same batches shared by two ranks, every test episode scored once."""
    options = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--wandb", "disabled"]
    options += ["--data.batch_size", "32"]
    fit(tmp_path, "cartpole", *options, "--run_dir", "one")
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    process = start_fit(tmp_path, "cartpole", *options, *ddp, "--run_dir", "two")
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    one, two = (json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("one", "two"))
    assert [record["scored"] + record["short"] for record in two] == [commands.TEST_EPISODES] * 5
    for a, b in zip(one, two, strict=True):
        assert a["scored"] == b["scored"]
        assert b["rmse"] == pytest.approx(a["rmse"], rel=1e-3)
    first, second = (json.loads((tmp_path / name / "rollout_r2.json").read_text()) for name in ("one", "two"))
    for a, b in zip(first["history"][-1]["r2"], second["history"][-1]["r2"], strict=True):
        assert b == pytest.approx(a, rel=1e-2, abs=1e-3)
    one_weights, two_weights = (load_file(tmp_path / name / "simulator.safetensors") for name in ("one", "two"))
    for name, value in one_weights.items():
        torch.testing.assert_close(two_weights[name], value, rtol=1e-3, atol=1e-4, equal_nan=True)


def bad_cases():
    reference = ["--trainer.max_epochs", "1", "--wandb", "disabled"]
    return {
        "unknown key": (["--model.rnak", "3"], "rnak"),
        "rank of zero": (["--model.rank", "0"], "rank"),
        "missing data file": (["--data.path", "nowhere.parquet"], "nowhere.parquet: no such file"),
        "columns do not fit": (["--data.path", "wrong.csv"], "wrong.csv: missing column"),
        "no GPU": (["--trainer.accelerator", "gpu"], "gpu"),
        "missing checkpoint": (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt: no such file"),
        "damaged checkpoint": (["--ckpt_path", "damaged.ckpt"], "damaged.ckpt: not a readable checkpoint"),
        "unknown environment": (["--data.env", "walker"], "unknown environment 'walker'"),
        "unknown dataset": (["--data.dataset", "expert"], "unknown dataset 'expert'"),
        "test table does not fit": (["--data.test_path", "wrong.csv"], "wrong.csv: missing column"),
        "agents table does not fit": (["--data.agents_path", "wrong.csv"], "wrong.csv: no column 'agent'"),
        "loss scaling": (["--trainer.precision", "16-mixed"], "16-mixed"),
        "no epochs": (["--trainer.max_epochs", "0"], "max_epochs"),
        "angles outside": (["--model.angles", "[2]"], "angles"),
    }, reference


@pytest.mark.parametrize("case", bad_cases()[0])
def test_bad_input_ends_in_one_line_and_writes_no_run(tmp_path, case):
    cases, common = bad_cases()
    options, message = cases[case]
    (tmp_path / "wrong.csv").write_text("patient,day,dose\n1,2,3\n")
    (tmp_path / "damaged.ckpt").write_text("junk")
    done = fit(tmp_path, "mountaincar", "--run_dir", "run", *common, *options, check=False)
    assert done.returncode in (1, 2)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_checkpoint_of_another_environment_or_other_settings(finished, tmp_path):
    last = str(finished[0] / "checkpoints/last.ckpt")
    common = ["--ckpt_path", last, "--run_dir", "run", "--trainer.max_epochs", "3", "--wandb", "disabled"]
    done = fit(tmp_path, "cartpole", *common, check=False)
    assert done.returncode != 0
    assert "belongs to another environment" in done.stderr.splitlines()[-1]
    done = fit(tmp_path, "mountaincar", *common, "--model.rank", "4", check=False)
    assert done.returncode != 0
    assert "other settings: rank=3 (now 4)" in done.stderr.splitlines()[-1]


def test_a_run_goes_on_only_as_it_began(finished, tmp_path):
    """Other data of the same form, another end, another seed: refused before anything is written."""
    run, _ = finished
    same = ["--trainer.max_epochs", "3", "--wandb", "disabled"]
    same += ["--ckpt_path", str(run / "checkpoints/last.ckpt"), "--run_dir", "run"]
    for options, message in (
        (["--data.seed", "5"], "another table"),
        (["--trainer.max_epochs", "6"], "max_epochs=3 (now 6)"),
        (["--seed_everything", "1"], "seed_everything=0 (now 1)"),
        (["--data.batch_size", "64"], "batch_size=512 (now 64)"),
    ):
        done = fit(tmp_path, "mountaincar", *same, *options, check=False)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
        assert not (tmp_path / "run").exists()


def test_a_run_killed_after_its_last_epoch_is_scored_on_resuming(tmp_path):
    options = ["--trainer.max_epochs", "2", "--wandb", "disabled"]
    fit(tmp_path, "mountaincar", *options, "--run_dir", "run")
    run = tmp_path / "run"
    names = ("prediction.json", "latent_factors.json", "simulator.json", "simulator.safetensors")
    before = json.loads((run / "prediction.json").read_text())
    for name in names:
        (run / name).unlink()
    done = fit(tmp_path, "mountaincar", *options, "--ckpt_path", str(run / "checkpoints/last.ckpt"))
    assert "median R²" in done.stdout
    assert all((run / name).is_file() for name in names)
    assert json.loads((run / "prediction.json").read_text()) == before


def test_another_run_or_a_stray_checkpoint_is_not_written_over(finished, tmp_path):
    last = finished[0] / "checkpoints/last.ckpt"
    common = ["--trainer.max_epochs", "3", "--wandb", "disabled"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/simulator.json").write_text("{}")
    done = fit(tmp_path, "mountaincar", *common, "--ckpt_path", str(last), "--run_dir", "other", check=False)
    assert "holds a run" in done.stderr.splitlines()[-1]
    stray = tmp_path / "last.ckpt"
    stray.write_bytes(last.read_bytes())
    done = fit(tmp_path, "mountaincar", *common, "--ckpt_path", str(stray), check=False)
    assert "give --run_dir" in done.stderr.splitlines()[-1]


def test_a_finished_run_is_not_overwritten(finished, tmp_path):
    run, _ = finished
    done = fit(tmp_path, "mountaincar", "--trainer.max_epochs", "3", "--run_dir", str(run), check=False)
    assert done.returncode != 0
    assert "holds a run" in done.stderr


def test_theorem_repeats_the_check_of_the_fit(finished, tmp_path, capsys):
    run, done = finished
    theorem.main(["--run", str(run), "--out", str(tmp_path), "--threads", "1"])
    printed = capsys.readouterr().out
    first, again = (json.loads((folder / "theorem.json").read_text()) for folder in (run, tmp_path))
    assert again["summary"] == first["summary"]
    assert again["summary"] in printed
    assert first["summary"] in done.stdout
    assert first["learned"]["ranks"] == [3, 3, 3]
    assert str(tmp_path / "figures/theorem.png") in printed


def test_theorem_refuses_a_table_that_has_changed_and_options_of_the_other_kind(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    facts = json.loads((run / "provenance.json").read_text())
    changed = tmp_path / "train.parquet"
    write_table(read_table(Path(facts["data"]["path"])).slice(0, 900), changed)
    facts["data"]["path"] = str(changed)
    (run / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigurationError, match=r"train\.parquet has changed since .*run was trained on it"):
        theorem.main(["--run", str(run)])
    for wrong, message in (
        (["--run", str(run), "--agents", "5"], "--dataset, --agents and --root are options of --env"),
        (["--env", "mountaincar", "--grid", "1"], "1: at least 2 values"),
    ):
        with pytest.raises(SystemExit):
            theorem.main(wrong)
        assert message in capsys.readouterr().err


def test_agents_with_covariates_of_another_kind_and_names_as_ids(finished, tmp_path):
    """Covariates are for pictures: what they are called must not cost a training."""
    table = read_table(commands.data_root / "mountaincar/random-n20-seed0/train.parquet")
    ids = [f"car {number}" for number in table["agent"].to_pylist()]
    write_table(table.set_column(table.column_names.index("agent"), "agent", pa.array(ids)), tmp_path / "cars.csv")
    names = sorted(set(ids))
    write_table(pa.table({"agent": names, "mass": [1.0] * len(names)}), tmp_path / "agents.csv")
    own = ["--data.path", "cars.csv", "--data.agents_path", "agents.csv", "--trainer.max_epochs", "1"]
    done = fit(tmp_path, "mountaincar", *own, "--run_dir", "run", "--wandb", "disabled", *CHECK)
    assert "the true dynamics is not known" in done.stdout
    assert json.loads((tmp_path / "run/simulator.json").read_text())["agent_ids"] == names


def test_theorem_of_an_environment_on_a_grid(finished, tmp_path, capsys):
    options = ["--root", str(commands.data_root), "--agents", "6", "--grid", "4", "--out", str(tmp_path)]
    theorem.main(["--env", "mountaincar", *options])
    checked = json.loads((tmp_path / "theorem.json").read_text())
    assert checked["sample"] == {"agents": 6, "states": 16, "actions": 3}
    assert checked["learned"] is None
    assert "rank 3 explains the true dynamics" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="too large"):
        theorem.main(["--env", "mountaincar", *options, "--grid", "101"])


def test_automatic_rank_is_found_kept_and_the_same_as_asking_for_it(tmp_path):
    """Gravity makes MountainCar rank 3; the run itself is that of `--model.rank 3`, and resuming needs no search."""
    options = ["--trainer.max_epochs", "6", "--data.agents", "12", "--model.learning_rate", "0.02"]
    done = fit(tmp_path, "mountaincar", *options, "--model.rank", "auto", "--run_dir", "auto")
    found = json.loads((tmp_path / "auto/rank_selection.json").read_text())
    assert (tmp_path / "auto/figures/rank_selection.png").is_file()
    assert {"16", str(found["rank"]), str(found["start"])} <= set(found["errors"])
    for rank, error in found["errors"].items():
        assert f"rank {rank}: rollout error {error:.3g}" in done.stdout
    fit(tmp_path, "mountaincar", *options, "--model.rank", str(found["rank"]), "--run_dir", "given")
    auto, given = (load_file(tmp_path / name / "simulator.safetensors") for name in ("auto", "given"))
    assert_identical(auto, given)
    last = str(tmp_path / "auto/checkpoints/last.ckpt")
    resumed = fit(tmp_path, "mountaincar", *options, "--model.rank", "auto", "--ckpt_path", last)
    assert "held-out tails" not in resumed.stdout


@pytest.mark.parametrize(
    ("capability", "precision", "told"),
    [("AVX2", "bf16-mixed", True), ("AVX512", "bf16-mixed", False), ("AVX2", "32-true", False)],
)
def test_a_precision_that_the_processor_only_emulates(monkeypatch, capability, precision, told):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert (slow_precision_note("cpu", precision) is not None) == told
