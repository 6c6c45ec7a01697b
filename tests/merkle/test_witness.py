"""A witness's decisions: every combination of sizes, roots and proofs of small trees, and every refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    ML_DSA_44,
    SIZE_TYPE,
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    Ed25519Signer,
    FormatError,
    NoteError,
    Signature,
    SignatureError,
    Witness,
    WitnessAnswer,
    cosigned_at,
    open_note,
    read_cosignatures,
    sign_note,
)
from tests.merkle.rfc6962 import consistency, mth

ORIGIN = "example.com/log"
LOG = Ed25519Signer(ORIGIN, bytes(32))
COSIGNER = Cosigner("witness.example/w", bytes(32))
WITNESS = Witness([LOG.verifier], [COSIGNER])
TRUNK = [b"%d" % n for n in range(8)]
FORK = [*TRUNK[:3], *(b"forged %d" % n for n in range(3, 8))]


def note(size: int, entries: Sequence[bytes] = TRUNK, signer: Ed25519Signer = LOG) -> bytes:
    """Return a signed checkpoint of the first `size` entries."""
    return sign_note(Checkpoint(signer.name, size, mth(entries[:size])).encode(), [signer])


@cache
def remembering(size: int) -> bytes | None:
    """Return what a witness remembers that cosigned the trunk at this size."""
    answer = WITNESS.decide(AddCheckpoint(0, (), note(size)).encode(), lambda _: None, 100)
    return answer.remember


def ask(
    body: bytes, memory: bytes | None = None, witness: Witness = WITNESS, now_s: int = 200
) -> WitnessAnswer:
    """Return the answer to a request."""
    return witness.decide(body, lambda _: memory, now_s)


def proofs(old: int, new: int) -> list[list[bytes]]:
    """Return proofs to try: the right ones of both trees, none, one cut short, one with a hash too many."""
    right = [consistency(old, tree[:new]) for tree in (TRUNK, FORK)] if 0 < old < new else []
    return [[], [bytes(32)], *right, *(one[:-1] for one in right), *([*one, bytes(32)] for one in right)]


def expected(kept: int, old: int, new: int, tree: list[bytes], proof: list[bytes]) -> int:
    """Return the status that C2SP tlog-witness asks for, by the recursive definitions of RFC 6962."""
    if old > new:
        return 400
    if old != kept:
        return 409
    if old in (0, new):
        return 200 if not proof and mth(tree[:old]) == mth(TRUNK[:old]) else 422
    continues = tree[:old] == TRUNK[:old] and proof == consistency(old, tree[:new])
    return 200 if continues else 422


def test_every_small_case_is_decided_as_specified() -> None:
    """For all sizes up to 8, on the trunk and on a fork, with right and wrong proofs: status, body and memory."""
    seen = dict.fromkeys((200, 400, 409, 422), 0)
    for kept, old, new, tree in product(range(9), range(9), range(9), (TRUNK, FORK)):
        memory = remembering(kept)
        signed = note(new, tree)
        for proof in proofs(old, new):
            answer = ask(AddCheckpoint(old, tuple(proof), signed).encode(), memory)
            case = kept, old, new, tree is FORK, len(proof)
            assert answer.status == expected(kept, old, new, tree, proof), case
            assert (answer.remember is not None) == (answer.status == 200), case
            if answer.status == 409:
                assert (answer.body, answer.content_type) == (b"%d\n" % kept, SIZE_TYPE), case
            seen[answer.status] += 1
    assert min(seen.values()) > 50


def test_a_cosignature_is_answered_and_remembered_with_the_logs() -> None:
    """Status 200 gives signature lines that open over the checkpoint; what is remembered carries both signatures."""
    answer = ask(AddCheckpoint(0, (), note(5)).encode())
    (signature,) = read_cosignatures(answer.body, Checkpoint(ORIGIN, 5, mth(TRUNK[:5])), [COSIGNER.verifier])
    assert cosigned_at(signature) == 200
    assert answer.remember is not None
    opened = open_note(answer.remember, [LOG.verifier, COSIGNER.verifier])
    assert [one.name for one in opened.verified] == [ORIGIN, COSIGNER.verifier.name]
    assert WITNESS.remembered(ORIGIN, answer.remember) == (5, mth(TRUNK[:5]), 200)


def test_a_log_can_neither_go_back_nor_fork_over_any_walk() -> None:
    """Whatever is asked in whatever order, the remembered sizes never shrink and all lie on one tree."""
    requests = [
        AddCheckpoint(old, tuple(proof), note(new, tree)).encode()
        for old, new, tree in product((0, 2, 5), (2, 5, 8), (TRUNK, FORK))
        for proof in proofs(old, new)
    ]
    for first in requests:
        memory = ask(first).remember
        for second in requests:
            third = ask(second, memory).remember
            if memory is not None and third is not None:
                size, root, _ = WITNESS.remembered(ORIGIN, memory)
                larger, larger_root, _ = WITNESS.remembered(ORIGIN, third)
                assert larger >= size
                assert larger_root in {
                    mth(tree[:larger]) for tree in (TRUNK, FORK) if mth(tree[:size]) == root
                }


def test_an_empty_log_has_one_root() -> None:
    """Size 0 with any other root than that of nothing is 422, also for a log that was never seen."""
    wrong = sign_note(Checkpoint(ORIGIN, 0, bytes(32)).encode(), [LOG])
    assert ask(AddCheckpoint(0, (), wrong).encode()).status == 422
    assert ask(AddCheckpoint(0, (), note(0)).encode()).status == 200


def test_an_unknown_log_is_404_and_an_unsigned_one_403() -> None:
    """404 for an origin that is not configured; 403 where its known keys did not sign, or one signed wrongly."""
    stranger = Ed25519Signer("example.com/other", bytes(32))
    assert ask(AddCheckpoint(0, (), note(5, signer=stranger)).encode()).status == 404
    other_key = Ed25519Signer(ORIGIN, bytes([1]) * 32)
    assert ask(AddCheckpoint(0, (), note(5, signer=other_key)).encode()).status == 403
    wrong = Signature(ORIGIN, LOG.key_id, bytes(64)).encode()
    assert ask(AddCheckpoint(0, (), note(5) + f"{wrong}\n".encode()).encode()).status == 403
    unknown = Signature("somebody", LOG.key_id, bytes(64)).encode()
    assert ask(AddCheckpoint(0, (), note(5) + f"{unknown}\n".encode()).encode()).status == 200


def test_the_log_is_judged_before_its_sizes() -> None:
    """Nobody who cannot sign for a log learns what size is remembered of it."""
    other_key = Ed25519Signer(ORIGIN, bytes([1]) * 32)
    assert ask(AddCheckpoint(7, (), note(5, signer=other_key)).encode(), remembering(3)).status == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n\n",
        b"old 0\n" + note(5),
        b"old 00\n\n" + note(5),
        b"old -1\n\n" + note(5),
        b"old +1\n\n" + note(5),
        b"old \n\n" + note(5),
        b"new 0\n\n" + note(5),
        b"Old 0\n\n" + note(5),
        b"old 18446744073709551616\n\n" + note(5),
        b"old 0\r\n\n" + note(5),
        b"old 0\n\n\n" + note(5),
        b"old 0\nAAAA\n\n" + note(5),
        b"old 0\nnot base64\n\n" + note(5),
        b"old 0\n" + b"A" * 43 + b"B\n\n" + note(5),
        b"old 0\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + note(5),
        b"old 0\n\xff\n\n" + note(5),
        b"old 0\n\n" + note(5)[:-1],
        b"old 0\n\n" + sign_note("example.com/log\n5\n", [LOG]),
        b"old 0\n\n" + sign_note("example.com/log\n05\n" + note(5).decode().split("\n")[2] + "\n", [LOG]),
        b"old 0\n\nexample.com/log\n5\nAAAA\n",
    ],
)
def test_what_is_malformed_is_400(body: bytes) -> None:
    """Whatever is not a request by the specification's grammar is refused before anything is looked up."""
    answer = ask(body, remembering(3))
    assert (answer.status, answer.remember) == (400, None)
    assert answer.body.endswith(b"\n")


