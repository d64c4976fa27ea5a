"""Play MPC episodes with the trained simulators at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from persim_lightning.callbacks.wandb_log import log_figure, log_value
from persim_lightning.data.datamodule import TrajectoryDataModule
from persim_lightning.errors import ConfigurationError
from persim_lightning.evaluation.control import PlanningSettings, play_agents, simulator_mpc
from persim_lightning.evaluation.fitted_run import true_covariates
from persim_lightning.store.names import FIGURES, MPC_EPISODES
from persim_lightning.support.files import write_json
from persim_lightning.training.persim import PerSimModule

# Number of agents that play if there is no test table.
_AGENTS = 5


class MPCEpisodes(pl.Callback):
    """Play episodes of every test agent in the real environment; log returns and a figure.

    Parameters
    ----------
    folder : Path
        Folder for `mpc_episodes.json` and `figures/mpc_episodes.png`.
    episodes : int
        Episodes per agent.
    settings : PlanningSettings
    """

    def __init__(self, folder: Path, episodes: int, settings: PlanningSettings) -> None:
        self._folder, self._episodes, self._settings = folder, episodes, settings
        self.results: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check before training that the real environment and the agents' covariates are known."""
        self._players(trainer.datamodule)  # type: ignore[attr-defined]

    def _players(self, data: TrajectoryDataModule) -> tuple[tuple[int | str, ...], Tensor]:
        """Return the ids of the agents that play, and their true covariates (N, C)."""
        agents = data.agent_ids[:_AGENTS] if data.test_trajectories is None else data.test_trajectories.agent_ids
        path = data.recordings.files.get("agents_path")
        if data.environment is None or path is None:
            raise ConfigurationError(
                "--mpc_episodes needs a real environment and the agents' covariates: set data.env and data.agents_path"
            )
        return agents, true_covariates(data.environment, Path(path), agents)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Imported late: drawing needs matplotlib.
        from persim_lightning.evaluation.episode_media import draw_first_episodes

        assert isinstance(pl_module, PerSimModule)
        data: TrajectoryDataModule = trainer.datamodule  # type: ignore[attr-defined]
        agents, covariates = self._players(data)
        assert data.environment is not None
        policy, _ = simulator_mpc(data.environment, pl_module.personalized(), agents, self._episodes, self._settings)
        scores = play_agents(data.environment, policy, covariates, self._episodes, 0, "MPC episodes")
        self.results = scores.to_dict(agents)
        write_json(self.results, self._folder / MPC_EPISODES)
        for record in self.results["agents"]:
            log_value(trainer, f"mpc_return/agent_{record['agent']}", record["mean_return"])
        path = self._folder / FIGURES / "mpc_episodes.png"
        draw_first_episodes(data.environment, scores.episodes, agents, path)
        log_figure(trainer, "figures/mpc_episodes", path)
