"""`pytest --seed N tests/simulation` repeats one world; the option itself stands in `tests/conftest.py`.

pytest reads the options of that file before it looks for tests, wherever it is started.
"""

from __future__ import annotations

import pytest

SEEDS = 40
SEEDS_LONG = 3_000


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """Return the seeds of a run: one that is asked for, else as many as there is time for."""
    one = request.config.getoption("--seed")
    if one is not None:
        return range(one, one + 1)
    long = request.node.get_closest_marker("long") is not None
    return range(SEEDS, SEEDS_LONG) if long else range(SEEDS)