def test_63_proof_lines_are_read() -> None:
    """The longest proof that the specification allows is judged by its hashes, not by its length."""
    body = AddCheckpoint(0, tuple([bytes(32)] * 63), note(5)).encode()
    assert ask(body).status == 422
    with pytest.raises(FormatError):
        AddCheckpoint(0, tuple([bytes(32)] * 64), note(5))


@given(st.binary(max_size=200) | st.text("old 12\n\nA=— xyz", max_size=60).map(str.encode))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """A request that is read is written again as the same bytes; the witness answers 400 to all others."""
    try:
        assert AddCheckpoint.decode(data).encode() == data
    except FormatError:
        assert ask(data).status == 400


def test_cosigning_the_same_checkpoint_again_renews_the_time() -> None:
    """A log that does not grow is still looked at: the same size and root are cosigned anew."""
    answer = ask(AddCheckpoint(5, (), note(5)).encode(), remembering(5), now_s=900)
    assert answer.status == 200
    assert answer.remember is not None
    assert WITNESS.remembered(ORIGIN, answer.remember)[2] == 900


def test_time_does_not_run_backwards() -> None:
    """A witness whose clock was set back does not date a larger tree before a smaller one."""
    proof = consistency(3, TRUNK[:5])
    answer = ask(AddCheckpoint(3, tuple(proof), note(5)).encode(), remembering(3), now_s=7)
    assert answer.remember is not None
    assert WITNESS.remembered(ORIGIN, answer.remember)[2] == 100


