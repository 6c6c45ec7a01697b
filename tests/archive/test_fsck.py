"""The check of a whole log: what it finds, where it says that it is, and that it forgets nothing between stretches.

What each kind of tampering leads to is in tests/tools/test_drill.py; here are logs too long for that, and the parts.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from zlib import crc32

import pytest

from archive import (
    STRETCH,
    TABLES,
    Check,
    Finding,
    Given,
    IntegrityError,
    Job,
    Log,
    LogSource,
    MemoryStore,
    OneKey,
    Resume,
    Tally,
    Vault,
    Write,
    check_log,
    check_stretch,
    size_of,
)
from archive.findings import limited
from merkle import Checkpoint, Ed25519Signer, Note, Signature, sign_checkpoint
from tests.archive.site import SIGNER, VAULT_KEY, Site, event
from tools.drill_copy import Book, Copy

SIZE = 2 * STRETCH + 300


def leaf(number: int) -> bytes:
    """Return a private leaf that commits to nothing."""
    return b"\x01\x01" + (1_700_000_000 + number // 1_000).to_bytes(8) + number.to_bytes(48)


def row(number: int) -> bytes:
    """Return a private row that nobody can open; its id is its number."""
    body = b"\x01\x01\x01\x00" + bytes(8) + (number + 1).to_bytes(16, "little") + bytes(64)
    return body + crc32(body).to_bytes(4)


@pytest.fixture(scope="module")
def long_log() -> Copy:
    """Return a log of three stretches, in commits that do not end where stretches do."""
    signer = Ed25519Signer("example.org/log", bytes(32))
    origin = b"\x01\x02" + (1_700_000_000).to_bytes(8) + b'{"control":"origin","origin":"example.org/log"}'
    leaves = [origin, *map(leaf, range(1, SIZE))]
    rows = [b"", *map(row, range(1, SIZE))]
    made = Copy({name: {} for name in TABLES}, b"", signer)
    made.rewrite(Book(leaves, rows, sorted({*range(1_000, SIZE, 1_000), STRETCH, SIZE})))
    return made


def stored(copy: Copy) -> MemoryStore:
    """Return a copy in a store."""
    store = MemoryStore(TABLES)
    store.commit([Write(table, *item) for table, values in copy.tables.items() for item in values.items()])
    return store


def checked(copy: Copy, **given: Any) -> tuple[list[Finding], Check]:
    """Return the findings of a check with the right key, and the check."""
    store = stored(copy)
    with store.view() as view:
        size = size_of(view)
    given = {"keys": OneKey(copy.signer.verifier), **given}
    check = Check(LogSource(store, lambda: size), size, Given(**given))
    return list(check.findings()), check


def named(findings: Sequence[Finding]) -> set[tuple[str, int | None]]:
    """Return check and index of each finding."""
    return {(finding.check, finding.index) for finding in findings}


def test_a_long_log_verifies_and_is_counted(long_log: Copy) -> None:
    """Stretches join to the root that the last block names, and nothing is counted twice."""
    findings, check = checked(long_log)
    last = long_log.blocks[-1]
    assert findings == []
    assert check.tally == Tally(
        SIZE, last.number + 1, last.number + 1, 1, root=last.root, origin="example.org/log"
    )


CONTROL = b"\x01\x02" + (1_700_000_000).to_bytes(8)

MALFORMED: dict[str, tuple[int, bytes | None, bytes | None, tuple[str, int]]] = {
    "an empty row": (50, None, b"", ("rows", 50)),
    "a control entry with a row": (50, CONTROL + b'{"control":"start"}', row(50), ("rows", 50)),
    "a control entry that is no JSON": (50, CONTROL + b"{", b"", ("entry", 50)),
    "a second origin": (
        50,
        CONTROL + b'{"control":"origin","origin":"example.org/log"}',
        b"",
        ("origin", 50),
    ),
    "no origin": (0, leaf(0), row(0), ("origin", 0)),
    "another origin": (0, CONTROL + b'{"control":"origin","origin":"example.org/lag"}', b"", ("origin", 0)),
    "a row of another version": (50, None, b"\x02" + row(50)[1:-4], ("row", 50)),
    "a row that is too short": (50, None, row(50)[:60], ("row", 50)),
}
"""Index, leaf and row to put there (None: as it was; rows get their checksum), and the one finding that follows."""


@pytest.mark.parametrize("name", MALFORMED)
def test_an_entry_that_is_not_as_it_must_be(long_log: Copy, name: str) -> None:
    """Leaf and row must be of one kind and of a known form, whoever signed them."""
    index, new_leaf, new_row, expected = MALFORMED[name]
    copy, book = long_log.copy(), long_log.book()
    book.leaves[index] = book.leaves[index] if new_leaf is None else new_leaf
    if new_row is not None:
        checksum = crc32(new_row).to_bytes(4) if expected[0] == "row" else b""
        book.rows[index] = new_row + checksum
    copy.rewrite(Book(book.leaves[:300], book.rows[:300], [100, 300]))
    assert [(one.check, one.index) for one in checked(copy)[0]] == [expected]


@pytest.mark.parametrize("index", [0, STRETCH, SIZE - 1])
def test_a_changed_leaf_is_named_by_checkpoints(long_log: Copy, index: int) -> None:
    """A finding says which signed checkpoint is the last before it, and which the first that covers it."""
    copy = long_log.copy()
    copy.edit("leaves", index, 9, bytes((copy.book().leaves[index][9] + 1 & 255,)))
    findings, _ = checked(copy)
    (root,) = [one for one in findings if one.check == "root" and one.index is not None]
    sizes = [0, *(block.size for block in copy.blocks)]
    good, bad = max(size for size in sizes if size <= index), min(size for size in sizes if size > index)
    assert (root.index, root.good or 0, root.bad) == (good, good, bad)
    later = sum(bad < size <= (index // STRETCH + 1) * STRETCH for size in sizes)
    said = [one.detail for one in findings if one.check == "root" and one.index is None]
    assert said == ([f"{later} later roots differ as well"] if later else [])


def test_after_a_lost_stretch_the_rest_is_still_judged(long_log: Copy) -> None:
    """Where leaves are gone, the stored node stands in for them: later entries are neither suspected nor skipped."""
    copy = long_log.copy()
    del copy.tables["leaves"][(512).to_bytes(8)]
    copy.edit("rows", SIZE - 2, 40, b"x")
    assert named(checked(copy)[0]) == {("leaves", 512), ("row", SIZE - 2)}


def test_a_changed_node_of_every_level_is_found(long_log: Copy) -> None:
    """Nodes above whole stretches are compared, too, and said to be above their first entry."""
    for key in (b"\x01" + (511).to_bytes(8), b"\x02" + (1).to_bytes(8)):
        copy = long_log.copy()
        copy.tables["nodes"][key] = bytes(32)
        assert named(checked(copy)[0]) == {("nodes", int.from_bytes(key[1:]) << 8 * key[0])}


def test_a_node_that_nobody_needs_is_found(long_log: Copy) -> None:
    """Between, before and behind the nodes of the tree there is nothing."""
    copy = long_log.copy()
    for key in (
        b"\x01" + (3).to_bytes(8) + b"x",
        b"\x00" * 9,
        b"\x01" + (514).to_bytes(8),
        b"\x03" + bytes(8),
        b"\x7f",
    ):
        copy.tables["nodes"][key] = bytes(32)
    assert [(one.check, one.kind) for one in checked(copy)[0]] == [("stray", "stray")] * 4 + [
        ("nodes", "stray")
    ]


def test_a_checkpoint_where_no_commit_ended_is_found(long_log: Copy) -> None:
    """A log signs at the ends of its commits only; another signature of its key is not for this history."""
    copy = long_log.copy()
    forged = sign_checkpoint(Checkpoint(copy.signer.name, 1_500, bytes(32)), copy.signer)
    copy.tables["checkpoints"][(1_500).to_bytes(8)] = forged
    assert [(one.check, one.index, one.kind) for one in checked(copy)[0]] == [("checkpoint", 1_499, "stray")]


def test_time_and_ids_are_compared_across_stretches(long_log: Copy) -> None:
    """The first entry of a stretch is not earlier than the one before it, nor is an id in two stretches the same."""
    copy, book = long_log.copy(), long_log.book()
    book.leaves[STRETCH] = b"\x01\x01" + (1_600_000_000).to_bytes(8) + book.leaves[STRETCH][10:]
    book.rows[2 * STRETCH + 5] = book.rows[7]
    copy.rewrite(book)
    assert named(checked(copy)[0]) == {("time", STRETCH), ("ids", 2 * STRETCH + 5)}


@pytest.mark.parametrize("size", [1_000, STRETCH, STRETCH + 464, SIZE])
def test_a_check_goes_on_where_another_ended(long_log: Copy, size: int) -> None:
    """With what was saved at a size, the rest gives the same root, chain and time as the whole."""
    early = long_log.copy()
    early.keep([block.size for block in early.blocks].index(size) + 1)
    saved = checked(early)[1].resume
    assert saved is not None
    findings, check = checked(long_log, resume=Resume.decode(saved.encode()))
    assert findings == []
    last = long_log.blocks[-1]
    assert check.resume is not None
    assert check.resume.frontier.root() == last.root
    assert (check.resume.origin, check.resume.size) == ("example.org/log", SIZE)
    assert (check.resume.block, check.resume.block_hash) == (last.number, last.hash())
    assert check.resume.time_s == int.from_bytes(leaf(SIZE - 1)[2:10])


@pytest.mark.parametrize("size", [1_000, STRETCH])
def test_a_rewritten_past_does_not_continue(long_log: Copy, size: int) -> None:
    """Even where nothing of the past is read again, its last block is not the one that was saved."""
    early, forged, book = long_log.copy(), long_log.copy(), long_log.book()
    early.keep([block.size for block in early.blocks].index(size) + 1)
    saved = checked(early)[1].resume
    book.leaves[9] = book.leaves[9][:-1] + b"\xff"
    forged.rewrite(book)
    findings, _ = checked(forged, resume=saved)
    assert findings[0] == Finding(
        "since", size - 1, f"block {saved.block if saved else 0} is not the one verified before"
    )


def test_a_stretch_of_another_log_is_found(long_log: Copy) -> None:
    """Also without a key, checkpoints of two logs are not taken for those of one."""
    copy = long_log.copy()
    for key, note in copy.tables["checkpoints"].items():
        if int.from_bytes(key) > STRETCH:
            copy.tables["checkpoints"][key] = note.replace(b"example.org/log", b"example.org/lag")
    assert [(one.check, one.index) for one in checked(copy, keys=OneKey())[0]] == [
        ("origin", STRETCH),
        ("origin", 2 * STRETCH),
    ]


def test_a_database_that_breaks_off_is_a_finding(long_log: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before is still told, and then that the check could not go on."""
    copy = long_log.copy()
    copy.edit("rows", 7, 40, b"x")
    source = LogSource(stored(copy), lambda: SIZE)
    whole = source.open

    def rotten(size: int | None = None) -> AbstractContextManager[Log]:
        if size == 2 * STRETCH:
            raise IntegrityError("page 7 is no page")
        return whole(size)

    monkeypatch.setattr(source, "open", rotten)
    findings = list(Check(source, SIZE, Given()).findings())
    assert [(one.check, one.index) for one in findings] == [("row", 7), ("storage", None)]
    assert "page 7 is no page" in findings[1].detail


