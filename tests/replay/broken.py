"""Mirrors, stores and readers with one guard taken out: what the model of outages has to find.

Each of them is a shortcut that somebody could take in good faith, and that is right as long as nothing happens.
Who lets them live: `tests.replay.test_outages`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from archive import Write
from replay import ReadStore, RedisStore, StateReader, StoredSlot, damage, mirror, read_marker, redis_store
from replay.layout import SNAPSHOT
from replay.redis_store import RedisView
from tests.replay.readers import Readers


def forget_a_flush(patch: pytest.MonkeyPatch) -> None:
    """A reader that remembers the marker, so that it need not ask for it each time."""
    known: dict[bytes, bytes] = {}
    asked = RedisView.get

    def get(self: RedisView, table: str, key: bytes) -> bytes | None:
        found = asked(self, table, key)
        if table == "meta" and found is not None:
            known[key] = found
        return known.get(key) if table == "meta" else found

    patch.setattr(RedisView, "get", get)


def forget_a_flush_while_copying(patch: pytest.MonkeyPatch) -> None:
    """A mirror that goes on with its copy whatever became of the first half, and does not count in the end."""
    patch.setattr(mirror._Walk, "may_go_on", lambda *_: True)
    patch.setattr(mirror, "_remove_gone", lambda *_: True)


def do_not_look_for_missing_keys(patch: pytest.MonkeyPatch) -> None:
    """Scripts that take what is there for all there is."""
    check = "redis.call('HLEN', values) == rows and redis.call('ZCARD', order) == rows"
    for name in ("LOOK", "GET", "PAGE", "COMMIT"):
        script = getattr(redis_store, name)
        assert check in script
        patch.setattr(redis_store, name, script.replace(check, "true"))


def keep_the_marker_while_copying(patch: pytest.MonkeyPatch) -> None:
    """A mirror that leaves the marker of before where it is until its copy is whole."""
    commit = RedisStore.commit_since

    def commit_since(
        self: RedisStore, since: bytes, writes: Sequence[Write], *, undo: bool = True
    ) -> bytes | None:
        return commit(self, since, [one for one in writes if one.value or one.table != "meta"], undo=undo)

    patch.setattr(RedisStore, "commit_since", commit_since)


def go_back_in_time(patch: pytest.MonkeyPatch) -> None:
    """A reader that does not mind how far Redis was before."""
    patch.setattr(ReadStore, "_prefers_remote", lambda _, here, there: there >= 0 or here < 0)


def mix_numbers_of_shards(patch: pytest.MonkeyPatch) -> None:
    """Names in Redis that do not say how many shards there are."""
    name: Any = Readers.name
    patch.setattr(Readers, "name", lambda self, *place: name(self, *place[:-1], 0))


def mix_generations(patch: pytest.MonkeyPatch) -> None:
    """Names in Redis, and readers, that do not ask by which reducers a state was made."""
    name = Readers.name
    patch.setattr(Readers, "name", lambda self, module, _, *place: name(self, module, "", *place))
    patch.setattr(StateReader, "_marker", lambda _, view: read_marker(view.get("meta", SNAPSHOT)))


def leave_quarantines_behind(patch: pytest.MonkeyPatch) -> None:
    """A mirror that copies states, and not which of them stand still."""
    patch.setattr(mirror, "_quarantined", lambda *_: ())


def believe_what_is_read(patch: pytest.MonkeyPatch) -> None:
    """A reader that takes whatever has the form of a state for the one that was saved."""

    def decode(value: bytes | None) -> StoredSlot | None:
        return (
            msgspec.msgpack.decode(value[8:-4], type=StoredSlot)
            if value is not None and value[8:-4]
            else None
        )

    patch.setattr(damage, "decode_stored", decode)


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    forget_a_flush,
    forget_a_flush_while_copying,
    do_not_look_for_missing_keys,
    keep_the_marker_while_copying,
    go_back_in_time,
    mix_numbers_of_shards,
    mix_generations,
    leave_quarantines_behind,
    believe_what_is_read,
]