def test_a_damaged_memory_is_never_taken_for_an_empty_one() -> None:
    """Whatever is remembered and cannot be read stops the witness for this log, rather than let it begin anew."""
    memory = remembering(5)
    assert memory is not None
    foreign = note(5, signer=Ed25519Signer("x", bytes(32)))
    for damaged in (b"", b"\0", memory[:-1], memory.replace(b"\n5\n", b"\n4\n"), foreign):
        with pytest.raises((FormatError, NoteError)):
            ask(AddCheckpoint(0, (), note(5)).encode(), damaged)


def test_the_memory_of_another_log_is_not_this_ones() -> None:
    """A file under a wrong name is damage: nothing is cosigned on the strength of it."""
    other = sign_note(Checkpoint("example.com/other", 5, mth(TRUNK[:5])).encode(), [COSIGNER.at(100)])
    with pytest.raises(SignatureError, match=r"is of 'example\.com/other'"):
        ask(AddCheckpoint(5, (), note(5)).encode(), other)


def test_two_keys_of_a_log_and_of_a_witness_serve_side_by_side() -> None:
    """While a log rotates either key is taken; a witness with two keys gives two cosignatures."""
    new = Ed25519Signer(ORIGIN, bytes([9]) * 32)
    second = Cosigner("witness.example/w", bytes(32), ML_DSA_44)
    witness = Witness([LOG.verifier, new.verifier, new.verifier], [COSIGNER, second])
    memory = None
    for signer, old, size in ((LOG, 0, 3), (new, 3, 5)):
        proof = consistency(old, TRUNK[:size]) if old else []
        answer = ask(AddCheckpoint(old, tuple(proof), note(size, signer=signer)).encode(), memory, witness)
        assert answer.status == 200
        memory = answer.remember
        both = [COSIGNER.verifier, second.verifier]
        assert len(read_cosignatures(answer.body, Checkpoint(ORIGIN, size, mth(TRUNK[:size])), both)) == 2
    assert memory is not None
    assert Witness([new.verifier], [Cosigner("renamed", bytes(32))]).remembered(ORIGIN, memory)[0] == 5


