"""A log's keys: which signs which checkpoint, and what is not taken for a rotation."""

from __future__ import annotations

import json
import pickle
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from archive import (
    TABLES,
    ControlDraft,
    Head,
    IntegrityError,
    KeyRing,
    Log,
    MemoryStore,
    next_key_id,
    plan,
    read_rotation,
    ring_of,
    rotation_body,
    rotation_statement,
)
from merkle import Checkpoint, Ed25519Signer, FormatError, SignatureError, sign_checkpoint, sign_note

VECTORS = Path(__file__).parents[1] / "vectors" / "archive"
ORIGIN = "example.org/log"
KEYS = [Ed25519Signer(ORIGIN, bytes([n]) * 32) for n in range(4)]


Step = dict[str, Any] | int


def store_of(steps: Sequence[Step]) -> MemoryStore:
    """Return a log with one entry a block: a body, or the number of the key to rotate to."""
    store, head, key = MemoryStore(TABLES), Head(), KEYS[0]
    for index, step in enumerate(steps):
        body = rotation_body(index, key, KEYS[step]) if isinstance(step, int) else step
        planned = plan(head, ORIGIN, [ControlDraft(body)], 5, bytes(44), signing(key))
        store.commit(planned.writes)
        head = planned.head
        key = KEYS[step] if isinstance(step, int) else key
    return store


def signing(key: Ed25519Signer) -> Callable[[str], bytes]:
    """Return what signs with a key."""
    return lambda text: sign_note(text, [key])


OTHER: Step = {"control": "start"}


def ring(steps: Sequence[Step], known: int) -> KeyRing:
    """Return what somebody makes of a log who knows one key."""
    with store_of(steps).view() as view:
        return ring_of(Log(view, len(steps)), KEYS[known].verifier)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_who_knows_one_key_can_follow_to_all_others(known: int) -> None:
    """From the first key on, or back from a later one: the same ring."""
    made = ring([OTHER, OTHER, 1, OTHER, 2, OTHER], known)
    assert made.keys == [(0, KEYS[0].verifier), (4, KEYS[1].verifier), (6, KEYS[2].verifier)]
    assert [made.at(size) for size in range(8)] == [
        *[KEYS[0].verifier] * 4,
        *[KEYS[1].verifier] * 2,
        *[KEYS[2].verifier] * 2,
    ]
    assert made.current == KEYS[2].verifier


def test_every_checkpoint_of_a_log_opens_with_its_ring() -> None:
    """The rule by which the archiver signs is the rule by which others check."""
    steps: list[Step] = [OTHER, 1, OTHER, 2, OTHER]
    with store_of(steps).view() as view:
        log = Log(view, len(steps))
        made = pickle.loads(pickle.dumps(ring_of(log, KEYS[0].verifier)))
        assert [made.open(note).size for _, note in log.checkpoints()] == [1, 2, 3, 4, 5]


def test_a_key_signs_neither_before_nor_after_its_time() -> None:
    """A checkpoint by a key that was not the log's at that size is refused: a stolen old key is of no use."""
    made = ring([OTHER, 1, OTHER], 0)
    for key, size in ((0, 3), (1, 2), (3, 1)):
        with pytest.raises(SignatureError):
            made.open(sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), KEYS[key]))


def test_a_log_that_never_rotated_has_one_key() -> None:
    """The key that is known is the key, whatever else is in the log."""
    assert ring([OTHER, OTHER], 0).keys == [(0, KEYS[0].verifier)]
    with store_of([]).view() as view:
        assert ring_of(Log(view, 0), KEYS[0].verifier).keys == [(0, KEYS[0].verifier)]


def test_a_stranger_to_the_log_is_told_so() -> None:
    """A key that the log never had is not taken for the first, where the log has rotated."""
    with pytest.raises(IntegrityError, match="never signed by"):
        ring([OTHER, 1, OTHER], 3)


