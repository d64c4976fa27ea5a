"""The benchmark from end to end, with methods that take no time."""

import json
import os
import re
import shutil
import sys

import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock

from persim_lightning.cli import benchmark
from persim_lightning.cli.main import run
from persim_lightning.errors import ConfigurationError, FitInterruptedError, PersimError
from tests.benchmark.grids import METHODS, fits, options, result_of, run_grid, write_grid
from tests.conftest import ROOT, rendered
from tests.wandb_records import values_when_written

CELLS = "cartpole-random-seed0/cells"
FILES = {"results.parquet", "predictions.parquet", "summary.json", "tables.md", "returns-cartpole.png"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    write_grid(folder)
    with rendered():
        run_grid(folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_cell_is_fitted_scored_and_played(finished):
    record = result_of(finished, f"{CELLS}/persim")
    assert (record["label"], record["plans"], record["episodes"], record["steps"]) == ("PerSim", True, 2, 7)
    assert [own["agent"] for own in record["agents"]] == [0, 1]
    assert all(len(own["returns"]) == len(own["lengths"]) == 2 for own in record["agents"])
    # CartPole pays one for every step.
    assert all(own["returns"] == [float(length) for length in own["lengths"]] for own in record["agents"])
    assert [(own["agent"], own["rmse"]) for own in record["predictions"]] == [(0, 0.02), (1, None)]
    assert set(record["tables"]) == {"sha256", "test_sha256"}
    assert record["seconds"].keys() == {"fit", "score", "play"}
    assert "torch" in record["machine"]["versions"]
    learned = result_of(finished, f"{CELLS}/bcq-a")
    assert (learned["episodes"], learned["predictions"]) == (3, None)


def test_what_libraries_print_is_kept_away_from_the_terminal(finished):
    assert (finished / "runs" / CELLS / "persim/log.txt").read_text().endswith("a library speaks\n")


def test_tables_pictures_and_counts(finished):
    runs = finished / "runs"
    assert {path.name for path in runs.iterdir() if path.is_file()} >= FILES
    table = pq.read_table(runs / "results.parquet")
    keys = ["environment", "dataset", "method", "label", "seed", "agent", "episode"]
    assert table.column_names == [*keys, "return", "length"]
    assert table.num_rows == 2 * (2 + 2 + 3)
    predictions = pq.read_table(runs / "predictions.parquet").to_pylist()
    assert [(own["method"], own["agent"], own["rmse"]) for own in predictions] == [
        *(("persim", 0, 0.02), ("persim", 1, float("inf"))),
        *(("vanilla-cadm", 0, 0.02), ("vanilla-cadm", 1, float("inf"))),
    ]
    assert json.loads((runs / "summary.json").read_text())["return"]["cells"] == 2
    page = (runs / "tables.md").read_text()
    assert "test agents 0, 1; gradient steps: 7; seed 0" in page
    assert "truncated after 20 steps" in page
    assert "2 episodes of every agent, 3 for BCQ-A" in page


def test_finished_cells_are_kept_and_pieces_add_up(copy, capsys):
    before = result_of(copy, f"{CELLS}/persim")
    write_grid(copy, {**METHODS, "bcq-p": ("FakeMethod", {"name": "BCQ-P", "action": 1, "noise": 0.2})})
    run_grid(copy, "--methods", "bcq-p", "--seeds", "0", "1")
    assert result_of(copy, f"{CELLS}/persim") == before
    assert "2 cells, 0 of them already finished" in capsys.readouterr().out
    run_grid(copy, "--methods", "all")
    assert "4 cells, 4 of them already finished" in capsys.readouterr().out
    assert fits(copy, "PerSim") == fits(copy, "BCQ-P") == 1
    page = (copy / "runs/tables.md").read_text()
    assert "| random | BCQ-P |" in page
    assert "PerSim on random seed 0" in page


def test_seeds_differ_and_repeat(copy):
    run_grid(copy, "--seeds", "1", "--methods", "bcq-a")
    first = result_of(copy, "cartpole-random-seed1/cells/bcq-a")
    assert first["agents"] != result_of(copy, f"{CELLS}/bcq-a")["agents"]
    shutil.rmtree(copy / "runs/cartpole-random-seed1")
    shutil.rmtree(copy / "data/cartpole/random-n5-seed1")
    run_grid(copy, "--seeds", "1", "--methods", "bcq-a")
    again = result_of(copy, "cartpole-random-seed1/cells/bcq-a")
    assert (again["agents"], again["tables"]) == (first["agents"], first["tables"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--episodes", "1"], r"cells/persim was made under other settings \(episodes .*'planned': 2.*, now .*: 1"),
        (["--steps", "8"], r"with other steps \(7, now 8\): choose another --runs"),
        (["--agents", "6"], "with other agents"),
        (["--max_steps", "9", "--seeds", "3"], "with other max_steps"),
    ],
)
def test_other_settings_are_refused(finished, change, message):
    with pytest.raises(ConfigurationError, match=message):
        run_grid(finished, *change)


def test_another_method_under_the_same_name_is_refused(copy):
    write_grid(copy, {**METHODS, "persim": ("FakeMethod", {"name": "PerSim", "noise": 0.1})})
    with pytest.raises(ConfigurationError, match="persim was made under other settings"):
        run_grid(copy)


@pytest.mark.parametrize("table", ["random-n5-seed0/train.parquet", "test-seed0/test.parquet"])
def test_a_changed_table_is_refused(copy, table):
    path = copy / "data/cartpole" / table
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ConfigurationError, match=f"{table} has changed since .* was run on it"):
        run_grid(copy)


def test_a_fit_is_not_repeated_when_playing_was_interrupted(tmp_path, capsys):
    write_grid(tmp_path, {"dark": ("DarkMethod", {"name": "Dark"})})
    with pytest.raises(PersimError, match="1 cell failed; the same command tries it again"):
        run_grid(tmp_path)
    assert "cartpole random seed 0 dark: RuntimeError: the light went out" in capsys.readouterr().out
    (tmp_path / "runs/repaired").touch()
    write_grid(tmp_path, {"dark": ("DarkMethod", {"name": "Dark", "action": 1})})
    with pytest.raises(ConfigurationError, match="dark was made under other settings"):
        run_grid(tmp_path)
    write_grid(tmp_path, {"dark": ("DarkMethod", {"name": "Dark"})})
    run_grid(tmp_path)
    assert fits(tmp_path, "Dark") == 1
    assert not (tmp_path / "runs" / CELLS / "dark/error.txt").exists()


def test_a_lost_fit_is_told_with_what_to_do(copy):
    folder = copy / "runs" / CELLS / "bcq-a"
    (folder / "result.json").unlink()
    (folder / "fake.json").write_text("{")
    with pytest.raises(PersimError, match="1 cell failed"):
        run_grid(copy)
    assert f"remove {folder.resolve()} to fit it again" in (folder / "error.txt").read_text()


@pytest.mark.parametrize("name", ["result.json", "settings.json"])
def test_a_damaged_record_is_named(copy, name):
    folder = copy / "runs" / CELLS / "bcq-a"
    if name == "settings.json":
        (folder / "result.json").unlink()
    (folder / name).write_text("{}")
    with pytest.raises(ConfigurationError, match=f"bcq-a/{name} is damaged: remove .*bcq-a to run it again"):
        run_grid(copy)


def test_a_cell_that_another_command_is_running(copy, capsys):
    folder = copy / "runs" / CELLS / "bcq-a"
    (folder / "result.json").unlink()
    with FileLock(folder / ".lock"), pytest.raises(PersimError, match="1 cell failed"):
        run_grid(copy)
    assert "bcq-a: failed: another command is running it" in capsys.readouterr().out
    run_grid(copy)


def test_what_needs_no_data_is_run_once_in_all_pieces(tmp_path, capsys):
    write_grid(tmp_path, {"true-env": METHODS["bcq-a"], "bcq-p": METHODS["persim"]}, without_data=["true-env"])
    run_grid(tmp_path, "--methods", "true-env")
    run_grid(tmp_path, "--dataset", "pure", "random", "pure", "--seeds", "0", "0")
    assert "3 cells, 1 of them already finished" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="random-seed0/cells/true-env was made under other settings"):
        run_grid(tmp_path, "--dataset", "pure", "--methods", "true-env", "--episodes", "1")


def test_a_folder_with_one_method_of_ones_own(finished, tmp_path, capsys):
    """The preset's other names are no obstacle."""
    own = tmp_path / "own/mine.yaml"
    own.parent.mkdir()
    shutil.copy(finished / "methods/bcq-a.yaml", own)
    write_grid(tmp_path, METHODS, start_first=["persim"])
    run_grid(tmp_path, "--methods", "mine", "--methods_folder", str(own.parent))
    assert "1 cell, 0 of them already finished" in capsys.readouterr().out


def test_the_method_that_readme_shows(tmp_path, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text()
    for path, language in (("my_methods.py", "python"), ("methods/linear-cloning.yaml", "yaml")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        [block] = re.findall(f"```{language}\n(# [^\n]*{path}\n.*?)```", readme, re.DOTALL)
        (tmp_path / path).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_grid(tmp_path, {}, methods=["linear-cloning"])
    run("benchmark", options(tmp_path, "--jobs", "1"))
    assert "linear-cloning: Linear cloning-A, mean return" in capsys.readouterr().out


def test_what_fails_is_told_and_the_others_go_on(tmp_path, capsys):
    bad = {"bug": ("Bug", {"name": "Bug"}), "bad-input": ("BadInput", {"name": "Bad"})}
    write_grid(tmp_path, {**bad, **METHODS})
    with pytest.raises(PersimError, match="2 cells failed; the same command tries them again"):
        run_grid(tmp_path)
    printed = capsys.readouterr().out
    assert "bug: ZeroDivisionError: division by zero" in printed
    assert "bad-input: the recordings do not suffice" in printed
    assert "go_wrong" in (tmp_path / "runs" / CELLS / "bug/error.txt").read_text()
    assert pq.read_table(tmp_path / "runs/results.parquet").num_rows == 14
    (tmp_path / "runs/repaired").touch()
    run_grid(tmp_path)
    assert pq.read_table(tmp_path / "runs/results.parquet").num_rows == 26


@pytest.mark.slow
def test_a_process_that_dies_takes_its_own_cell_only(tmp_path, capsys):
    write_grid(tmp_path, {"crash": ("Crash", {"name": "Crash"}), "bcq-a": METHODS["bcq-a"]})
    with pytest.raises(PersimError, match="1 cell failed"):
        benchmark.main(options(tmp_path, "--jobs", "2"))
    assert "crash: failed: its process died" in capsys.readouterr().out
    assert "SIGKILL" in (tmp_path / "runs" / CELLS / "crash/error.txt").read_text()
    assert len(result_of(tmp_path, f"{CELLS}/bcq-a")["agents"]) == 2


@pytest.mark.parametrize("where", ["outside", "training"])
def test_after_an_interruption_the_same_command_resumes(tmp_path, capsys, where):
    write_grid(tmp_path, {"bcq-a": METHODS["bcq-a"], "bcq-p": ("Interrupted", {"name": where})})
    with pytest.raises(FitInterruptedError, match="interrupted: the same command resumes"):
        run_grid(tmp_path)
    (tmp_path / "runs/repaired").touch()
    capsys.readouterr()
    run_grid(tmp_path)
    assert "2 cells, 1 of them already finished" in capsys.readouterr().out


def test_the_tables_in_wandb(copy, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    run_grid(copy, "--wandb", "auto")
    [path] = (copy / "runs/wandb").glob("offline-run-*/*.wandb")
    values = values_when_written(path, "predictions/nrows")
    assert values["returns/nrows"] == [14]
    assert values["predictions/nrows"] == [4]


def test_names_that_are_unknown(finished):
    for change, message in [
        (["--methods", "persim", "bcq-z"], "unknown method 'bcq-z': choose from bcq-a, persim, vanilla-cadm"),
        (["--preset", "nowhere"], "no configuration 'nowhere': choose from paper, small, smoke, table"),
        (["--methods_folder", "nowhere"], "nowhere holds no YAML of a method"),
        (["--conf", "nowhere"], "no configuration 'cartpole'"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            run_grid(finished, *change)


def test_a_preset_that_does_not_fit(finished, tmp_path):
    for change, message in [
        ({"steps": 0}, "steps"),
        ({"stepz": 3}, "stepz"),
        ({"test_agents": [0, 7]}, "unknown test agent '7': choose from 0, 1, 2, 3, 4"),
        ({"datasets": ["nonsense"]}, "unknown data set 'nonsense': choose from pure"),
        ({"methods": []}, "the grid names no method"),
        ({"start_first": ["persimm"]}, "preset.yaml: start_first names 'persimm', which is not among its methods"),
        ({"agents": 4}, "4 agents: a population of cartpole has at least its 5 test agents"),
    ]:
        write_grid(tmp_path, METHODS, **change)
        with pytest.raises(ConfigurationError, match=message):
            run_grid(tmp_path)


def test_an_address_belongs_to_ray(finished, capsys):
    with pytest.raises(SystemExit):
        run_grid(finished, "--address", "auto")
    assert "--address is an option of --engine ray" in capsys.readouterr().err


def test_help_can_be_read(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    assert "--env cartpole --dataset random --methods all" in capsys.readouterr().out


def test_a_method_that_only_predicts_plays_no_episodes(tmp_path, capsys):
    """It is in Table 1 and in no other, and no rival of returns."""
    write_grid(tmp_path, {**METHODS, "completion": ("PredictingMethod", {"name": "Completion"})})
    run_grid(tmp_path)
    assert "completion: Completion, no episodes" in capsys.readouterr().out
    record = result_of(tmp_path, f"{CELLS}/completion")
    assert (record["episodes"], record["agents"][0]["returns"]) == (0, [])
    table1, table2 = (tmp_path / "runs/tables.md").read_text().split("**Table 2.**")
    assert "| random | Completion |" in table1
    assert "Completion" not in table2
    assert pq.read_table(tmp_path / "runs/results.parquet").num_rows == 14
    assert json.loads((tmp_path / "runs/summary.json").read_text())["rmse"]["cells"] == 2
    run_grid(tmp_path, "--methods", "completion")
    assert "1 cell, 1 of them already finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["smoke", "small", "paper", "table"])
def test_presets_order_methods_that_they_have(name):
    preset = yaml.safe_load((ROOT / f"conf/benchmark/{name}.yaml").read_text())
    named = {*preset["start_first"], *preset["without_data"], *preset.get("episodes_of", {})}
    assert named <= set(preset["methods"])


def test_small_compares_the_methods_of_the_paper_and_smoke_runs_every_method():
    smoke, small, paper = (
        yaml.safe_load((ROOT / f"conf/benchmark/{name}.yaml").read_text())["methods"]
        for name in ("smoke", "small", "paper")
    )
    assert small == paper
    assert sorted(smoke) == sorted(path.stem for path in (ROOT / "conf/methods").glob("*.yaml"))
