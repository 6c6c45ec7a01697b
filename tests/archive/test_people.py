"""Promise: without any key, nobody is cut off from her past, and no entry of hers is passed off as another's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Finding, LogSource, Seal, Tally, Vault, Write, check_log, parse_row, people
from archive.bundles import bundle
from archive.people import Gone, gone
from tests.archive.rotting import bundle_of
from tests.archive.site import SIGNER, VAULT_KEY, Site, event

ANN, BOB, KIM = "student:ann", "student:bob", "student:kim"


@pytest.fixture
def site() -> Site:
    """Return a log of three people: entries 2 and 5 are Ann's, 3 Bob's, 4 Kim's."""
    made = Site()
    archiver = made.start()
    archiver.step([event(b"1"), event(b"2", subject=BOB), event(b"3", subject=KIM)])
    archiver.step([event(b"4")])
    return made


def found(site: Site, seal: Seal | None = None) -> tuple[list[Finding], Tally]:
    """Return the findings of an auditor with the vault."""
    size = site.published.get()
    tally, vault = Tally(), Vault(site.vault, VAULT_KEY, site.random)
    source = LogSource(site.log, lambda: size)
    return [*check_log(source, size, verifier=SIGNER.verifier, vault=vault, seal=seal, tally=tally)], tally


def number_of(site: Site, name: str) -> int:
    """Return the number of a subject."""
    keys = Vault(site.vault, VAULT_KEY, site.random).find(name)
    assert keys is not None
    return keys.number


def replace(site: Site, index: int, numbers: Sequence[int]) -> None:
    """Write noise beside a leaf, which is said to be about others, and has a right checksum."""
    key, parts = bundle_of(site.log, index)
    at = index - int.from_bytes(key)
    row = bytes((1, 1, len(numbers), 0)) + b"".join(number.to_bytes(8) for number in numbers)
    row += os.urandom(len(parts[at]) - len(row) - 4)
    parts[at] = row + crc32(row).to_bytes(4)
    assert parse_row(parts[at]).subjects == tuple(numbers)
    site.log.commit([Write("rows", key, bundle(parts, 4))])


def erase(site: Site, name: str) -> int:
    """Destroy somebody's secret, and return her number."""
    number = number_of(site, name)
    site.vault.commit([Write("subjects", number.to_bytes(8), None)])
    return number


def test_a_log_of_people_and_an_erased_one_is_sound(site: Site) -> None:
    """Also where an entry about two people can be opened by nobody, since one of them is erased."""
    site.start().step([event(b"5", also=[BOB]), event(b"6"), event(b"7", subject=BOB, also=[ANN])])
    erase(site, BOB)
    findings, tally = found(site)
    assert findings == []
    assert tally.erased == 3


@pytest.mark.parametrize("leads", ["nowhere", "to Bob"])
def test_a_name_that_leads_elsewhere_is_found(site: Site, leads: str) -> None:
    """Before anything came of it; then, too, when her next event has made a second subject of her name."""
    ann, bob = number_of(site, ANN), number_of(site, BOB)
    with site.vault.view() as view:
        (key,) = [key for key, value in view.scan("names") if int.from_bytes(value) == ann]
    site.vault.commit([Write("names", key, None if leads == "nowhere" else bob.to_bytes(8))])
    findings, _ = found(site)
    assert [(one.check, one.index) for one in findings] == [("names", None)]
    assert (
        f"subject {ann} leads {'nowhere' if leads == 'nowhere' else f'to subject {bob}'}"
        in findings[0].detail
    )
    assert "ann" not in findings[0].detail, "a report names nobody"
    if leads == "nowhere":
        site.start().step([event(b"5")])
        findings, _ = found(site)
        assert [one.check for one in findings] == ["names"]
        assert "leads to subject 3" in findings[0].detail


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_entries_of_somebody_are_not_passed_off_as_an_erased_ones(site: Site, count: int) -> None:
    """Whether somebody was erased or the vault is only made to say so: the mark is hers."""
    kim = erase(site, KIM)
    for index in (5, 2)[:count]:
        replace(site, index, [kim])
    findings, tally = found(site)
    assert [(one.check, one.index) for one in findings] == [("sequence", (5, 2)[count - 1])]
    assert "its mark is that of one who is" in findings[0].detail
    assert tally.erased == 1 + count


def test_a_number_that_nobody_was_given_is_no_hiding_place(site: Site) -> None:
    """The vault says openly how many it has admitted; one more is as good as erased, and no better."""
    site.vault.commit([Write("meta", b"next", (4).to_bytes(8))])
    replace(site, 5, [3])
    assert [(one.check, one.index) for one in found(site)[0]] == [("sequence", 5)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12, unique=True),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12),
    st.integers(1, 5),
)
def test_tags_are_found_among_others_that_begin_or_end_alike(
    tags: list[tuple[int, int]], erased: list[tuple[int, int]], piece: int
) -> None:
    """Whatever the pieces, those are found that are there, if no two wanted ones begin alike."""
    tags = list({first: (first, last) for first, last in tags}.values())
    with Gone() as kept, pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "PIECE", piece)
        for at in range(0, len(erased), 2):
            some = enumerate(erased[at : at + 2], at)
            kept.add(b"".join(gone(index, one.to_bytes(8) + two.to_bytes(8)) for index, (one, two) in some))
        table = np.array(sorted(tags), dtype=np.uint64).reshape(-1, 2)
        assert [*kept.bearing(table)] == [index for index, one in enumerate(erased) if one in tags]
