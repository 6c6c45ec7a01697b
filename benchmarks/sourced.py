"""The same events in the `eventsourcing` library: what it takes to fold each student's again.

In memory, without encryption, compression or snapshots: the fastest that it does, and what asks least of it.  Each
student is an aggregate whose events are its submissions, as its manual shows it; once the students are folded one by
one, as the library does when it is asked for them, and once its log is read in order, which is how a projection does.
"""
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

import orjson
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.table import Row

EVENTS_MAX = 100_000
"""Loading them takes longer than reading them; the rates do not depend on how many there are."""
SECTION = 1_000


class Student(Aggregate):
    """A student who sends events."""

    name: str
    events: int

    @event("Began")
    def __init__(self, name: str) -> None:
        self.name, self.events = name, 0

    @event("Sent")
    def sent(self, data: dict[str, object]) -> None:  # noqa: ARG002 - the library keeps it in the event
        """Count one more event."""
        self.events += 1

    @staticmethod
    def create_id(name: str) -> UUID:
        """Return the id of a student's aggregate."""
        return uuid5(NAMESPACE_URL, name)


class Journal(Application[UUID]):
    """The application, whose log may be read in larger pieces than ten events."""

    log_section_size = SECTION


def measure(file: Path, bare: float) -> list[Row]:
    """Return the rows about the events in a JSONL file; `bare` is the rate of the bare orjson loop over it."""
    app = Journal()
    ids, count = _filled(app, file)
    by_student, in_order = _by_student(app, ids, count), _in_order(app, count)
    return [
        Row(
            "eventsourcing, in memory: student by student",
            by_student,
            "events/s",
            by_student / bare,
            "orjson loop",
        ),
        Row(
            "eventsourcing, in memory: its log in order", in_order, "events/s", in_order / bare, "orjson loop"
        ),
    ]


def _filled(app: Journal, file: Path) -> tuple[list[UUID], int]:
    """Put the events of a file into an application; return the students' ids and the number of events."""
    students: dict[str, Student] = {}
    count = 0
    with file.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            data = orjson.loads(line)
            name = data["user_id"]
            if name not in students:
                students[name] = Student(name)
            students[name].sent(data)
            if count == EVENTS_MAX:
                break
    for student in students.values():
        app.save(student)
    return [student.id for student in students.values()], count


def _by_student(app: Journal, ids: list[UUID], count: int) -> float:
    """Return events a second of folding each student from what is recorded."""
    started = time.process_time()
    total = 0
    for one in ids:
        student: Student = app.repository.get(one)
        total += student.events
    elapsed = time.process_time() - started
    assert total == count, "the library folded other events than it was given"
    return count / elapsed


def _in_order(app: Journal, count: int) -> float:
    """Return events a second of reading the log from its beginning and counting by student."""
    counts: Counter[UUID] = Counter()
    started = time.process_time()
    at: int | None = None
    while found := app.notification_log.select(start=(at or 0) + 1, limit=SECTION):
        for notification in found:
            one = app.mapper.to_domain_event(notification)
            if isinstance(one, Student.Sent):  # type: ignore[attr-defined,unused-ignore]
                counts[one.originator_id] += 1
        at = int(found[-1].id)
    elapsed = time.process_time() - started
    assert counts.total() == count, "the library read other events than it was given"
    return count / elapsed
