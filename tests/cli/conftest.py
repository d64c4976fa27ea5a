"""Commands collect small data sets, once for all tests."""

import pytest

from persim_lightning.data.collecting import collect
from tests import commands


@pytest.fixture(scope="module", autouse=True)
def small_collected_data(collected, quick_figures):
    """Few test episodes: collecting and rolling out 200 of each agent takes longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "TEST_EPISODES", commands.TEST_EPISODES)
        patch.setattr(commands, "data_root", collected)
        yield
