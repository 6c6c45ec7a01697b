"""An id whose entry nobody can read any more: its sender is told so, and everybody else goes on."""

from __future__ import annotations

import pytest

from archive import Receipt, Refusal, Write
from tests.archive.rotting import CLOSED, FORM, HUGE, ID, NUMBER, rot
from tests.archive.site import Site, event


@pytest.mark.parametrize(
    ("place", "again"),
    [(CLOSED, False), (CLOSED, True), (FORM, False), (NUMBER, False), (NUMBER, True), (ID, False)],
)
def test_who_sends_the_id_of_a_rotten_row_stops_nobody(place: int, *, again: bool) -> None:
    """He is refused, with the entry named, as often as he tries; others of the same commit are kept."""
    site = Site()
    archiver = site.start()
    (first,) = archiver.step([event(b"1", id="a")])
    assert isinstance(first, Receipt)
    rot(site.log, first.index, place)
    if again:
        archiver.close()
        archiver = site.start()
    for number in range(2):
        answers = archiver.step([event(b"1", id="a"), event(b"new%d" % number, id=str(number))])
        refused, kept = answers
        assert isinstance(refused, Refusal)
        assert (refused.reason, f"entry {first.index}" in refused.detail) == ("conflict", True)
        assert isinstance(kept, Receipt)
    assert not archiver.failed


def test_the_id_of_somebody_who_was_erased_is_not_kept_anew() -> None:
    """Nobody can tell any more whether it is the same; the archiver goes on."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"1", id="a", subject="student:ann"), event(b"1", subject="student:bob")])
    number = archiver._vault.admit(["student:ann"])["student:ann"].number
    archiver.close()
    site.vault.commit([Write("subjects", number.to_bytes(8), None)])
    archiver = site.start()
    refused, kept = archiver.step(
        [event(b"1", id="a", subject="student:bob"), event(b"2", id="b", subject="student:bob")]
    )
    assert isinstance(refused, Refusal)
    assert refused.reason == "conflict"
    assert isinstance(kept, Receipt)


@pytest.mark.parametrize("place", [CLOSED, FORM, NUMBER, HUGE, ID])
def test_a_rotten_row_makes_no_number_be_given_twice(place: int) -> None:
    """A start does not believe it about its subject: the leaf says whose it is.  Made whole, the log is sound."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"0", subject="student:bob"), event(b"1"), event(b"2", subject="student:kim")])
    (ann,) = archiver.step([event(b"3", id="a")])
    assert isinstance(ann, Receipt)
    rot(site.log, ann.index, place)
    archiver = site.start()  # nothing was saved: it reads all rows
    archiver.step([event(b"4"), event(b"5", subject="student:bob"), event(b"6", subject="student:kim")])
    rot(site.log, ann.index, place)
    assert [(one.subject, one.sequence) for one in site.events()][-3:] == [
        ("student:ann", 3),
        ("student:bob", 2),
        ("student:kim", 2),
    ]


def test_whose_a_rotten_row_is_cannot_be_said_of_somebody_who_was_erased() -> None:
    """It is nobody's who could have another entry; numbers of the others are right."""
    site = Site()
    archiver = site.start()
    archiver.step([event(b"1"), event(b"2", subject="student:bob")])
    number = archiver._vault.admit(["student:ann"])["student:ann"].number
    site.vault.commit([Write("subjects", number.to_bytes(8), None)])
    rot(site.log, 2, NUMBER)
    archiver = site.start()
    archiver.step([event(b"3", subject="student:bob")])
    assert archiver._caches.sequence(number) == 0
    assert site.start()._caches.sequence(1 - number) == 2
