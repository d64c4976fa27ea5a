"""Actions in the columns of a user's table: encoded, decoded, and refused."""

import pytest

from persim_lightning.data.tables.actions import decode_actions, encode_actions
from persim_lightning.data.tables.columns import TableColumns
from persim_lightning.errors import TableError
from tests.data.tables.patients import patients, read


def test_a_single_categorical_column_is_a_discrete_action():
    values = {**patients(), "arm": [None, 20, 10, 10, 20, None]}
    columns = TableColumns(["glucose"], ["arm"], "patient", "day", categorical=["arm"])
    read_in = read(values, columns)
    assert (read_in.schema.num_actions, read_in.schema.action_columns[0].categories) == (2, (10, 20))
    assert read_in.action.tolist() == [0, 1, 0, 1, 0, 0]
    assert read(values, TableColumns(["glucose"], ["arm"], "patient", "day")).schema.num_actions is None


def test_actions_by_their_names_and_back():
    schema = read(patients()).schema
    given = {"dose": [0.5, 2], "drug": ["c", "a"]}
    encoded = encode_actions(given, schema)
    assert encoded.tolist() == [[0.5, 0, 0, 1], [2, 1, 0, 0]]
    assert decode_actions(encoded, schema) == {"dose": [0.5, 2.0], "drug": ["c", "a"]}
    for bad, message in (({"dose": [1]}, "missing column.*drug"), ({**given, "drug": ["c", "?"]}, "row 1: unknown")):
        with pytest.raises(TableError, match=message):
            encode_actions(bad, schema)
    with pytest.raises(TableError, match="column 'dose', row 1: empty"):
        encode_actions({**given, "dose": [1, None]}, schema)


def test_what_stands_in_last_rows_alone_is_no_action():
    values = patients()
    values["drug"][0], values["drug"][5] = "discharged", "discharged"
    values["dose"][0] = 1000.0
    read_in = read(values)
    assert read_in.schema.action_columns[1].categories == ("a", "b", "c")
    assert float(read_in.action.max()) == 2.0


@pytest.mark.parametrize("empty", [None, float("nan")])
def test_codes_that_empty_cells_have_made_fractions(empty):
    values = {**patients(), "arm": [empty, 20.0, 10.0, 10.0, 20.0, empty]}
    columns = TableColumns(["glucose"], ["arm", "dose"], "patient", "day", categorical=["arm"])
    assert read(values, columns).schema.action == ("arm=10", "arm=20", "dose")
    with pytest.raises(TableError, match="column 'arm', row 2: not an integer, but the column is categorical"):
        read({**values, "arm": [empty, 20.0, 10.5, 10.0, 20.0, empty]}, columns)


def test_a_column_with_the_name_of_an_indicator_is_refused():
    values = {**patients(), "drug=a": patients()["glucose"]}
    with pytest.raises(TableError, match="column 'drug=a' has the name of an encoded action"):
        read(values, TableColumns(["drug=a"], ["drug", "dose"], "patient", "day"))