def test_extension_lines_are_cosigned_only_where_they_are_covered() -> None:
    """An ML-DSA-44 cosignature would not cover them: such a witness refuses the checkpoint."""
    text = Checkpoint(ORIGIN, 5, mth(TRUNK[:5]), ("extension",)).encode()
    body = AddCheckpoint(0, (), sign_note(text, [LOG])).encode()
    assert ask(body).status == 200
    answer = ask(body, witness=Witness([LOG.verifier], [Cosigner("w", bytes(32), ML_DSA_44)]))
    assert (answer.status, answer.remember) == (400, None)
    assert re.fullmatch(rb"w cannot cosign this at 200: [^\n]+\n", answer.body)


def test_a_witness_without_key_is_none() -> None:
    """A configuration that could cosign nothing is refused at once."""
    with pytest.raises(ValueError, match="needs a key"):
        Witness([LOG.verifier], [])


def test_the_answer_of_a_witness_is_not_believed_unseen() -> None:
    """Cosignatures over another checkpoint, by nobody known, without a time, or no note at all: none counts."""
    checkpoint, keys = Checkpoint(ORIGIN, 5, mth(TRUNK[:5])), [COSIGNER.verifier]
    good = ask(AddCheckpoint(0, (), note(5)).encode()).body
    stranger = Signature("stranger", b"abcd", bytes(72)).encode().encode() + b"\n"
    assert len(read_cosignatures(stranger + good, checkpoint, keys)) == 1
    with pytest.raises(SignatureError):
        read_cosignatures(good, Checkpoint(ORIGIN, 6, mth(TRUNK[:6])), keys)
    for useless in (stranger, b"", b"\n", b"hello\n", good[:-1], b"\xff\n", good.replace(b"\n", b"\n\n")):
        with pytest.raises(NoteError):
            read_cosignatures(useless, checkpoint, keys)
    timeless = Signature(
        COSIGNER.verifier.name, COSIGNER.verifier.key_id, bytes(8) + _sign_at_zero(checkpoint)
    )
    with pytest.raises(SignatureError, match="no time"):
        read_cosignatures(f"{timeless.encode()}\n".encode(), checkpoint, keys)


def _sign_at_zero(checkpoint: Checkpoint) -> bytes:
    return COSIGNER.sign(b"cosignature/v1\ntime 0\n" + checkpoint.encode().encode())


def test_refusals_say_what_to_do() -> None:
    """The body of a refusal is one line for people."""
    answer = ask(AddCheckpoint(3, (bytes(32),), note(5)).encode(), remembering(3))
    assert re.fullmatch(rb"[^\n]+\n", answer.body)


def test_a_request_is_laid_out_as_the_specification_shows() -> None:
    """Old size, proof lines, an empty line, the checkpoint: written out once by hand, and read back."""
    request = AddCheckpoint(20_852_014, (bytes(32), b"\xff" * 32), b"the checkpoint")
    by_hand = b"old 20852014\n" + b"A" * 43 + b"=\n" + b"/" * 42 + b"8=\n\nthe checkpoint"
    assert request.encode() == by_hand
    assert AddCheckpoint.decode(by_hand) == request
    assert AddCheckpoint(0, (), b"x").encode() == b"old 0\n\nx"


@pytest.mark.parametrize(
    ("old", "proof"), [(-1, ()), (2**64, ()), (0, (bytes(31),)), (0, (bytes(32), bytes(33)))]
)
def test_a_request_that_cannot_be_read_cannot_be_made(old: int, proof: tuple[bytes, ...]) -> None:
    """Whoever asks is held to the same limits as whoever answers."""
    assert AddCheckpoint(2**64 - 1, (bytes(32),) * 63, b"x").old == 2**64 - 1
    with pytest.raises(FormatError, match=r"cannot be the size|at most 63 hashes of 32 bytes"):
        AddCheckpoint(old, proof, b"x")


