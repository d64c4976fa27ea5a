"""The card of a data set: what it holds, in JSON for programs, in Markdown and a picture for people."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from persim_lightning.data.tables.canonical import load_trajectories
from persim_lightning.data.trajectories import Trajectories
from persim_lightning.envs import Environment
from persim_lightning.errors import TableError
from persim_lightning.support.figures import save_figure
from persim_lightning.support.files import atomic_write, file_sha256, markdown_table, write_json
from persim_lightning.types import Schema

CARD_FILES = CARD, MARKDOWN, _PICTURE = "card.json", "card.md", "coverage.png"
_ACTION_BINS = 10
# Up to so many coordinates, the picture shows every pair of them; beyond, each by itself.
_MAX_PAIRED = 4


class CardSource(NamedTuple):
    """What the table itself does not say: the data set's name, its policy in words, its seed."""

    dataset: str
    policy: str
    seed: int


def write_card(environment: Environment, path: Path, source: CardSource) -> None:
    """Describe the table at `path` by `card.json`, `card.md` and `coverage.png` beside it."""
    trajectories = load_trajectories(path, environment.schema)
    if trajectories.reward is None:
        raise TableError(f"{path}: no column 'reward', as in tables of older versions; remove it to collect it anew")
    card = describe(environment, trajectories, source)
    card["table"] = {"file": path.name, "sha256": file_sha256(path)}
    save_figure(draw_coverage(trajectories, f"{environment.name}, {source.dataset}"), path.parent / _PICTURE)
    with atomic_write(path.parent / MARKDOWN) as temporary:
        temporary.write_text(to_markdown(card))
    write_json(card, path.parent / CARD)


def describe(environment: Environment, trajectories: Trajectories, source: CardSource) -> dict[str, Any]:
    """Lengths, returns, states and actions of a data set, ready for JSON.

    Raises
    ------
    TableError
        If the table has no rewards.
    """
    steps, returns = trajectories.lengths - 1, trajectories.returns()
    test_agents = []
    for agent, covariates in enumerate(environment.test_agents):
        own = trajectories.agent == trajectories.agent_ids.index(agent)
        test_agents.append(
            {
                "agent": agent,
                "covariates": environment.covariate_dict(covariates),
                "trajectories": int(own.sum()),
                "mean_length": float(steps[own].double().mean()),
                **_mean_std(returns[own]),
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
    """Sizes, lengths, states and actions of any table, ready for JSON."""
    steps = trajectories.lengths - 1
    acted, _ = trajectories.split_rows(0.0)
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
        "actions": _actions(trajectories.schema, trajectories.action[acted]),
    }


def _mean_std(returns: Tensor) -> dict[str, float]:
    """Mean and standard deviation (of the population, so zero for one trajectory)."""
    return {"mean_return": float(returns.mean()), "std_return": float(returns.std(correction=0))}


def _spread(values: Tensor) -> dict[str, float]:
    ordered = values.double().sort().values
    at = {
        name: ordered[round(share * (len(ordered) - 1))] for name, share in (("5%", 0.05), ("50%", 0.5), ("95%", 0.95))
    }
    return {
        "min": float(ordered[0]),
        **{name: float(value) for name, value in at.items()},
        "max": float(ordered[-1]),
        "std": float(ordered.std(correction=0)),
    }


def _actions(schema: Schema, actions: Tensor) -> list[dict[str, Any]]:
    """Share of every discrete action, or a histogram over [-1, 1] of every action coordinate."""
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
    """The card as a page."""
    lengths, returns, table = card["lengths"], card["returns"], card["table"]
    covariates = list(card["test_agents"][0]["covariates"])
    page = [
        f"# {card['environment']}, {card['dataset']}",
        "",
        f"{card['trajectories']} trajectories of {card['agents']} agents, {card['transitions']:,} transitions; seed "
        f"{card['seed']}. Policy: {card['policy']}.",
        "",
        f"- Lengths (steps): {lengths['min']} to {lengths['max']}, median {lengths['median']:.0f}, mean "
        f"{lengths['mean']:.1f}; {card['terminated']} trajectories ended by themselves, the others were cut.",
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
        f"![state coverage]({_PICTURE})",
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


def draw_coverage(trajectories: Trajectories, title: str) -> plt.Figure:
    """Where the recorded states lie: every pair of coordinates for small states, every coordinate for large ones."""
    names, states = trajectories.schema.state, trajectories.state.numpy()
    paired = len(names) <= _MAX_PAIRED
    panels = list(itertools.combinations(range(len(names)), 2)) if paired else [(index,) for index in range(len(names))]
    columns = min(3 if paired else 6, len(panels))
    rows = -(-len(panels) // columns)
    size = (5.0, 4.0) if paired else (3.0, 2.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
    )
    for axis, panel in itertools.zip_longest(axes.flat, panels):
        if panel is None:
            axis.set_axis_off()
        elif paired:
            _draw_pair(axis, states[:, panel[0]], states[:, panel[1]])
            axis.set(xlabel=names[panel[0]], ylabel=names[panel[1]])
        else:
            axis.hist(states[:, panel[0]], bins=60, log=True)
            axis.set_xlabel(names[panel[0]], fontsize="small")
            axis.tick_params(labelsize="small")
    figure.suptitle(f"states recorded in {title} (number of rows, logarithmic)")
    return figure


def _draw_pair(axis: Axes, x: Any, y: Any) -> None:
    *_, image = axis.hist2d(x, y, bins=80, norm="log", cmap="viridis")
    axis.figure.colorbar(image, ax=axis)
