"""Names of the files in a run folder; no other module spells them."""

from __future__ import annotations

from pathlib import Path

# The simulators.
WEIGHTS = "simulator.safetensors"
DESCRIPTION = "simulator.json"

# What a simulator of a user's table keeps beside its weights.
TRAJECTORIES = "trajectories.parquet"
OUTCOMES = "outcomes.safetensors"
ENVIRONMENT = "environment.json"
CALIBRATION = "calibration.json"
CHOICE = "choice.json"

# How a run was made. The provenance is written last: it marks the run as finished.
CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last"
CHECKPOINT_SUFFIX = ".ckpt"
METRICS = "metrics"
WANDB_RUN = "wandb_run.json"

# Scores and pictures.
PREDICTION = "prediction.json"
ROLLOUT_R2 = "rollout_r2.json"
LATENT_FACTORS = "latent_factors.json"
COVERAGE = "coverage.json"
THEOREM = "theorem.json"
RANK_SELECTION = "rank_selection.json"
CONTROL = "control.json"
MPC_EPISODES = "mpc_episodes.json"
FIGURES = "figures"
REPORT = "report.html"

# A benchmark's folder and its cells.
RESULT = "result.json"
FITTED = "fit.json"
ERROR = "error.txt"
LOG = "log.txt"
SUMMARY = "summary.json"
TABLES = "tables.md"

# Work that is identified by its settings (see `persim_lightning.store.work`).
SETTINGS = "settings.json"
LOCK = ".lock"


def last_checkpoint(run: Path) -> Path:
    """The checkpoint that a run resumes from."""
    return run / CHECKPOINTS / f"{LAST_CHECKPOINT}{CHECKPOINT_SUFFIX}"
