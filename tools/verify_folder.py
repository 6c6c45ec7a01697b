"""Checking a log that lies in a folder: who opens what, in how many processes, and what could not be looked at.

A log of some size is checked by one process for each processor, each with the database and the vault opened for
itself: stretches go out, small answers come back, in order.  A little one is done before a process would have started.

    outcome = verify_folder(Request(Path("data"), verifier))

The checks themselves are `archive.fsck`; the command is `tools.verify_log`, and `tools.drill` uses the same function.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from archive import (
    STRETCH,
    ArchiveError,
    Check,
    DataFolder,
    Finding,
    Given,
    IntegrityError,
    Job,
    KeyRing,
    Keys,
    Log,
    LogSource,
    NotFound,
    OneKey,
    Resume,
    Seal,
    StretchAnswer,
    Tally,
    Vault,
    all_seals,
    check_stretch,
    check_structure,
    missing_bytes,
    ring_of,
    size_of,
)
from merkle import Checkpoint, Ed25519Verifier, MerkleError, Policy, Verifier, check_policy
from tools.console import progress

PROCESSES_FROM = 2 * STRETCH
"""Entries from which on it pays to start processes."""


@dataclass(frozen=True)
class Request:
    """What is to be checked, and what the auditor brings along."""

    data: Path
    verifier: Ed25519Verifier | None = None
    partition: int = 0
    vault: bool = False
    seal: Path | None = None
    """Where the seal lies, if not beside the log."""
    kept: tuple[Checkpoint, ...] = ()
    resume: Resume | None = None
    anyway: bool = False
    """Whether to read on although the file's pages are damaged."""
    policy: Policy | None = None
    """Whose signatures the outside asks for."""
    processes: int = 0
    """0: as many as there are processors."""


@dataclass
class Outcome:
    """What came of it."""

    findings: list[Finding]
    tally: Tally
    seconds: float = 0.0
    resume: Resume | None = None
    """Where the next check may go on; None if there were findings."""
    read: int = 0
    """Entries read for it."""


def verify_folder(request: Request) -> Outcome:
    """Check a log; raise ArchiveError (NotFound and others) where there is nothing that could be checked."""
    folder, started = DataFolder(request.data, request.partition), time.monotonic()
    if not folder.log.is_dir():
        raise NotFound(f"{folder.log}: there is no log; name a data folder")
    if request.resume and request.vault and request.resume.sequences is None:
        raise NotFound("the saved check was made without --vault; leave --vault or --since out")
    if request.resume and request.resume.size and request.resume.block < 0:
        raise NotFound("the saved check was one of the public part, which knows no blocks; leave --since out")
    tally = Tally()
    seals, findings = _seals(request.seal or folder.log / "seal", tally)
    resume = None
    try:
        if lacking := missing_bytes(folder.log):
            raise IntegrityError(f"the database file is {lacking:,} bytes shorter than it says itself")
        damaged = _structure(folder, tally)
        findings += damaged
        if damaged and not request.anyway:
            tally.remarks.append("entries were not read: such a file may crash its reader; --anyway tries it")
        else:
            resume = _check(folder, request, seals, tally, findings)
    except IntegrityError as error:
        findings.append(Finding("storage", None, str(error), "unreadable"))
    seconds = time.monotonic() - started
    read = max(tally.entries - (request.resume.size if request.resume else 0), 0)
    return Outcome(findings, tally, seconds, None if findings else resume, read)


def _check(
    folder: DataFolder, request: Request, seals: list[Seal], tally: Tally, findings: list[Finding]
) -> Resume | None:
    store = folder.open_log()
    vault = None
    try:
        vault = folder.open_vault(os.urandom) if request.vault else None
        with store.view() as view:
            size = size_of(view)
            keys = _keys(Log(view, size), request.verifier, tally)
        kept = (*request.kept, *_cosigned(folder, request.policy, keys, findings))
        given = Given(keys, vault, request.vault, seals, kept, request.resume)
        with (
            progress("verifying", size - (request.resume.size if request.resume else 0)) as advance,
            _runner(request, size, keys) as run,
        ):
            check = Check(LogSource(store, lambda: size), size, given, tally, advance, run)
            findings += check.findings()
        return check.resume
    finally:
        store.close()
        if vault is not None:
            vault.close()


def _keys(log: Log, verifier: Ed25519Verifier | None, tally: Tally) -> Keys:
    if verifier is None:
        return OneKey()
    try:
        return ring_of(log, verifier)
    except (ArchiveError, MerkleError) as error:
        # The checkpoints will be found wanting one by one; this says why.
        tally.remarks.append(f"changes of key could not be followed: {error}")
        return OneKey(verifier)


