"""Errors in one line, agents by ids and ranges, settings of classes."""

import errno
from dataclasses import dataclass

import pytest
from jsonargparse.typing import PositiveInt

from persim_lightning.errors import ConfigurationError, PersimError
from persim_lightning.support.parsing import CommandParser, build_settings, choose_agents, one_line_errors


def fails_with(error):
    @one_line_errors
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command()
    return ended.value.code


def test_user_errors_end_in_one_line():
    assert fails_with(PersimError("a table\n  does not fit")) == "error: a table does not fit"
    assert (
        fails_with(FileNotFoundError(2, "No such file or directory", "x.csv"))
        == "error: x.csv: No such file or directory"
    )
    assert fails_with(KeyboardInterrupt()) == "interrupted"
    wrapped = ValueError("jsonargparse says so")
    wrapped.__cause__ = ConfigurationError("rank 0")
    assert fails_with(wrapped) == "error: rank 0"


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no file name"), ZeroDivisionError()])
def test_bugs_keep_their_trace(error):
    @one_line_errors
    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        command()


def test_parser_errors_show_no_usage(capsys):
    parser = CommandParser(prog="persim x")
    parser.add_argument("--run", required=True)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the following arguments are required: --run")


def test_agents_by_ids_and_ranges():
    assert choose_agents(range(20), "0-2,17,1") == (0, 1, 2, 17)
    assert choose_agents(["p1", "1-2"], "1-2,p1") == ("1-2", "p1")
    with pytest.raises(ConfigurationError, match=r"unknown agent '20': choose from the 20 agents \(0, 1, 2, 3, 4, …\)"):
        choose_agents(range(20), "18-21")
    with pytest.raises(ConfigurationError, match="'5-2' names no agent"):
        choose_agents(range(20), "5-2")


@dataclass(frozen=True)
class Options:
    """Of a test.

    Parameters
    ----------
    steps : int
    """

    steps: PositiveInt = 3


def test_settings_from_a_yaml_or_its_content(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("steps: 5\n")
    assert build_settings(Options, path) == build_settings(Options, {"steps": 5}) == Options(5)
    for content in ({"stepz": 5}, {"steps": 0}):
        with pytest.raises(ConfigurationError, match=r"settings: .*step"):
            build_settings(Options, content)


def test_a_full_disk_is_reported_in_one_line():
    @one_line_errors
    def command():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit, match=r"^error: No space left on device$"):
        command()
