"""Signed notes: the published examples, the rules of C2SP signed-note, and hostile bytes."""

from __future__ import annotations

import base64
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    Ed25519Signer,
    Ed25519Verifier,
    Note,
    NoteError,
    Signature,
    SignatureError,
    UnknownKeyError,
    key_id,
    key_label,
    open_note,
    sign_note,
)
from merkle.note import join_vkey, split_vkey
from tests.merkle.rfc6962 import vectors

PUBLISHED = vectors("notes")
PETER = PUBLISHED["peter"]
TEXT = "first\n\nthird\n"
OURS = Ed25519Signer("example.com/ours", bytes(32))
OTHER = Ed25519Signer("example.com/other", bytes([1]) * 32)
SIGNED = sign_note(TEXT, [OURS])


def peters_note() -> bytes:
    """Return the published note whole."""
    return f"{PETER['text']}\n{PETER['line']}\n".encode()


def with_lines(*lines: str) -> bytes:
    """Return our signed note with further lines after its signature."""
    return SIGNED + "".join(line + "\n" for line in lines).encode()


@pytest.mark.parametrize("name", ["peter", "foo"])
def test_the_published_notes_open_with_the_published_keys(name: str) -> None:
    """Keys and notes of other implementations are read by ours."""
    example = PUBLISHED[name]
    verifier = Ed25519Verifier.decode(example["vkey"])
    note = f"{example['text']}\n{example['line']}\n".encode()
    opened = open_note(note, [verifier])
    assert opened.text == example["text"]
    assert [signature.encode() for signature in opened.verified] == [example["line"]]
    assert verifier.encode() == example["vkey"]


def test_signing_with_the_published_key_gives_the_published_note() -> None:
    """What we write is, byte for byte, what Go's sumdb writes: Ed25519 draws nothing at random."""
    seed = base64.b64decode(PETER["seed"])[1:]
    signer = Ed25519Signer("PeterNeumann", seed)
    assert signer.verifier.encode() == PETER["vkey"]
    assert sign_note(PETER["text"], [signer]) == peters_note()


def test_the_last_empty_line_ends_the_text() -> None:
    """Empty lines within the text belong to it, also at its end."""
    for text in ("a\n", "\n", "a\n\n", "a\n\n— not a signature\n", "\n\n\n"):
        assert open_note(sign_note(text, [OURS]), [OURS.verifier]).text == text


def test_unknown_keys_are_passed_over_and_told() -> None:
    """A note may carry witnesses we do not know, and keys that share name or id, not both, with ours."""
    same_name = Signature(OURS.name, b"\0\0\0\0", b"x")
    same_id = Signature("example.com/stranger", OURS.key_id, b"x")
    opened = open_note(with_lines(same_name.encode(), same_id.encode()), [OURS.verifier])
    assert [signature.name for signature in opened.verified] == [OURS.name]
    assert opened.unknown == (same_name, same_id)


def test_one_bad_signature_of_a_known_key_condemns_the_note() -> None:
    """A good signature beside it does not help, in whatever order, and be it of the same key."""
    bad = Signature(OTHER.name, OTHER.key_id, bytes(64)).encode()
    with pytest.raises(SignatureError, match="does not fit"):
        open_note(with_lines(bad), [OURS.verifier, OTHER.verifier])
    again = Signature(OURS.name, OURS.key_id, bytes(64)).encode()
    with pytest.raises(SignatureError, match="does not fit"):
        open_note(with_lines(again), [OURS.verifier])
    assert open_note(with_lines(bad), [OURS.verifier]).text == TEXT


def test_a_note_of_unknown_keys_only_is_refused() -> None:
    """Text that nobody we know has signed is not shown; the error names the keys that were tried."""
    third = Ed25519Signer("example.com/another", bytes([2]) * 32)
    with pytest.raises(UnknownKeyError) as refused:
        open_note(SIGNED, [OTHER.verifier, third.verifier])
    tried = f"{key_label(third.verifier)}, {key_label(OTHER.verifier)}"
    assert str(refused.value).endswith(f"(signed by: {key_label(OURS.verifier)}; known: {tried})")
    with pytest.raises(UnknownKeyError, match=r"known: none\)$"):
        open_note(SIGNED, [])


def test_two_keys_of_one_name_can_be_told_apart_in_the_error() -> None:
    """A log that changed its key keeps its name: without the key ids the error would say "known: the same"."""
    later = Ed25519Signer(OURS.name, bytes([3]) * 32)
    with pytest.raises(UnknownKeyError) as refused:
        open_note(SIGNED, [later.verifier])
    for key in (OURS, later):
        assert key_label(key.verifier) in str(refused.value)
        assert key.verifier.encode().startswith(key_label(key.verifier) + "+")


