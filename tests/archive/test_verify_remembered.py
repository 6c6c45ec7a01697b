"""The check of a whole log, of the past that is not read again, and of what lies among the blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archive import STRETCH, OneKey, Seal
from merkle import Checkpoint
from tests.archive.test_fsck import checked, long_log, named
from tools.drill_copy import Book, Copy

__all__ = ["long_log"]


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("size", [1_000, 65_000, STRETCH])
def test_what_was_kept_of_the_past_is_held_against_it(long_log: Copy, size: int, grown: bool) -> None:
    """A checkpoint or a seal of entries that are not read again: a fork is found there, and the honest one passes."""
    early, forged, book = long_log.copy(), long_log.copy(), long_log.book()
    early.keep([block.size for block in early.blocks].index(STRETCH) + 1)
    saved = checked(early)[1].resume
    book.leaves[9] = book.leaves[9][:-1] + b"\xff"
    forged.rewrite(book)
    for copy, expected in ((long_log, set()), (forged, {("kept", size - 1), ("seal", size - 1)})):
        block = next(block for block in copy.blocks if block.size == size)
        seal = Seal(0, size, block.root, block.number)
        given = {"kept": [Checkpoint("example.org/log", size, block.root)], "seals": [seal]}
        findings, _ = checked(long_log if grown else early, resume=saved, **given)
        assert named(findings) == expected


@pytest.mark.parametrize("size", [STRETCH, STRETCH + 1_000])
def test_where_nothing_is_new_the_newest_signature_is_looked_at(long_log: Copy, size: int) -> None:
    """The earlier check may have known no key: its word is not a signature."""
    early = long_log.copy()
    early.keep(next(block.number for block in early.blocks if block.size >= size) + 1)
    size = early.blocks[-1].size
    note = early.tables["checkpoints"][size.to_bytes(8)]
    early.tables["checkpoints"][size.to_bytes(8)] = note[:-9] + b"AAAAAAA=\n"
    saved = checked(early, keys=OneKey())[1].resume
    assert saved is not None
    assert checked(early, keys=OneKey(), resume=saved)[0] == []
    findings, _ = checked(early, resume=saved)
    assert named(findings) == {("checkpoint", size - 1)}
    assert findings[0].kind == "signature"


def test_commits_cannot_be_joined_behind_the_seals_back(long_log: Copy) -> None:
    """Nobody signs the chain of blocks; the seal knows how many there were, at each size that it remembers."""
    last, before = long_log.blocks[-1], long_log.blocks[-2]
    seals = [Seal(one.number, one.size, one.root, one.number) for one in (last, before)]
    assert checked(long_log, seals=seals)[0] == []
    joined = long_log.copy()
    joined.rewrite(replace_sizes(long_log.book(), 5_000), seal=False)
    assert named(checked(joined, seals=seals)[0]) == {("seal", last.size - 1), ("seal", before.size - 1)}


def replace_sizes(book: Book, without: int) -> Book:
    """Return a log in which no commit ends at a size."""
    return replace(book, sizes=[size for size in book.sizes if size != without])


def test_stored_hashes_cannot_vouch_for_a_fork(long_log: Copy) -> None:
    """Hashes of the past are not recomputed where it is not read again; altered to suit a fork, they show nothing."""
    forged, book = long_log.copy(), long_log.book()
    early = long_log.copy()
    early.keep([block.size for block in early.blocks].index(STRETCH) + 1)
    saved = checked(early)[1].resume
    book.leaves[9] = book.leaves[9][:-1] + b"\xff"
    forged.rewrite(book)
    mixed = long_log.copy()
    mixed.tables["nodes"] |= {key: value for key, value in forged.tables["nodes"].items() if key[0] == 1}
    root = next(block.root for block in forged.blocks if block.size == 65_000)
    kept = [Checkpoint("example.org/log", 65_000, root)]
    assert ("kept", 64_999) in named(checked(mixed, resume=saved, kept=kept)[0])


def test_where_nothing_is_new_the_verdict_is_that_of_before(long_log: Copy) -> None:
    """Also at a size where nothing is read again: size, root, time and name are those that were verified."""
    early = long_log.copy()
    early.keep([block.size for block in early.blocks].index(STRETCH) + 1)
    saved = checked(early)[1].resume
    assert saved is not None
    findings, check = checked(early, resume=saved)
    assert findings == []
    assert (check.tally.entries, check.tally.root) == (STRETCH, saved.frontier.root())
    assert check.tally.origin == "example.org/log"
    assert check.resume is not None
    assert check.resume.encode() == saved.encode()
    other = [Checkpoint("example.org/other", STRETCH, saved.frontier.root())]
    assert [one.check for one in checked(early, resume=saved, kept=other)[0]] == ["kept"]


@pytest.mark.parametrize("key", [b"\0", b"\0" * 7, b"\0" * 6 + b"\x01", (5).to_bytes(8) + b"x", b"\xff"])
def test_nothing_hides_among_the_blocks(long_log: Copy, key: bytes) -> None:
    """Under a key of another length, before them, between or behind: one finding, and the chain goes on."""
    copy = long_log.copy()
    copy.tables["blocks"][key] = b"something"
    findings, check = checked(copy)
    assert [one.check for one in findings] == ["blocks"]
    assert f"key {key.hex()}: block of 9 bytes" in findings[0].detail
    assert check.tally.blocks == len(long_log.blocks)


def test_what_lies_between_two_blocks_does_not_hide_that_one_does_not_name_the_other(long_log: Copy) -> None:
    """Something under a longer key before a block, and the block's link altered: both are found."""
    copy = long_log.copy()
    altered = replace(copy.blocks[6], previous=bytes(32))
    copy.tables["blocks"][(5).to_bytes(8) + b"x"] = b"something"
    copy.tables["blocks"][(6).to_bytes(8)] = altered.encode()
    found = [(one.check, one.index) for one in checked(copy)[0]]
    assert found == [("blocks", 6_000), ("chain", 6_000), ("chain", 7_000)]
