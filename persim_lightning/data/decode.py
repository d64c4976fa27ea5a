"""Actions by the columns of a user's table, from what simulators take."""

from __future__ import annotations

import numpy as np

from persim_lightning.types import Schema


def decode_actions(actions: np.ndarray, schema: Schema) -> dict[str, list[object]]:
    """The user's columns from what the simulator takes: the reverse of
    :func:`~persim_lightning.data.user_table.encode_actions`.

    Parameters
    ----------
    actions : ndarray, shape (H,) integers or (H, A)
        Of a category's indicators the largest one counts.
    schema : Schema
    """
    if schema.num_actions is not None:
        [(name, categories)] = schema.actions_as_given
        assert categories is not None
        return {name: [categories[int(code)] for code in actions]}
    decoded: dict[str, list[object]] = {}
    start = 0
    for name, categories in schema.actions_as_given:
        width = 1 if categories is None else len(categories)
        own = actions[:, start : start + width]
        start += width
        decoded[name] = (
            own[:, 0].tolist() if categories is None else [categories[index] for index in own.argmax(1).tolist()]
        )
    return decoded
