"""Cosignatures: published bytes, our own golden ones, and what must not pass for a cosignature."""

from __future__ import annotations

import base64
from struct import pack
from unittest.mock import Mock

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    ED25519_COSIGNATURE,
    LOG_TYPES,
    ML_DSA_44,
    WITNESS_TYPES,
    Checkpoint,
    CosignatureVerifier,
    Cosigner,
    Ed25519Signer,
    Ed25519Verifier,
    FormatError,
    NoteError,
    Signature,
    SignatureError,
    cosigned_at,
    cosigned_message,
    decode_vkey,
    open_checkpoint,
    open_note,
    sign_note,
    subtree_message,
)
from tests.merkle.rfc6962 import vectors

GOLDEN = vectors("cosignature")
TYPES = {"ed25519": ED25519_COSIGNATURE, "ml_dsa_44": ML_DSA_44}
TEXT = Checkpoint("example.com/log", 7, bytes(32)).encode()


@pytest.fixture(params=TYPES)
def cosigner(request: pytest.FixtureRequest) -> Cosigner:
    """Return a cosigner of each kind."""
    return Cosigner("witness.example/w", bytes(32), TYPES[request.param])


def test_the_example_of_the_specification_says_what_the_page_says() -> None:
    """Message and time of the published cosignature are made and read as C2SP tlog-cosignature shows them."""
    spec = GOLDEN["spec"]
    signature = Signature.decode(spec["line"])
    assert cosigned_at(signature) == spec["time"]
    message = cosigned_message(ED25519_COSIGNATURE, signature.name, spec["time"], spec["text"].encode())
    assert message == spec["message"].encode()


def test_a_published_key_and_time_are_read() -> None:
    """A witness of another implementation has the key id that we compute, and states the time that we read."""
    remora = GOLDEN["remora"]
    assert decode_vkey(remora["vkey"], WITNESS_TYPES).encode() == remora["vkey"]
    blob = base64.b64decode(remora["blob"])
    assert cosigned_at(Signature("remora.n621.de", blob[:4], blob[4:])) == remora["time"]


def test_a_published_ml_dsa_checkpoint_opens() -> None:
    """A checkpoint that another implementation signed with ML-DSA-44 is believed, and every altered one is not."""
    case = GOLDEN["litewitness"]
    verifier, note = decode_vkey(case["vkey"], LOG_TYPES), case["note"].encode()
    assert open_checkpoint(note, verifier).size == 1
    for altered in (note.replace(b"\n1\n", b"\n2\n"), note.replace(b"\n\n", b"\nextension\n\n")):
        with pytest.raises(SignatureError):
            open_checkpoint(altered, verifier)


@pytest.mark.parametrize("kind", TYPES)
def test_the_golden_cosignatures_open(kind: str) -> None:
    """What we cosigned once is believed for ever, under the same message."""
    case = GOLDEN[kind]
    verifier = decode_vkey(case["vkey"], WITNESS_TYPES)
    message = cosigned_message(TYPES[kind], verifier.name, case["time"], case["text"].encode())
    assert message == bytes.fromhex(case["message"])
    opened = open_note(f"{case['text']}\n{case['line']}\n".encode(), [verifier])
    assert cosigned_at(opened.verified[0]) == case["time"]
    assert Cosigner(verifier.name, bytes.fromhex(case["seed"]), TYPES[kind]).verifier == verifier


def test_ed25519_cosignatures_are_the_same_byte_for_byte() -> None:
    """Signing anew with the golden key and time gives the golden line."""
    case = GOLDEN["ed25519"]
    cosigner = Cosigner("witness.example/w1", bytes.fromhex(case["seed"]))
    assert sign_note(case["text"], [cosigner.at(case["time"])]).decode().endswith(f"\n\n{case['line']}\n")


def test_the_subtree_message_is_laid_out_as_specified() -> None:
    """Label, names behind their lengths, numbers in eight bytes big-endian, hash: written out once by hand."""
    by_hand = (
        b"subtree/v1\n\0" + b"\x01w" + pack(">Q", 5) + b"\x03log" + pack(">QQ", 8, 13) + bytes(range(32))
    )
    assert subtree_message(b"w", 5, b"log", 8, 13, bytes(range(32))) == by_hand


