"""What could not be sent is counted once, by version, survives a restart, and says nothing of anybody."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reducers import Emit, Event, Module, reducer
from replay import Catalogue, Count, Unsent, catalogue_of, read_unsent


def running(version: int = 1) -> list[Catalogue]:
    """Return what a server runs: module essay, whose reducer words has a version."""

    @reducer(version=version)
    def words(state: int, event: Event, emit: Emit) -> int:  # noqa: ARG001 - nobody folds it
        return state

    return [catalogue_of(Module("essay", (words,)))]


def counted(run: Path, shards: int = 2, version: int = 1) -> dict[str, Count]:
    """Return what operators are shown of reducer words, by kind."""
    found = read_unsent(run, shards, running(version))
    assert {(module, name) for module, name, _ in found} <= {("essay", "words")}
    return {kind: one for (_, _, kind), one in found.items()}


def test_what_cannot_be_sent_is_counted_over_all_shards(tmp_path: Path) -> None:
    """By kind, with the first and the last event, and what was said of the first."""
    for shard, events in ((0, (7, 9)), (1, (8,)), (2, (1,))):
        unsent = Unsent(tmp_path, shard)
        for at in events:
            unsent.add("essay", "words", 1, "conflict", at=at, detail=f"at {at}")
        unsent.save(1.0)
    assert counted(tmp_path) == {"conflict": Count(1, 3, 7, 9, "at 7")}


def test_what_is_said_again_is_counted_once(tmp_path: Path) -> None:
    """A worker that dies folds some events again, and says the same."""
    for _ in range(3):
        unsent = Unsent(tmp_path, 0)
        for at in (7, 7, 9):
            unsent.add("essay", "words", 1, "hops", at=at)
        unsent.save(1.0)
    assert counted(tmp_path) == {"hops": Count(1, 2, 7, 9, "")}


def test_a_new_version_begins_at_nothing(tmp_path: Path) -> None:
    """That ends a finding; what the old one did is no news any more, and what the new one does is counted anew."""
    unsent = Unsent(tmp_path, 0)
    unsent.add("essay", "words", 1, "conflict", at=70)
    unsent.save(1.0)
    assert counted(tmp_path, version=2) == {}
    unsent.add("essay", "words", 2, "conflict", at=8)
    unsent.save(9.0)
    assert counted(tmp_path, version=2) == {"conflict": Count(2, 1, 8, 8, "")}


def test_a_reducer_that_says_nonsense_at_every_event_costs_a_write_a_second(tmp_path: Path) -> None:
    """What is not written yet is written by the next save."""
    unsent = Unsent(tmp_path, 0)
    for at in range(100):
        unsent.add("essay", "words", 1, "invalid", at=at)
        unsent.save(at / 1_000)
    assert counted(tmp_path)["invalid"].count == 1
    unsent.save(2.0)
    assert counted(tmp_path)["invalid"].count == 100
    (tmp_path / "unsent" / "essay-0.json").unlink()
    unsent.save(9.0)  # nothing is new
    assert counted(tmp_path) == {}


@pytest.mark.parametrize("data", [b"", b"{", b'{"words": 1}', b"\xff", b'{"\xff": {}}'])
def test_a_file_that_is_none_is_nothing(tmp_path: Path, data: bytes) -> None:
    """Neither who shows it nor who writes it stops for it."""
    (tmp_path / "unsent").mkdir()
    (tmp_path / "unsent" / "essay-0.json").write_bytes(data)
    (tmp_path / "unsent" / "essay-x.json").write_bytes(data)
    assert counted(tmp_path) == {}
    unsent = Unsent(tmp_path, 0)
    unsent.add("essay", "words", 1, "invalid", at=3)
    unsent.save(1.0)
    assert counted(tmp_path)["invalid"].count == 1


def test_where_nothing_can_be_written_nobody_stops(tmp_path: Path) -> None:
    """A worker's work does not depend on a count."""
    unsent = Unsent(tmp_path / "nowhere", 0)
    unsent.add("essay", "words", 1, "invalid", at=3)
    unsent.save(1.0)
    (tmp_path / "nowhere").mkdir()
    unsent.save(9.0)
    assert counted(tmp_path / "nowhere")["invalid"].count == 1


def test_a_file_holds_no_more_than_indices_and_words_of_ours(tmp_path: Path) -> None:
    """Its fields are all there are, so that nothing of an event gets in by accident."""
    unsent = Unsent(tmp_path, 0)
    unsent.add("essay", "words", 1, "invalid", at=3, detail="x" * 1_000)
    unsent.save(1.0)
    (path,) = (tmp_path / "unsent").iterdir()
    found = msgspec.json.decode(path.read_bytes())
    row = found["words"]["invalid"]
    assert set(row) == {"version", "count", "first", "last", "detail"}
    assert len(row["detail"]) == 200