def test_an_error_about_many_unknown_keys_stays_short() -> None:
    """A stranger's note with a hundred signatures does not fill the reader's screen."""
    strangers = [Ed25519Signer(f"example.com/{n:02}", bytes([n]) * 32) for n in range(40)]
    with pytest.raises(UnknownKeyError, match=r"example\.com/04\+\w{8} and 35 more; known"):
        open_note(sign_note(TEXT, strangers), [OURS.verifier])
    with pytest.raises(UnknownKeyError, match=r"example\.com/04\+\w{8}; known"):
        open_note(sign_note(TEXT, strangers[:5]), [OURS.verifier])


def test_a_key_counts_once_however_often_it_signed() -> None:
    """Repeating a signature cannot make up a quorum."""
    both = sign_note(TEXT, [OURS, OTHER, OURS])
    assert [s.name for s in open_note(both, [OURS.verifier, OTHER.verifier]).verified] == [
        OURS.name,
        OTHER.name,
    ]


def test_verifiers_that_cannot_be_told_apart_are_refused() -> None:
    """Two keys under one name and id are a mistake of the configuration, not a choice."""
    with pytest.raises(ValueError, match="same name and key id"):
        open_note(SIGNED, [OURS.verifier, OURS.verifier])


def test_100_signatures_are_read_and_101_are_not() -> None:
    """More than the 16 that the specification asks for, but not without end."""
    line = Signature("example.com/stranger", b"\0\0\0\0", b"x").encode()
    assert len(open_note(with_lines(*[line] * 99), [OURS.verifier]).unknown) == 99
    with pytest.raises(NoteError):
        open_note(with_lines(*[line] * 100), [OURS.verifier])


def test_every_changed_bit_of_a_note_is_noticed() -> None:
    """Text, name, key id or signature: whatever is altered, the note no longer opens."""
    for at in range(len(SIGNED)):
        for bit in range(8):
            altered = SIGNED[:at] + bytes([SIGNED[at] ^ 1 << bit]) + SIGNED[at + 1 :]
            with pytest.raises(NoteError):
                open_note(altered, [OURS.verifier])


SIGNATURE_LINE = Signature("a", b"1234", b"x").encode()


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        f"text\n{SIGNATURE_LINE}\n".encode(),
        f"{SIGNATURE_LINE}\n".encode(),
        f"text\n\n{SIGNATURE_LINE}".encode(),
        f"text\n\n{SIGNATURE_LINE}\n\n".encode(),
        f"text\n\n{SIGNATURE_LINE}\r\n".encode(),
        f"te\rxt\n\n{SIGNATURE_LINE}\n".encode(),
        f"te\0xt\n\n{SIGNATURE_LINE}\n".encode(),
        f"te\txt\n\n{SIGNATURE_LINE}\n".encode(),
        b"te\xffxt\n\n" + f"{SIGNATURE_LINE}\n".encode(),
        b"te\xed\xa0\x80xt\n\n" + f"{SIGNATURE_LINE}\n".encode(),
        b"text\n\n- a MTIzNHg=\n",
        "text\n\n—a MTIzNHg=\n".encode(),
        "text\n\n—  MTIzNHg=\n".encode(),
        "text\n\n— a\n".encode(),
        "text\n\n— a \n".encode(),
        "text\n\n— a  MTIzNHg=\n".encode(),
        "text\n\n— a MTIzNHg= b\n".encode(),
        "text\n\n— a MTIzNHg\n".encode(),
        "text\n\n— a MTIzNHh=\n".encode(),
        "text\n\n— a MTIzNA==\n".encode(),
        "text\n\n— a+b MTIzNHg=\n".encode(),
        "text\n\n— a\u00a0b MTIzNHg=\n".encode(),
        "text\n\n— a MTIzNHg=\nb\n".encode(),
    ],
)
def test_malformed_notes_are_refused(note: bytes) -> None:
    """No signature is looked at, and the text is not shown, if the form is not kept to the letter."""
    with pytest.raises(NoteError):
        Note.decode(note)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "\r\n", "\ud800\n"])
def test_text_that_no_note_can_hold_is_not_signed(text: str) -> None:
    """What would not be read is not written."""
    with pytest.raises(NoteError, match="text must end in a newline"):
        sign_note(text, [OURS])


def test_a_note_without_signature_cannot_be_made() -> None:
    """An unsigned note is no note."""
    with pytest.raises(NoteError, match="1 to 100 signatures"):
        sign_note(TEXT, [])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\nb", "a\u2003b", "a\x85b", "\ud800"])
def test_names_that_no_key_can_have_are_refused(name: str) -> None:
    """A name must survive in a signature line and in a verifier key."""
    with pytest.raises(NoteError, match="not a key name"):
        Ed25519Signer(name, bytes(32))


