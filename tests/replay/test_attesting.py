"""Attestations: what shards note at a size is joined to one digest, and judged by a replay that reads no further."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Attest, MemoryStore, Retry, Skip, Store
from reducers import Identity, digest_of_entries
from replay import (
    STATE_TABLES,
    AttestedDifference,
    Gathered,
    compared,
    forget_note,
    info_of,
    is_attested,
    joined,
    judged,
    next_attested,
    notes,
    passed_by,
    take_note,
)
from tests.world import World, event, run, touchy

INFO = info_of(touchy)
ATTEST = Attest(1_000, "touchy", 1, INFO.code_digest, 2, "a" * 64)


@pytest.fixture(autouse=True)
def _attested_however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of states be enough; that it is not is a test of its own."""
    monkeypatch.setattr("replay.attesting.STATES_MIN", 1)


def noted(world: World, shards: int, size: int) -> list[Store]:
    """Return the stores of all shards, saved and noted at a size, whether or not states are attested there."""
    stores: list[Store] = []
    for shard, runner in enumerate(world.runners(shards)):
        run(runner, world.source, size)
        runner.save(world.source)
        stores.append(world.states[shard, shards])
        assert take_note(stores[-1], [INFO], size)
    return stores


def small() -> World:
    """Return a world in which three students did something, one of whom stands still."""
    world = World(reducers=[touchy])
    world.append(
        [event(name, kind) for name in ("ann", "bob", "eve") for kind in ("good", "bad")[: len(name)]]
    )
    world.append([event("kim", "good"), event("ann", "good")])
    return world


