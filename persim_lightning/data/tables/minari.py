"""Reads Minari data sets as tables, and writes trajectories as Minari data sets (https://minari.farama.org).

Minari knows no agents: each episode of a data set becomes an agent with one trajectory. Data sets that this package
writes also contain the agents and the columns of the user's table.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
import pyarrow as pa

from persim_lightning.data.tables.actions import decode_actions
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.errors import ConfigurationError, MissingPackageError, TableError
from persim_lightning.types import Schema

if TYPE_CHECKING:
    from minari import MinariDataset

# Key of this package's entry in the metadata of a data set: the schema, and the agent of every episode.
_METADATA_KEY = "persim_lightning"


class _Column(NamedTuple):
    """A column for one number of an observation or action, and whether it is a code of a category."""

    name: str
    is_code: bool


def open_minari(path: Path) -> MinariDataset:
    """Open a data set on disk without executing any code from it.

    Parameters
    ----------
    path : Path
        Folder of the data set, its subfolder `data`, or its file `main_data.hdf5`.

    Raises
    ------
    TableError
        If it cannot be read, or minari is not installed.
    """
    folder = path.parent if path.suffix == ".hdf5" else path
    folder = folder / "data" if (folder / "data").is_dir() else folder
    description = folder / "metadata.json"
    if not description.is_file():
        kind = "a folder, neither a table nor" if path.is_dir() else "not"
        raise TableError(f"{path}: {kind} a Minari data set ({folder} has no metadata.json)")
    try:
        from minari import MinariDataset
    except ImportError as error:
        raise MissingPackageError(f"{path}: reading it", "minari", "interop") from error
    try:
        # If the spaces are missing, Minari would create the environment that the file names, which may be any code.
        if not {"observation_space", "action_space"} <= set(json.loads(description.read_text())):
            raise TableError(f"{description}: observation_space or action_space is missing")
        return MinariDataset(folder.absolute())
    except (ValueError, KeyError, OSError, AssertionError, TypeError, ImportError) as error:
        raise TableError(f"{path}: not a readable Minari data set ({type(error).__name__}: {error})") from error


def minari_table(dataset: MinariDataset, source: str = "the Minari data set") -> pa.Table:
    """Convert a Minari data set to a table with one row per observation.

    Parameters
    ----------
    dataset : minari.MinariDataset
        Observations and actions must consist of numbers: Box and Discrete spaces, and Dict and Tuple spaces of them.
    source : str
        Name of the data set in error messages.

    Returns
    -------
    pyarrow.Table
        Columns `agent`, `t` and `episode`; `observation_0`, … and `action_0`, … (`observation` and `action` if there
        is one number, `observation_KEY_0` for Dict spaces); `reward`, if any is known; `terminated`. A data set from
        :func:`write_minari` gives the columns of the original table instead; a time is the number of the step times
        the length of a step.

    Raises
    ------
    TableError
        If a space does not consist of numbers, there is no episode, or the data set is damaged.
    """
    try:
        return _table(dataset, source)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{source}: a damaged Minari data set ({type(error).__name__}: {error})") from error


def _table(dataset: MinariDataset, source: str) -> pa.Table:
    metadata = dataset.storage.metadata.get(_METADATA_KEY)
    schema, actions = _schema(dataset, source)
    step = schema.step or 1
    chunks: dict[str, list[pa.Array]] = {}
    for number, episode in enumerate(dataset.iterate_episodes()):
        length = len(episode.rewards)
        if not length:
            continue
        last = np.arange(length + 1) == length
        observations = _flatten(episode.observations, length + 1, source)
        flat_actions = _flatten(episode.actions, length, source)
        agent = int(episode.id) if metadata is None else metadata["agents"][int(episode.id)]
        values: dict[str, Any] = {
            schema.agent: [agent] * (length + 1),
            schema.time: np.arange(length + 1) * step,
            schema.episode: np.full(length + 1, number),
        }
        values |= {name: observations[:, index] for index, name in enumerate(schema.state)}
        if metadata is None:
            decoded = {column.name: flat_actions[:, index].tolist() for index, column in enumerate(actions)}
        else:
            decoded = decode_actions(flat_actions[:, 0] if schema.num_actions is not None else flat_actions, schema)
        values |= {name: [*column, None] for name, column in decoded.items()}
        values[schema.reward] = pa.array(np.append(episode.rewards, np.nan).astype(float), mask=last)
        values[schema.terminated] = last & bool(episode.terminations[-1])
        for name, value in values.items():
            chunks.setdefault(name, []).append(value if isinstance(value, pa.Array) else pa.array(value))
    if not chunks:
        raise TableError(f"{source}: the data set has no episodes")
    table = pa.table({name: pa.chunked_array(arrays) for name, arrays in chunks.items()})
    rewards = table[schema.reward].drop_null().to_numpy()
    return table.drop_columns(schema.reward) if np.isnan(rewards).all() else table


def minari_columns(dataset: MinariDataset) -> dict[str, Any]:
    """Describe the columns of :func:`minari_table` by keyword arguments of :meth:`PersonalizedSimulator.fit`.

    Examples
    --------
    `PersonalizedSimulator.fit(dataset, **minari_columns(dataset))`
    """
    schema, actions = _schema(dataset, "the Minari data set")
    roles = {role: getattr(schema, role) for role in ("agent", "time", "episode", "terminated")}
    roles |= {"state": list(schema.state), "action": [column.name for column in actions]}
    roles["categorical"] = [column.name for column in actions if column.is_code]
    has_rewards = any(np.isfinite(episode.rewards).any() for episode in dataset.iterate_episodes())
    return roles | ({"reward": schema.reward} if has_rewards else {})


def check_minari(folder: Path, dataset_id: str) -> None:
    """Check that :func:`write_minari` can write, before trajectories are simulated for it.

    Raises
    ------
    ConfigurationError
        If the folder exists, the id is invalid, or minari is not installed.
    """
    try:
        import h5py  # noqa: F401  # minari imports it only when it writes
        from minari.dataset.minari_dataset import parse_dataset_id
    except ImportError as error:
        raise MissingPackageError("export to Minari", "minari", "interop") from error
    if folder.exists():
        raise ConfigurationError(f"{folder} exists: choose another folder")
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"'{dataset_id}' is not a Minari id such as patients/real-v0 (a namespace has at least two letters)"
        ) from error


def write_minari(trajectories: Trajectories, folder: Path, dataset_id: str, description: str = "") -> Path:
    """Write trajectories as a Minari data set, whole or not at all.

    Parameters
    ----------
    trajectories : Trajectories
        Unknown rewards become NaN.
    folder : Path
        A new folder. `minari.MinariDataset(folder / "data")` reads it. `minari.load_dataset(dataset_id)` reads it, too,
        if it is the subfolder `dataset_id` of Minari's data folder.
    dataset_id : str
        For example `patients/real-v0`.
    description : str

    Raises
    ------
    ConfigurationError
        If the folder exists, the id is invalid, minari is not installed, or times are uneven or states missing, which
        Minari cannot hold.
    """
    check_minari(folder, dataset_id)
    if not trajectories.is_regular:
        raise ConfigurationError(
            "Minari data sets hold neither uneven times nor missing states: export synthetic trajectories instead"
        )
    from minari import __version__
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    schema = trajectories.schema
    episodes: list[EpisodeBuffer] = []
    agents: list[int | str] = []
    for index, (start, end) in enumerate(itertools.pairwise(trajectories.offsets.tolist())):
        length = end - start - 1
        if not length:
            continue
        agents.append(trajectories.agent_ids[int(trajectories.agent[index])])
        ends = np.arange(length) == length - 1
        terminated = ends & bool(trajectories.terminated[index])
        reward = trajectories.reward
        episodes.append(
            EpisodeBuffer(
                id=len(episodes),
                observations=trajectories.state[start:end].numpy(),
                actions=trajectories.action[start : end - 1].numpy(),
                rewards=np.full(length, np.nan) if reward is None else reward[start : end - 1].numpy(),
                terminations=terminated,
                truncations=ends & ~terminated,
                infos={},
            )
        )
    # An absolute path: Minari joins relative paths twice.
    temporary = folder.absolute().with_name(f".{folder.name}-{uuid.uuid4().hex}")
    (temporary / "data").mkdir(parents=True)
    try:
        spaces = trajectory_spaces(trajectories)
        storage = MinariStorage.new(temporary / "data", *spaces)
        storage.update_episodes(episodes)
        metadata = {"schema": schema.to_dict(), "agents": agents}
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": __version__,
                "description": description,
                _METADATA_KEY: metadata,
            }
        )
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def trajectory_spaces(trajectories: Trajectories) -> tuple[gymnasium.spaces.Box, gymnasium.Space]:
    """Observation space and action space of simulators: codes, or continuous actions in their recorded ranges."""
    schema = trajectories.schema
    observation = gymnasium.spaces.Box(
        -np.inf, np.inf, (schema.state_dim,), np.float64 if schema.double else np.float32
    )
    if schema.num_actions is not None:
        return observation, gymnasium.spaces.Discrete(schema.num_actions)
    low, high = trajectories.action_range()
    return observation, gymnasium.spaces.Box(low.numpy(), high.numpy(), dtype=np.float32)


def _schema(dataset: MinariDataset, source: str) -> tuple[Schema, list[_Column]]:
    """Names of the columns, and the user's action columns."""
    metadata = dataset.storage.metadata.get(_METADATA_KEY)
    if metadata is not None:
        schema = Schema.from_dict(metadata["schema"])
        return schema, [_Column(name, categories is not None) for name, categories in schema.user_actions]
    states = tuple(column.name for column in _columns("observation", dataset.spec.observation_space, source))
    actions = _columns("action", dataset.spec.action_space, source)
    return Schema(states, tuple(column.name for column in actions), None), actions


