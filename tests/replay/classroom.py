"""A fixed little classroom, and the order in which its events count.

Students, documents and classes; Learning Observer connections that say who they are at once, late, twice or
never; frames that are refused and frames of the protocol.  `expected` is worked out by hand from the same
list: what `replay` must find by reading the log.
"""

from __future__ import annotations

from typing import Any

from archive import ROW_BINDING, ROW_EVENT, Event, Submission, parse_json
from tests.world import World, connection, event, event_at, frames, plain_fold


def _classroom() -> list[Submission]:
    sent = [event(name, "start", {"n": 1}, **{"class": room}) for name, room in _ROOMS]
    early, late, never, shared = (connection(number) for number in range(1, 5))
    sent += frames(early, {"event": "hello", "user_id": "cid", "doc_id": "essay"})
    sent += frames(late, {"event": "hello"}, {"event": "typed", "doc_id": "essay", "timestamp": 5})
    sent += frames(never, {"event": "ghost"}, b"\xff\xfe", {"event": "ghost", "class": "7a"})
    sent += frames(shared, {"event": "lock_fields", "fields": {"source": "pad", "class": "7b"}})
    sent += [event(name, "bad" if name == "ann" else "good", doc_id="essay") for name, _ in _ROOMS]
    sent += frames(shared, {"event": "first", "user_id": "ann"}, {"event": "next"})
    sent += frames(late, {"event": "lock_fields", "fields": {"tool": "pad"}}, {"event": "typed"})
    sent += frames(early, {"event": "typed", "timestamp": 9_000, "doc_id": "essay"}, b"[]")
    sent += frames(late, {"event": "known", "user_id": "ann", "doc_id": "poem"}, {"event": "typed"})
    sent += frames(shared, {"event": "other", "user_id": "dan"}, {"event": "more", "doc_id": "poem"})
    sent += [event(name, "end", doc_id="poem", **{"class": room}) for name, room in _ROOMS]
    sent += frames(shared, {"event": "back", "user_id": "ann"}, {"event": "terminate"})
    return sent


_ROOMS = [("ann", "7a"), ("bob", "7a"), ("eve", "7b"), ("söre\u0301n", "7b"), ("x" * 600, "7b")]
CLASSROOM = _classroom()


def ordered(submissions: list[tuple[int, Submission]]) -> list[Event]:
    """Return the events of what was kept at these indices, in the order in which they count.

    The rule, in its plainest form: an event counts where it stands; one that was sent before anybody knew by
    whom counts at the binding, as the person's.
    """
    events: list[Event] = []
    waiting: dict[str, list[tuple[int, Submission]]] = {}
    for index, one in submissions:
        if one.subject.startswith("provisional:"):
            waiting.setdefault(one.subject, []).append((index, one))
        elif one.kind == ROW_BINDING:
            lock = _lock_of(one)
            for at, early in waiting.pop(one.also[0]):
                if early.kind == ROW_EVENT:
                    events.append(event_at(at, early, one.keys, **{**lock, **_lock_of(early)}))
        elif one.kind == ROW_EVENT:
            events.append(event_at(index, one, **_lock_of(one)))
    return events


def passed_over(skips: dict[str, set[int]], submissions: list[tuple[int, Submission]]) -> dict[str, set[int]]:
    """Return skips with the events that waited for a skipped binding: they go with it."""
    waiting: dict[str, set[int]] = {}
    gone: dict[int, set[int]] = {}
    for index, one in submissions:
        if one.subject.startswith("provisional:"):
            waiting.setdefault(one.subject, set()).add(index)
        elif one.kind == ROW_BINDING:
            gone[index] = waiting.pop(one.also[0])
    return {
        name: indices.union(*(gone[index] for index in indices & gone.keys()))
        for name, indices in skips.items()
    }


def _lock_of(one: Submission) -> dict[str, Any]:
    lock: Any = parse_json(one.extra["lock"]) if "lock" in one.extra else {}
    assert isinstance(lock, dict)
    return lock


def expected(world: World, without: frozenset[str] | set[str] = frozenset()) -> bytes:
    """Return the state digest of the classroom in a world whose log holds it from index 2 on."""
    numbered = list(enumerate(CLASSROOM, 2))
    assert world.size == 2 + len(numbered)
    events = [one for one in ordered(numbered) if one.keys.get("student") not in without]
    return plain_fold(world.reducers, events)
