"""How hard the property tests try, chosen by the environment.

`dev` is quick enough to run while editing, `ci` looks further, `nightly` looks far.  Each run draws fresh
examples; a failure prints a blob that `@reproduce_failure` replays, and a bug so found becomes a named test.
`HYPOTHESIS_PROFILE` names the profile; without it, a machine that sets `CI` takes `ci`, any other `dev`.
Examples are never timed (`deadline=None`): on a busy machine a slow example is no finding.

Imports leave no bytecode here: tests write modules over, and Python takes bytecode for that of any source of the same
length that was written in the same second.
"""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

sys.dont_write_bytecode = True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `--seed N` repeat one world of the simulation (tests/simulation)."""
    parser.addoption("--seed", type=int, default=None, help="simulate this one world only")


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("dev", max_examples=50, deadline=None, print_blob=True, suppress_health_check=QUIET)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=300, derandomize=False)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
