"""Summarize the low-rank check in one paragraph."""

from __future__ import annotations

import numpy as np

from persim_lightning.theory.results import TOLERANCE, LearnedCheck, TheoremCheck, TruthCheck

_NAMES = {"cp": "CP", "tucker": "Tucker"}


def summary(check: TheoremCheck) -> str:
    """Summarize the check in one paragraph."""
    size = "{agents} agents × {states} states × {actions} actions".format(**check.sample)
    sentences = [f"{check.name}, tensor of {size}:"]
    if check.truth is not None:
        sentences += _truth(check.truth)
    else:
        sentences.append(
            "the true dynamics is not known (it needs an environment, and a table of the agents' covariates)."
        )
    if check.learned is not None:
        sentences += _learned(check.learned)
    return " ".join(sentences)


def _truth(truth: TruthCheck) -> list[str]:
    curve, observed = truth.merged, truth.observed
    agent, state, action = curve.multilinear_ranks()
    rank = curve.sufficient_rank()
    if rank is None:
        explained = (
            f"no decomposition found up to rank {curve.ranks[-1]} explains the true dynamics to {TOLERANCE:.0%}"
            f" (rank {curve.ranks[-1]} leaves {curve.cp[-1]:.1%});"
        )
    else:
        error = curve.cp[curve.ranks.index(rank)]
        explained = f"rank {rank} explains the true dynamics up to a relative error of {error:.1g};"
    directions = (
        f"its agents span {_count(agent, 'direction')}, its states {state}, its actions {action} (to {TOLERANCE:.0%})."
    )
    visited = f"The data visit {observed.share:.1%} of the cells"
    if observed.ranks:
        best = int(np.argmin(observed.unseen))
        visited += (
            f"; a decomposition of only these predicts the others with a relative error of {observed.unseen[best]:.2g}"
            f" (best of ranks {', '.join(map(str, observed.ranks))})"
        )
    return [explained, directions, f"{visited}."]


def _learned(learned: LearnedCheck) -> list[str]:
    ranks = str(learned.ranks[0]) if learned.factorization == "cp" else " × ".join(map(str, learned.ranks))
    model = f"Your model uses {_NAMES[learned.factorization]} rank {ranks}"
    comparison, covariates = learned.against_truth, learned.covariates
    if comparison is None:
        sentences = [f"{model}."]
    else:
        sentences = [
            f"{model} and differs from the truth by {comparison.error:.2g}.",
            f"Projected onto the model's {_count(learned.ranks[0], 'agent direction')}, the true tensor has a relative"
            f" error of {comparison.projection_error:.2g} (projected onto its best ones:"
            f" {comparison.best_projection_error:.2g}).",
        ]
    if covariates is not None:
        scores = [
            f"{name} R² {value:.3f} ({covariates.linear[name]:.3f} linear)"
            for name, value in covariates.quadratic.items()
            if value is not None
        ]
        if scores:
            sentences.append(f"Agent factors predict the covariates of held-out agents: {', '.join(scores)}.")
    return sentences


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
