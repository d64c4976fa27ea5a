"""Finished, so reuse; other settings, so refuse; interrupted, so resume."""

import pytest

from persim_lightning.errors import ConfigurationError
from persim_lightning.store.work import State, Work


def open_work(folder, **settings):
    return Work(folder, settings, "done.json", "choose another --runs").open()


def test_new_then_interrupted_then_finished(tmp_path):
    folder = tmp_path / "fit"
    assert open_work(folder, steps=50) is State.NEW
    assert open_work(folder, steps=50) is State.INTERRUPTED
    (folder / "done.json").write_text("{}")
    assert open_work(folder, steps=50) is State.FINISHED


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_and_named(tmp_path, finished):
    open_work(tmp_path, steps=50, model={"rank": 3}, long="x" * 100)
    if finished:
        (tmp_path / "done.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"\(steps 50, now 100; long\): remove it, or choose another --runs"):
        open_work(tmp_path, steps=100, model={"rank": 3}, long="y" * 100)
    with pytest.raises(ConfigurationError, match="seed None, now 1"):
        open_work(tmp_path, steps=50, model={"rank": 3}, long="x" * 100, seed=1)


def test_finished_work_of_unknown_settings_is_not_reused(tmp_path):
    (tmp_path / "done.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="unknown settings"):
        open_work(tmp_path, steps=50)
    assert [path.name for path in tmp_path.iterdir()] == ["done.json"]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"settings\.json is damaged"):
        open_work(tmp_path, steps=50)
