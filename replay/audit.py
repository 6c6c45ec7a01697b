"""The audit: fold the log again from nothing, and compare with what the workers hold.

States are compared by their digest (`reducers.digest`), the RFC 6962 root over all of them in key order,
which is the same for every number of shards.  Where two digests differ, the states in which they differ are
named.

>>> compare({("n", 1, ("ann",)): b"a"}, {("n", 1, ("ann",)): b"b"})
[Difference(name='n', key=('ann',), what='differs')]

The fold itself is `replay.runner`, the same that the workers run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from archive import LogSource, NotFound, Unavailable, Vault
from reducers import Identity, Key, Reducer, StatePair, entry_digest
from replay.holding import Holding
from replay.live import Live
from replay.reader import StateReader
from replay.runner import Runner
from replay.sweep import Entries

Digests = dict[Identity, bytes]


class Difference(NamedTuple):
    """A state in which two sets of states differ: `what` is "differs", "missing" or "extra" in the second.

    "shown otherwise" says of live states that the state is right, and what readers are told of it is not.
    """

    name: str
    key: Key
    what: str


def replay_digests(
    source: LogSource,
    reducers: Iterable[Reducer[Any]],
    vault: Vault,
    *,
    size: int,
    shard: int = 0,
    shards: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Digests:
    """Fold entries 0…size-1 as one shard of `shards` and return the entry digest of each of its states.

    `progress` is called with the number of entries of each slice.  Raises NotFound if the log is shorter, Unavailable
    if a reducer cannot go on (memory, recursion).
    """
    runner = Runner([Holding(reducers)], vault, shard=shard, shards=shards)
    while runner.position < size:
        before = runner.position
        runner.step(source, size)
        for stopped in runner.stopped.values():
            raise Unavailable(
                f"reducer {stopped.reducer} stopped at entry {stopped.at}: {stopped.reason}; "
                "skip the event, or give the reducer more room"
            )
        if runner.position == before:
            raise NotFound(f"the log has only {runner.position} entries, not {size}")
        progress(runner.position - before)
    return {pair.identity: entry_digest(pair) for pair in runner.pairs()}


def live_digests(readers: Iterable[StateReader], names: Iterable[str]) -> tuple[list[int], Digests]:
    """Return the positions of all shards and the entry digest of each of their states."""
    names = list(names)
    positions: list[int] = []
    digests: Digests = {}
    for reader in readers:
        position, slots = reader.everything(names)
        positions.append(position)
        for name, slot in slots:
            pair = StatePair(name, slot.version, slot.key, slot.encoding, slot.error_index)
            digests[pair.identity] = entry_digest(pair)
    return positions, digests


def compare_live(
    lives: Sequence[Live],
    entries: Mapping[str, Entries],
    route_key: bytes,
    names: Collection[str],
    made_otherwise: Collection[str] = (),
) -> list[Difference]:
    """Return the states in which live states of one module and one position differ from a replay that stopped there.

    `lives` are those of its shards that stand there, all of them or a few; `route_key` tells which keys are theirs.
    Only reducers of these `names` are looked at; those that were `made_otherwise`, by other code of the same version,
    may be shown as that code shows them.
    """
    held = {
        identity: entry for live in lives for identity, entry in live.entries.items() if identity[0] in names
    }
    replayed = {
        identity: entry
        for name in names
        for identity, entry in entries.get(name, {}).items()
        if len(lives) == lives[0].shards or any(live.holds(name, identity[2], route_key) for live in lives)
    }
    found = compare(_digests(replayed), _digests(held))
    otherwise = [
        Difference(name, key, "shown otherwise")
        for name, version, key in sorted(replayed.keys() & held.keys())
        if replayed[name, version, key].digest == held[name, version, key].digest
        and replayed[name, version, key].seen != held[name, version, key].seen
        and name not in made_otherwise
    ]
    return found + otherwise


def _digests(entries: Entries) -> Digests:
    return {identity: entry.digest for identity, entry in entries.items()}


def compare(first: Mapping[Identity, bytes], second: Mapping[Identity, bytes]) -> list[Difference]:
    """Return the states in which two sets differ, in key order."""
    found = []
    for name, version, key in sorted(first.keys() | second.keys()):
        one, other = first.get((name, version, key)), second.get((name, version, key))
        if one != other:
            what = "missing" if other is None else "extra" if one is None else "differs"
            found.append(Difference(name, key, what))
    return found