def _columns(kind: str, space: gymnasium.Space, source: str) -> list[_Column]:
    """Columns for the numbers of a space, in the order of :func:`_flatten`."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return [_Column(kind, True)]
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary):
        is_code, size = not isinstance(space, gymnasium.spaces.Box), int(np.prod(space.shape))
        return [_Column(kind if size == 1 else f"{kind}_{index}", is_code) for index in range(size)]
    if isinstance(space, gymnasium.spaces.Dict):
        return [column for key in sorted(space) for column in _columns(f"{kind}_{key}", space[key], source)]
    if isinstance(space, gymnasium.spaces.Tuple):
        return [column for key, item in enumerate(space) for column in _columns(f"{kind}_{key}", item, source)]
    raise TableError(f"{source}: {kind} is a {type(space).__name__} space; only spaces of numbers are supported")


def _flatten(values: Any, rows: int, source: str) -> np.ndarray:
    """Concatenate nested arrays to one of shape (rows, numbers)."""
    if isinstance(values, dict):
        return np.concatenate([_flatten(values[key], rows, source) for key in sorted(values)], axis=1)
    if isinstance(values, tuple):
        return np.concatenate([_flatten(item, rows, source) for item in values], axis=1)
    array = np.asarray(values)
    if len(array) != rows:
        raise TableError(f"{source}: an episode has {len(array)} entries, expected {rows}")
    return array.reshape(rows, -1)
