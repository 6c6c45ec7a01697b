"""Key files: their form, who may read them, and that none is ever overwritten."""

from __future__ import annotations

import stat
from base64 import b64decode
from pathlib import Path

import pytest

from archive import IntegrityError, InvalidEvent, NotFound, encode_key, parse_key, read_key, write_new_key
from merkle import ED25519, ED25519_COSIGNATURE, ML_DSA_44, Cosigner, Ed25519Signer, NoteError
from tests.merkle.rfc6962 import vectors

TYPES = [ED25519, ED25519_COSIGNATURE, ML_DSA_44]


@pytest.mark.parametrize("signature_type", TYPES)
def test_a_key_is_read_as_it_was_written(tmp_path: Path, signature_type: int) -> None:
    """Of each type, in a file that only its owner may read."""
    path = tmp_path / "key"
    write_new_key(path, encode_key("example.com/k", signature_type, bytes(range(32))))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    made = (
        Ed25519Signer("example.com/k", bytes(range(32)))
        if signature_type == ED25519
        else Cosigner("example.com/k", bytes(range(32)), signature_type)
    )
    assert read_key(path).verifier == made.verifier
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_the_form_is_that_of_other_tools() -> None:
    """A log's key is the line that Go's sumdb/note reads."""
    peter = vectors("notes")["peter"]
    line = encode_key("PeterNeumann", ED25519, b64decode(peter["seed"])[1:])
    assert line == f"PRIVATE+KEY+PeterNeumann+c74f20a3+{peter['seed']}\n"
    assert parse_key(line, "here").verifier.encode() == peter["vkey"]


def test_no_key_is_overwritten(tmp_path: Path) -> None:
    """A mistyped file name costs a message, not a key."""
    path = tmp_path / "key"
    path.write_text("precious")
    with pytest.raises(InvalidEvent, match="no key is ever overwritten"):
        write_new_key(path, encode_key("k", ED25519, bytes(32)))
    assert path.read_text() == "precious"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Whatever it was used for is in doubt: the message says what to do."""
    path = tmp_path / "key"
    write_new_key(path, encode_key("k", ED25519, bytes(32)))
    path.chmod(mode)
    with pytest.raises(IntegrityError, match="chmod 600 it, and rotate it"):
        read_key(path)


def test_a_missing_key_is_not_found(tmp_path: Path) -> None:
    """Nothing is made up in its place."""
    with pytest.raises(NotFound):
        read_key(tmp_path / "key")


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A file that was overwritten with other bytes is damage that a person must look at."""
    path = tmp_path / "key"
    write_new_key(path, encode_key("k", ED25519, bytes(32)))
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(IntegrityError, match="not a key, or altered"):
        read_key(path)


GOOD = encode_key("k", ED25519, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        GOOD.replace("PRIVATE", "PUBLIC"),
        GOOD.replace("+k+", "+l+"),
        GOOD.replace("+AQ", "+Ag"),
        GOOD.replace("+AQ", "+BA"),
        GOOD.replace("+AQ", "+AR"),
        GOOD[:-4],
        "PRIVATE+KEY+k+00000000+",
        "PRIVATE+KEY+k+00000000+é",
    ],
)
def test_an_altered_key_is_refused(text: str) -> None:
    """Another name, another type, a lost letter: the key id does not fit any more."""
    with pytest.raises(IntegrityError, match="here: not a signing key"):
        parse_key(text, "here")


def test_a_name_that_no_key_can_have_is_refused() -> None:
    """Before anything is written."""
    for name in ("", "a b", "a+b"):
        with pytest.raises(NoteError):
            encode_key(name, ED25519_COSIGNATURE, bytes(32))
