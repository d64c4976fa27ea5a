"""Means, spreads, winners, counts and tables of results made by hand."""

import math
from dataclasses import replace

import pytest

from persim_lightning.benchmark.results import CellResult
from persim_lightning.benchmark.scores import (
    Score,
    best_of,
    goodness_of_return,
    goodness_of_rmse,
    method_scores,
    on_same_episodes,
)
from persim_lightning.benchmark.summary import summarize, summary_lines
from persim_lightning.benchmark.tables import prediction_table, return_table, simulated_data_table

LABELS = {
    "persim": "PerSim",
    "vanilla-cadm": "Vanilla CaDM",
    "bcq-a": "BCQ-A",
    "bcq-p": "BCQ-P",
    "persim-bcq": "PerSim-BCQ-5",
    "true-env": "True env + MPC",
}


def cell(method, returns, rmse=None, seed=0, dataset="random", environment="cartpole"):
    """Returns by agent and episode; R² follows from the RMSE."""
    return CellResult(
        *(environment, dataset, method, LABELS[method], seed),
        episodes=len(returns[0]),
        agents=list(range(len(returns))),
        returns=returns,
        lengths=[[1] * len(own) for own in returns],
        rmse=rmse,
        r2=None if rmse is None else [1 - value if math.isfinite(value) else -math.inf for value in rmse],
        seconds={"fit": 1.0, "score": 0.0, "play": 1.0},
    )


def test_one_seed_is_spread_over_episodes_and_several_over_their_means():
    [one] = method_scores([cell("persim", [[1.0, 3.0], [5.0, 5.0]])])
    assert one.returns == [Score(2.0, 1.0), Score(5.0, 0.0)]
    seeds = [cell("persim", [[1.0, 3.0]], seed=0), cell("persim", [[4.0, 8.0]], seed=1)]
    [several] = method_scores(seeds)
    assert several.returns == [Score(4.0, 2.0)]
    assert several.seeds == [0, 1]


def test_a_single_episode_has_no_spread():
    [one] = method_scores([cell("persim", [[7.0]])])
    assert one.returns[0].mean == 7
    assert math.isnan(one.returns[0].std)
    assert "| **7.0** |" in "\n".join(return_table([one]))


def test_what_failed_is_the_worst():
    failed, poor = method_scores([cell("persim", [[math.nan]], [math.inf]), cell("vanilla-cadm", [[-500.0]], [9.0])])
    for goodness in (goodness_of_return, goodness_of_rmse):
        assert goodness(failed, 0) == -math.inf
        assert best_of([failed, poor], 0, goodness) is poor
        assert best_of([failed], 0, goodness) is None


RESULTS = [
    # Agent 0: PerSim is alone; agent 1: a tie; agent 2: within one std of the best; agent 3: behind.
    cell("persim", [[9.0, 9.0], [5.0, 5.0], [4.0, 4.0], [1.0, 1.0]], [0.1, 0.2, 0.3, math.inf]),
    cell("vanilla-cadm", [[1.0, 1.0], [5.0, 5.0], [2.0, 8.0], [4.0, 4.0]], [0.2, 0.2, 0.1, 5.0]),
    cell("bcq-a", [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 5.0]]),
    cell("persim-bcq", [[10.0, 10.0], [0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]),
    cell("true-env", [[99.0, 99.0]] * 4),
]


def test_counts():
    counts = summarize(method_scores(RESULTS))
    standing = {name: counts["return"][name] for name in ("cells", "best", "alone", "best_or_within_std")}
    assert standing == {"cells": 4, "best": 2, "alone": 1, "best_or_within_std": 3}
    # One seed tells no spread of errors, and a prediction that diverged is never the best.
    assert counts["rmse"]["environments"]["cartpole"] == {"cells": 4, "best": 2, "alone": 1, "best_or_within_std": 2}
    assert counts["simulated_data"]["persim-bcq > bcq-a"]["better"] == 2
    assert counts["simulated_data"]["persim-bcq > bcq-p"]["cells"] == 0


def test_returns_are_compared_over_episodes_that_both_have_played():
    """The third start is a hard one: only PerSim was made to begin there."""
    ours = cell("persim", [[5.0, 5.0, 1.0], [5.0, 5.0, 5.0], [5.0, 4.0, 9.0], [math.nan, 1.0, 1.0]])
    rival = cell("bcq-a", [[5.0, 4.0], [5.0, 5.0], [3.0, 8.0], [0.0, 0.0]])
    scores = method_scores([ours, rival])
    assert on_same_episodes(*scores, 0) == (Score(5.0, 0.0), Score(4.5, 0.5))
    counts = summarize(scores)
    expected = {"cells": 4, "best": 2, "alone": 1, "best_or_within_std": 3}
    assert counts["return_on_same_episodes"] == {**expected, "environments": {"cartpole": expected}}
    assert counts["return"]["best"] == 2
    other_seed = cell("bcq-a", [[9.0]] * 4, seed=1)
    apart = method_scores([ours, other_seed])
    assert on_same_episodes(*apart, 0) is None
    assert summarize(apart)["return_on_same_episodes"]["cells"] == 0
    two = method_scores([ours, cell("persim", [[7.0]] * 4, seed=1), rival, other_seed])
    assert on_same_episodes(*two, 0) == (Score(6.0, 1.0), Score(6.75, 2.25))


