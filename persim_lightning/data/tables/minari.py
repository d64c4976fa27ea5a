"""Minari data sets as tables, and trajectories as Minari data sets (https://minari.farama.org).

An episode of a data set that says nothing of agents is an agent of its own: one trajectory each. What this package
writes names the agents, and the columns as its users know them.
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
from persim_lightning.errors import ConfigurationError, TableError
from persim_lightning.types import Schema

if TYPE_CHECKING:
    from minari import MinariDataset

# Key of the data set's metadata that holds what Minari has no place for: a schema, and the agent of every episode.
_OWN = "persim_lightning"


class _Column(NamedTuple):
    """A number of an observation or action, and whether it is a code instead of an amount."""

    name: str
    code: bool


def open_minari(path: Path) -> MinariDataset:
    """A data set on disk; nothing in it is executed.

    Parameters
    ----------
    path : Path
        Its folder, the folder `data` in it, or the file `main_data.hdf5`.

    Raises
    ------
    TableError
        If it cannot be read, or minari is not installed.
    """
    try:
        from minari import MinariDataset
    except ImportError as error:
        raise TableError(f"{path}: reading it needs minari: pip install 'persim-lightning[interop]'") from error
    folder = path.parent if path.suffix == ".hdf5" else path
    folder = folder / "data" if (folder / "data").is_dir() else folder
    description = folder / "metadata.json"
    if not description.is_file():
        raise TableError(f"{path}: {folder} holds no metadata.json of a Minari data set")
    try:
        # Minari would make the environment that the file names, whatever that is, to learn its spaces.
        if not {"observation_space", "action_space"} <= set(json.loads(description.read_text())):
            raise TableError(f"{description}: it does not say what observations and actions are")
        return MinariDataset(folder.absolute())
    except (ValueError, KeyError, OSError, AssertionError, TypeError, ImportError) as error:
        raise TableError(f"{path}: not a readable Minari data set ({type(error).__name__}: {error})") from error


def minari_table(dataset: MinariDataset, source: str = "the Minari data set") -> pa.Table:
    """A Minari data set as a table, one row per observation.

    Parameters
    ----------
    dataset : minari.MinariDataset
        Observations and actions of numbers: Box and Discrete spaces, and Dict and Tuple spaces of them.
    source : str
        Names it in errors.

    Returns
    -------
    pyarrow.Table
        Columns `agent`, `t` and `episode`; `observation_0`, … and `action_0`, … (`observation` and `action` where there
        is one number, `observation_KEY_0` for Dict spaces); `reward`, where any is known, and `terminated`. Of a data
        set that :func:`write_minari` wrote, the columns of the table that it was made from; times are steps times their
        length.

    Raises
    ------
    TableError
        If a space holds something else, or there is no episode.
    """
    try:
        return _table(dataset, source)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{source}: a damaged Minari data set ({type(error).__name__}: {error})") from error


def _table(dataset: MinariDataset, source: str) -> pa.Table:
    own = dataset.storage.metadata.get(_OWN)
    roles, actions = _roles(dataset, source)
    step = roles.step or 1
    parts: dict[str, list[pa.Array]] = {}
    for number, episode in enumerate(dataset.iterate_episodes()):
        length = len(episode.rewards)
        if not length:
            continue
        last = np.arange(length + 1) == length
        observed = _flat(episode.observations, length + 1, source)
        acted = _flat(episode.actions, length, source)
        values: dict[str, Any] = {
            roles.agent: [int(episode.id) if own is None else own["agents"][int(episode.id)]] * (length + 1),
            roles.time: np.arange(length + 1) * step,
            roles.episode: np.full(length + 1, number),
        }
        values |= {name: observed[:, index] for index, name in enumerate(roles.state)}
        if own is None:
            taken = {column.name: acted[:, index].tolist() for index, column in enumerate(actions)}
        else:
            taken = decode_actions(acted[:, 0] if roles.num_actions is not None else acted, roles)
        values |= {name: [*column, None] for name, column in taken.items()}
        values[roles.reward] = pa.array(np.append(episode.rewards, np.nan).astype(float), mask=last)
        values[roles.terminated] = last & bool(episode.terminations[-1])
        for name, value in values.items():
            parts.setdefault(name, []).append(value if isinstance(value, pa.Array) else pa.array(value))
    if not parts:
        raise TableError(f"{source}: the data set has no episodes")
    table = pa.table({name: pa.chunked_array(chunks) for name, chunks in parts.items()})
    known = table[roles.reward].drop_null().to_numpy()
    return table.drop_columns(roles.reward) if np.isnan(known).all() else table


def minari_columns(dataset: MinariDataset) -> dict[str, Any]:
    """What the columns of :func:`minari_table` mean, as :meth:`PersonalizedSimulator.fit` takes them.

    Examples
    --------
    `PersonalizedSimulator.fit(dataset, **minari_columns(dataset))`
    """
    roles, actions = _roles(dataset, "the Minari data set")
    found = {role: getattr(roles, role) for role in ("agent", "time", "episode", "terminated")}
    found |= {"state": list(roles.state), "action": [column.name for column in actions]}
    found["categorical"] = [column.name for column in actions if column.code]
    rewarded = any(np.isfinite(episode.rewards).any() for episode in dataset.iterate_episodes())
    return found | ({"reward": roles.reward} if rewarded else {})


def check_minari(folder: Path, dataset_id: str) -> None:
    """Find out whether :func:`write_minari` could write, before anything is made for it.

    Raises
    ------
    ConfigurationError
        If the folder exists, the id is none, or minari is not installed.
    """
    try:
        import h5py  # noqa: F401  # minari looks for it late
        from minari.dataset.minari_dataset import parse_dataset_id
    except ImportError as error:
        raise ConfigurationError("Minari needs further packages: pip install 'persim-lightning[interop]'") from error
    if folder.exists():
        raise ConfigurationError(f"{folder} exists: choose another folder")
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"'{dataset_id}' is no Minari id such as patients/real-v0 (a namespace has two letters or more)"
        ) from error


def write_minari(trajectories: Trajectories, folder: Path, dataset_id: str, description: str = "") -> Path:
    """Write trajectories as a Minari data set, whole or not at all.

    Parameters
    ----------
    trajectories : Trajectories
        Rewards that are not known become NaN.
    folder : Path
        New; `minari.MinariDataset(folder / "data")` reads it, and so does `minari.load_dataset(dataset_id)` where it
        lies at that place in Minari's own folder.
    dataset_id : str
        Such as `patients/real-v0`.
    description : str

    Raises
    ------
    ConfigurationError
        If the folder exists, the id is none, or minari is not installed.
    """
    check_minari(folder, dataset_id)
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
    # Minari joins relative paths twice.
    temporary = folder.absolute().with_name(f".{folder.name}-{uuid.uuid4().hex}")
    (temporary / "data").mkdir(parents=True)
    try:
        spaces = trajectory_spaces(trajectories)
        storage = MinariStorage.new(temporary / "data", *spaces)
        storage.update_episodes(episodes)
        own = {"schema": schema.to_dict(), "agents": agents}
        storage.update_metadata(
            {"dataset_id": dataset_id, "minari_version": __version__, "description": description, _OWN: own}
        )
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def trajectory_spaces(trajectories: Trajectories) -> tuple[gymnasium.spaces.Box, gymnasium.Space]:
    """Spaces of observations and of actions as simulators take them: codes, or amounts in their recorded ranges."""
    schema = trajectories.schema
    observation = gymnasium.spaces.Box(-np.inf, np.inf, (schema.state_dim,), np.float32)
    if schema.num_actions is not None:
        return observation, gymnasium.spaces.Discrete(schema.num_actions)
    low, high = trajectories.action_range()
    return observation, gymnasium.spaces.Box(low.numpy(), high.numpy(), dtype=np.float32)


def _roles(dataset: MinariDataset, source: str) -> tuple[Schema, list[_Column]]:
    """Names of columns, and the action columns as users know them."""
    own = dataset.storage.metadata.get(_OWN)
    if own is not None:
        schema = Schema.from_dict(own["schema"])
        return schema, [_Column(name, categories is not None) for name, categories in schema.user_actions]
    states = tuple(column.name for column in _columns("observation", dataset.spec.observation_space, source))
    actions = _columns("action", dataset.spec.action_space, source)
    return Schema(states, tuple(column.name for column in actions), None), actions


def _columns(kind: str, space: gymnasium.Space, source: str) -> list[_Column]:
    """A space's numbers, in the order in which :func:`_flat` lays them out."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return [_Column(kind, True)]
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary):
        code, size = not isinstance(space, gymnasium.spaces.Box), int(np.prod(space.shape))
        return [_Column(kind if size == 1 else f"{kind}_{index}", code) for index in range(size)]
    if isinstance(space, gymnasium.spaces.Dict):
        return [column for key in sorted(space) for column in _columns(f"{kind}_{key}", space[key], source)]
    if isinstance(space, gymnasium.spaces.Tuple):
        return [column for key, part in enumerate(space) for column in _columns(f"{kind}_{key}", part, source)]
    raise TableError(f"{source}: {kind} is a {type(space).__name__} space, and only numbers can be columns")


def _flat(values: Any, rows: int, source: str) -> np.ndarray:
    """Arrays of whatever nesting as one of shape (rows, numbers)."""
    if isinstance(values, dict):
        return np.concatenate([_flat(values[key], rows, source) for key in sorted(values)], axis=1)
    if isinstance(values, tuple):
        return np.concatenate([_flat(part, rows, source) for part in values], axis=1)
    array = np.asarray(values)
    if len(array) != rows:
        raise TableError(f"{source}: an episode has {len(array)} entries where {rows} were expected")
    return array.reshape(rows, -1)
