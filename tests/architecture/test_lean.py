"""Promise: a process loads what it needs, and no more. Somebody waits for a crashed worker's successor, or command."""

import subprocess
import sys

import pytest

import archive


def loads_numpy(module: str) -> bool:
    """Return whether a module, imported alone, brings numpy along."""
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return found.stdout.strip() == "True"


@pytest.mark.parametrize(
    "module",
    ["tools.worker", "tools.spare", "tools.cell", "tools.front", "tools.replay_hands", "tools.serve"],
)
def test_who_neither_writes_nor_checks_a_log_does_without_numpy(module: str) -> None:
    """Readers, fronts and supervisors start without it."""
    assert not loads_numpy(module)


def test_the_archiver_needs_it() -> None:
    """So the question can be answered otherwise."""
    assert loads_numpy("tools.archiver")


def test_what_is_loaded_at_need_is_there_and_nothing_else_is() -> None:
    """The package answers for the names it puts off, and for no others."""
    assert archive.StretchAnswer.__module__ == "archive.stretch"
    with pytest.raises(AttributeError, match="no attribute 'Ring'"):
        archive.Ring  # type: ignore[attr-defined]  # noqa: B018
