"""The card of a data set, which summarizes it: JSON for programs, Markdown and a figure for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import TableError
from persim_lightning.support.files import atomic_write, file_sha256, markdown_table, write_json
from persim_lightning.types import Schema

CARD_FILES = CARD, MARKDOWN, _FIGURE = "card.json", "card.md", "coverage.png"
_ACTION_BINS = 10


class CardSource(NamedTuple):
    """How a table was collected: name of the data set, description of its behavior policy, seed."""

    dataset: str
    policy: str
    seed: int


def write_card(environment: Environment, path: Path, source: CardSource) -> None:
    """Write `card.json`, `card.md` and `coverage.png` for the table at `path`, to the same folder.

    Raises
    ------
    TableError
        If the table has no rewards.
    """
    # Imported late: matplotlib is slow to load, and most data sets have a card already.
    from persim_lightning.data.collecting.coverage import draw_coverage
    from persim_lightning.support.figures import save_figure

    trajectories = load_trajectories(path, environment.schema)
    if trajectories.reward is None:
        raise TableError(f"{path}: no column 'reward' (from an older version); remove the file to collect it again")
    card = describe(environment, trajectories, source)
    card["table"] = {"file": path.name, "sha256": file_sha256(path)}
    save_figure(draw_coverage(trajectories, f"{environment.name}, {source.dataset}"), path.parent / _FIGURE)
    with atomic_write(path.parent / MARKDOWN) as temporary:
        temporary.write_text(to_markdown(card))
    write_json(card, path.parent / CARD)


def describe(environment: Environment, trajectories: Trajectories, source: CardSource) -> dict[str, Any]:
    """Summarize a data set with its returns and its test agents, ready for JSON.

    Raises
    ------
    TableError
        If the table has no rewards.
    """
    steps, returns = trajectories.lengths - 1, trajectories.returns()
    test_agents = []
    for agent, covariates in enumerate(environment.test_agents):
        is_agent = trajectories.agent == trajectories.agent_ids.index(agent)
        test_agents.append(
            {
                "agent": agent,
                "covariates": environment.covariate_dict(covariates),
                "trajectories": int(is_agent.sum()),
                "mean_length": float(steps[is_agent].double().mean()),
                **_mean_std(returns[is_agent]),
            }
        )
    return {
        "environment": environment.name,
        "dataset": source.dataset,
        "policy": source.policy,
        "seed": source.seed,
        "returns": _mean_std(returns),
        "test_agents": test_agents,
        **summary(trajectories),
    }


def summary(trajectories: Trajectories) -> dict[str, Any]:
    """Summarize sizes, lengths, states and actions of any trajectories, ready for JSON."""
    steps = trajectories.lengths - 1
    action_rows, _ = trajectories.split_rows(0.0)
    return {
        "agents": trajectories.num_agents,
        "trajectories": trajectories.num_trajectories,
        "transitions": int(steps.sum()),
        "terminated": int(trajectories.terminated.sum()),
        "lengths": {
            "min": int(steps.min()),
            "median": float(steps.double().quantile(0.5)),
            "mean": float(steps.double().mean()),
            "max": int(steps.max()),
        },
        "states": [
            {"name": name, **_spread(trajectories.state[:, index])}
            for index, name in enumerate(trajectories.schema.state)
        ],
        "actions": _actions(trajectories.schema, trajectories.action[action_rows]),
    }


def _mean_std(returns: Tensor) -> dict[str, float]:
    """Mean and population standard deviation, which is zero for one trajectory."""
    return {"mean_return": float(returns.mean()), "std_return": float(returns.std(correction=0))}


def _spread(values: Tensor) -> dict[str, float]:
    ordered = values.double().sort().values
    quantiles = {
        name: ordered[round(share * (len(ordered) - 1))] for name, share in (("5%", 0.05), ("50%", 0.5), ("95%", 0.95))
    }
    return {
        "min": float(ordered[0]),
        **{name: float(value) for name, value in quantiles.items()},
        "max": float(ordered[-1]),
        "std": float(ordered.std(correction=0)),
    }


def _actions(schema: Schema, actions: Tensor) -> list[dict[str, Any]]:
    """Shares of discrete actions, or a histogram over [-1, 1] for every action coordinate."""
    if schema.num_actions is not None:
        share = torch.bincount(actions, minlength=schema.num_actions).double() / len(actions)
        return [{"action": index, "share": float(value)} for index, value in enumerate(share)]
    described = []
    for index, name in enumerate(schema.action):
        values = actions[:, index].double()
        counts = torch.histc(values, _ACTION_BINS, min=-1, max=1) / len(values)
        described.append(
            {
                "name": name,
                "mean": float(values.mean()),
                "std": float(values.std(correction=0)),
                "shares": counts.tolist(),
            }
        )
    return described


def to_markdown(card: dict[str, Any]) -> str:
    """Convert a card to a Markdown page."""
    lengths, returns, table = card["lengths"], card["returns"], card["table"]
    covariates = list(card["test_agents"][0]["covariates"])
    page = [
        f"# {card['environment']}, {card['dataset']}",
        "",
        f"{card['trajectories']} trajectories of {card['agents']} agents, {card['transitions']:,} transitions; seed "
        f"{card['seed']}. Policy: {card['policy']}.",
        "",
        f"- Lengths (steps): {lengths['min']} to {lengths['max']}, median {lengths['median']:.0f}, mean "
        f"{lengths['mean']:.1f}; {card['terminated']} trajectories terminated, the others were truncated.",
        f"- Returns: {_plus_minus(returns)} (mean ± standard deviation over trajectories).",
        f"- `{table['file']}`, SHA-256 `{table['sha256']}`.",
        "",
        "## Test agents",
        "",
        *markdown_table(
            ["agent", *covariates, "trajectories", "mean length", "return"],
            (
                [
                    str(record["agent"]),
                    *(f"{value:g}" for value in record["covariates"].values()),
                    str(record["trajectories"]),
                    f"{record['mean_length']:.1f}",
                    _plus_minus(record),
                ]
                for record in card["test_agents"]
            ),
        ),
        "",
        "## States",
        "",
        f"![state coverage]({_FIGURE})",
        "",
        *markdown_table(
            ["state", "min", "5 %", "50 %", "95 %", "max", "std"],
            (
                [record["name"], *(f"{record[key]:.4g}" for key in ("min", "5%", "50%", "95%", "max", "std"))]
                for record in card["states"]
            ),
        ),
        "",
        "## Actions",
        "",
    ]
    if "action" in card["actions"][0]:
        rows = ([str(record["action"]), f"{record['share']:.1%}"] for record in card["actions"])
        page += markdown_table(["action", "share"], rows)
    else:
        edges = [f"{-1 + 2 * index / _ACTION_BINS:+.1f}…" for index in range(_ACTION_BINS)]
        page += markdown_table(
            ["action", "mean", "std", *edges],
            (
                [
                    *(record["name"], f"{record['mean']:.2f}", f"{record['std']:.2f}"),
                    *(f"{share:.0%}" for share in record["shares"]),
                ]
                for record in card["actions"]
            ),
        )
    return "\n".join(page) + "\n"


def _plus_minus(record: dict[str, Any]) -> str:
    mean = f"{record['mean_return']:.2f}"
    return mean if record.get("trajectories") == 1 else f"{mean} ± {record['std_return']:.2f}"
