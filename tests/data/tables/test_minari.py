"""Minari data sets in and out."""

import json

import gymnasium
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from persim_lightning import PersonalizedSimulator
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.data.tables.minari import minari_columns, minari_table, open_minari, write_minari
from persim_lightning.data.tables.sources import read_table
from persim_lightning.data.tables.user import user_trajectories
from persim_lightning.errors import ConfigurationError, TableError
from tests.patients import patients
from tests.rooms import ROLES, rooms

Discrete, Box, Dict = gymnasium.spaces.Discrete, gymnasium.spaces.Box, gymnasium.spaces.Dict


def trajectories(table, **columns):
    import pyarrow as pa

    return user_trajectories(pa.table(table), TableColumns(**columns), "t")


def foreign(folder, observation, action, episodes):
    """A data set as others write it."""
    (folder / "data").mkdir(parents=True)
    storage = MinariStorage.new(folder / "data", observation, action)
    storage.update_episodes(episodes)
    storage.update_metadata({"dataset_id": "foreign/test-v0", "minari_version": minari.__version__})
    return folder


def walks(count=12, length=30, seed=0):
    """Episodes that drift at rates of their own; action 1 stops the drift."""
    rng = np.random.default_rng(seed)
    episodes = []
    for number in range(count):
        actions = rng.integers(2, size=length)
        steps = np.where(actions == 1, 0.0, 0.1 * (1 + number))
        states = np.concatenate(([0.0], steps.cumsum()))
        ends = np.arange(length) == length - 1
        episodes.append(
            EpisodeBuffer(
                id=number,
                observations={
                    "place": states[:, None].astype(np.float32),
                    "fixed": np.ones((length + 1, 2), np.float32),
                },
                actions=actions,
                rewards=-states[1:],
                terminations=ends & (number % 2 == 0),
                truncations=ends & (number % 2 == 1),
                infos={},
            )
        )
    return episodes


SPACES = Dict({"place": Box(-9, 9, (1,)), "fixed": Box(-1, 1, (2,))}), Discrete(2)


@pytest.mark.parametrize("kind", ["mixed", "discrete"])
def test_what_was_written_is_read_again(kind, tmp_path):
    if kind == "mixed":
        recorded = trajectories(
            patients(4, 12), agent="patient", time="day", state=["level"], action=["dose", "drug"], reward="comfort",
            terminated="gone",
        )  # fmt: skip
    else:
        recorded = trajectories(rooms(4, 12), **ROLES, action=["heater"])
    write_minari(recorded, tmp_path / "set", "some/set-v0", "a test")
    dataset = minari.MinariDataset(tmp_path / "set/data")
    assert dataset.spec.dataset_id == "some/set-v0"
    assert dataset.total_episodes == 4
    repr(dataset[0])
    again = trajectories(minari_table(dataset).to_pydict(), **minari_columns(dataset))
    assert again.agent_ids == recorded.agent_ids
    assert again.schema.action == recorded.schema.action
    for name in ("state", "action", "offsets", "agent", "terminated"):
        assert torch.equal(getattr(again, name), getattr(recorded, name)), name
    torch.testing.assert_close(again.reward, recorded.reward)
    inside = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    assert all(dataset.spec.action_space.contains(action) for action in inside)
    for path in ("set", "set/data", "set/data/main_data.hdf5"):
        assert read_table(tmp_path / path).equals(minari_table(dataset))


def test_rewards_that_are_not_known_stay_unknown(tmp_path):
    roles = {name: value for name, value in ROLES.items() if name != "reward"}
    write_minari(trajectories(rooms(2, 5), **roles, action=["heater"]), tmp_path / "set", "some/set-v0")
    dataset = open_minari(tmp_path / "set")
    assert np.isnan(dataset[0].rewards).all()
    assert "reward" not in minari_table(dataset).column_names
    assert "reward" not in minari_columns(dataset)


def test_a_data_set_of_others_becomes_a_population_of_its_episodes(tmp_path):
    folder = foreign(tmp_path / "walks", *SPACES, walks())
    dataset = open_minari(folder)
    table = minari_table(dataset)
    assert table.column_names[3:] == [
        *("observation_fixed_0", "observation_fixed_1", "observation_place", "action", "reward", "terminated")
    ]
    columns = minari_columns(dataset)
    assert columns["categorical"] == ["action"]
    fitted = PersonalizedSimulator.fit(dataset, **columns, rank=2, members=2, epochs=200, progress=False)
    assert fitted.agents == tuple(range(12))
    assert fitted.trajectories.terminated.tolist() == [True, False] * 6
    moved = fitted.rollout(6, [1.0, 1.0, 0.0], {"action": [0, 1, 0]}).mean[:, 2]
    np.testing.assert_allclose(moved, [0, 0.7, 0.7, 1.4], atol=0.15)
    few = dataset.filter_episodes(lambda episode: episode.id >= 10)
    assert set(minari_table(few)["agent"].to_pylist()) == {10, 11}


def test_nothing_that_is_loaded_is_executed(tmp_path):
    """A data set may name an environment by a module to import; its spaces must be in the file instead."""
    folder = foreign(tmp_path / "walks", *SPACES, walks(2, 5))
    path = folder / "data/metadata.json"
    about = json.loads(path.read_text())
    del about["action_space"]
    about["env_spec"] = '{"id": "evil:Env-v0", "entry_point": "antigravity:fly"}'
    path.write_text(json.dumps(about))
    with pytest.raises(TableError, match="observation_space or action_space is missing"):
        open_minari(folder)


def test_bad_data_sets_are_named(tmp_path):
    with pytest.raises(TableError, match=r"has no metadata\.json"):
        read_table(tmp_path)
    with pytest.raises(TableError, match=r"x\.hdf5: no such file"):
        read_table(tmp_path / "x.hdf5")
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(TableError, match="not a readable Minari data set"):
        read_table(tmp_path)
    (tmp_path / "metadata.json").unlink()
    damaged = foreign(tmp_path / "damaged", *SPACES, walks(2, 5))
    path = damaged / "data/metadata.json"
    own = {"schema": {"state": ["x"], "action": ["a"], "num_actions": 2}, "agents": [0]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "persim_lightning": own}))
    with pytest.raises(TableError, match="damaged Minari data set"):
        read_table(damaged)
    text = foreign(tmp_path / "text", gymnasium.spaces.Text(5), Discrete(2), [])
    with pytest.raises(TableError, match="observation is a Text space"):
        read_table(text)
    empty = foreign(tmp_path / "empty", *SPACES, [])
    with pytest.raises(TableError, match="no episodes"):
        read_table(empty)
    recorded = trajectories(rooms(2, 5), **ROLES, action=["heater"])
    with pytest.raises(ConfigurationError, match="exists: choose another"):
        write_minari(recorded, empty, "some/set-v0")
    with pytest.raises(ConfigurationError, match="is not a Minari id"):
        write_minari(recorded, tmp_path / "new", "a b")
    assert not (tmp_path / "new").exists()
