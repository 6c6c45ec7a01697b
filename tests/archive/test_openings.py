"""Private rows, opened: what one says must follow from its leaf, its vault and the rows before it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from zlib import crc32

import msgspec
import pytest

from archive import Findings, Log, Vault, Write, commitment_of, open_row, parse_opening, parse_row
from archive.entry import encode_header
from archive.openings import Counted, Counts, Entry, Openings, join_counts
from tests.archive.site import VAULT_KEY, Site, event


def leaf(number: int) -> bytes:
    """Return a private leaf that commits to nothing."""
    return b"\x01\x01" + (1_700_000_000).to_bytes(8) + number.to_bytes(48)


@pytest.mark.parametrize(
    ("first", "due", "after"), [(3, None, 4), (5, "2 taken out", 6), (2, "repeated", 3), (None, None, 4)]
)
def test_counts_of_a_subject_are_joined(first: int | None, due: str | None, after: int) -> None:
    """A stretch goes on counting where the last one ended; a gap is said once, and counting goes on behind it."""
    known = array("Q", [0, 2])
    found = list(join_counts(known, Counts.of({1: Counted(70, first, 2)})))
    assert known[1] == after
    assert [due in finding.detail for finding in found if due] == ([True] if due else [])
    assert [finding.index for finding in found] == ([70] if due else [])


def test_counts_are_the_same_in_columns() -> None:
    """What was counted comes back as it was, for any subject that a row may claim."""
    counted = {2**64 - 1: Counted(0, None, 7), 3: Counted(2**40, -4, 1), 0: Counted(9, 2**62 - 1, 65_536)}
    assert dict(Counts.of(counted)) == counted


@pytest.mark.parametrize("sequence", [2**64 - 1, 2**63, 2**62, 0, -1, -(2**63)])
def test_a_number_that_nobody_counts_to_is_found(sequence: int) -> None:
    """Whoever holds the keys may write any number into a header; it is a finding, not the end of the check."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}"), event(b"{}")])
    vault, found = Vault(site.vault, VAULT_KEY, site.random), Findings()
    with site.log.view() as view:
        row = parse_row(Log(view, archiver.head.size).row(2))
    key = vault.data_key(row.subjects)
    header = msgspec.structs.replace(parse_opening(open_row(row, key)).header, sequence=sequence)
    text = encode_header(header)
    opening = bytes(32) + len(text).to_bytes(4) + text + b"{}"
    forged = row.head + row.nonce + key.encrypt(row.nonce, opening, row.head)
    leaf_of_it = leaf(7)[:10] + bytes(16) + commitment_of(opening)
    openings = Openings(vault, found)
    for index in (2, 3):
        openings.check(index, leaf_of_it, forged + crc32(forged).to_bytes(4))
    assert {"tag"} <= {one.check for one in found}
    findings = list(join_counts(array("Q", [0] * 9), openings.counts()))
    assert [one.check for one in findings] == ["sequence"]


def forgeries(site: Site, size: int) -> Iterator[list[Entry]]:
    """Yield a log's private entries, as they are, and with one of them changed in each way that a forger might try."""
    vault = Vault(site.vault, VAULT_KEY, site.random)
    with site.log.view() as view:
        log = Log(view, size)
        good = [Entry(at, log.leaf(at), log.row(at)) for at in range(2, size)]
    yield good
    row, leaf_of_it = parse_row(good[3].row), good[3].leaf
    key = vault.data_key(row.subjects)
    opening = open_row(row, key)
    header = parse_opening(opening).header
    replaced = msgspec.structs.replace

    def put(made: bytes, *, also_leaf: bool = True) -> list[Entry]:
        body = row.head + row.nonce + key.encrypt(row.nonce, made, row.head)
        public = leaf_of_it[:26] + commitment_of(made) if also_leaf else leaf_of_it
        return [*good[:3], Entry(5, public, body + crc32(body).to_bytes(4)), *good[4:]]

    def spelled(text: bytes) -> bytes:
        return opening[:32] + len(text).to_bytes(4) + text + b"{}"

    yield put(opening[:-1] + b"!", also_leaf=False)
    yield put(b"x" * 99)
    yield put(spelled(b"\x90"))
    yield put(spelled(encode_header(header).replace(b"student:", b"teacher:")))
    yield put(spelled(encode_header(replaced(header, sequence=9))))
    yield put(spelled(encode_header(replaced(header, extra={"id": "another"}))))
    yield put(spelled(encode_header(replaced(header, keys={"doc": "d"}))))
    odd = replaced(header, extra={**header.extra, "more": {1: 2}})  # no text as key: it has no canonical form
    yield put(spelled(msgspec.msgpack.encode(odd)))
    wide = encode_header(header)  # its sequence number, 3, in two bytes
    yield put(spelled(wide[:1] + wide[1:].replace(b"\x03", b"\xcc\x03", 1)))
    yield [*good[:3], Entry(5, leaf_of_it[:12] + bytes(1) + leaf_of_it[13:], good[3].row), *good[4:]]
    bad = good[3].row[:-20] + bytes([good[3].row[-20] ^ 1]) + good[3].row[-19:-4]
    yield [*good[:3], Entry(5, leaf_of_it, bad + crc32(bad).to_bytes(4)), *good[4:]]


def test_rows_opened_together_are_judged_like_each_by_itself() -> None:
    """Whatever is wrong with one of them: the same findings, counts and erasures, and nothing is said of the others."""
    site = Site()
    archiver = site.start()
    names = ["student:ann", "student:bob", "student:ann", "student:ann", "student:eve", "student:ann"]
    archiver.step(
        [event(b"{}", subject=one, keys={"doc": one[8:]}, id=f"{at}") for at, one in enumerate(names)]
    )
    eve = archiver._vault.admit(["student:eve"])["student:eve"].number
    site.vault.commit([Write("subjects", eve.to_bytes(8), None)])
    said = list[set[str]]()
    for entries in forgeries(site, archiver.head.size):
        results = []
        for together in (True, False):
            found = Findings()
            openings = Openings(Vault(site.vault, VAULT_KEY, site.random), found)
            if together:
                openings.check_all(entries)
            else:
                for one in entries:
                    openings.check(*one)
            results.append((list(found), dict(openings.counts()), openings.opened, openings.erased))
        assert results[0] == results[1]
        assert {one.index for one in results[0][0]} <= {5, 7}
        said.append({one.check for one in results[0][0]})
    assert said[0] == set()
    assert all(said[1:])
    assert set().union(*said) == {"opening", "header", "tag", "sequence"}