def test_answers_have_the_types_that_the_specification_gives_them() -> None:
    """Lines for people and signatures are text; only the remembered size has a type of its own."""
    good, stale = (
        ask(AddCheckpoint(0, (), note(5)).encode()),
        ask(AddCheckpoint(0, (), note(5)).encode(), remembering(3)),
    )
    assert (good.content_type, good.origin) == ("text/plain; charset=utf-8", ORIGIN)
    assert (stale.status, stale.content_type, stale.body) == (409, "text/x.tlog.size", b"3\n")
    assert (stale.origin, stale.remember) == ("", None)
    assert SIZE_TYPE == "text/x.tlog.size"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"hello", b"expected a line old <size>, not 'hello', and an empty line after the proof\n"),
        (b"old 0", b"expected a line old <size>, not 'old 0', and an empty line after the proof\n"),
        (b"\xff", b"a request is a line old <size>, proof lines, an empty line, a checkpoint\n"),
        (b"old 0\nx\n\ny", b"a proof line must be a hash in base64\n"),
        (AddCheckpoint(7, (), note(5)).encode(), b"old size 7 is above the checkpoint's, 5\n"),
    ],
)
def test_a_refusal_names_what_was_wrong(body: bytes, told: bytes) -> None:
    """Each with the value that was found, so that whoever asked can tell which of his lines it was."""
    answer = ask(body, remembering(3))
    assert (answer.status, answer.body, answer.content_type) == (400, told, "text/plain; charset=utf-8")
    if b"line" in told:
        with pytest.raises(FormatError):
            AddCheckpoint.decode(body)


def test_an_unknown_log_is_named_but_not_at_length() -> None:
    """The answer repeats what somebody sent, so it repeats no more than 200 characters of it."""
    for origin in ("example.com/other", "x" * 300):
        request = AddCheckpoint(0, (), note(5, signer=Ed25519Signer(origin, bytes(32)))).encode()
        assert ask(request).body == f"unknown log: {origin[:200]}\n".encode()


def test_what_is_remembered_is_asked_for_by_origin_and_once() -> None:
    """Two logs never share a memory; the logs that a witness knows are told in order."""
    other = Ed25519Signer("example.com/other", bytes([3]) * 32)
    witness, asked = Witness([LOG.verifier, other.verifier], [COSIGNER]), []
    assert witness.origins == [ORIGIN, "example.com/other"]

    def recall(origin: str) -> None:
        asked.append(origin)

    assert witness.decide(AddCheckpoint(0, (), note(5, signer=other)).encode(), recall, 5).status == 200
    assert asked == ["example.com/other"]


def test_the_latest_of_several_remembered_times_counts() -> None:
    """Keys of one witness may have signed at different times, and the log's own signature says none."""
    second = Cosigner("witness.example/w2", bytes([2]) * 32)
    text = Checkpoint(ORIGIN, 3, mth(TRUNK[:3])).encode()
    memory = sign_note(text, [LOG, second.at(150), COSIGNER.at(100)])
    witness = Witness([LOG.verifier], [COSIGNER, second])
    assert witness.remembered(ORIGIN, memory) == (3, mth(TRUNK[:3]), 150)
    assert witness.remembered(ORIGIN, note(3)) == (3, mth(TRUNK[:3]), 0)


def test_a_clock_beyond_all_times_is_held_at_the_last_one() -> None:
    """63 bits of seconds are all that a cosignature can say; a clock gone mad must not stop a witness for good."""
    answer = ask(AddCheckpoint(0, (), note(5)).encode(), now_s=2**70)
    assert answer.remember is not None
    assert WITNESS.remembered(ORIGIN, answer.remember)[2] == 2**63 - 1
    again = ask(AddCheckpoint(5, (), note(5)).encode(), answer.remember, now_s=5)
    assert again.status == 200


def test_a_clock_that_says_no_time_cosigns_nothing() -> None:
    """0 stands for *no time* in a cosignature, so a machine that believes to be in 1970 must not give one."""
    answer = ask(AddCheckpoint(0, (), note(5)).encode(), now_s=0)
    assert (answer.status, answer.remember) == (400, None)


def test_logs_are_told_apart_by_name_and_key_id() -> None:
    """Four bytes of key id may be the same by chance; the log with the other name is known all the same."""
    namesake = Ed25519Signer("example.com/other", bytes([3]) * 32).verifier
    object.__setattr__(namesake, "key_id", LOG.key_id)
    assert Witness([LOG.verifier, namesake], [COSIGNER]).origins == [ORIGIN, "example.com/other"]
