"""A subject's list of entries is all there is, and whoever holds the leaves and the tag key can see that."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    Claim,
    Finding,
    NotFound,
    SubjectEntries,
    check_complete,
    entries_of_subject,
    tag_of,
)
from tests.archive.rotting import CLOSED, FORM, NUMBER, rot, rot_length
from tests.world import World, connection, event, frames, raw_event

KEY = bytes(range(32))
OTHER = bytes(32)


def listed(world: World, name: str) -> list[SubjectEntries]:
    """Return the entries of a subject in a world, all of whose rows can be read."""
    found, unread = entries_of_subject(world.source, world.vault(), name, world.size)
    assert unread == []
    return found


def leaves_of(world: World) -> list[bytes]:
    """Return all public leaves of a world."""
    with world.source.open() as log:
        return [leaf for _, leaf in log.leaves(0, log.size)]


def details(found: Sequence[Finding]) -> list[str]:
    """Return findings as "index: detail"."""
    return [f"{one.index}: {one.detail}" for one in found]


def leaf(key: bytes, sequence: int) -> bytes:
    """Return a private leaf with a subject's tag."""
    return b"\x01\x01" + bytes(8) + tag_of(key, sequence) + bytes(32)


# --- the list ------------------------------------------------------------------------------------


def test_a_subject_is_listed_with_all_its_entries_and_no_others() -> None:
    """In the order of its sequence, however it stands among the others."""
    world, random, expected = World(), Random(3), []
    for _ in range(40):
        names = [random.choice("abc") for _ in range(random.randrange(1, 9))]
        receipts = world.append([event(name) for name in names])
        expected += [one.index for one, name in zip(receipts, names, strict=True) if name == "b"]
    (found,) = listed(world, "student:b")
    assert (found.name, found.indices) == ("student:b", tuple(expected))
    assert list(check_complete([found], world.size, leaves_of(world))) == []


def test_what_was_sent_before_the_identity_is_listed_with_the_person() -> None:
    """Entries of a connection that said late who it is stand under a provisional subject, and are the person's."""
    world = World()
    world.append([event("ann")])
    world.append(frames(connection(1), {"event": "a"}, {"event": "b"}, {"event": "c", "user_id": "ann"}))
    world.append(frames(connection(2), {"event": "x"}, {"event": "y", "user_id": "bob"}))
    own, before = listed(world, "student:testcase-ann")
    assert (own.name, own.indices) == ("student:testcase-ann", (6,))
    assert (before.name, before.indices) == (f"provisional:{(1).to_bytes(8).hex()}-0", (3, 4, 5))
    assert list(check_complete([own, before], world.size, leaves_of(world))) == []


def test_a_subject_that_nobody_knows_is_not_there() -> None:
    """The message says how subjects are named."""
    with pytest.raises(NotFound, match="names are kind:label"):
        listed(World(), "ann")


def test_the_list_at_an_earlier_size_is_its_beginning() -> None:
    """Only entries below the size are listed, and are complete for that size."""
    world = World()
    for _ in range(6):
        world.append([event("ann"), event("bob")])
    ((found,), _) = entries_of_subject(world.source, world.vault(), "student:ann", 7)
    assert found.indices == (2, 4, 6)
    assert list(check_complete([found], 7, leaves_of(world))) == []


def test_entries_that_concern_a_subject_also_are_listed_apart() -> None:
    """Their tags are another's: they are in no number of hers, and she finds them all the same, each once."""
    world = World()
    about = ["student:bob", "student:cay"]
    world.append([event("ann"), event("bob"), raw_event(b"{}", {"student": "ann"}, also=about), event("cay")])
    world.append([raw_event(b"{}", {}, also=["student:bob"])])
    (bob,) = listed(world, "student:bob")
    (ann,) = listed(world, "student:ann")
    assert (ann.indices, ann.also) == ((2, 4), ())
    assert (bob.indices, bob.also) == ((3,), (4, 6))
    assert list(check_complete([bob], world.size, leaves_of(world))) == []


def test_what_binds_her_own_is_no_entry_of_another() -> None:
    """A binding is about her and her provisional subject: it is hers, once."""
    world = World()
    world.append(frames(connection(1), {"event": "a"}, {"event": "b", "user_id": "ann"}))
    own, before = listed(world, "student:testcase-ann")
    assert (own.also, before.also) == ((), ())
    assert set(own.indices).isdisjoint(before.indices)


# --- rows that changed on disk --------------------------------------------------------------------


def classroom() -> World:
    """Return a world with entries of ann (2, 4, 6), of bob (3, 5), and a connection that becomes zoe's."""
    world = World()
    world.append([event(name) for name in ("ann", "bob", "ann", "bob", "ann")])
    world.append(frames(connection(1), {"event": "a"}, {"event": "b", "user_id": "zoe"}))
    return world


