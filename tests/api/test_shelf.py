"""What is known of all states together."""

from __future__ import annotations

from pathlib import Path

from tests.api.front import Front
from tests.world import event


def stateless(front: Front) -> set[str]:
    """Return the reducers that have no state, of all modules."""
    shelf = front.services.shelf
    return {info.name for one in shelf.modules() for info in shelf.stateless(one)}


def test_a_reducer_without_any_state_is_told(tmp_path: Path) -> None:
    """A scope of which a field is misspelt, or that no event has, gives an empty reducer: that can be seen."""
    front = Front(tmp_path / "data", 2)
    try:
        assert stateless(front) == set(), "before anything was saved nobody can tell"
        front.archiver.step([event("ann")])
        front.reduce()
        before = stateless(front)
        assert "event_count" not in before
        assert "class_progress" in before
        front.archiver.step([event("ann", **{"class": "7a"})])
        front.reduce()
        assert "class_progress" not in stateless(front)
    finally:
        front.close()
