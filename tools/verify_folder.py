"""Checking a log that lies in a folder: who opens what, in how many processes, and what could not be looked at.

A log of some size is checked by one process for each processor, each with the database and the vault opened for
itself: stretches go out, small answers come back, in order.  This process is one of them: it checks a stretch whenever
it would have to wait for the others.  A little log is done before another process would have started.

Each process holds one stretch at a time and what it imports, some 40 MiB, whatever the size of the log; the ids of
all entries lie in a file without a name in the temporary folder, 16 bytes each (`archive.duplicates`).

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
from dataclasses import dataclass, replace
from itertools import islice
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
from merkle import Checkpoint, Ed25519Verifier, MerkleError, NoteError, Policy, UnknownKeyError
from tools.console import progress
from tools.verify_policy import cosigned_size, key_of, quorum

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
    notes: tuple[bytes, ...] = ()
    """More that were kept, as signed notes: by which of the log's keys, its entries say."""
    resume: Resume | None = None
    anyway: bool = False
    """Whether to read on although the file's pages are damaged."""
    policy: Policy | None = None
    """Whose signatures the outside asks for; without a verifier, its line about this log names the key."""
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
    public: bool = False
    """Whether only what is public was there to be checked."""
    signed: bool = False
    """Whether signatures were checked, with a key that the auditor or his policy named."""
    cosigned: int | None = None
    """Up to which size enough witnesses have signed; None where no policy asks for any, or too few have."""

    @property
    def newest_s(self) -> int | None:
        """When the last entry was taken in (Unix seconds): old, if a copy stands still.  None if it is not verified."""
        return None if self.resume is None or not self.tally.entries else self.resume.time_s


def verify_folder(request: Request) -> Outcome:
    """Check a log; raise ArchiveError (NotFound and others) where there is nothing that could be checked.

    What the auditor brings along and is wrong is no finding about the log: NotFound for a seal that holds nothing,
    or a vault key that does not fit, NoteError for a checkpoint that none of the log's keys has signed.
    """
    folder, started = DataFolder(request.data, request.partition), time.monotonic()
    if not folder.log.is_dir():
        raise NotFound(f"{folder.log}: there is no log; name a data folder")
    if request.resume and request.vault and request.resume.sequences is None:
        raise NotFound("the saved check was made without --vault; leave --vault or --since out")
    if request.resume and request.resume.size and request.resume.block < 0:
        raise NotFound("the saved check was one of the public part, which knows no blocks; leave --since out")
    tally = Tally()
    seals, findings = _seals(request.seal or folder.log / "seal", tally, named=request.seal is not None)
    outcome = Outcome(findings, tally, signed=request.verifier is not None)
    try:
        if lacking := missing_bytes(folder.log):
            raise IntegrityError(f"the database file is {lacking:,} bytes shorter than it says itself")
        damaged = _structure(folder, tally)
        findings += damaged
        if damaged and not request.anyway:
            tally.remarks.append("entries were not read: such a file may crash its reader; --anyway tries it")
        else:
            _check(folder, request, seals, outcome)
    except IntegrityError as error:
        findings.append(Finding("storage", None, str(error), "unreadable"))
    outcome.seconds = time.monotonic() - started
    outcome.read = max(tally.entries - (request.resume.size if request.resume else 0), 0)
    if findings:
        outcome.resume = None
    return outcome


def _check(folder: DataFolder, request: Request, seals: list[Seal], outcome: Outcome) -> None:
    findings, tally = outcome.findings, outcome.tally
    store = folder.open_log()
    vault = None
    try:
        try:
            vault = _vault(folder) if request.vault else None
        except IntegrityError as error:
            findings.append(Finding("storage", None, f"private rows were not opened: {error}", "unreadable"))
            request = replace(request, vault=False)
        with store.view() as view:
            size = size_of(view)
            log = Log(view, size)
            newest = log.checkpoint()[1] if size else b""
            verifier = request.verifier or key_of(request.policy, newest)
            keys = _keys(log, verifier, outcome)
        outcome.signed = verifier is not None
        tally.remarks += stranger(newest, keys) if size else []
        kept = (*request.kept, *open_kept(request.notes, keys))
        kept += tuple(_cosigned(folder, request.policy, keys, newest, outcome))
        given = Given(keys, vault, request.vault, seals, kept, request.resume)
        mine = _Open(LogSource(store, lambda: size), keys, vault)
        with (
            progress("verifying", size - (request.resume.size if request.resume else 0)) as advance,
            _runner(request, size, mine) as run,
        ):
            check = Check(mine.source, size, given, tally, advance, run)
            findings += check.findings()
        outcome.resume = check.resume
    finally:
        store.close()
        if vault is not None:
            vault.close()


def _vault(folder: DataFolder) -> Vault:
    """Return the vault, opened; raise IntegrityError if its file is damaged, NotFound if the key is not its own."""
    folder.open_vault_store().close()
    try:
        return folder.open_vault(os.urandom)
    except IntegrityError as error:
        raise NotFound(f"{error}; no private row was opened: bring its key, or leave --vault out") from None


def _keys(log: Log, verifier: Ed25519Verifier | None, outcome: Outcome) -> Keys:
    """Return the log's keys; where they cannot be followed, the known one as the only one there ever was.

    Then each rotation will be found wanting, and each checkpoint of another key; what is said here says why.
    """
    if verifier is None:
        return OneKey()
    try:
        return ring_of(log, verifier)
    except IntegrityError as error:
        detail = f"changes of key could not be followed: {error}"
        outcome.findings.append(Finding("keys", None, detail, "signature"))
    except (ArchiveError, MerkleError) as error:  # an entry or a checkpoint that will be found by itself
        outcome.tally.remarks.append(f"changes of key could not be followed: {error}")
    return KeyRing(verifier)