def test_a_rotation_that_the_checkpoints_do_not_follow_is_found() -> None:
    """If the old key signs on after a rotation, the check of control entries says so."""
    steps: list[Step] = [OTHER, rotation_body(1, KEYS[0], KEYS[1]), OTHER]
    with store_of(steps).view() as view:
        made = ring_of(Log(view, 3), KEYS[0].verifier)
    made.check(0, {"control": "start"})
    with pytest.raises(IntegrityError, match="do not follow"):
        made.check(1, rotation_body(1, KEYS[0], KEYS[1]))
    sound = ring([OTHER, 1, OTHER], 0)
    sound.check(1, rotation_body(1, KEYS[0], KEYS[1]))


def test_a_rotation_in_the_middle_of_a_block_is_refused() -> None:
    """Then no checkpoint by the old key would cover it and nothing later."""
    drafts = [ControlDraft(rotation_body(0, KEYS[0], KEYS[1])), ControlDraft({"control": "start"})]
    store = MemoryStore(TABLES)
    store.commit(plan(Head(), ORIGIN, drafts, 5, bytes(88), signing(KEYS[1])).writes)
    with store.view() as view, pytest.raises(IntegrityError, match="does not end its block"):
        ring_of(Log(view, 2), KEYS[0].verifier)


def test_the_next_key_is_known_without_reading_the_log() -> None:
    """It is the last checkpoint's, unless the last entry rotates."""
    cases: list[tuple[list[Step], int]] = [
        ([OTHER], 0),
        ([OTHER, 1], 1),
        ([OTHER, 1, OTHER], 1),
        ([OTHER, 1, 2], 2),
    ]
    for steps, key in cases:
        with store_of(steps).view() as view:
            assert next_key_id(Log(view, len(steps))) == KEYS[key].key_id
    with store_of([]).view() as view:
        assert next_key_id(Log(view, 0)) is None


def test_a_rotation_of_somebody_else_is_refused() -> None:
    """Away from a key that is not the log's, back to one that it gave up, or to the one that it has."""
    made = ring([OTHER, 1, OTHER], 0)
    for old, new, complaint in ((2, 3, "not the log's"), (1, 0, "given up"), (1, 1, "given up")):
        with pytest.raises(IntegrityError, match=complaint):
            made.learn(9, rotation_body(9, KEYS[old], KEYS[new]))


def test_both_keys_must_have_signed_and_for_this_place() -> None:
    """Neither the old key alone, nor the new one, nor both for another index or origin, make a rotation."""
    good = rotation_body(7, KEYS[0], KEYS[1])
    assert read_rotation(7, good) == (KEYS[0].verifier, KEYS[1].verifier)
    foreign = Ed25519Signer("example.org/other", bytes(32))
    wrong: list[dict[str, Any]] = [
        {**good, "old_signature": good["new_signature"]},
        {**good, "new_signature": good["old_signature"]},
        {**good, "new": KEYS[2].verifier.encode()},
        {**good, "old_signature": ""},
        {**good, "old_signature": "é"},
        {**good, "old": 5},
        {name: value for name, value in good.items() if name != "new"},
        rotation_body(8, KEYS[0], KEYS[1]),
        rotation_body(7, KEYS[0], foreign),
    ]
    for body in wrong:
        with pytest.raises(IntegrityError):
            read_rotation(7, body)


def test_the_statement_can_be_taken_for_nothing_else() -> None:
    """Whatever origin and index, what the keys sign for a rotation is no checkpoint."""
    for origin in ("1", "18446744073709551615", "a"):
        old, new = (Ed25519Signer(origin, bytes([n]) * 32).verifier for n in range(2))
        with pytest.raises(FormatError):
            Checkpoint.decode(rotation_statement(2**63, old, new).decode())


def test_the_rotation_is_the_golden_one() -> None:
    """Its statement and its bytes in the log are a format: docs/formats/entry.md."""
    case = json.loads((VECTORS / "rotation.json").read_text())
    old, new = (Ed25519Signer(case["origin"], bytes.fromhex(case[name])) for name in ("old_seed", "new_seed"))
    statement = rotation_statement(case["index"], old.verifier, new.verifier)
    assert statement == "".join(f"{line}\n" for line in case["statement"]).encode()
    body = rotation_body(case["index"], old, new)
    assert body == case["body"]
    assert body["old_signature"] == b64encode(old.sign(statement)).decode()
    assert read_rotation(case["index"], case["body"]) == (old.verifier, new.verifier)
