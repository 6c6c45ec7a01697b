"""A worker's part in attesting: note what its shard holds at a size, and join what all shards noted.

    attester = Attester(folder, shard, shards)
    attester.step(crew)                      # after each save

Shard 0 appends the attestations, since one must; it reads the other shards' notes from their stores, which are opened
for that moment only.  What is attested, and when: `replay.attesting`.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from archive import Attest, DataFolder, DirectClient, LmdbStore, NotFound, Store
from replay import (
    STATE_TABLES,
    AttestedDifference,
    Catalogue,
    Crew,
    Gathered,
    Holding,
    compared,
    forget_notes,
    is_attested,
    joined,
    module_folder,
    notes,
    read_catalogue,
    shard_folder,
    take_note,
)
from tools.process import say

LOOK_EVERY_S = 1.0


class Attester:
    """Notes and attests for the modules of one worker."""

    def __init__(self, folder: DataFolder, shard: int, shards: int) -> None:
        self._folder, self._shard, self._shards = folder, shard, shards
        self._waiting = False
        self._looked_at = float("-inf")

    def step(self, crew: Crew) -> None:
        """Do what is to be done after a save: note, join, forget; say what differs, once.

        Shard 0 looks for the others' notes once a second while some are missing.
        """
        self.note(crew)
        now, steering = time.monotonic(), crew.steering
        if steering is None or not self._waiting or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if self._shard:
            self.forget(crew, steering)
        else:
            for one in self.join(crew, steering):
                say(
                    f"worker: the states of reducer {one.found.reducer} at size {one.found.size} are not those that "
                    f"entry {one.at} attests; see treering replay --check, treering bisect"
                )
        self._waiting = any(holding.store is not None and notes(holding.store) for holding in crew.holdings)

    def note(self, crew: Crew) -> None:
        """Note the states of each module that has just been saved at a size to attest."""
        for holding in crew.holdings:
            store, catalogue = holding.store, self._catalogue(holding.module)
            if store is None or catalogue is None or not is_attested(holding.position):
                continue
            if holding.position not in notes(store):
                take_note(store, catalogue.reducers, holding.position)
                self._waiting = True

    def join(self, crew: Crew, steering: Gathered) -> list[AttestedDifference]:
        """Append what all shards have noted, forget the notes, and return what differs from what was attested.

        Raises Unavailable if the archiver does not take an attestation; the notes are kept then.
        """
        found: list[AttestedDifference] = []
        for holding in crew.holdings:
            catalogue = self._catalogue(holding.module)
            active = steering.emits_from(holding.module, holding.identities) is not None
            if holding.store is not None and catalogue is not None and active:
                for size in notes(holding.store):
                    found += self._attest(holding, catalogue, steering, size)
        return found

    def forget(self, crew: Crew, steering: Gathered) -> None:
        """Forget this shard's notes of sizes that are attested, or that shard 0 has passed by."""
        for holding in crew.holdings:
            sizes = [one.size for _, one in steering.attestations() if _is_of(one, holding)]
            if holding.store is not None and sizes:
                forget_notes(holding.store, max(sizes))

    def _attest(
        self, holding: Holding, catalogue: Catalogue, steering: Gathered, size: int
    ) -> list[AttestedDifference]:
        with ExitStack() as stack:
            stores = self._stores(stack, holding, catalogue)
            whole = [None if stores is None else joined(stores, info, size) for info in catalogue.reducers]
        ready = [one for one in whole if one is not None]
        if len(ready) < len(whole):
            return []  # a shard is behind: another time
        outcomes = [compared(steering, one) for one in ready]
        with DirectClient(self._folder.socket) as client:
            for outcome in outcomes:
                if isinstance(outcome, Attest):
                    client.steer(outcome)
        assert holding.store is not None
        forget_notes(holding.store, size)
        return [outcome for outcome in outcomes if isinstance(outcome, AttestedDifference)]

    def _stores(self, stack: ExitStack, holding: Holding, catalogue: Catalogue) -> list[Store] | None:
        assert holding.store is not None
        stores: list[Store] = [holding.store]
        for shard in range(self._shards):
            if shard != self._shard:
                place = shard_folder(self._place(holding.module), catalogue.generation, shard, self._shards)
                try:
                    store = LmdbStore(place, STATE_TABLES, read_only=True)
                except NotFound:
                    return None
                stack.callback(store.close)
                stores.append(store)
        return stores

    def _catalogue(self, module: str) -> Catalogue | None:
        return read_catalogue(self._place(module))

    def _place(self, module: str) -> Path:
        return module_folder(self._folder.state, self._folder.partition, module)


def _is_of(one: Attest, holding: Holding) -> bool:
    return any(one.reducer == info.name and one.version == info.version for info in holding.reducers)