def stranger(newest: bytes, keys: Keys) -> list[str]:
    """Return what to say if no known key has signed the newest checkpoint: then none of what is signed will hold."""
    try:
        keys.open(newest)
    except UnknownKeyError as error:
        what = "it is another log's, or of a time when the log had another key"
        return [f"the newest checkpoint: {error}; {what}: bring that key (treering keys history lists all)"]
    except MerkleError:  # a finding, with its place
        pass
    return []


def open_kept(notes: Iterable[bytes], keys: Keys) -> list[Checkpoint]:
    """Return the checkpoints in notes that were kept; raise NoteError if one was not signed by the key of its size."""
    found = []
    for note in notes:
        try:
            found.append(keys.open(note))
        except MerkleError as error:
            raise NoteError(f"--checkpoint: {error}") from None
    return found


def _cosigned(
    folder: DataFolder, policy: Policy | None, keys: Keys, newest: bytes, outcome: Outcome
) -> list[Checkpoint]:
    """Return the checkpoint that the outside is shown, which must be a part of this log, if a policy is given.

    A copy need not hold it: then its newest one will do, if the policy asks for nobody else.
    """
    if policy is None:
        return []
    there = folder.cosigned.is_file()
    checked = quorum(folder.cosigned.read_bytes() if there else newest, policy, keys)
    if isinstance(checked, Finding) and checked.kind == "missing" and not there:
        checked = Finding("quorum", None, "no checkpoint was cosigned yet", "missing")
    if isinstance(checked, Finding):
        outcome.findings.append(checked)
        return []
    outcome.cosigned = cosigned_size(policy, checked)
    return [checked]


def _seals(path: Path, tally: Tally, *, named: bool) -> tuple[list[Seal], list[Finding]]:
    """Return what is sealed, read before the database: an archiver at work seals after it commits.

    Raises NotFound if nothing was ever sealed in a file that the auditor has `named`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if seals := all_seals(data):
        return seals, []
    if data.strip(b"\0"):
        return [], [Finding("seal", None, f"{path}: no slot of the seal is whole", "unreadable")]
    what = f"nothing is sealed in {path}" if path.exists() else f"no seal at {path}"
    if named:
        raise NotFound(f"{what}: name the log's seal, or leave --seal out")
    tally.remarks.append(f"{what}: a database set back in time would not be noticed by it")
    return [], []


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
def _runner(request: Request, size: int, mine: _Open) -> Iterator[Run | None]:
    """Yield what runs jobs in other processes too, or None where this one, which has `mine`, will do."""
    processes = request.processes or len(os.sched_getaffinity(0))
    todo = size - (request.resume.size if request.resume else 0)
    if processes < 2 or todo < PROCESSES_FROM:
        yield None
        return
    # Not forked: an LMDB environment must not cross a fork, and neither must threads.
    context = multiprocessing.get_context("spawn")
    arguments = (os.fspath(request.data), request.partition, mine.keys, request.vault)
    with ProcessPoolExecutor(processes - 1, context, _open, arguments) as pool:
        others = lambda job: pool.submit(_one, job)  # noqa: E731
        yield lambda jobs: in_order(jobs, others, lambda job: _checked(mine, job), 2 * processes)


def _open(data: str, partition: int, keys: Keys, with_vault: bool) -> None:
    folder = DataFolder(data, partition)
    vault = folder.open_vault(os.urandom) if with_vault else None
    _opened.append(_Open(LogSource(folder.open_log(), lambda: 0), keys, vault))


def _one(job: Job) -> StretchAnswer:
    return _checked(_opened[0], job)


def _checked(opened: _Open, job: Job) -> StretchAnswer:
    return check_stretch(opened.source, job, opened.keys, opened.vault)


def in_order(
    jobs: Iterable[Job],
    submit: Callable[[Job], Future[StretchAnswer]],
    check: Callable[[Job], StretchAnswer],
    ahead: int,
) -> Iterator[tuple[Job, StretchAnswer]]:
    """Yield answers in the order of the jobs, with at most `ahead` of them under way: never all of them at once.

    `submit` hands a job to another process, `check` does it here: the next one that nobody has, while the oldest
    is still on its way.  Raises IntegrityError where a process died.
    """
    coming = iter(jobs)
    waiting: deque[tuple[Job, Future[StretchAnswer]]] = deque()
    try:
        while True:
            waiting.extend((job, submit(job)) for job in islice(coming, ahead - len(waiting)))
            if not waiting:
                return
            if not waiting[0][1].done() and (own := _recalled(waiting)) is not None:
                job, place = own
                answered: Future[StretchAnswer] = Future()
                answered.set_result(check(job))
                waiting[place] = job, answered
            else:
                done, future = waiting.popleft()
                yield done, future.result()
    except BrokenProcessPool:
        raise IntegrityError("a process that read the database died; is the file whole?") from None
    finally:
        for _, future in waiting:
            future.cancel()


def _recalled(waiting: deque[tuple[Job, Future[StretchAnswer]]]) -> tuple[Job, int] | None:
    """Take back the first job that no other process has begun; return it and its place."""
    for place, (job, future) in enumerate(waiting):
        if future.cancel():
            return job, place
    return None