@pytest.mark.parametrize("place", [CLOSED, FORM, NUMBER])
@pytest.mark.parametrize("index", [2, 4, 6])
def test_a_rotten_row_is_known_by_its_tag(index: int, place: int) -> None:
    """Whichever byte changed: whose entry it is says its leaf, and to all others it is one that cannot be read."""
    world = classroom()
    rot(world.site.log, index, place)
    for name, indices, expected in (("ann", (2, 4, 6), []), ("bob", (3, 5), [index])):
        (found,), unread = entries_of_subject(world.source, world.vault(), f"student:{name}", world.size)
        assert (found.indices, found.also, unread) == (indices, (), expected)


def test_a_length_that_rots_costs_nobody_the_rest() -> None:
    """Rows that cannot be told from their neighbours are known by their tags; other bundles are read as ever."""
    world = World()
    world.append([event("ann" if number % 2 else "bob") for number in range(60)])
    world.append([event("ann")])
    (whole,) = listed(world, "student:ann")
    rot_length(world.site.log, 42)
    (ann,), unread = entries_of_subject(world.source, world.vault(), "student:ann", world.size)
    assert (ann, unread[0]) == (whole, 42)
    assert len(unread) > 1
    assert set(unread) <= set(range(42, 62, 2)), "the others are hers"


def test_a_rotten_entry_of_a_provisional_subject_is_hers() -> None:
    """It is found under the tag key of that subject, once the binding was read."""
    world = classroom()
    own, before = listed(world, "student:testcase-zoe")
    rot(world.site.log, before.indices[0], FORM)
    found, unread = entries_of_subject(world.source, world.vault(), "student:testcase-zoe", world.size)
    assert (found, unread) == ([own, before], [])


# --- is that all? --------------------------------------------------------------------------------

LEAVES = [leaf(KEY, 1), leaf(OTHER, 1), leaf(KEY, 2), leaf(KEY, 3)]


def claim(*indices: int) -> list[Claim]:
    """Return a claim about the subject of KEY."""
    return [Claim("student:ann", KEY, indices)]


def test_a_true_list_is_found_to_be_complete() -> None:
    """Tags 1, 2 and 3 are where it says, and no further one is there."""
    assert list(check_complete(claim(0, 2, 3), 4, LEAVES)) == []


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ((0, 2), ["3: student:ann has an entry number 3 here, beyond the 2 listed: it was left out"]),
        (
            (0, 3),
            [
                "2: student:ann has an entry number 2 here, but it is listed as entry 3",
                "3: student:ann has an entry number 3 here, beyond the 2 listed: it was left out",
            ],
        ),
        ((0, 2, 3, 1), ["1: student:ann has an entry number 4 listed here, but its tag is nowhere in the log"]),
        ((), [f"{at}: student:ann has an entry number {n} here, beyond the 0 listed: it was left out"
              for n, at in ((1, 0), (2, 2), (3, 3))]),
    ],
    ids=["the last is left out", "one in the middle is left out", "one is invented", "all are left out"],
)  # fmt: skip
def test_a_false_list_is_found_out(indices: tuple[int, ...], expected: list[str]) -> None:
    """Whatever is left out, moved or invented is named with its place."""
    assert details(list(check_complete(claim(*indices), 4, LEAVES))) == expected


def test_a_tag_that_is_there_twice_is_found() -> None:
    """One number is one entry."""
    (found,) = check_complete(claim(0, 2, 3), 5, [*LEAVES, leaf(KEY, 2)])
    assert found.detail == "student:ann has an entry number 2 more than once: at 2, 4"


def test_a_count_that_jumps_hides_nothing() -> None:
    """An entry numbered 700 behind entry 3 is found, though number 4 is nowhere."""
    (found,) = check_complete(claim(0, 2, 3), 5, [*LEAVES, leaf(KEY, 700)])
    assert (found.index, "entry number 700" in found.detail) == (4, True)


def test_what_came_after_the_list_is_no_finding() -> None:
    """The list speaks of the first entries; a newer copy of the log may hold more."""
    assert list(check_complete(claim(0, 2), 3, LEAVES)) == []


@given(st.data())
def test_only_the_truth_passes(data: st.DataObject) -> None:
    """Of all lists about a random log, the true one passes and no other."""
    owners = data.draw(st.lists(st.sampled_from([KEY, OTHER]), max_size=12))
    counts, leaves, true = {KEY: 0, OTHER: 0}, [], []
    for index, owner in enumerate(owners):
        counts[owner] += 1
        leaves.append(leaf(owner, counts[owner]))
        true += [index] if owner == KEY else []
    said = data.draw(st.one_of(st.just(true), st.lists(st.integers(0, 12), max_size=8)))
    passed = not list(check_complete(claim(*said), len(leaves), leaves))
    assert passed == (said == true)
