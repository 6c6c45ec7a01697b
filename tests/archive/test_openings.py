"""Private rows, opened: what one says must follow from its leaf, its vault and the rows before it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from zlib import crc32

import msgspec
import pytest

from archive import (
    Findings,
    IntegrityError,
    Log,
    Vault,
    Write,
    commitment_of,
    open_row,
    parse_opening,
    parse_row,
)
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


def about(row: bytes, *subjects: int) -> bytes:
    """Return a row of the same size, of noise that anybody can make, about these subjects."""
    body = row[:2] + bytes([len(subjects)]) + row[3:4] + b"".join(one.to_bytes(8) for one in subjects)
    body += bytes(16) + row[28:-4].ljust(200, b"\x5a")
    return body + crc32(body).to_bytes(4)


@pytest.mark.parametrize("subjects", [(2,), (1 << 50,), (2**64 - 1,), (0, 2), (0, 1, 1 << 50)])
def test_noise_about_nobody_is_no_erased_subject(subjects: tuple[int, ...]) -> None:
    """A row about a number that the vault has given to nobody was forged: found without a key, and not counted."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}"), event(b"{}", subject="student:bob")])
    with site.log.view() as view:
        log = Log(view, archiver.head.size)
        good = [Entry(at, log.leaf(at), log.row(at)) for at in (2, 3)]
    found = Findings()
    openings = Openings(Vault(site.vault, VAULT_KEY, site.random), found)
    openings.check_all([good[0], Entry(3, good[1].leaf, about(good[1].row, *subjects))])
    (finding,) = found
    assert (finding.check, finding.index) == ("opening", 3)
    assert f"about subject {max(subjects)}, but the vault has admitted 2 only" in finding.detail
    assert (openings.opened, openings.erased, list(openings.subjects)) == (1, 0, [0])


def test_a_row_that_opens_is_about_nobody_all_the_same() -> None:
    """Whoever holds the vault's key may put a subject in whom the vault never admitted: no key makes that right."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}"), event(b"{}", subject="student:bob")])
    site.vault.commit([Write("meta", b"next", (1).to_bytes(8))])
    with site.log.view() as view:
        log, found = Log(view, archiver.head.size), Findings()
        openings = Openings(Vault(site.vault, VAULT_KEY, site.random), found)
        openings.check_all([Entry(at, log.leaf(at), log.row(at)) for at in (2, 3)])
    assert [(one.check, one.index) for one in found] == [("opening", 3)]
    assert (openings.opened, list(openings.subjects)) == (1, [0])


@pytest.mark.parametrize("number", [1 << 27, 1 << 61, 2**64 - 1])
def test_a_huge_number_takes_no_memory(number: int) -> None:
    """Whoever holds the vault's key may admit a subject of any number; that is a finding, not the end of the check."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}")])
    with site.log.view() as view:
        log = Log(view, archiver.head.size)
        entry = Entry(2, log.leaf(2), about(log.row(2), number))
    vault, found = Vault(site.vault, VAULT_KEY, site.random), Findings()
    site.vault.commit([Write("meta", b"next", (number + 1).to_bytes(9))])
    openings = Openings(vault, found)
    openings.check_all([entry])
    known = array("Q", [0])
    assert list(join_counts(known, openings.counts())) == []
    assert ([one.check for one in found], len(known)) == (["opening"], 1)


def test_a_name_that_is_no_text_is_a_finding() -> None:
    """Whoever holds the vault's key may wrap any bytes as a name."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}")])
    vault = Vault(site.vault, VAULT_KEY, site.random)
    key = bytes(8)
    wrapped = vault._seal(bytes(32) + b"\xff\xfe", b"treering/subject/v1\0" + key)
    site.vault.commit([Write("subjects", key, wrapped)])
    with site.log.view() as view:
        log, found = Log(view, 3), Findings()
        Openings(vault, found).check_all([Entry(2, log.leaf(2), log.row(2))])
    assert [(one.check, one.index) for one in found] == [("opening", 2)]
    with pytest.raises(IntegrityError, match="the name of subject 0 is no text"):
        vault.name(0)
