"""Reads presets such as conf/benchmark/small.yaml, and makes the cells of their grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.methods.method_file import build_method
from persim_lightning.support.configurations import find_configuration, read_yaml
from persim_lightning.support.parsing import build_settings


@dataclass(frozen=True)
class EpisodeCounts:
    """Number of episodes of every test agent.

    Parameters
    ----------
    planned : int
        For methods that plan at every step.
    learned : int
        For methods whose policy is a network.
    """

    planned: PositiveInt
    learned: PositiveInt


@dataclass(frozen=True)
class Preset:
    """A grid and its protocol, as in conf/benchmark/NAME.yaml.

    Parameters
    ----------
    environments, datasets : list of str
    methods : list of str
        Names of YAMLs, in the order of the tables.
    seeds : list of int
        Seeds of data sets, networks and episodes.
    agents : int
        Size of the training population.
    test_agents : list of int
        Agents that are scored.
    episodes : EpisodeCounts
    episodes_of : dict
        Method to number of episodes, where it differs from `episodes`.
    steps : int, optional
        Gradient steps of every network; by default PerSim's number in conf/ENV.yaml.
    max_steps : int, optional
        Truncate episodes after this many steps.
    start_first : list of str
        Methods whose cells start before the others: slow methods, and methods whose fits others need.
    without_data : list of str
        Methods that do not learn from a data set; they run on the first one only.
    """

    environments: list[str]
    datasets: list[str]
    methods: list[str]
    seeds: list[NonNegativeInt]
    agents: PositiveInt
    test_agents: list[NonNegativeInt]
    episodes: EpisodeCounts
    episodes_of: dict[str, PositiveInt] = field(default_factory=dict)
    steps: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    start_first: list[str] = field(default_factory=list)
    without_data: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Preset:
        """Read a YAML such as conf/benchmark/small.yaml.

        Raises
        ------
        ConfigurationError
            If the file cannot be read, or a key or method is unknown.
        """
        preset = build_settings(cls, path)
        for key in ("episodes_of", "start_first", "without_data"):
            for name in getattr(preset, key):
                if not {name, "all"} & set(preset.methods):
                    raise ConfigurationError(f"{path}: {key} names '{name}', which is not among its methods")
        return preset


@dataclass(frozen=True)
class Cell:
    """One method on one data set under one seed, as plain data that can be sent to another machine.

    Attributes
    ----------
    environment, dataset, method : str
    seed : int
    description : dict
        Content of the method's YAML.
    planning, configuration : dict
        Contents of conf/planning/ENV.yaml and conf/ENV.yaml.
    agents, test_agents, steps, max_steps
        As in :class:`Preset`.
    episodes : dict
        Numbers of episodes, `planned` and `learned`; the fitted method decides which applies.
    """

    environment: str
    dataset: str
    method: str
    seed: int
    description: dict[str, Any]
    planning: dict[str, Any]
    configuration: dict[str, Any]
    agents: int
    test_agents: list[int]
    steps: int | None
    max_steps: int | None
    episodes: dict[str, int]

    @property
    def name(self) -> str:
        return f"{self.environment} {self.dataset} seed {self.seed} {self.method}"

    @property
    def workspace(self) -> str:
        """Folder within the runs folder that all methods on this data set share."""
        return f"{self.environment}-{self.dataset}-seed{self.seed}"

    @property
    def folder(self) -> str:
        """Folder of this cell within the runs folder."""
        return f"{self.workspace}/cells/{self.method}"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, ready for JSON; the tables follow from it."""
        return asdict(self)

    def fit_settings(self) -> dict[str, Any]:
        """The part of the settings that decides the fit."""
        return {name: value for name, value in asdict(self).items() if name not in ("episodes", "max_steps")}


def make_cells(preset: Preset, methods: Mapping[str, dict[str, Any]], conf: Path | None = None) -> list[Cell]:
    """Make all cells of a grid, in the order in which they start.

    Parameters
    ----------
    preset : Preset
    methods : mapping
        Name to description, as :func:`choose_methods` gives them.
    conf : Path, optional
        Folder of YAMLs; the shipped one by default.

    Raises
    ------
    PersimError
        If a name is unknown, or a YAML is missing or invalid.
    """
    _check_names("environment", preset.environments, list(ENVIRONMENTS))
    _check_names("data set", preset.datasets, list(DATASETS))
    counts = asdict(preset.episodes)
    cells = []
    for environment in dict.fromkeys(preset.environments):
        test_agents = [str(agent) for agent in range(len(ENVIRONMENTS[environment].test_agents))]
        _check_names("test agent", list(map(str, preset.test_agents)), test_agents)
        if preset.agents < len(test_agents):
            raise ConfigurationError(
                f"{preset.agents} agents: a population of {environment} has at least its {len(test_agents)} test agents"
            )
        planning_path = find_configuration(environment, "planning", conf)
        PlanningSettings.load(planning_path).objective(ENVIRONMENTS[environment])
        planning = read_yaml(planning_path)
        configuration = read_yaml(find_configuration(environment, folder=conf))
        cells += [
            Cell(
                environment=environment,
                dataset=dataset,
                method=method,
                seed=seed,
                description=description,
                planning=planning,
                configuration=configuration,
                agents=preset.agents,
                test_agents=preset.test_agents,
                steps=preset.steps,
                max_steps=preset.max_steps,
                episodes=dict.fromkeys(counts, preset.episodes_of[method]) if method in preset.episodes_of else counts,
            )
            for seed in dict.fromkeys(preset.seeds)
            for dataset in dict.fromkeys(preset.datasets)
            for method, description in methods.items()
            if dataset == preset.datasets[0] or method not in preset.without_data
        ]
    order = {method: index for index, method in enumerate(preset.start_first)}
    return sorted(cells, key=lambda cell: order.get(cell.method, len(order)))


def choose_methods(requested: Sequence[str], folder: Path, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the descriptions of methods by name; `all` means every YAML of the folder, those in `order` first.

    Raises
    ------
    ConfigurationError
        If a method is unknown, or its YAML is invalid.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not known:
        raise ConfigurationError(f"{folder} holds no YAML of a method: give another --methods_folder")
    ordered = [*(name for name in order if name in known), *(name for name in known if name not in order)]
    names = list(dict.fromkeys(name for given in requested for name in (ordered if given == "all" else [given])))
    _check_names("method", names, known)
    descriptions = {name: read_yaml(folder / f"{name}.yaml") for name in names}
    for name, description in descriptions.items():
        build_method(description, str(folder / f"{name}.yaml"))
    return descriptions


def _check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigurationError(f"unknown {kind} '{name}': choose from {', '.join(known)}")
    if not names:
        raise ConfigurationError(f"the grid names no {kind}")