def test_a_size_at_which_no_commit_ended_is_found(long_log: Copy) -> None:
    """A log is checked up to the end of a commit; entries that none covers are not passed over."""
    check = Check(LogSource(stored(long_log), lambda: SIZE), 1_500, Given(OneKey(long_log.signer.verifier)))
    assert ("blocks", 1_000, "missing") in [(one.check, one.index, one.kind) for one in check.findings()]


def test_findings_are_limited() -> None:
    """Whoever alters everything does not fill the auditor's memory."""
    found = list(limited(Finding("row", index, "") for index in range(5_000)))
    assert (len(found), found[-1].check) == (1_001, "limit")


def test_what_is_erased_is_counted_and_not_a_finding() -> None:
    """A subject whose secret is gone leaves nothing to open; that alone is no sign of tampering."""
    site = Site()
    archiver = site.start()
    subjects = ("student:ann", "student:bob", "student:ann")
    archiver.step([event(b"{}", subject=one, keys={"student": one[8:]}) for one in subjects])
    vault = archiver._vault
    ann = vault.find("student:ann")
    assert ann is not None
    site.vault.commit([Write("subjects", ann.number.to_bytes(8), None)])
    tally = Tally()
    fresh = type(vault)(site.vault, VAULT_KEY, site.random)
    given = Given(OneKey(SIGNER.verifier), fresh, with_vault=True)
    check = Check(LogSource(site.log, lambda: 5), 5, given, tally)
    assert list(check.findings()) == []
    assert (tally.opened, tally.erased, tally.control) == (1, 2, 2)


