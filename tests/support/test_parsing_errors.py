"""Errors of options and YAMLs name the option or the file, and what is expected."""

import pytest

from persim_lightning.cli import fit, train_policy
from persim_lightning.errors import ConfigurationError
from persim_lightning.support.parsing_errors import explain


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (fit, ["--model.rnak", "3"], "--model.rnak: no such option"),
        (fit, ["--model.rank", "foo"], "--model.rank: 'foo' is not a positive integer or 'auto'"),
        (fit, ["--trainer.max_epochs", "abc"], "--trainer.max_epochs: 'abc' is not an integer or null"),
        (fit, ["--data.agents=x"], "--data.agents: 'x' is not a positive integer"),
        (train_policy, ["--env", "foo"], "--env: 'foo' is not 'mountaincar' or 'cartpole' or 'halfcheetah'"),
    ],
)
def test_wrong_options(command, options, message, capsys):
    config = "mountaincar" if command is fit else "cartpole"
    with pytest.raises(SystemExit, match="2"):
        command.main(["--config", config, *options])
    assert capsys.readouterr().err == f"error: {message} (see --help)\n"


def test_a_fit_without_a_configuration_lists_them(capsys):
    with pytest.raises(SystemExit, match="2"):
        fit.main([])
    assert "error: give --config: cartpole, halfcheetah, mountaincar, table, or" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo: 1", "foo: no such option"),
        ("data: {pth: x}", "data.pth: no such option"),
        (
            "model: {class_path: persim_lightning.training.persim.PerSimModule, init_args: {rnak: 3}}",
            "model.init_args.rnak: no such option",
        ),
    ],
)
def test_unknown_keys_of_a_yaml(text, message, tmp_path, capsys):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        fit.main(["--config", str(path)])
    assert capsys.readouterr().err == f"error: {path}: {message} (see --help)\n"


@pytest.mark.parametrize(("text", "message"), [("a: [1,", "not a YAML"), ("", "holds no settings")])
def test_files_that_are_no_yaml_of_settings(text, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"own\.yaml.*{message}"):
        fit.main([f"--config={path}"])


def test_other_messages_stay():
    assert explain("unrecognized arguments: --foo 1") == "unrecognized arguments: --foo 1"
    assert explain('Parser key "planner": a reason of its own') == "planner: a reason of its own"
