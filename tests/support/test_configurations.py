"""Configurations by name or by path, from any folder."""

import pytest

from persim_lightning.errors import ConfigurationError
from persim_lightning.support.configurations import configuration_names, find_configuration, read_yaml, with_paths
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_shipped_configuration_is_found_by_name():
    for kind in ("", "planning", "methods", "benchmark", "policies"):
        names = configuration_names(kind)
        assert names
        assert {find_configuration(name, kind) for name in names} == set((ROOT / "conf" / kind).glob("*.yaml"))


def test_a_file_wins_over_a_name_and_is_named(tmp_path, capsys):
    (tmp_path / "cartpole").write_text("trainer: {}\n")
    assert find_configuration("cartpole").resolve() == tmp_path / "cartpole"
    assert f"using the file {tmp_path / 'cartpole'}, not the configuration of this name" in capsys.readouterr().err
    (tmp_path / "own.yaml").write_text("trainer: {}\n")
    assert find_configuration("own.yaml").resolve() == tmp_path / "own.yaml"
    assert not capsys.readouterr().err


def test_unknown_names_and_paths_list_what_exists():
    with pytest.raises(ConfigurationError, match="no configuration 'walker': choose from cartpole, halfcheetah, mount"):
        find_configuration("walker")
    with pytest.raises(ConfigurationError, match=r"conf/walker\.yaml: no such file; configurations by name: cartpole"):
        find_configuration("conf/walker.yaml")


def test_only_the_values_of_config_options_are_replaced():
    path = str(ROOT / "conf/cartpole.yaml")
    given = ["--config", "cartpole", "--data.env", "cartpole", "--config=cartpole", "-c", "cartpole"]
    assert with_paths(given) == ["--config", path, "--data.env", "cartpole", f"--config={path}", "-c", path]


@pytest.mark.parametrize(("text", "message"), [("a: [", "not a YAML"), ("- 1", "holds no settings")])
def test_what_is_no_yaml_of_settings(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigurationError, match="no such file"):
        read_yaml(tmp_path / "b.yaml")
