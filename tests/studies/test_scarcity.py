"""The scarcity study: names of its runs, and scores that went through JSON."""

import math
from pathlib import Path

import pyarrow as pa
import pytest

from persim_lightning.data.tables.sources import read_table, write_table
from persim_lightning.studies import scarcity
from persim_lightning.support.files import write_json

RECORD = {"rmse": 0.5, "r2": 0.9, "scored": 3}
DIVERGED = {"rmse": math.inf, "r2": -math.inf, "scored": 3}


@pytest.fixture
def fits(tmp_path, monkeypatch):
    """Runs that `fit_once` was called for, with the table of each; nothing is trained."""
    whole = tmp_path / "whole.parquet"
    write_table(pa.table({"agent": list(range(10)), "t": [0] * 10}), whole)
    made = {}

    def fit_once(run, settings):
        path = Path(settings["data"]["path"] or whole)
        made[run.name] = read_table(path)["agent"].to_pylist(), settings["trainer"]["max_epochs"]
        files = {"path": str(whole), "test_path": "test", "agents_path": "agents"}
        write_json({"data": files}, run / "provenance.json")
        write_json([RECORD, DIVERGED], run / "prediction.json")
        return run

    monkeypatch.setattr(scarcity, "fit_once", fit_once)
    return made


SETTINGS = {
    "check_theorem": True,
    "wandb": "auto",
    "data": {"agents": 500, "path": None, "test_path": None, "agents_path": None},
    "trainer": {"max_epochs": 8},
}


def test_smaller_populations_are_the_first_agents_and_take_as_many_steps(fits, tmp_path):
    scores = scarcity.scarcity_study("mountaincar", SETTINGS, tmp_path, [10, 5])
    assert fits == {"mountaincar-10": (list(range(10)), 8), "mountaincar-5of10": (list(range(5)), 16)}
    assert [score.agents for score in scores] == [5, 10]


def test_a_study_of_other_sizes_leaves_the_tables_of_an_earlier_one(fits, tmp_path):
    scarcity.scarcity_study("mountaincar", SETTINGS, tmp_path, [5, 8])
    before = (tmp_path / "mountaincar-5of8.parquet").read_bytes()
    scarcity.scarcity_study("mountaincar", SETTINGS, tmp_path, [5, 10])
    assert (tmp_path / "mountaincar-5of8.parquet").read_bytes() == before
    assert {"mountaincar-8", "mountaincar-5of8", "mountaincar-10", "mountaincar-5of10"} == set(fits)


def test_a_diverged_prediction_is_infinite_and_is_printed(fits, tmp_path, capsys):
    scores = scarcity.scarcity_study("mountaincar", SETTINGS, tmp_path, [10])
    assert scores[0].rmse == [0.5, math.inf]
    assert scores[0].r2 == [0.9, -math.inf]
    written = scarcity.write_scarcity("mountaincar", scores, 0, tmp_path)
    assert "inf (-inf)" in capsys.readouterr().out
    assert all(path.stat().st_size for path in written)
