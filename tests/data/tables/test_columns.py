"""What the description of a table's columns refuses."""

import pytest

from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import ConfigurationError


def test_columns_have_one_meaning():
    for options, message in (
        ({"state": []}, "columns.state must list"),
        ({"state": "glucose"}, "columns.state must be a list"),
        ({"inputs": "meal"}, "columns.inputs must be a list"),
        ({"state": ["dose"]}, "'dose' is named twice"),
        ({"categorical": ["drug"]}, "columns.categorical: 'drug' is not among the action and input columns"),
        ({"fill": {"drug": 0}}, "columns.fill: 'drug' is not among"),
        ({"step": 0.0}, "must be a positive number or 'row'"),
        ({"step": "day"}, "'day' must be a positive number or 'row'"),
        ({"gaps": "skip"}, "'skip': choose 'keep', 'error' or 'split'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            TableColumns(**{"state": ["glucose"], "action": ["dose"], **options})