@given(st.integers(1, 2**63 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_what_is_cosigned_opens_at_its_time(time_s: int, size: int, root: bytes) -> None:
    """Any checkpoint, at any time that can be said."""
    cosigner = Cosigner("w", bytes(32))
    opened = open_note(
        sign_note(Checkpoint("log", size, root).encode(), [cosigner.at(time_s)]), [cosigner.verifier]
    )
    assert cosigned_at(opened.verified[0]) == time_s


def test_every_changed_byte_is_noticed(cosigner: Cosigner) -> None:
    """In the time or the signature: neither can be moved to another moment or another checkpoint."""
    signature = cosigner.at(1_700_000_000).sign(TEXT.encode())
    assert cosigner.verifier.verify(TEXT.encode(), signature)
    for at in (*range(8), 8, 40, len(signature) - 1):
        changed = bytearray(signature)
        changed[at] ^= 1
        assert cosigner.verifier.verify(TEXT.encode(), bytes(changed)) is False, f"byte {at}"
    for wrong in (b"", signature[:8], signature[:-1], signature + b"\0"):
        assert cosigner.verifier.verify(TEXT.encode(), wrong) is False
    assert cosigner.verifier.verify(TEXT.replace("7", "8").encode(), signature) is False
    assert cosigner.verifier.verify(b"no checkpoint", signature) is False


def test_a_cosignature_is_not_a_signature_of_another_kind() -> None:
    """The same secret as a log's key, a witness's or the other witness's never signs for one of the others."""
    seed, name = bytes(32), "example.com/log"
    log, witness = Ed25519Signer(name, seed), Cosigner(name, seed)
    assert log.key_id != witness.verifier.key_id
    with pytest.raises(SignatureError, match="no known key"):
        open_note(sign_note(TEXT, [witness.at(1)]), [log.verifier])
    forged = Signature(name, log.key_id, witness.at(1).sign(TEXT.encode())[8:])
    with pytest.raises(SignatureError, match="does not fit"):
        open_note(f"{TEXT}\n{forged.encode()}\n".encode(), [log.verifier])


def test_extension_lines_are_covered_or_refused() -> None:
    """Ed25519 covers them; ML-DSA-44 does not, so nothing with extension lines passes for signed under it."""
    text = TEXT + "extension\n"
    opened = Cosigner("w", bytes(32))
    signature = opened.at(1).sign(text.encode())
    assert opened.verifier.verify(text.encode(), signature)
    assert not opened.verifier.verify((TEXT + "extensiom\n").encode(), signature)
    other = Cosigner("w", bytes(32), ML_DSA_44)
    assert not other.verifier.verify(text.encode(), other.at(1).sign(TEXT.encode()))
    with pytest.raises(FormatError):
        other.at(1).sign(text.encode())


@pytest.mark.parametrize("time_s", [0, -1, 2**63, 2**64])
def test_a_time_that_cannot_be_said_is_not_signed(cosigner: Cosigner, time_s: int) -> None:
    """Zero says "no time", and times from 2**63 on are refused by the specification."""
    with pytest.raises(FormatError):
        cosigner.at(time_s).sign(TEXT.encode())


@pytest.mark.parametrize("time_s", [1, 2**62 - 1, 2**62, 2**63 - 1])
def test_every_other_time_is(cosigner: Cosigner, time_s: int) -> None:
    """From the first second after 1970 began to the last one that 63 bits hold."""
    signature = cosigner.at(time_s).sign(TEXT.encode())
    assert cosigner.verifier.verify(TEXT.encode(), signature)
    assert cosigned_at(Signature("w", b"1234", signature)) == time_s


def test_what_is_no_checkpoint_is_not_cosigned(cosigner: Cosigner) -> None:
    """A witness's key speaks of checkpoints only."""
    for text in (b"", b"hello\n", b"log\n01\n" + TEXT.encode()[17:], b"\xff\n1\n"):
        with pytest.raises(FormatError):
            cosigner.at(1).sign(text)
        assert not cosigner.verifier.verify(text, bytes(72))


def test_names_too_long_for_ml_dsa_are_refused() -> None:
    """Name and origin stand behind one byte of length each, counted in UTF-8."""
    longest = Checkpoint("o" * 255, 1, bytes(32)).encode().encode()
    assert cosigned_message(ML_DSA_44, "w" * 255, 1, longest) is not None
    assert cosigned_message(ML_DSA_44, "ü" * 128, 1, longest) is None
    text = Checkpoint("o" * 256, 1, bytes(32)).encode().encode()
    assert cosigned_message(ML_DSA_44, "w", 1, text) is None
    assert cosigned_message(ML_DSA_44, "w" * 256, 1, TEXT.encode()) is None
    assert cosigned_message(ED25519_COSIGNATURE, "w" * 256, 1, text) is not None


@pytest.mark.parametrize(
    ("vkey", "types", "complaint"),
    [
        (GOLDEN["ed25519"]["vkey"], LOG_TYPES, "of type 04; here it must be of 01, 06"),
        (Ed25519Signer("log", bytes(32)).verifier.encode(), WITNESS_TYPES, "of type 01"),
        (GOLDEN["remora"]["vkey"].replace("da77ade7", "da77ade8"), WITNESS_TYPES, "mistyped"),
        ("w+00000000+", WITNESS_TYPES, "not a verifier key"),
        ("w w+00000000+BA==", WITNESS_TYPES, "not a verifier key"),
    ],
)
def test_a_key_of_another_type_is_refused(vkey: str, types: tuple[int, ...], complaint: str) -> None:
    """A log's key is no witness's; the refusal says what was expected."""
    with pytest.raises(NoteError, match=complaint):
        decode_vkey(vkey, types)


def test_keys_of_a_wrong_size_are_refused() -> None:
    """32 bytes for Ed25519, 1312 for ML-DSA-44, and no third kind."""
    for size, kind in ((31, ED25519_COSIGNATURE), (32, ML_DSA_44), (1312, ED25519_COSIGNATURE), (32, 2)):
        with pytest.raises(NoteError, match="are no cosigner's key"):
            CosignatureVerifier("w", bytes(size), kind)
    with pytest.raises(ValueError, match="no cosignature is of type 01"):
        Cosigner("w", bytes(32), 1)
    with pytest.raises(NoteError, match="not a cosigner's key"):
        CosignatureVerifier.decode(Ed25519Signer("w", bytes(32)).verifier.encode())
    with pytest.raises(NoteError, match="not an Ed25519"):
        Ed25519Verifier.decode(GOLDEN["ed25519"]["vkey"])


def test_a_cosigners_key_is_read_back_and_keeps_a_cosigners_name(cosigner: Cosigner) -> None:
    """A vkey gives the key that it was made of; a name that no signature line could carry is refused."""
    verifier = cosigner.verifier
    assert CosignatureVerifier.decode(verifier.encode()) == verifier
    with pytest.raises(NoteError, match="not a key name"):
        CosignatureVerifier("w w", verifier.public_key, verifier.signature_type)


def test_a_cosigner_keeps_its_secret_to_itself(cosigner: Cosigner) -> None:
    """Its representation, which ends up in logs, names the key and does not hold it."""
    assert bytes(32).hex() not in repr(cosigner)
    assert repr(cosigner) == f"Cosigner(witness.example/w, {cosigner.verifier.key_id.hex()})"


class _Keys:
    """A library's kind of key that cannot, or will not, be read."""

    def __init__(self, error: Exception) -> None:
        self.from_public_bytes = Mock(side_effect=error)


def test_a_library_without_ml_dsa_says_so_and_believes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not being able to check is neither yes nor no: whoever asked must learn that nobody has looked."""
    cosigner = Cosigner("w", bytes(32), ML_DSA_44)
    signature = cosigner.at(1).sign(TEXT.encode())
    monkeypatch.setattr("merkle.cosignature.MLDSA44PublicKey", _Keys(UnsupportedAlgorithm("no ML-DSA")))
    with pytest.raises(NoteError, match="has no ML-DSA-44"):
        cosigner.verifier.verify(TEXT.encode(), signature)


def test_bytes_that_the_library_takes_for_no_key_verify_nothing(
    cosigner: Cosigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which bytes are a point of the curve is the library's to say, when the key is first used."""
    signature = cosigner.at(1).sign(TEXT.encode())
    for name in ("MLDSA44PublicKey", "Ed25519PublicKey"):
        monkeypatch.setattr(f"merkle.cosignature.{name}", _Keys(ValueError("no point of the curve")))
    assert cosigner.verifier.verify(TEXT.encode(), signature) is False