def test_counts_in_words():
    scores = method_scores(RESULTS)
    error, returned, same, simulated = summary_lines(summarize(scores), scores)
    assert error.startswith(
        "PerSim has the lowest prediction error, alone or shared, on 2 of 4 (data set, agent) pairs"
    )
    assert returned.endswith("alone on 1, and is the best or within one std of it on 3.")
    assert same.startswith("PerSim has the highest return on the episodes that it and each rival both ran, alone or")
    assert simulated == "PerSim-BCQ-5 has a higher return than BCQ-A on 2 of 4."


def test_table_1():
    title, _, *lines = prediction_table(method_scores(RESULTS))
    assert title.startswith("**Table 1.** Mean RMSE, in the units of the states (median R²), of 50-step predictions")
    assert title.endswith("; seed 0.")
    [title, *_] = prediction_table(method_scores([cell("persim", [[1.0]], [50.0])]))
    assert title.endswith("; seed 0; an R² below -10 is not shown exactly.")
    assert lines[0] == "| data | method | agent 0 | agent 1 | agent 2 | agent 3 |"
    assert lines[2] == "| random | PerSim | **0.1 (0.900)** | **0.2 (0.800)** | 0.3 (0.700) | diverged |"
    assert lines[3] == "| random | Vanilla CaDM | 0.2 (0.800) | **0.2 (0.800)** | **0.1 (0.900)** | **5 (-4.000)** |"
    assert len(lines) == 4


def test_table_2_leaves_simulated_data_out_and_the_true_environment_last():
    _, _, *lines = return_table(method_scores(RESULTS))
    assert lines[2] == "| random | PerSim | **9.0 ± 0.0** | **5.0 ± 0.0** | 4.0 ± 0.0 | 1.0 ± 0.0 |"
    assert lines[3] == "| random | Vanilla CaDM | 1.0 ± 0.0 | **5.0 ± 0.0** | **5.0 ± 3.0** | **4.0 ± 0.0** |"
    assert [line.split(" | ")[1] for line in lines[2:]] == ["PerSim", "Vanilla CaDM", "BCQ-A", "True env + MPC"]


def test_table_3_sets_a_learner_beside_itself():
    title, _, *lines = simulated_data_table(method_scores(RESULTS))
    assert "Learning on simulated data" in title
    assert lines[2] == "| random | BCQ-A | 0.0 ± 0.0 | **0.0 ± 0.0** | 0.0 ± 0.0 | **4.0 ± 1.0** |"
    assert lines[3] == "| random | PerSim-BCQ-5 | **10.0 ± 0.0** | **0.0 ± 0.0** | **1.0 ± 0.0** | 2.0 ± 0.0 |"


@pytest.mark.parametrize("table", [prediction_table, simulated_data_table])
def test_tables_that_nothing_stands_in(table):
    assert table(method_scores([cell("bcq-a", [[1.0]])])) == []


def test_captions_tell_which_seeds_are_behind():
    results = [cell("persim", [[1.0]], seed=0), cell("persim", [[2.0]], seed=1), cell("bcq-a", [[1.0, 1.4]])]
    title, _, *lines = return_table(method_scores(results))
    assert "seeds 0, 1 (BCQ-A on random seed 0)" in title
    assert "over seeds of the seed's mean" in title
    # Its episodes have a spread, which is no spread over seeds.
    assert "| random | BCQ-A | 1.2 |" in lines


def test_seeds_of_the_true_environment_count_whatever_data_set_they_stand_in():
    results = [cell("true-env", [[1.0]], seed=0, dataset="pure"), cell("true-env", [[3.0]], seed=1)]
    [only] = method_scores(results)
    assert (only.dataset, only.seeds, only.returns) == ("pure", [0, 1], [Score(2.0, 1.0)])
    again = [
        cell("true-env", [[3.0]], seed=1, dataset="pure"),
        cell("true-env", [[1.0]]),
        cell("true-env", [[9.0]], seed=1),
    ]
    [only] = method_scores(again)
    assert (only.dataset, only.seeds, only.returns) == ("pure", [0, 1], [Score(2.0, 1.0)])


def test_methods_of_the_same_name_are_told_apart():
    twin = replace(cell("bcq-a", [[3.0]]), method="mine")
    scores = method_scores([cell("bcq-a", [[1.0]]), twin, cell("bcq-p", [[2.0]])])
    assert [own.label for own in scores] == ["BCQ-A (bcq-a)", "BCQ-A (mine)", "BCQ-P"]
