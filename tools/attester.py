"""A worker's part in attesting: note what its shard holds at a size, and join what all shards noted.

    attester = Attester(folder, shard, shards)
    attester.note(crew)                      # at the start: the last end may have come between a save and its note
    attester.step(crew)                      # after each save
    attester.look(crew)                      # when there is nothing to do

Shard 0 appends the attestations, since one must; it reads the other shards' notes from their stores, which are opened
for that moment only.  Each shard keeps a note until nobody needs it: shard 0 until it has attested or compared, or
somebody else has gone beyond that size without one; the others until shard 0 has.  So a note that was lost costs one
attestation, and holds nobody up; whoever is behind is waited for; and who starts anew notes, and is compared, again.

What is attested, and when: `replay.attesting`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from archive import (
    Attest,
    DataFolder,
    DirectClient,
    IntegrityError,
    InvalidEvent,
    LmdbStore,
    NotFound,
    Receipt,
    Steering,
    StorageFailed,
    Store,
    Unavailable,
)
from reducers import StateError
from replay import (
    STATE_MAP_SIZE,
    STATE_TABLES,
    AttestedDifference,
    Crew,
    Gathered,
    Holding,
    Joined,
    ReducerInfo,
    compared,
    forget_note,
    generation_of,
    info_of,
    is_attested,
    joined,
    module_folder,
    notes,
    passed_by,
    shard_folder,
    take_note,
)
from tools.process import say

LOOK_EVERY_S = 1.0


class Client(Protocol):
    """Takes what is to be attested to the log: `archive.DirectClient`."""

    def steer(self, steering: Steering) -> Receipt:
        """Append a control entry; raise Unavailable, or InvalidEvent if it is refused."""


def open_store(folder: Path) -> Store:
    """Return another shard's states for reading; raise NotFound while there are none."""
    return LmdbStore(folder, STATE_TABLES, read_only=True, map_size=STATE_MAP_SIZE)


class Attester:
    """Notes and attests for the modules of one worker; `state` is where states lie, if not in the data folder."""

    def __init__(
        self,
        folder: DataFolder,
        shard: int,
        shards: int,
        *,
        state: Path | None = None,
        client: Client | None = None,
        opened: Callable[[Path], Store] = open_store,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._shard, self._shards = folder, shard, shards
        self._state = folder.state if state is None else state
        self._client = DirectClient(folder.socket) if client is None else client
        self._opened, self._clock = opened, clock
        self._waiting = True
        """Whether there may be notes; those that an earlier worker left count, too."""
        self._looked_at = float("-inf")
        self._silent = False
        self.differences: list[AttestedDifference] = []
        """Attestations that the states of this worker contradict."""

    def step(self, crew: Crew) -> None:
        """Do what is to be done after a save: note, join, forget; say what differs."""
        self.note(crew)
        self.look(crew)

    def look(self, crew: Crew) -> None:
        """Join and forget what has been noted, if it is time to look: once a second while notes wait for somebody.

        To be called now and then when nothing is saved either: the last note of a quiet log waits, too.
        """
        now, steering = self._clock(), crew.steering
        if steering is None or not self._waiting or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        found: list[AttestedDifference] = []
        try:
            for store, holding, size in self._noted(crew):
                found += self._settle(store, holding, size, steering)
            self._silent = False
        except (Unavailable, IntegrityError, StorageFailed, msgspec.DecodeError) as error:
            # Notes are read of all shards: what is damaged there stops who works there, not this one.
            if not self._silent:
                say(f"worker {self._shard}: states could not be attested, and will be: {error}")
            self._silent = True
        self._waiting = any(True for _ in self._noted(crew))
        for one in found:
            say(
                f"worker {self._shard}: the states of reducer {one.found.reducer} at size {one.found.size} are not "
                f"those that entry {one.at} attests; see treering replay --check, treering bisect"
            )
        self.differences += found

    def note(self, crew: Crew) -> None:
        """Note the states of each module that is saved at a size to attest."""
        for holding in crew.holdings:
            store, size = holding.store, holding.position
            if store is None or not is_attested(size) or size in _sizes(holding):
                continue
            try:
                if holding.stopped is None:
                    self._waiting |= take_note(store, _infos(holding), size)
            except StateError as error:  # what it has stored cannot be read: it stops, and no other
                holding.unreadable(error)

    def _noted(self, crew: Crew) -> Iterator[tuple[Store, Holding, int]]:
        for holding in crew.holdings:
            if holding.store is not None:
                for size in _sizes(holding):
                    yield holding.store, holding, size

    def _settle(
        self, store: Store, holding: Holding, size: int, steering: Gathered
    ) -> list[AttestedDifference]:
        """Do with one note what can be done now."""
        with ExitStack() as stack:
            others = self._others(stack, holding)
            if others is None:
                return []  # a shard is not there yet
            if self._shard:
                if passed_by(others[0], size):
                    forget_note(store, size)
                return []
            whole = [joined([store, *others], info, size) for info in _infos(holding)]
            if any(passed_by(other, size) for other in others):
                forget_note(store, size)  # one was lost: this size is not attested
                return []
        ready = [one for one in whole if one is not None]
        if len(ready) < len(whole) or any(one.steered > steering.size for one in ready):
            return []  # a shard is behind, or has read further than this one: another time
        return self._attest(store, holding, size, steering, ready)

    def _attest(
        self, store: Store, holding: Holding, size: int, steering: Gathered, ready: Sequence[Joined]
    ) -> list[AttestedDifference]:
        """Append what is new and forget the note; what is not active does not speak for its module."""
        found: list[AttestedDifference] = []
        if steering.emits_from(holding.module, holding.identities) is None:
            return found  # its activation has not been read yet
        for one in ready:
            outcome = compared(steering, one.attest)
            if isinstance(outcome, Attest):
                self._append(outcome)
            elif outcome is not None:
                found.append(outcome)
        forget_note(store, size)
        return found

    def _append(self, attest: Attest) -> None:
        try:
            self._client.steer(attest)
        except InvalidEvent as error:
            say(
                f"worker {self._shard}: reducer {attest.reducer} at size {attest.size} is not attested: {error}"
            )

    def _others(self, stack: ExitStack, holding: Holding) -> list[Store] | None:
        """Return the stores that a shard has to look into: shard 0 all the others', the others that of shard 0."""
        place = module_folder(self._state, self._folder.partition, holding.module)
        generation = generation_of(_infos(holding))
        stores = []
        for shard in [0] if self._shard else range(1, self._shards):
            try:
                store = self._opened(shard_folder(place, generation, shard, self._shards))
            except NotFound:
                return None
            stack.callback(store.close)
            stores.append(store)
        return stores


def _infos(holding: Holding) -> list[ReducerInfo]:
    return [info_of(one) for one in holding.reducers]


def _sizes(holding: Holding) -> list[int]:
    """Return the sizes that a module has notes of; one whose store cannot be read is stopped, and has none."""
    try:
        return [] if holding.store is None else notes(holding.store)
    except StateError as error:
        holding.unreadable(error)
        return []
