"""An id whose entry nobody can read any more: its sender is told so, and everybody else goes on."""

from __future__ import annotations

import pytest

from archive import Receipt, Refusal, Write
from tests.archive.rotting import CLOSED, FORM, rot
from tests.archive.site import Site, event


@pytest.mark.parametrize(("place", "again"), [(CLOSED, False), (CLOSED, True), (FORM, False)])
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
