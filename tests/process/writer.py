"""The archiver's composition as one small program, for faults: it appends batches and says what it was told.

    python tests/process/writer.py DIR FIRST

It appends events number FIRST, FIRST + 1, … in batches of two, half of them about students that are new.  Each line on
standard output is written by one call: `ready SIZE`, `sent N`, `acked N INDEX SIZE`, `unavailable N`, `failed`,
`done`.  What is unavailable is sent again, without an id: if it had been kept, it would be there twice.  Exit codes are
those of `tools.archiver`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from archive import (
    ROW_EVENT,
    ArchiveError,
    Archiver,
    DataFolder,
    Receipt,
    StorageFailed,
    Submission,
    Unavailable,
    take_lock,
)
from tools.archiver import build
from tools.process import EXIT_AGAIN, EXIT_STOP, exit_of, say

BATCHES = 4
TRIES = 3


def tell(line: str) -> None:
    """Say a line, in one call, at once."""
    os.write(1, f"{line}\n".encode())


def submission(number: int) -> Submission:
    """Return event `number`; every fourth number begins a new student."""
    student = str(number // 4)
    return Submission(
        kind=ROW_EVENT,
        subject=f"student:{student}",
        payload=b"%d" % number,
        received_us=1_700_000_000_000_000,
        source="test",
        sender="writer",
        form="json",
        keys={"student": student},
    )


def append(archiver: Archiver, numbers: list[int], tell: Callable[[str], None]) -> None:
    """Append a batch, again where there was no space, and say what was answered."""
    for number in numbers:
        tell(f"sent {number}")
    for _ in range(TRIES):
        try:
            answers = archiver.step([submission(number) for number in numbers])
        except Unavailable:
            if archiver.failed:
                raise
            tell(f"unavailable {numbers[0]}")
            continue
        for number, answer in zip(numbers, answers, strict=True):
            assert isinstance(answer, Receipt)
            tell(f"acked {number} {answer.index} {answer.size}")
        return
    raise Unavailable(f"no space in {TRIES} tries")


def append_all(archiver: Archiver, first: int, tell: Callable[[str], None]) -> None:
    """Append every batch."""
    for number in range(first, first + 2 * BATCHES, 2):
        append(archiver, [number, number + 1], tell)


def stays_failed(archiver: Archiver) -> None:
    """After a failed write nothing is acknowledged any more: try, and see."""
    try:
        archiver.step([submission(10**6)])
    except StorageFailed:
        tell("failed")


def main() -> int:
    """Run."""
    folder, first = DataFolder(sys.argv[1]), int(sys.argv[2])
    # The same bytes from run to run, so that the n-th system call is the same one.
    os.urandom = Random(first).randbytes
    archiver = None
    try:
        folder.create()
        take_lock(folder.log / "lock")
        archiver = build(folder, "example.org/log", None)
        archiver.open({"software": "writer"})
        tell(f"ready {archiver.head.size}")
        append_all(archiver, first, tell)
        archiver.close()
        tell("done")
    except Unavailable as error:
        say(f"again: {error}")
        return EXIT_AGAIN
    except ArchiveError as error:
        if archiver is not None and archiver.failed:
            stays_failed(archiver)
        say(f"stop: {error}")
        return EXIT_STOP
    except OSError as error:
        say(f"{error}")
        return exit_of(error)
    return 0


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    sys.exit(main())
