"""What one shard holds of one module, in memory and in its store: states, their position, how to go on from there.

States are read through: what is not in memory is looked up in the store once, and what has not changed for longest is
forgotten when there are too many.  So a restart loads nothing, and memory is bounded by what is in use.

States are derived: whatever is wrong with them, deleting their folder and replaying the log gives them back.  What must
never happen is an answer that looks right and is not.  So a snapshot says which log (root at its position), which
reducers (name, version, code) and which position it stands for, and is used only if all of that still holds.

    held = Held(module.reducers, store, module.name)
    held.resume(log)
    held.put(reducer, ("ann",), slot)
    held.save(position, root, backlog)

What folds events into it is `replay.holding`; the layout of the store, `replay.layout`; who reads it, `replay.reader`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from archive import ActiveReducer, IntegrityError, Log, StorageFailed, Store, Unavailable, View, Write
from reducers import Key, Reducer, Slot, StateError, StatePair, Word, pair_of
from replay.attempt import IDLE, index_of, word_of
from replay.folded import Stopped, shown_of, stopped_by
from replay.layout import (
    LAYOUT,
    SNAPSHOT,
    TABLES,
    Marker,
    StoredSlot,
    Waiting,
    all_stored,
    backlog_writes,
    encode_marker,
    identities_of,
    loaded,
    own,
    quarantine_prefix,
    refusal,
    slot_of,
    state_key,
    state_writes,
    stored_of,
)
from replay.reasons import reason_of

KEYS_MIN, KEYS_MAX = 1_000, 100_000
"""States of one module kept in memory by one shard; more are looked up when they are needed."""

Slots = dict[Key, "Slot[Any] | None"]
"""By key; None: known to have no state."""


class Held:
    """The states of one module in one shard.  Without a store they live in memory only (a replay)."""

    def __init__(
        self,
        reducers: Iterable[Reducer[Any]],
        store: Store | None = None,
        module: str = "",
        *,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self.reducers, self.module = list(reducers), module
        self.slots: dict[str, Slots] = {reducer.name: {} for reducer in self.reducers}
        self.position = self.rebuilt_to = 0
        self.begun_anew, self.refused = "", 0
        """Why what was saved could not be gone on from, if so; and how often that was so in this place."""
        self.steered = 0
        """Skips and retries of entries 0…steered-1 are in these states."""
        self.lacking: Counter[str] = Counter()
        """By reducer: how many events, of those that this shard counts, lack a field of its scope."""
        self.backlog: dict[int, list[int]] = {}
        """As it was loaded; the feed keeps it."""
        self.stopped: Stopped | None = None
        self.attempt: Word = array("Q", [IDLE])
        """What is being folded: what is to blame if this process dies (`replay.attempt`).  May be shared memory."""
        self._store, self._keys_max = store, keys_max
        self._by_name = {reducer.name: reducer for reducer in self.reducers}
        self._dirty: dict[str, set[Key]] = {reducer.name: set() for reducer in self.reducers}
        self._since = 0
        """Whose slot changed at this index or later is among the dirty, as all are that changed since the last save."""
        self._written = 0
        self._complete = True
        """Whether all states are in memory."""

    @property
    def store(self) -> Store | None:
        """Where the states are kept, if anywhere."""
        return self._store

    @property
    def identities(self) -> list[ActiveReducer]:
        """Return the reducers as an activation names them."""
        return [ActiveReducer(one.name, one.version, one.scope, one.code_digest) for one in self.reducers]

    # --- the store -------------------------------------------------------------------------------

    def resume(self, log: Log) -> None:
        """Go on from the saved states if they are of this log and these reducers, else start from nothing."""
        if self._store is None:
            return
        with self._store.view() as view:
            marker, self.backlog = loaded(view, log, identities_of(self.reducers))
            empty = next(view.scan("states"), None) is None
            if marker is None:
                self.begun_anew, self.refused = refusal(view, log, identities_of(self.reducers))
        if marker is None:
            self.clear()
            self.rebuilt_to = log.size
            return
        self.position, self.steered, self._complete = marker.position, marker.steered, empty
        self._since, self.refused, self.lacking = self.position, marker.refused, Counter(marker.lacking)
        # A log that was set back to a copy is rebuilt as soon as all of it is.
        self.rebuilt_to = min(marker.rebuilt_to, log.size)

    def clear(self) -> None:
        """Remove everything that is stored, in one commit."""
        if self._store is None:
            return
        with self._store.view() as view:
            writes = [Write(table, key, None) for table in TABLES for key, _ in view.scan(table)]
        if writes:
            self._store.commit(writes)

    def save(self, position: int, root: bytes, backlog: Mapping[int, Waiting]) -> None:
        """Write what changed since the last save, and the position, in one commit.

        Raises StateError, and has `stopped` set, if a state cannot be encoded or the store cannot be used; then nothing
        was written.
        """
        if self._store is None:
            self._clean(position)
            return
        try:
            self._save(position, root, backlog)
        except StateError as error:
            if self.stopped is None:
                self.unreadable(error)
            raise
        finally:
            self.attempt[0] = IDLE

    def _save(self, position: int, root: bytes, backlog: Mapping[int, Waiting]) -> None:
        with own(self._store, "") as store, store.view() as view:
            writes = [
                one
                for name, keys in self._dirty.items()
                for key in keys
                for one in self._writes(view, position, name, key)
            ]
        self.attempt[0] = IDLE
        writes += backlog_writes(backlog)
        marker = Marker(
            LAYOUT,
            position,
            root,
            identities_of(self.reducers),
            self.rebuilt_to,
            self.steered,
            self.refused,
            {name: count for name, count in self.lacking.items() if count},
        )
        with own(self._store, "") as store:
            store.commit([*writes, Write("meta", SNAPSHOT, encode_marker(marker))])
        self.position = position
        self._forget()

    def _writes(self, view: View, position: int, name: str, key: Key) -> list[Write]:
        slot = self.slots[name][key]
        stored = None if slot is None else self._stored(self._by_name[name], key, slot)
        return state_writes(view, position, name, key, stored)

    def _stored(self, reducer: Reducer[Any], key: Key, slot: Slot[Any]) -> StoredSlot:
        # A view is the author's code, too; one tick changes many states, which must not look like one that hangs.
        self._written += 1
        self.attempt[0] = word_of(slot.changed_at, self._written)
        try:
            encoding = reducer.encode(slot.state)
        except BaseException as error:  # to look at a state may run the author's code
            self.stopped = stopped_by(reducer.name, slot.changed_at, error)
            raise StateError(reducer.name, self.stopped.reason) from error
        shown = None if reducer.viewer is None else shown_of(reducer, slot.state)
        return StoredSlot(
            reducer.version, key, slot.changed_at, slot.error, slot.error_index, encoding, shown
        )

    def unreadable(self, error: StateError) -> None:
        """Stop this module, whose stored states cannot be read, and remove them: the next start begins anew.

        A store that is itself damaged is left as it is: what would be written to it might be lost again.
        """
        then = "its states are rebuilt from the log"
        if isinstance(error.__cause__, IntegrityError | StorageFailed):
            then = "move its states away, they are made anew"
        else:
            try:
                self.clear()
            except Unavailable:
                pass  # then the next start comes to the same state, and tries again
            except (IntegrityError, StorageFailed) as failed:
                then = f"they cannot be removed ({failed}): move them away, they are made anew"
        at = index_of(self.attempt[0]) or self.position
        self.stopped = Stopped(error.reducer, at, f"{reason_of(error)}; {then}")

    def shed(self) -> None:
        """Keep half as many states in memory, from the next save on."""
        self._keys_max = max(KEYS_MIN, min(self._keys_max, sum(map(len, self.slots.values()))) // 2)

    def _forget(self) -> None:
        """Drop what has not changed for longest where there is too much; all of it is stored by now."""
        for name, keys in self._dirty.items():
            slots = self.slots[name]
            for key in keys:  # to the end of the line, so that the front is what to forget
                slots[key] = slots.pop(key)
        self._clean(self.position)
        total = sum(map(len, self.slots.values()))
        for slots in sorted(self.slots.values(), key=len, reverse=True):
            for key in list(slots)[: max(0, total - self._keys_max)]:
                del slots[key]
                self._complete, total = False, total - 1

    def _clean(self, since: int) -> None:
        self._since = since
        for keys in self._dirty.values():
            keys.clear()

    # --- states ----------------------------------------------------------------------------------

    def get(self, reducer: Reducer[Any], key: Key) -> Slot[Any] | None:
        """Return the state of a key, from memory or from the store, or None."""
        slots = self.slots[reducer.name]
        if key in slots:
            return slots[key]
        if self._complete or self._store is None:
            return None
        with own(self._store, reducer.name) as store, store.view() as view:
            value = view.get("states", state_key(reducer.name, key))
        if (found := slot_of(reducer, value)) is not None:
            slots[key] = found
        return found

    def put(self, reducer: Reducer[Any], key: Key, slot: Slot[Any] | None) -> None:
        """Replace the state of a key; None: it has none any more."""
        self.slots[reducer.name][key] = slot
        self._dirty[reducer.name].add(key)

    def keys(self, reducer: Reducer[Any]) -> list[Key]:
        """Return every key that has a state."""
        slots = self.slots[reducer.name]
        found = [key for key, slot in slots.items() if slot is not None]
        if not self._complete and self._store is not None:
            with own(self._store, reducer.name) as store, store.view() as view:
                found += [one.key for one in all_stored(view, reducer.name) if one.key not in slots]
        return found

    def pairs(self) -> Iterator[StatePair]:
        """Yield every state with what its digest commits to."""
        for reducer in self.reducers:
            for key in self.keys(reducer):
                if (slot := self.get(reducer, key)) is not None:
                    yield pair_of(reducer, key, slot)

    def quarantined_at(self, reducer: Reducer[Any], index: int) -> list[Key]:
        """Return the keys that stand still at event `index`: one at most, or those that a tick has stopped."""
        slots = self.slots[reducer.name]
        found = [key for key, slot in slots.items() if slot is not None and slot.error_index == index]
        if self._store is None:
            return found
        prefix = quarantine_prefix(reducer.name, index)
        with own(self._store, reducer.name) as store, store.view() as view:
            for row, data in view.scan("quarantined", prefix):
                if not row.startswith(prefix):
                    break
                stored = stored_of(reducer.name, view.get("states", data))
                if stored is not None and stored.key not in slots:  # what is in memory is newer
                    found.append(stored.key)
        return found
