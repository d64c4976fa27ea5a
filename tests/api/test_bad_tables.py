"""Tables and roles that newcomers try: they work, or one line says why not."""

import datetime

import numpy as np
import pandas
import pytest

from persim_lightning import PersonalizedSimulator
from persim_lightning.errors import PersimError, PersimWarning

QUICK = {"epochs": 1, "rank": 2, "members": 2, "hidden_width": 4, "progress": False}
ROLES = {"agent": "who", "time": "t", "state": ["x"], "action": ["dose"]}


def table(**columns):
    rng = np.random.default_rng(0)
    rows = {
        "who": [f"{agent:03d}" for agent in range(4) for _ in range(8)],
        "t": list(range(8)) * 4,
        "x": rng.uniform(1, 2, 32).tolist(),
        "dose": rng.uniform(0, 1, 32).tolist(),
    }
    return {**rows, **columns}


def fit(values, **options):
    return PersonalizedSimulator.fit(values, **{**ROLES, **options}, **QUICK)


def test_intervals_as_categories():
    values = table()
    values["dose"] = pandas.Categorical(pandas.cut(pandas.Series(values["dose"]), [0, 0.5, 1]))
    simulator = fit(pandas.DataFrame(values))
    assert simulator.schema.user_actions[0].categories == ("(0.0, 0.5]", "(0.5, 1.0]")


def test_numbers_as_headers():
    frame = pandas.DataFrame(table()).rename(columns={"x": 0, "dose": 1})
    simulator = fit(frame, state=[0], action=[1], bounds={0: (0, None)})
    assert np.isfinite(simulator.rollout("000", {0: 1.5}, {1: [0.5]}).mean).all()
    assert simulator.schema.limits == ((0, np.inf),)


def test_headers_may_repeat_where_nobody_uses_them():
    frame = pandas.DataFrame({**table(), "a": 1, "b": 2})
    frame.columns = [*frame.columns[:-2], "note", "note"]
    assert len(fit(frame).agents) == 4
    frame.columns = ["who", "t", "x", "dose", "x", "note"]
    with pytest.raises(PersimError, match="there are several columns 'x'"):
        fit(frame)


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([datetime.timedelta(hours=hour) for hour in range(8)], 3600),
        ([f"2024-{month:02d}" for month in range(1, 9)], 1),
    ],
)
def test_durations_and_months_as_text(times, step):
    assert fit(table(t=times * 4)).schema.step == step


def test_a_given_step_of_dates_is_in_seconds():
    months = [datetime.date(2024, month, 1) for month in range(1, 9)]
    schema = fit(table(t=months * 4), step=30 * 86400.0).schema
    assert (schema.step, schema.calendar) == (30 * 86400.0, "")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"who": [""] * 8 + ["b"] * 24, "t": list(range(32))}, {}, "column 'who', row 0: empty agent id"),
        (
            {"dose": [2**60 + row % 3 for row in range(32)]},
            {},
            "'dose' has values that are too large beside",
        ),
        ({"x": [2**58 + row % 3 for row in range(32)]}, {}, "column 'x' has values that are too large beside"),
        ({}, {"bounds": {"x": 0}}, "bounds: give 'x' a lower and an upper limit"),
        ({}, {"step": 1e9}, r"step 1e\+09 does not fit rows that are usually 1 apart"),
        ({}, {"step": 1e-9}, "step 1e-09 does not fit rows that are usually 1 apart"),
        ({"w": [None] * 32}, {"covariates": ["w"]}, "covariate 'w' is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(columns, options, message):
    with pytest.raises(PersimError, match=message):
        fit(table(**columns), **options)


def test_an_impossible_holdout_is_named():
    with pytest.raises(PersimError, match=r"holdout 2 is not in \[0, 1\)"):
        PersonalizedSimulator.fit(table(), **ROLES, **QUICK, holdout=2)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"dose": [1.0] * 32}, {}, "action column 'dose' never changes, so its effect cannot be learned"),
        (
            {},
            {"bounds": {"x": (1.5, None)}},
            "column 'x', agent 000, row .*: outside the bounds",
        ),
    ],
)
def test_what_is_hardly_meant_is_warned_of(columns, options, message):
    with pytest.warns(PersimWarning, match=message):
        fit(table(**columns), **options)
