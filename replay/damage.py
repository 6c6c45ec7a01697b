"""Damaged states: who meets one is told so, in words that name the module; the worker makes the states anew.

States are derived, so damage to them loses nothing: what was on the disk is thrown away, and folded again from the log.
What must not happen is an answer that looks right and is not, or "no such student".  So whatever is read is checked
(`replay.layout`), and what fails is `Damaged`: an `Unavailable` for whoever asked for this state, while every other
state of the module, and every other module, answers as before.

    a reader (the front)   meets damage, counts it, and leaves a complaint beside the states    `complain`
    the module's worker    finds it, looks for itself, and stops this module if it is so        `is_complained_of`
    its next start         empties the store, and folds the log again: "being rebuilt"          `emptied`

A complaint is never believed: whoever can write into the folder of states can make a worker look, and no more.

Damage in Redis is a copy's: what is found there is removed, and copied again (`replay.choosing`, `replay.mirror`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from archive import IntegrityError, LmdbStore, StorageFailed, Store, Unavailable, View, Write
from replay.layout import (
    AT_SIZE,
    MAP_SIZE,
    SNAPSHOT,
    TABLES,
    StoredSlot,
    decode_stored,
    marker_in,
    name_of,
    quarantine_key,
    read_backlog,
    state_key,
)

COMPLAINT: Final = "damaged"
"""Name of the complaint, an empty file in the folder of a shard's states."""


class Damaged(Unavailable):
    """Stored states of a module cannot be read, and are made anew from the log: ask again later."""

    def __init__(self, module: str, what: str) -> None:
        self.module = module
        whose = f"module {module}" if module else "this module"
        super().__init__(
            f"states of {whose} are damaged ({what}); they are made anew from the log, ask again shortly. "
            "If this stays, see treering doctor"
        )


@contextmanager
def reading(module: str) -> Iterator[None]:
    """Raise Damaged for whatever is wrong with the states that are read inside."""
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(module, f"a stored state cannot be read: {error}") from None
    except (IntegrityError, StorageFailed) as error:
        raise Damaged(module, str(error)) from None


def stored_at(data: bytes, value: bytes | None) -> StoredSlot | None:
    """Return the state in the value at a database key; raise DecodeError if it is none, or that of another key."""
    slot = decode_stored(value)
    if slot is not None and state_key(name_of(data), slot.key) != data:
        raise msgspec.DecodeError("it is that of another key")
    return slot


def damage_of(store: Store, limit: int | None = None) -> str:
    """Return what is wrong first with the states in a store, of which `limit` are looked at; empty if nothing is."""
    try:
        with store.view() as view:
            return next(_damage_in(view, limit), "")
    except (IntegrityError, StorageFailed) as error:
        return str(error)


def _damage_in(view: View, limit: int | None) -> Iterator[str]:
    try:
        if marker_in(view.get("meta", SNAPSHOT)) is None:
            return
        for data, value in islice(view.scan("states"), limit):
            slot = stored_at(data, value)
            if view.get("changes", value[:AT_SIZE] + data) is None:
                yield "a state is in no list of changes"
            if slot is not None and slot.error_index is not None:
                row = quarantine_key(name_of(data), slot.error_index, data)
                if view.get("quarantined", row) != data:
                    yield "a state that stands still is in no list of these"
        for change, _ in islice(view.scan("changes"), limit):
            changed = view.get("states", change[AT_SIZE:])
            if changed is None or changed[:AT_SIZE] != change[:AT_SIZE]:
                yield "a change is listed that there was not"
        read_backlog(view)
    except (msgspec.DecodeError, ValueError) as error:
        yield str(error)


def complain(folder: Path) -> None:
    """Leave word, beside the states that lie in `folder`, that some of them seem to be damaged."""
    with suppress(
        OSError
    ):  # no such folder: they are another machine's; no room: whoever asks next leaves it
        (folder / COMPLAINT).touch(mode=0o600)


def is_complained_of(folder: Path) -> bool:
    """Return whether somebody left word that states in a folder are damaged."""
    return (folder / COMPLAINT).exists()


def drop_complaint(folder: Path) -> None:
    """Remove the complaint, if there is one."""
    (folder / COMPLAINT).unlink(missing_ok=True)


def emptied(folder: Path) -> bool:
    """Empty the store in `folder`, which no worker may have open, if somebody complained, and it is damaged.

    Readers keep it open meanwhile: so its rows go, and the files stay.  Raises IntegrityError or StorageFailed where
    it cannot even be emptied: then somebody has to move the folder away.
    """
    if not is_complained_of(folder):
        return False
    store = LmdbStore(folder, TABLES, map_size=MAP_SIZE)
    try:
        found = damage_of(store)
        if found:
            store.commit(list(_all_rows(store, TABLES)))
    finally:
        store.close()
    drop_complaint(folder)
    return bool(found)


def _all_rows(store: Store, tables: Iterable[str]) -> Iterator[Write]:
    with store.view() as view:
        for table in tables:
            for key, _ in view.scan(table):
                yield Write(table, key, None)
