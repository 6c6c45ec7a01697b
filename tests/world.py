"""A whole small Treering in memory: a log with its archiver, and runners for any number of shards.

What stands on the disk (the stores of a `tests.archive.site.Site`, one `MemoryStore` a shard) outlives the
archiver and the runners, so a test may let them die at any moment and take up what they left.

    world = World()
    world.append([event("ann", "hello", doc_id="essay")])
    assert world.digest(shards=3) == world.digest()
    runner = world.runner(shard=0, shards=2)        # a live worker; `world.runner` again is its restart

    world.steer(Skip("touchy", 3))                  # one control entry
    world.append([tick_at(60)])                     # time passes, for reducers that take ticks

`plain_fold` is the independent judge: a list of events, which the test puts into the order in which they
count, folded by nothing but `reducers.fold`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import count
from typing import Any

from api import Connection
from archive import (
    ROW_EVENT,
    Answer,
    Archiver,
    Event,
    LogSource,
    MemoryStore,
    Receipt,
    Steering,
    Submission,
    Vault,
    read_event,
    steering_body,
)
from reducers import (
    TICK,
    Emit,
    Key,
    Reducer,
    Slot,
    StatePair,
    digest_of_entries,
    fold,
    pair_of,
    reducer,
    shipped,
    state_digest,
    tick,
)
from replay import (
    STATE_TABLES,
    TICK_FIELD,
    TICK_SENDER,
    Digests,
    Holding,
    Runner,
    StateReader,
    replay_digests,
)
from tests.archive.site import VAULT_KEY, Site

RECEIVED_US = 1_700_000_000_000_000


class CountingRandom:
    """Random bytes that repeat from run to run, and never within one."""

    def __init__(self) -> None:
        self._next = count()

    def __call__(self, size: int, /) -> bytes:
        """Return `size` bytes."""
        blocks = -(-size // 32)
        return b"".join([sha256(next(self._next).to_bytes(8)).digest() for _ in range(blocks)])[:size]


def event(student: str | None, name: str = "e", data: Any = None, **keys: str) -> Submission:
    """Return a submission of an event of our own form; without a student, its source is the subject."""
    keys = keys if student is None else {"student": student, **keys}
    value = {"type": name, "source": "test", "keys": keys, "data": data}
    return raw_event(json.dumps(value).encode(), keys, form="event")


def raw_event(payload: bytes, keys: dict[str, str], **changes: Any) -> Submission:
    """Return a submission of any payload and keys."""
    fields: dict[str, Any] = {
        "kind": ROW_EVENT,
        "subject": f"student:{keys['student']}" if "student" in keys else "source:test",
        "payload": payload,
        "received_us": RECEIVED_US,
        "source": "test",
        "sender": "",
        "form": "json",
        "keys": keys,
    }
    return Submission(**(fields | changes))


def tick_at(second: int) -> Submission:
    """Return what the server submits when that second (Unix) has begun."""
    return Submission(
        kind=ROW_EVENT,
        subject="source:treering",
        payload=json.dumps({"type": TICK, "source": "treering"}).encode(),
        received_us=second * 1_000_000,
        source="treering",
        sender=TICK_SENDER,
        form="event",
        keys={TICK_FIELD: "1"},
    )


def frames(connection: Connection, *events: Any) -> list[Submission]:
    """Return what an LO connection submits for these frames, objects or raw bytes."""
    found: list[Submission] = []
    for one in events:
        data = one if isinstance(one, bytes) else json.dumps(one).encode()
        found += connection.frame(data, True, RECEIVED_US).submissions
    return found


def connection(number: int = 1) -> Connection:
    """Return a new LO connection."""
    return Connection(number.to_bytes(8))


@reducer(scope=("student",), version=1)
def seen(state: list[list[Any]], event: Event) -> list[list[Any]]:
    """Keep what of each event came, and in which order: nothing about a fold is hidden from this one."""
    return [*state, [event.index, event.type, dict(sorted(event.keys.items())), event.data]]


@reducer(scope=("class",), version=1)
def class_size(state: list[str], event: Event) -> list[str]:
    """Keep who was seen in a class: its routing field is not the student."""
    name = event.keys.get("student", "?")
    return state if name in state else sorted([*state, name])


@reducer(scope=("doc_id", "student"), version=1)
def pages(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
    """Count events of a document; the student stands second in the scope and routes all the same."""
    return state + 1


@reducer(scope=("student",), version=1)
def touchy(state: int, event: Event) -> int:
    """Count events, and fail at each that is called "bad"."""
    if event.type == "bad":
        raise ValueError(f"event {event.index} is bad")
    return state + 1


@reducer(scope=("student",), version=1, ticks=60)
def beats(state: list[str], event: Event) -> list[str]:
    """Keep events and ticks in order, and fail at a tick that finds something fragile."""
    if event.type == TICK:
        if state and state[-1] == "fragile":
            raise ValueError("it broke")
        return [*state, f"{event.keys['student']} at {event.time_ms // 1_000}"]
    return [*state, event.type]


@reducer(scope=(), version=1, ticks=120)
def everyone(state: dict[str, int], event: Event) -> dict[str, int]:
    """Count all events of all, by their type: one state for the whole log."""
    return {**state, event.type: state.get(event.type, 0) + 1}


@reducer(scope=("student",), version=1)
def chatty(state: int, event: Event, emit: Emit) -> int:
    """Say each event that it is given, and one thing more at each third; fail at each that is called "mute"."""
    emit("chatty.heard", keys={"student": event.keys["student"]}, data=event.index)
    if state % 3 == 2:
        emit("chatty.third", keys={"class": "7a"})
    if event.type == "mute":
        raise ValueError("not a word")
    return state + 1


def steered_reducers() -> list[Reducer[Any]]:
    """Return reducers of every kind: of a student, a class, two fields, all; with ticks, failures and messages."""
    return [seen, class_size, pages, touchy, beats, everyone, chatty]


def all_reducers() -> list[Reducer[Any]]:
    """Return the reducers that come with the package, and those of this page."""
    return [*_shipped(), seen, class_size, pages, touchy]


@cache
def _shipped() -> tuple[Reducer[Any], ...]:
    # Checked for purity each time that they are loaded, which takes longer than a small world's whole life.
    return tuple(shipped())


@dataclass
class World:
    """A log, its archiver, and what the workers of any number of shards have saved."""

    site: Site = field(default_factory=lambda: Site(random=CountingRandom()))
    reducers: list[Reducer[Any]] = field(default_factory=all_reducers)
    states: dict[tuple[int, int], MemoryStore] = field(default_factory=dict)
    """By (shard, shards)."""
    keys_max: int = 100_000
    """States that a worker keeps in memory."""

    def __post_init__(self) -> None:
        self.archiver: Archiver = self.site.start()
        self.source = LogSource(self.site.log, self.site.published.get)

    @property
    def size(self) -> int:
        """Published size of the log."""
        return self.site.published.get()

    def append(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Append in one commit; every submission must be kept."""
        answers: list[Answer] = self.archiver.step(submissions)
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        assert len(receipts) == len(answers), answers
        return receipts

    def steer(self, steering: Steering) -> int:
        """Append a control entry and return its index."""
        return self.archiver.control(steering_body(steering))

    def vault(self) -> Vault:
        """Return the vault as a process that starts now reads it: nothing is remembered."""
        return Vault(self.site.vault, VAULT_KEY, self.site.random)

    def runner(self, shard: int = 0, shards: int = 1) -> Runner:
        """Return the worker of a shard, gone on from what it has saved."""
        store = self.states.setdefault((shard, shards), MemoryStore(STATE_TABLES))
        holding = Holding(self.reducers, store, "all", keys_max=self.keys_max)
        with self.source.open() as log:
            holding.resume(log)
        return Runner([holding], self.vault(), shard=shard, shards=shards)

    def runners(self, shards: int) -> list[Runner]:
        """Return the workers of all shards."""
        return [self.runner(shard, shards) for shard in range(shards)]

    def reader(self, shard: int = 0, shards: int = 1) -> StateReader:
        """Return the states that a shard has saved."""
        return StateReader(self.states[shard, shards])

    def digests(self, shards: int = 1, size: int | None = None) -> Digests:
        """Return the entry digests of a replay of 0…size-1 as so many shards; no two may have the same
        key.
        """
        found: Digests = {}
        for shard in range(shards):
            part = replay_digests(
                self.source,
                self.reducers,
                self.vault(),
                size=self.size if size is None else size,
                shard=shard,
                shards=shards,
            )
            assert found.keys().isdisjoint(part), "two shards hold the same key"
            found |= part
        return found

    def digest(self, shards: int = 1, size: int | None = None) -> bytes:
        """Return the state digest of a replay."""
        return digest_of_entries(self.digests(shards, size))