@pytest.mark.parametrize("cut", [1, 60, 70])
def test_whoever_brings_the_vault_learns_no_less_of_a_damaged_bundle(cut: int) -> None:
    """Entries before the place are opened, and it is named; the check goes on behind it."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"%d" % number) for number in range(5)])
    archiver.step([event(b"x")])
    with site.log.view() as view:
        value = view.get("leaves", (2).to_bytes(8))
    assert value is not None
    site.log.commit([Write("leaves", (2).to_bytes(8), value[:-cut])])
    source = LogSource(site.log, lambda: archiver.head.size)
    plain = [*check_log(source, archiver.head.size, verifier=SIGNER.verifier)]
    tally, vault = Tally(), Vault(site.vault, VAULT_KEY, site.random)
    found = [*check_log(source, archiver.head.size, verifier=SIGNER.verifier, vault=vault, tally=tally)]
    assert {one.check for one in plain} <= {one.check for one in found}
    assert "storage" not in {one.check for one in found}
    assert tally.opened == 6 - 1 - (cut > 60) - 1  # what is damaged, and what follows it in its stretch


@pytest.mark.parametrize("name", ["example.org/stranger", "example.org/log"])
def test_a_stored_checkpoint_has_one_signature(long_log: Copy, name: str) -> None:
    """A stranger's beside the log's own opens as well, and would have the next start look for his key."""
    copy, size = long_log.copy(), (2_000).to_bytes(8)
    note = Note.decode(copy.tables["checkpoints"][size])
    junk = Signature(name, bytes(4), bytes(64))
    for signatures in ((junk, *note.signatures), (*note.signatures, junk)):
        copy.tables["checkpoints"][size] = Note(note.text, signatures).encode()
        findings, _ = checked(copy)
        assert named(findings) == {("checkpoint", 1_999)}
        assert "2 signatures, and a log signs once" in findings[0].detail


# --- memory --------------------------------------------------------------------------------------


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Trace allocations; what is yielded returns bytes held now and at most, since the beginning or the last call."""
    gc.collect()
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]

    def taken() -> tuple[int, int]:
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return now - base, peak - base

    try:
        yield taken
    finally:
        tracemalloc.stop()


