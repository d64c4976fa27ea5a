"""Data-set cards say what the table holds."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persim_lightning.data.collecting.card import CardSource, describe, write_card
from persim_lightning.data.collecting.collect import ensure_training_data
from persim_lightning.data.tables.canonical import trajectories_from_table
from persim_lightning.data.tables.sources import write_table
from persim_lightning.envs import get_environment
from persim_lightning.errors import TableError

SOURCE = CardSource("mine", "by hand", 3)


def mountain_car_table(**changed):
    """Agents 0-4 with one step each, agent 0 with three of which the last ends it."""
    columns = {
        "agent": [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
        "t": [0, 1, 2, 3, *[0, 1] * 4],
        "position": [0.0, 0.1, 0.2, 0.6, *[-0.5, -0.25] * 4],
        "velocity": [0.0, 0.1, 0.2, 0.3, *[0.0, 1.0] * 4],
        "action": [2, 2, 0, None, *[1, None] * 4],
        "reward": [-1.0, -1.0, 0.0, None, *[-1.0, None] * 4],
        "terminated": [False, False, False, True, *[False] * 8],
    }
    return pa.table({**columns, **changed})


def test_numbers_of_a_table_made_by_hand():
    environment = get_environment("mountaincar")
    card = describe(environment, trajectories_from_table(mountain_car_table(), environment.schema, "t"), SOURCE)
    assert (card["agents"], card["trajectories"], card["transitions"], card["terminated"]) == (5, 5, 7, 1)
    assert card["lengths"] == {"min": 1, "median": 1.0, "mean": 1.4, "max": 3}
    assert card["returns"]["mean_return"] == pytest.approx(-1.2)
    assert card["returns"]["std_return"] == pytest.approx(0.4)
    assert card["test_agents"][0] == {
        "agent": 0,
        "covariates": {"gravity": 1e-4},
        "trajectories": 1,
        "mean_length": 3.0,
        "mean_return": -2.0,
        "std_return": 0.0,
    }
    position = card["states"][0]
    assert (position["min"], position["50%"]) == (-0.5, -0.25)
    assert position["max"] == pytest.approx(0.6)
    assert [action["share"] for action in card["actions"]] == pytest.approx([1 / 7, 4 / 7, 2 / 7])


def test_continuous_actions_get_a_histogram(tmp_path):
    environment = get_environment("halfcheetah")
    table = ensure_training_data(tmp_path, environment, "random", 5, 0).table
    card = json.loads((table.parent / "card.json").read_text())
    assert len(card["actions"]) == 6
    for action in card["actions"]:
        assert sum(action["shares"]) == pytest.approx(1)
        assert action["shares"] == pytest.approx([0.1] * 10, abs=0.02)
    assert "| root_angle |" in (table.parent / "card.md").read_text()


def test_card_folder(tmp_path):
    environment = get_environment("mountaincar")
    path = tmp_path / "train.parquet"
    write_table(mountain_car_table(), path)
    write_card(environment, path, SOURCE)
    page = (tmp_path / "card.md").read_text()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in page
    assert json.loads((tmp_path / "card.json").read_text())["table"] == {"file": "train.parquet", "sha256": digest}
    assert "| 0 | 0.0001 | 1 | 3.0 | -2.00 |" in page
    assert "by hand" in page
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "card.md", "coverage.png", "train.parquet"]


@pytest.mark.parametrize("name", ["card.json", "card.md"])
def test_a_lost_card_is_made_again_for_the_same_table(tmp_path, name):
    environment = get_environment("cartpole")
    paths = ensure_training_data(tmp_path, environment, "pure", 6, 0)
    card = paths.table.parent / name
    before, table = card.read_text(), pq.read_table(paths.table)
    card.unlink()
    ensure_training_data(tmp_path, environment, "pure", 6, 0)
    assert card.read_text() == before
    assert pq.read_table(paths.table).equals(table)


def test_a_new_table_gets_a_new_card(tmp_path):
    environment = get_environment("cartpole")
    paths = ensure_training_data(tmp_path, environment, "random", 6, 0)
    card = paths.table.parent / "card.json"
    before = card.read_text()
    card.write_text("stale")
    paths.table.unlink()
    ensure_training_data(tmp_path, environment, "random", 6, 0)
    assert card.read_text() == before


def test_a_table_without_rewards_is_named(tmp_path):
    path = tmp_path / "train.parquet"
    write_table(mountain_car_table().drop_columns(["reward"]), path)
    with pytest.raises(TableError, match=r"train\.parquet: no column .reward..*remove the file"):
        write_card(get_environment("mountaincar"), path, SOURCE)
