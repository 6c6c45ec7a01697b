"""The events that are measured with: JSON of 400 bytes, from many students, of our own making."""

from __future__ import annotations

import json
import random

from archive import ROW_EVENT, Submission

SIZE = 400
STUDENTS = 10_000
RECEIVED_US = 1_700_000_000_000_000


def payload(number: int, student: int) -> bytes:
    """Return event `number` of a student, 400 bytes of JSON."""
    event = {
        "event": "google_docs_save",
        "source": "org.example.writing",
        "user_id": f"student-{student:06d}",
        "doc_id": f"doc-{student:06d}",
        "timestamp": RECEIVED_US // 1_000 + number,
        "bundles": [{"commands": [{"ty": "is", "s": "a", "ibi": number % 5_000 + 1}]}],
        "pad": "",
    }
    body = json.dumps(event, separators=(",", ":"))
    return body.replace('"pad":""', f'"pad":"{"x" * (SIZE - len(body))}"').encode()


def submissions(count: int, *, seed: int, ids: bool = True, students: int = STUDENTS) -> list[Submission]:
    """Return `count` submissions of random students, with an id each unless `ids` is False."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        student = draw.randrange(students)
        made.append(
            Submission(
                kind=ROW_EVENT,
                subject=f"student:student-{student:06d}",
                payload=payload(number, student),
                received_us=RECEIVED_US + number,
                source="org.example.writing",
                sender="anonymous",
                form="json",
                keys={"student": f"student-{student:06d}", "doc_id": f"doc-{student:06d}"},
                id=f"{seed}-{number}" if ids else None,
            )
        )
    return made
