"""Every command of README is run once, made small; every Python block compiles."""

import datetime
import re
import shlex

import numpy as np
import pyarrow as pa
import pytest

from persim_lightning.cli.main import COMMANDS, run
from persim_lightning.data.collecting import collect
from persim_lightning.data.tables.sources import write_table
from tests.commands import environment
from tests.conftest import ROOT
from tests.patients import patients

README = (ROOT / "README.md").read_text()
# A Ray cluster and several devices are not here.
LEFT_OUT = ("--engine ray", "--trainer.devices 4")
FIT = [
    *("--data.agents", "16", "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"),
    *("--wandb", "disabled", "--check_theorem", "false", "--trainer.precision", "32-true"),
    *("--model.hidden_width", "8", "--model.members", "2", "--model.spare_members", "0"),
]
TABLE_FIT = FIT[2:]
STUDY = ["--", *FIT]
PLAN = ["--episodes", "1", "--agents", "1", "--true_env", "false", "--horizon", "3"]
BENCHMARK = [
    *("--env", "cartpole", "--dataset", "random", "--agents", "5", "--seeds", "0", "--steps", "2", "--episodes", "1"),
    *("--max_steps", "3", "--methods", "persim", "completion", "--jobs", "1", "--wandb", "disabled"),
]
SMALL = {
    "fit": FIT,
    "theorem": [],
    "plan": PLAN,
    "benchmark": BENCHMARK,
    "unseen": STUDY,
    "scarcity": ["--agents", "6", "5", *STUDY],
    "collect": ["--agents", "6"],
    "train-policy": ["--max_steps", "200", "--evaluate_every", "100", "--evaluation_episodes", "2"],
}


def commands():
    """Lines of README's shell blocks that call persim, continuations joined, comments left out."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("persim ")]


def arguments_of(line):
    """What the command is run with: README's own arguments, and what makes it small."""
    command, *arguments = shlex.split(line)[1:]
    small = SMALL.get(command, [])
    if command == "fit" and "--data.path" in arguments:
        small = TABLE_FIT
    if command == "fit" and "auto" in arguments:
        small = [*small, "--data.val_fraction", "0.2"]
    if command == "theorem" and "--env" in arguments:
        small = ["--agents", "6"]
    if command == "plan":
        given = {argument for argument in arguments if argument.startswith("--")}
        pairs = zip(small[::2], small[1::2], strict=True)
        small = [part for pair in pairs if pair[0] not in given for part in pair]
    if command == "benchmark" and "--preset" not in arguments:
        small = [*small, "--preset", "smoke"]
    if command == "export" and "onnx" not in arguments:
        arguments = [*arguments[: arguments.index("--out") + 1], f"exported/{arguments[arguments.index('--id') + 1]}"]
    return command, [*arguments, *small]


def test_every_command_is_in_readme():
    assert {shlex.split(line)[1] for line in commands()} == set(COMMANDS)


def test_python_blocks_compile():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) > 4
    for block in blocks:
        compile(block, "README.md", "exec")


@pytest.mark.slow
def test_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "TEST_EPISODES", 6)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", environment()["NETRC"])
    (tmp_path / "my_module.py").write_text("def my_reward(states, actions, following):\n    return following[..., 0]\n")
    table = {**patients(12, 30), "glucose": np.random.default_rng(0).normal(size=360)}
    new = {**patients(2, 20, first=12), "glucose": np.random.default_rng(1).normal(size=40)}
    write_table(pa.table(table), tmp_path / "patients.csv")
    write_table(pa.table(new), tmp_path / "new_patients.csv")
    days = [datetime.date(2030, 1, 1), datetime.date(2030, 1, 8)]
    future = {"patient": ["p3"] * 2, "day": days, "dose": [0.1, 0.2], "drug": ["weak", "none"]}
    write_table(pa.table(future), tmp_path / "future.csv")
    run("fit", ["--config", "cartpole", *FIT, "--run_dir", "runs/RUN"])
    (tmp_path / "my_test.parquet").write_bytes((tmp_path / "data/cartpole/test-seed0/test.parquet").read_bytes())
    for line in commands():
        if any(words in line for words in LEFT_OUT):
            continue
        command, arguments = arguments_of(line)
        if "--ckpt_path" in arguments:
            # Resumes under the settings that the run was made with.
            arguments = ["--config", "cartpole", *FIT, "--ckpt_path", "runs/RUN/checkpoints/last.ckpt"]
        if command == "fit" and "--ckpt_path" not in arguments and "--run_dir" not in arguments:
            arguments += ["--run_dir", f"runs/{abs(hash(line))}"]
        try:
            run(command, arguments)
        except SystemExit as ended:
            told = str(ended.code) + capsys.readouterr().err
            # Two hundred steps reach no level; the message says so.
            assert command == "train-policy", f"{line}: {told}"
            assert "did not end near a return" in told
        assert capsys.readouterr().out or command == "train-policy", line
