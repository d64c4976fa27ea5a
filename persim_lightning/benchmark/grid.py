"""What the benchmark compares: presets such as conf/benchmark/small.yaml, and the cells that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from persim_lightning.data.collecting.behavior import DATASETS
from persim_lightning.envs import ENVIRONMENTS
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings
from persim_lightning.methods.method_file import build_method
from persim_lightning.support.configurations import find_configuration, read_yaml, shipped_folder
from persim_lightning.support.parsing import build_settings


@dataclass(frozen=True)
class EpisodeCounts:
    """Episodes of every test agent.

    Parameters
    ----------
    planned : int
        Of methods that plan before every step.
    learned : int
        Of methods whose policy is a network.
    """

    planned: PositiveInt
    learned: PositiveInt


@dataclass(frozen=True)
class Preset:
    """A grid and its protocol, as conf/benchmark/NAME.yaml holds them.

    Parameters
    ----------
    environments, datasets : list of str
    methods : list of str
        Names of YAMLs, in the order of the tables.
    seeds : list of int
        Each draws a data set, networks and episodes of its own.
    agents : int
        Size of the population that methods learn from.
    test_agents : list of int
        Agents that are scored.
    episodes : EpisodeCounts
    episodes_of : dict
        Method to episodes, where they are other than `episodes`.
    steps : int, optional
        Gradient steps of every network; as many as conf/ENV.yaml gives PerSim where not given.
    max_steps : int, optional
        Cut episodes after so many steps.
    start_first : list of str
        Methods whose cells start before the others: the slow ones, and those that others wait for.
    without_data : list of str
        Methods that learn nothing from a data set, so that they are run on the first one only.
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
            If it cannot be read, or says something unknown.
        """
        preset = build_settings(cls, path)
        for key in ("episodes_of", "start_first", "without_data"):
            for name in getattr(preset, key):
                if not {name, "all"} & set(preset.methods):
                    raise ConfigurationError(f"{path}: {key} names '{name}', which is not among its methods")
        return preset


@dataclass(frozen=True)
class Cell:
    """One method on one data set under one seed: plain data, which any machine can go on from.

    Attributes
    ----------
    environment, dataset, method : str
    seed : int
    description : dict
        What the method's YAML holds.
    planning, configuration : dict
        What conf/planning/ENV.yaml and conf/ENV.yaml hold.
    agents, test_agents, steps, max_steps
        As in :class:`Preset`.
    episodes : dict
        `planned` and `learned`: the method's fit tells which.
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
        """Folder, within the runs folder, that methods on this data set share."""
        return f"{self.environment}-{self.dataset}-seed{self.seed}"

    @property
    def folder(self) -> str:
        """Of this cell's own files, within the runs folder."""
        return f"{self.workspace}/cells/{self.method}"

    def asked(self) -> dict[str, Any]:
        """Everything that decides the results, besides the tables, which these values make; ready for JSON."""
        return asdict(self)

    def asked_of_fit(self) -> dict[str, Any]:
        """Everything that decides what is learned."""
        return {name: value for name, value in asdict(self).items() if name not in ("episodes", "max_steps")}


def make_cells(preset: Preset, conf: Path | None = None, methods_folder: Path | None = None) -> list[Cell]:
    """All cells of a grid, in the order in which they should start.

    Parameters
    ----------
    preset : Preset
    conf : Path, optional
        Folder of YAMLs; the shipped one by default.
    methods_folder : Path, optional
        Folder of methods; `methods` in `conf` by default.

    Raises
    ------
    PersimError
        If a name is unknown, or a YAML is missing or does not fit.
    """
    _check_names("environment", preset.environments, list(ENVIRONMENTS))
    _check_names("data set", preset.datasets, list(DATASETS))
    folder = methods_folder or (conf or shipped_folder()) / "methods"
    methods = choose_methods(preset.methods, folder, preset.methods)
    counts = asdict(preset.episodes)
    cells = []
    for environment in dict.fromkeys(preset.environments):
        tested = [str(agent) for agent in range(len(ENVIRONMENTS[environment].test_agents))]
        _check_names("test agent", list(map(str, preset.test_agents)), tested)
        if preset.agents < len(tested):
            raise ConfigurationError(
                f"{preset.agents} agents: a population of {environment} has at least its {len(tested)} test agents"
            )
        planning_path = find_configuration(environment, "planning", conf)
        PlanningSettings.load(planning_path).objective(ENVIRONMENTS[environment])
        planning = read_yaml(planning_path)
        configuration = read_yaml(find_configuration(environment, folder=conf))
        cells += [
            Cell(
                *(environment, dataset, method, seed, description, planning, configuration),
                *(preset.agents, preset.test_agents, preset.steps, preset.max_steps),
                dict.fromkeys(counts, preset.episodes_of[method]) if method in preset.episodes_of else counts,
            )
            for seed in dict.fromkeys(preset.seeds)
            for dataset in dict.fromkeys(preset.datasets)
            for method, description in methods.items()
            if dataset == preset.datasets[0] or method not in preset.without_data
        ]
    first = {method: place for place, method in enumerate(preset.start_first)}
    return sorted(cells, key=lambda cell: first.get(cell.method, len(first)))


def choose_methods(wanted: Sequence[str], folder: Path, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Descriptions of methods by name; `all` stands for every YAML of the folder, those named in `order` first.

    Raises
    ------
    ConfigurationError
        If a method is unknown, or its YAML does not describe one.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not known:
        raise ConfigurationError(f"{folder}: holds no YAML of a method (--methods_folder says where they lie)")
    ordered = [*(name for name in order if name in known), *(name for name in known if name not in order)]
    names = list(dict.fromkeys(name for given in wanted for name in (ordered if given == "all" else [given])))
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