def test_key_ids_tell_types_and_names_apart() -> None:
    """The id binds name, type and key, so that one key used twice is two keys."""
    public = OURS.verifier.public_key
    ids = {key_id(OURS.name, 1, public), key_id(OURS.name, 4, public), key_id(OTHER.name, 1, public)}
    assert OURS.key_id in ids
    assert len(ids) == 3
    assert {len(value) for value in ids} == {4}


def test_every_piece_and_every_changed_byte_of_a_verifier_key_is_refused() -> None:
    """A key that was copied incompletely or mistyped never passes for another key."""
    vkey = PETER["vkey"]
    damaged = {vkey[i:j] for i in range(len(vkey)) for j in range(i, len(vkey) + 1)} - {vkey}
    damaged |= {vkey[:i] + chr(ord(vkey[i]) + 1) + vkey[i + 1 :] for i in range(len(vkey))}
    damaged |= {vkey + "\n", " " + vkey, vkey + "=", vkey + "+"}
    for text in damaged:
        with pytest.raises(NoteError):
            Ed25519Verifier.decode(text)


def test_a_key_id_may_be_spelled_in_capitals() -> None:
    """Go's own notes read both, and it is the same key: what it is written as stays lower case."""
    vkey = PETER["vkey"]
    name, key_id, key = vkey.split("+", 2)
    assert key_id != key_id.upper()
    assert Ed25519Verifier.decode(f"{name}+{key_id.upper()}+{key}").encode() == vkey


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_published_bad_verifier_keys_are_refused(vkey: str) -> None:
    """A key of wrong length and one of an unknown type, both with a fitting id (Go's sumdb tests)."""
    with pytest.raises(NoteError):
        Ed25519Verifier.decode(vkey)


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_verifier_keys_are_read_back_whatever_plus_signs_base64_brings(public: bytes, name: str) -> None:
    """Base64 may contain the sign that separates the parts."""
    try:
        verifier = Ed25519Verifier(name, public)
    except NoteError:
        assert "+" in name or any(character.isspace() or character < " " for character in name)
        return
    assert Ed25519Verifier.decode(verifier.encode()) == verifier


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=70))
def test_a_key_that_is_none_verifies_nothing(public: bytes, signature: bytes) -> None:
    """Arbitrary 32 bytes, on the curve or not, and signatures of any length only ever say no."""
    assert Ed25519Verifier("a", public).verify(b"text\n", signature) is False


class _Key:
    """A kind of key that the library does not take these bytes for."""

    from_public_bytes = Mock(side_effect=ValueError("no point of the curve"))


def test_bytes_that_the_library_takes_for_no_key_verify_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which bytes are a point of the curve is the library's to say, when the key is first used."""
    monkeypatch.setattr("merkle.note.Ed25519PublicKey", _Key)
    assert OURS.verifier.verify(TEXT.encode(), OURS.sign(TEXT.encode())) is False


@pytest.mark.parametrize(
    ("id_", "signature"), [(b"123", b"x"), (b"12345", b"x"), (b"", b"x"), (b"1234", b"")]
)
def test_a_signature_has_a_key_id_of_four_bytes_and_something_after_it(id_: bytes, signature: bytes) -> None:
    """The two are written as one: another split between them would be read as another signature."""
    with pytest.raises(NoteError, match="too short"):
        Signature("a", id_, signature)


def test_a_vkey_is_split_only_under_a_name_that_a_key_can_have() -> None:
    """A fitting key id does not make up for a name that no signature line could carry."""
    vkey = join_vkey("a b", 1, OURS.verifier.public_key)
    with pytest.raises(NoteError, match="not a verifier key"):
        split_vkey(vkey)


def test_a_signer_does_not_show_its_secret() -> None:
    """What ends up in a log or a traceback is the public key."""
    signer = Ed25519Signer("a", b"\x99" * 32)
    assert repr(signer) == f"Ed25519Signer({signer.verifier.encode()})"
    with pytest.raises(ValueError, match="32"):
        Ed25519Signer("a", b"short")
    with pytest.raises(NoteError, match="32 bytes"):
        Ed25519Verifier("a", b"short")


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from([SIGNED[:9], SIGNED[9:40], SIGNED[40:], b"\n"])).map(b"".join)
)
def test_any_bytes_are_a_note_of_one_spelling_or_are_refused(data: bytes) -> None:
    """Only the documented error is ever raised; what is read is written back the same."""
    try:
        note = Note.decode(data)
    except NoteError:
        return
    assert note.encode() == data


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40))
def test_any_text_that_is_signed_comes_back(text: str) -> None:
    """Unicode of any kind survives signing, also line separators other than the newline."""
    signed = sign_note(text + "\n", [OURS])
    assert open_note(signed, [OURS.verifier]).text == text + "\n"
    assert Note.decode(signed).encode() == signed
