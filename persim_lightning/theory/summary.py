"""The low-rank check in plain words."""

from __future__ import annotations

import numpy as np

from persim_lightning.theory.check import TOLERANCE, TheoremCheck

_NAMES = {"cp": "CP", "tucker": "Tucker"}


def summary(check: TheoremCheck) -> str:
    """The result in plain words, one paragraph."""
    size = "{agents} agents × {states} states × {actions} actions".format(**check.sample)
    parts = [f"{check.name}, tensor of {size}:"]
    if check.truth is not None:
        curve = check.truth.merged
        agent, state, action = curve.multilinear_ranks()
        needed = curve.needed_rank()
        if needed is None:
            parts.append(
                f"no decomposition found up to rank {curve.ranks[-1]} explains the true dynamics to {TOLERANCE:.0%}"
                f" (rank {curve.ranks[-1]} leaves {curve.cp[-1]:.1%});"
            )
        else:
            error = curve.cp[curve.ranks.index(needed)]
            parts.append(f"rank {needed} explains the true dynamics up to a relative error of {error:.1g};")
        parts.append(
            f"its agents span {_count(agent, 'direction')}, its states {state}, its actions {action}"
            f" (to {TOLERANCE:.0%})."
        )
        seen = check.truth.observed
        told = f"The data visit {seen.share:.1%} of the cells"
        if seen.ranks:
            best = int(np.argmin(seen.unseen))
            told += (
                f"; decomposing these alone misses the others by {seen.unseen[best]:.2g}"
                f" (relative error, best of ranks {', '.join(map(str, seen.ranks))})"
            )
        parts.append(f"{told}.")
    else:
        parts.append("the true dynamics is not known (it needs an environment, and a table of the agents' covariates).")
    if check.learned is not None:
        learned = check.learned
        ranks = str(learned.ranks[0]) if learned.factorization == "cp" else " × ".join(map(str, learned.ranks))
        own = f"Your model uses {_NAMES[learned.factorization]} rank {ranks}"
        truth, covariates = learned.against_truth, learned.covariates
        parts.append(own + ("." if truth is None else f" and differs from the truth by {truth.error:.2g}."))
        if truth is not None:
            parts.append(
                f"Seen through the model's {_count(learned.ranks[0], 'agent direction')}, the true agents lose"
                f" {truth.projection_error:.2g} (the best as many directions: {truth.best_projection_error:.2g})."
            )
        if covariates is not None:
            given = [
                f"{covariate} R² {value:.3f} ({covariates.linear[covariate]:.3f} linear)"
                for covariate, value in covariates.quadratic.items()
                if value is not None
            ]
            parts.append(
                f"Agent factors give back the covariates of held-out agents: {', '.join(given)}." if given else ""
            )
    return " ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