def test_a_stretch_takes_little_while_it_is_checked(long_log: Copy) -> None:
    """Hashes go into the tree as they come, ids into columns: no object is kept for each entry of a stretch."""
    source, keys = LogSource(stored(long_log), lambda: SIZE), OneKey(long_log.signer.verifier)
    ends = [(block.size, block.root) for block in long_log.blocks if block.size <= STRETCH]
    job = Job(0, STRETCH, 0, ends, [])
    check_stretch(source, job, keys, None)
    with traced() as taken:
        answer = check_stretch(source, job, keys, None)
        held, peak = taken()
    assert (answer.findings, answer.whole) == ([], True)
    assert peak < 120 * STRETCH
    assert held < 20 * STRETCH


def test_nothing_of_a_stretch_is_kept_but_what_the_next_one_needs(long_log: Copy) -> None:
    """Between stretches, a check holds less than one bit more for each entry that it has passed."""
    source, held = LogSource(stored(long_log), lambda: SIZE), list[int]()
    list(Check(source, SIZE, Given(OneKey(long_log.signer.verifier))).findings())
    with traced() as taken:
        check = Check(
            source, SIZE, Given(OneKey(long_log.signer.verifier)), None, lambda _: held.append(taken()[0])
        )
        assert list(check.findings()) == []
    assert held[1] - held[0] < STRETCH // 8