@given(st.integers(0, 3_000_000))
def test_the_next_size_is_the_next(size: int) -> None:
    """The next one is attested, none between is, and it is no further than the size itself is large."""
    following = next_attested(size)
    assert is_attested(following)
    assert following > size
    step = 10 ** (len(str(max(size, 999))) - 1) if size >= 1_000 else 1_000
    assert not any(is_attested(one) for one in range(size + 1, following, max(step // 100, 1)))
    assert following - size <= step


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_any_number_of_shards_attests_the_same(shards: int) -> None:
    """What shards noted is joined to the digest of a replay: the number of shards does not show."""
    world = small()
    found = joined(noted(world, shards, world.size), INFO, world.size)
    assert found is not None
    assert found.attest.digest == world.digest().hex()
    assert (found.attest.states, found.attest.size) == (4, world.size)


def test_nothing_is_joined_while_a_note_is_missing() -> None:
    """A shard that is behind holds the attestation up; once it has noted, it is made."""
    world = small()
    stores = noted(world, 2, world.size)
    forget_note(stores[1], world.size)
    assert joined(stores, INFO, world.size) is None
    assert take_note(stores[1], [INFO], world.size)
    assert joined(stores, INFO, world.size) is not None


def test_a_note_is_of_the_size_at_which_the_store_stands() -> None:
    """A store that stands elsewhere, or holds nothing, gives no note: it would attest what never was."""
    world = small()
    (store,) = noted(world, 1, 4)
    assert not take_note(store, [INFO], 5)
    assert not take_note(MemoryStore(STATE_TABLES), [INFO], 4)
    assert notes(store) == [4]


def test_who_has_gone_on_without_a_note_is_passed_by() -> None:
    """A shard that is behind, or stands there, or has noted is waited for; one that went on without is not."""
    world = small()
    (store,) = noted(world, 1, 4)
    assert not passed_by(store, 4)
    assert not passed_by(store, 5)
    runner = world.runner()
    run(runner, world.source)
    runner.save(world.source)
    assert not passed_by(store, 4)
    assert passed_by(store, 5)
    assert not passed_by(store, world.size)
    forget_note(store, 4)
    assert passed_by(store, 4)
    assert not passed_by(MemoryStore(STATE_TABLES), 4)


def test_notes_say_how_far_steering_was_read() -> None:
    """A shard that had read a skip ahead may have it in its states: whoever joins must have read as far."""
    world = small()
    early = joined(noted(world, 2, 4), INFO, 4)
    world.states.clear()
    runners = world.runners(2)
    skip = world.steer(Skip("touchy", 3))
    for shard, runner in enumerate(runners):
        while runner.position < 4:
            runner.step(world.source, 4, ahead=shard == 1)
        runner.save(world.source)
        take_note(world.states[shard, 2], [INFO], 4)
    late = joined([world.states[shard, 2] for shard in range(2)], INFO, 4)
    assert early is not None
    assert late is not None
    assert early.steered <= skip < late.steered


def test_an_attestation_is_appended_compared_or_left() -> None:
    """New: append it.  There, and the same: nothing.  There, and another: a difference that names the entry."""
    steering = Gathered()
    assert compared(steering, ATTEST) == ATTEST
    steering.take(1_004, ATTEST)
    assert compared(steering, ATTEST) is None
    other = msgspec.structs.replace(ATTEST, digest="b" * 64)
    assert compared(steering, other) == AttestedDifference(1_004, ATTEST, other)
    assert compared(steering, msgspec.structs.replace(other, version=2)) is not None


@pytest.mark.parametrize(
    ("steered", "is_left"),
    [
        (Skip("touchy", 7), True),
        (Retry(reducer="touchy", index=7), True),
        (Skip("touchy", 1_500), False),
        (Skip("other", 7), False),
        (Retry(module="touchy"), False),
    ],
)
def test_what_a_later_skip_entered_is_not_attested(steered: Skip | Retry, *, is_left: bool) -> None:
    """Only a skip or a retry of the same reducer, and of an event before the size, keeps a size from being attested."""
    steering = Gathered()
    steering.take(1_600, steered)
    assert (compared(steering, ATTEST) is None) == is_left


# --- judging -------------------------------------------------------------------------------------

STATES: dict[Identity, bytes] = {("touchy", 1, (name,)): name.encode() * 8 for name in ("anna", "bobo")}
TRUE = msgspec.structs.replace(ATTEST, digest=digest_of_entries(STATES).hex())


def test_a_true_attestation_is_equal_whatever_came_later() -> None:
    """What a replay gives again needs no excuse: neither a skip nor an erasure is looked at."""
    steering = Gathered()
    steering.take(1_004, TRUE)
    steering.take(1_600, Skip("touchy", 7))
    assert judged(steering, 1_004, TRUE, STATES, erased=3).verdict == "equal"


@pytest.mark.parametrize(
    ("at", "steered", "erased", "verdict"),
    [
        (1_600, None, 0, "different"),
        (1_600, Skip("touchy", 7), 0, "different"),
        (1_003, Skip("touchy", 7), 0, "superseded"),
        (1_600, Retry(reducer="touchy", index=7), 0, "superseded"),
        (1_600, Retry(reducer="touchy", index=1_200), 0, "different"),
        (1_600, Retry(reducer="other", index=7), 0, "different"),
        (900, Skip("touchy", 7), 0, "different"),
        (1_600, Skip("touchy", 7), 2, "erased"),
    ],
)
def test_an_untrue_attestation_has_three_excuses(
    at: int, steered: Skip | Retry | None, erased: int, verdict: str
) -> None:
    """A skip read ahead, a retry at any time, and erased entries excuse it; a skip that came later does not."""
    steering = Gathered()
    if steered is not None:
        steering.take(at, steered)
    found = judged(steering, 1_004, ATTEST, STATES, erased=erased)
    assert (found.verdict, found.by) == (verdict, at if verdict == "superseded" else None)
    assert found.found.digest == TRUE.digest


def test_a_count_that_is_wrong_is_a_difference() -> None:
    """The digest alone is not all that is attested: the number of states must be right, too."""
    wrong = msgspec.structs.replace(TRUE, states=3)
    assert judged(Gathered(), 1_004, wrong, STATES, erased=0).verdict == "different"


def test_few_states_are_not_attested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows a student could try what hashes to a digest that stands for him alone: it is not published."""
    monkeypatch.setattr("replay.attesting.STATES_MIN", 10)
    few, enough = (msgspec.structs.replace(ATTEST, states=states) for states in (9, 10))
    assert compared(Gathered(), few) is None
    assert compared(Gathered(), enough) == enough