def run(runner: Runner, source: LogSource, until: int | None = None) -> None:
    """Let a runner catch up."""
    while runner.step(source, until):
        pass


def bare(world: World) -> Runner:
    """Return a runner that keeps nothing: a replay."""
    return Runner([Holding(world.reducers, module="all")], world.vault())


def slots_of(runner: Runner, name: str) -> dict[Key, Slot[Any]]:
    """Return the states of one reducer, those that lie in the store only included."""
    found: dict[Key, Slot[Any]] = {}
    for holding in runner.holdings:
        for one in holding.reducers:
            if one.name == name:
                found |= {key: slot for key in holding.keys(one) if (slot := holding.get(one, key))}
    return found


def union(runners: Iterable[Runner]) -> bytes:
    """Return the state digest of all shards together; it raises where two of them hold one key."""
    return state_digest([pair for runner in runners for pair in runner.pairs()])


def plain_fold(
    reducers: Iterable[Reducer[Any]],
    events: Iterable[Event],
    skips: Mapping[str, AbstractSet[int]] | None = None,
) -> bytes:
    """Return the state digest of folding a list, by nothing but `reducers.fold`.

    `skips` are the indices that a reducer passes over, by its name.
    """
    given = list(events)
    pairs: list[StatePair] = []
    for one in reducers:
        without = (skips or {}).get(one.name, frozenset())
        slots: dict[Key, Slot[Any]] = fold(one, [event for event in given if event.index not in without])
        pairs += [pair_of(one, key, slot) for key, slot in slots.items()]
    return state_digest(pairs)


def event_at(index: int, submission: Submission, person: dict[str, str] | None = None, **lock: Any) -> Event:
    """Return the event of a submission that was kept at `index`, for the model of a test."""
    if submission.sender == TICK_SENDER:
        return tick(index, submission.received_us // 1_000)
    keys = {**submission.keys, **(person or {})}
    payload, received_ms = submission.payload, submission.received_us // 1_000
    return read_event(index, submission.form, submission.source, keys, received_ms, payload, lock)
