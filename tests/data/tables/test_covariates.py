"""Tables of covariates."""

import pyarrow as pa
import pytest

from persim_lightning.data.tables.covariates import load_covariates
from persim_lightning.data.tables.sources import write_table
from persim_lightning.errors import TableError


def test_covariates_follow_the_order_of_agents(tmp_path):
    path = tmp_path / "agents.csv"
    write_table(pa.table({"agent": [3, 1, 2], "mass": [0.3, 0.1, 0.2]}), path)
    names, values = load_covariates(path, (1, 3))
    assert names == ("mass",)
    assert values[:, 0].tolist() == [0.1, 0.3]
    with pytest.raises(TableError, match="no row for agent 4"):
        load_covariates(path, (1, 4))
