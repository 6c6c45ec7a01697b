"""Checkpoints: their text, what a signature covers, and whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    Checkpoint,
    Ed25519Signer,
    FormatError,
    NoteError,
    SignatureError,
    open_checkpoint,
    sign_checkpoint,
    sign_note,
)
from tests.merkle.rfc6962 import vectors

CT = vectors("ct_tree")
GOLDEN = vectors("checkpoint")
SIGNER = Ed25519Signer("example.com/log", bytes(range(32)))
ROOT = bytes.fromhex(CT["roots"][8])
CHECKPOINT = Checkpoint("example.com/log", 8, ROOT)
B64 = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="
LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)
CHECKPOINTS = st.builds(
    Checkpoint,
    LINES,
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(LINES, max_size=3).map(tuple),
)


def test_a_checkpoint_is_three_lines() -> None:
    """Origin, size and root, with a newline each, and nothing else."""
    assert CHECKPOINT.encode() == f"example.com/log\n8\n{B64}\n"


def test_the_golden_checkpoint_is_written_and_read() -> None:
    """The signed checkpoint of the eight-entry tree never changes, byte for byte."""
    note = GOLDEN["note"].encode()
    assert sign_checkpoint(CHECKPOINT, SIGNER) == note
    assert SIGNER.verifier.encode() == GOLDEN["vkey"]
    assert open_checkpoint(note, SIGNER.verifier) == CHECKPOINT


def test_the_example_of_the_specification_is_read() -> None:
    """The checkpoint that C2SP tlog-checkpoint shows."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.decode(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.encode() == text


@given(CHECKPOINTS)
def test_every_checkpoint_is_read_back(checkpoint: Checkpoint) -> None:
    """Writing and reading are inverse, extension lines included."""
    assert Checkpoint.decode(checkpoint.encode()) == checkpoint


@given(st.text(max_size=60) | st.lists(st.sampled_from(["a", "0", "8", "08", B64, "", "\n"])).map("\n".join))
def test_any_text_is_a_checkpoint_of_one_spelling_or_is_refused(text: str) -> None:
    """Nothing raises anything but the documented error; what is read is written back the same."""
    try:
        checkpoint = Checkpoint.decode(text)
    except FormatError:
        return
    assert checkpoint.encode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"a\n8\n{B64}",
        "a\n8\n",
        f"\n8\n{B64}\n",
        f"a\n\n{B64}\n",
        f"a\n08\n{B64}\n",
        f"a\n+8\n{B64}\n",
        f"a\n-8\n{B64}\n",
        f"a\n8 \n{B64}\n",
        f"a\n1_0\n{B64}\n",
        f"a\n٨\n{B64}\n",
        f"a\n{2**64}\n{B64}\n",
        f"a\n{'9' * 5000}\n{B64}\n",
        f"a\n8\n{B64[:-1]}\n",
        f"a\n8\n{B64[:-2]}h=\n",
        f"a\n8\n{B64} \n",
        "a\n8\nAAAA\n",
        "a\n8\nä\n",
        f"a\n8\n{B64}\n\n",
        f"a\n8\n{B64}\nx\n\n",
        f"a\n8\n{B64}\nx",
        f"a\r\n8\n{B64}\n",
        f"a\n8\n{B64}\nx\ty\n",
    ],
)
def test_any_other_spelling_is_refused(text: str) -> None:
    """One checkpoint has one text, which is what makes its signature mean one thing."""
    with pytest.raises(FormatError):
        Checkpoint.decode(text)


@pytest.mark.parametrize("size", ["08", str(2**64), "٨"])
def test_a_size_that_is_none_is_refused_with_both_rules(size: str) -> None:
    """Who sent too large a number is not told of zeros alone; 2^64 is the first that is."""
    with pytest.raises(FormatError, match=r"expected digits without leading zeros, below 2\^64$"):
        Checkpoint.decode(f"a\n{size}\n{B64}\n")


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, ROOT, ()),
        ("a\nb", 0, ROOT, ()),
        ("\ud800", 0, ROOT, ()),
        ("a", -1, ROOT, ()),
        ("a", 2**64, ROOT, ()),
        ("a", 0, ROOT[1:], ()),
        ("a", 0, ROOT, ("",)),
        ("a", 0, ROOT, ("x\ny",)),
    ],
)
def test_what_cannot_be_read_cannot_be_made(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    """A checkpoint that would be read differently, or not at all, never gets as far as a signature."""
    with pytest.raises(FormatError):
        Checkpoint(origin, size, root, extensions)


def test_a_key_signs_only_for_the_log_it_is_named_after() -> None:
    """A deployment that mixes up two logs cannot sign one's root in the other's name."""
    with pytest.raises(ValueError, match="must not sign for the log"):
        sign_checkpoint(Checkpoint("example.com/another", 8, ROOT), SIGNER)


def test_a_checkpoint_of_another_log_is_refused_though_well_signed() -> None:
    """A root of log A, signed by whatever key, cannot be passed off as one of log B."""
    note = sign_note(Checkpoint("example.com/another", 8, ROOT).encode(), [SIGNER])
    with pytest.raises(SignatureError, match=r"of the log 'example\.com/another', not of 'example\.com/log'"):
        open_checkpoint(note, SIGNER.verifier)
    assert open_checkpoint(note, SIGNER.verifier, origin="example.com/another").size == 8
    with pytest.raises(SignatureError, match="not of ''"):
        open_checkpoint(note, SIGNER.verifier, origin="")


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    """A valid signature over something else proves nothing about a log."""
    with pytest.raises(FormatError, match="origin, size and root"):
        open_checkpoint(sign_note("example.com/log\n", [SIGNER]), SIGNER.verifier)


def test_every_changed_bit_of_a_checkpoint_is_noticed() -> None:
    """Origin, size, root and signature are all covered."""
    note = GOLDEN["note"].encode()
    for at in range(len(note)):
        for bit in range(8):
            with pytest.raises(NoteError):
                open_checkpoint(note[:at] + bytes([note[at] ^ 1 << bit]) + note[at + 1 :], SIGNER.verifier)
