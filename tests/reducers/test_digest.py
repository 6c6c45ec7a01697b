"""One digest for all states: the specified bytes, for any order, any number of shards and any hash seed."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reducers import (
    Slot,
    StateError,
    StatePair,
    digest_of_entries,
    entry_digest,
    leaf_data,
    pair_of,
    state_digest,
)
from reducers.event_count import EventCount, event_count
from reducers.last_activity import LastActivity, last_activity

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/state/digest.json").read_text())

PAIRS = st.lists(
    st.builds(
        StatePair,
        st.sampled_from(["a", "ab", "b"]),
        st.integers(1, 3),
        st.lists(st.text(max_size=3), min_size=1, max_size=2).map(tuple),
        st.binary(max_size=8),
        st.none() | st.integers(0, 2**64 - 1),
    ),
    max_size=12,
    unique_by=lambda pair: pair.identity,
)


def pair_from(vector: dict[str, Any]) -> StatePair:
    """The pair that a vector describes."""
    return StatePair(
        vector["reducer"],
        vector["version"],
        tuple(vector["key"]),
        vector["encoding"].encode(),
        vector["error_index"],
    )


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, transcribed: the second implementation."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\1" + root_by_definition(leaves[:k]) + root_by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("vector", VECTORS["pairs"], ids=lambda vector: vector["leaf_hash"][:8])
def test_a_leaf_is_byte_for_byte_as_specified(vector: dict[str, Any]) -> None:
    """The golden leaves of docs/formats/state.md never change."""
    pair = pair_from(vector)
    assert leaf_data(pair).hex() == vector["leaf_data"]
    assert entry_digest(pair).hex() == vector["leaf_hash"]


def test_digests_of_the_golden_sets_never_change() -> None:
    """Sets given by positions in the list of pairs, in any order; the empty set has the empty root."""
    pairs = [pair_from(vector) for vector in VECTORS["pairs"]]
    for vector in VECTORS["sets"]:
        chosen = [pairs[position] for position in vector["pairs"]]
        assert state_digest(chosen).hex() == vector["state_digest"]
        assert state_digest(reversed(chosen)).hex() == vector["state_digest"]


@given(PAIRS)
def test_the_digest_is_the_rfc_6962_root_over_sorted_leaves(pairs: list[StatePair]) -> None:
    """Sorted by name, version and key, strings by UTF-8 bytes, as anyone would write it from the page."""
    ordered = sorted(pairs, key=lambda p: (p.name.encode(), p.version, [field.encode() for field in p.key]))
    assert state_digest(pairs) == root_by_definition([leaf_data(pair) for pair in ordered])


@given(PAIRS, st.integers(1, 5))
def test_the_digest_does_not_depend_on_shards(pairs: list[StatePair], shards: int) -> None:
    """However the keys are dealt out, the union has the digest of the whole."""
    dealt = [pair for shard in range(shards) for pair in pairs[shard::shards]]
    assert state_digest(dealt) == state_digest(pairs)
    assert digest_of_entries({pair.identity: entry_digest(pair) for pair in dealt}) == state_digest(pairs)


@given(PAIRS, PAIRS)
def test_different_sets_have_different_digests(one: list[StatePair], two: list[StatePair]) -> None:
    """Nothing of a pair is left out of its leaf, and no two pairs share one."""
    same = {(p.identity, p.encoding, p.error_index) for p in one} == {
        (p.identity, p.encoding, p.error_index) for p in two
    }
    assert (state_digest(one) == state_digest(two)) == same


@pytest.mark.parametrize(
    "change",
    [
        StatePair("b", 1, ("k", "l"), b"7"),
        StatePair("a", 2, ("k", "l"), b"7"),
        StatePair("a", 1, ("k",), b"7"),
        StatePair("a", 1, ("kl", ""), b"7"),
        StatePair("a", 1, ("", "kl"), b"7"),
        StatePair("a", 1, ("k", "l"), b"8"),
        StatePair("a", 1, ("k", "l"), b"7", 0),
        StatePair("a", 1, ("k", "l"), b"7", 1),
    ],
)
def test_each_field_counts(change: StatePair) -> None:
    """A change of one field only changes the leaf."""
    assert entry_digest(change) != entry_digest(StatePair("a", 1, ("k", "l"), b"7"))


def test_two_states_for_one_key_are_a_fault() -> None:
    """Two shards that both hold a key are found, rather than hashed."""
    pair = StatePair("a", 1, ("k",), b"7")
    with pytest.raises(ValueError, match="two states for one key"):
        state_digest([pair, StatePair("a", 1, ("k",), b"8")])


def test_a_slot_contributes_state_and_quarantine_but_no_hint() -> None:
    """When a state was last replaced and how an error is worded may differ, and do not count."""
    one = pair_of(event_count, ("ann",), Slot(EventCount(3), 9, "ValueError: a", 9))
    two = pair_of(event_count, ("ann",), Slot(EventCount(3), 5, "ValueError: at 0x7f", 9))
    assert one == two == StatePair("event_count", 1, ("ann",), b'{"events":3}', 9)


def test_a_state_without_encoding_is_refused_by_name() -> None:
    """No digest stands for a state that could not be stored."""
    with pytest.raises(StateError, match="last_activity"):
        pair_of(last_activity, ("ann",), Slot(LastActivity(type="\ud800"), 0))


SEEDED = """
from archive import Event
from reducers import fold, pair_of, reducer, state_digest

@reducer()
def words(state: dict[str, set[str]], event: Event) -> dict[str, set[str]]:
    return {key: state.get(key, set()) | {event.data} for key in {event.data[:1], *state}}

events = [
    Event(index=i, type="t", source="s", keys={"student": f"s{i % 5}"}, data=word, received_ms=0, time_ms=0)
    for i, word in enumerate(f"{n * n % 23}w" for n in range(200))
]
print(state_digest({pair_of(words, key, slot) for key, slot in fold(words, events).items()}).hex())
"""


def test_the_digest_does_not_depend_on_the_hash_seed() -> None:
    """Sets and dicts in a state are encoded alike in every process, whatever order they iterate in."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", SEEDED],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "4242")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