def _cosigned(
    folder: DataFolder, policy: Policy | None, keys: Keys, findings: list[Finding]
) -> list[Checkpoint]:
    """Return the checkpoint that the outside is shown, which must be a part of this log, if a policy is given."""
    if policy is None:
        return []
    if not folder.cosigned.is_file():
        findings.append(Finding("quorum", None, "no checkpoint was cosigned yet", "missing"))
        return []
    checked = quorum(folder.cosigned.read_bytes(), policy, keys)
    if isinstance(checked, Finding):
        findings.append(checked)
        return []
    return [checked]


def quorum(note: bytes, policy: Policy, keys: Keys) -> Checkpoint | Finding:
    """Return the checkpoint in a note if enough witnesses have signed it, else the finding."""
    try:
        checkpoint = keys.open(note)
        signed = check_policy(note, policy, _signers(keys, checkpoint.size))
    except MerkleError as error:
        return Finding("quorum", None, str(error), "signature")
    if signed.met:
        return checkpoint
    names = ", ".join(one.name for one in signed.cosigned) or "none"
    detail = f"size {checkpoint.size}: the witnesses that signed ({names}) are not enough for the policy"
    return Finding("quorum", None, detail, "signature")


def _signers(keys: Keys, size: int) -> list[Verifier]:
    """Return the log's keys that sign a size, as far as they are known."""
    if isinstance(keys, KeyRing):
        return [keys.at(size)]
    known = keys.verifier if isinstance(keys, OneKey) else None
    return [] if known is None else [known]


def _seals(path: Path, tally: Tally) -> tuple[list[Seal], list[Finding]]:
    """Return what is sealed, read before the database: an archiver at work seals after it commits."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        tally.remarks.append(f"no seal at {path}: a database set back in time would not be noticed by it")
        return [], []
    seals = all_seals(data)
    if seals or not data.strip(b"\0"):
        return seals, []
    return [], [Finding("seal", None, f"{path}: no slot of the seal is whole", "unreadable")]


def _structure(folder: DataFolder, tally: Tally) -> list[Finding]:
    """Check the file's pages, if no archiver is at work that would change them meanwhile."""
    try:
        lock = os.open(folder.log / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return check_structure(folder.log)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return check_structure(folder.log)
    except BlockingIOError:
        tally.remarks.append("the pages of the file were not checked: an archiver is at work; check a backup")
        return []
    finally:
        os.close(lock)


# --- processes -----------------------------------------------------------------------------------


Run = Callable[[Iterable[Job]], Iterator[tuple[Job, StretchAnswer]]]


class _Open(NamedTuple):
    """What a process has opened."""

    source: LogSource
    keys: Keys
    vault: Vault | None


_opened: list[_Open] = []


@contextmanager
def _runner(request: Request, size: int, keys: Keys) -> Iterator[Run | None]:
    """Yield what runs jobs in other processes, or None where this one will do."""
    processes = request.processes or len(os.sched_getaffinity(0))
    todo = size - (request.resume.size if request.resume else 0)
    if processes < 2 or todo < PROCESSES_FROM:
        yield None
        return
    # Not forked: an LMDB environment must not cross a fork, and neither must threads.
    context = multiprocessing.get_context("spawn")
    arguments = (os.fspath(request.data), request.partition, keys, request.vault)
    with ProcessPoolExecutor(processes, context, _open, arguments) as pool:
        yield lambda jobs: _in_order(pool, jobs, 2 * processes)


def _open(data: str, partition: int, keys: Keys, with_vault: bool) -> None:
    folder = DataFolder(data, partition)
    vault = folder.open_vault(os.urandom) if with_vault else None
    _opened.append(_Open(LogSource(folder.open_log(), lambda: 0), keys, vault))


def _one(job: Job) -> StretchAnswer:
    return check_stretch(_opened[0].source, job, _opened[0].keys, _opened[0].vault)


def _in_order(
    pool: ProcessPoolExecutor, jobs: Iterable[Job], ahead: int
) -> Iterator[tuple[Job, StretchAnswer]]:
    """Yield answers in the order of the jobs, with a few jobs under way: never all of them at once."""
    waiting: deque[tuple[Job, Future[StretchAnswer]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(_one, job)))
            if len(waiting) >= ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool:
        raise IntegrityError("a process that read the database died; is the file whole?") from None
    finally:
        for _, future in waiting:
            future.cancel()
