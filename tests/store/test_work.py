"""Finished work is reused, interrupted work resumed, work under other settings refused."""

import math

import pytest

from persim_lightning.errors import ConfigurationError
from persim_lightning.store.work import Work


def open_work(folder, **settings):
    return Work(folder, settings, "done.json").open()


def test_new_then_interrupted_then_finished(tmp_path):
    folder = tmp_path / "fit"
    assert not open_work(folder, steps=50)
    assert not open_work(folder, steps=50)
    (folder / "done.json").write_text("{}")
    assert open_work(folder, steps=50)


def test_values_that_json_changes_compare_equal(tmp_path):
    settings = {"limit": math.inf, "sizes": (1, 2), "walls": {0: [None, 1.5]}}
    assert not open_work(tmp_path, **settings)
    assert not open_work(tmp_path, **settings)
    with pytest.raises(ConfigurationError, match="sizes"):
        open_work(tmp_path, **{**settings, "sizes": (1, 3)})


@pytest.mark.parametrize("checkpoint", [False, True])
def test_other_settings_may_follow_a_failure_unless_a_checkpoint_is_left(tmp_path, checkpoint):
    work = Work(tmp_path, {"steps": 50}, "done.json")
    work.open()
    if checkpoint:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match="diverged"), work.attempt():
        raise ValueError("diverged")
    if checkpoint:
        with pytest.raises(ConfigurationError, match="steps 50, now 100"):
            open_work(tmp_path, steps=100)
    else:
        assert not open_work(tmp_path, steps=100)


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
