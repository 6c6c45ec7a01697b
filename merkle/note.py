r"""Signed notes: text that says who signed it (C2SP signed-note).

    Ognuno sta solo sul cuor della terra
    trafitto da un raggio di sole:
    ed è subito sera.
                                                  the last empty line ends the text
    — quasimodo.example/salvatore NnugSz...       em dash, key name, base64(key id and signature)

A signature covers the text with its final newline and nothing else, so that anyone may append further
signatures.  The four bytes of key id tell the reader which key to try; they are no security.  Keys that the
reader does not know are passed over (that is how keys rotate and witnesses are added); a key he knows with a
signature that does not fit condemns the whole note.

>>> signer = Ed25519Signer("example.com/log", bytes(32))
>>> opened = open_note(sign_note("hello\n", [signer]), [signer.verifier])
>>> opened.text, [signature.name for signature in opened.verified]
('hello\n', ['example.com/log'])

What a log writes into its notes is the business of `merkle.checkpoint`.  Other kinds of key satisfy the
protocols `Signer` and `Verifier`: a witness's timestamped ones are in `merkle.cosignature`, and `merkle.vkey`
tells from a vkey of which kind it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from merkle.errors import NoteError, SignatureError, UnknownKeyError
from merkle.text import decode_base64, encode_base64, is_line, is_note_text

ED25519 = 0x01
"""Signature type of a plain Ed25519 signature over the note's text."""

MAX_SIGNATURES = 100
"""More are refused unread, lest a note make its reader verify for ever; the specification asks for 16."""

_KEY_ID_SIZE = 4
_LABELS_MAX = 5


class Signer(Protocol):
    """A key that signs notes."""

    @property
    def name(self) -> str:
        """The key's name, such as "example.com/log"."""

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""

    def sign(self, text: bytes) -> bytes:
        """Return the signature over a note's text, without the key id."""


class Verifier(Protocol):
    """What somebody must know of a key to check its signatures."""

    @property
    def name(self) -> str:
        """The key's name, such as "example.com/log"."""

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Tell whether `signature`, without the key id, is this key's over a note's text."""


def key_id(name: str, signature_type: int, public_key: bytes) -> bytes:
    """Return the four bytes by which signatures name their key (C2SP signed-note, "Signatures")."""
    return sha256(name.encode() + b"\n" + bytes([signature_type]) + public_key).digest()[:_KEY_ID_SIZE]


def join_vkey(name: str, signature_type: int, public_key: bytes) -> str:
    """Return a key as a *vkey*, the one line that people pass on: <name>+<key id in hex>+<base64>."""
    encoded = encode_base64(bytes([signature_type]) + public_key)
    return f"{name}+{key_id(name, signature_type, public_key).hex()}+{encoded}"


def split_vkey(vkey: str) -> tuple[str, int, bytes]:
    """Return name, signature type and public key of a vkey; NoteError if malformed, or its key id is wrong.

    Which types there are is `merkle.vkey`'s business; all of them make key ids in the same way.
    """
    name, _, rest = vkey.partition("+")
    hex_id, _, encoded = rest.partition("+")  # base64 may itself contain "+"
    key = decode_base64(encoded)
    if not key or not is_name(name):
        raise NoteError(f"not a verifier key: {vkey[:200]!r}; expected <name>+<key id>+<base64>")
    expected = key_id(name, key[0], key[1:]).hex()
    if expected != hex_id.lower():  # golang.org/x/mod/sumdb/note reads both, by ParseUint(hash16, 16, 32)
        raise NoteError(f"the key id of {name!r} should be {expected}: mistyped?")
    return name, key[0], key[1:]


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """An Ed25519 public key of 32 bytes under a name.  Raises NoteError for what cannot be either."""

    name: str
    public_key: bytes
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != 32:
            raise NoteError(f"an Ed25519 public key has 32 bytes, not {len(self.public_key)}")
        object.__setattr__(self, "key_id", key_id(self.name, ED25519, self.public_key))

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Tell whether `signature` (64 bytes) is this key's over `text` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):  # ValueError: the 32 bytes are no point of the curve
            return False
        return True

    def encode(self) -> str:
        """Return the key as a *vkey*, the one line that people pass on: <name>+<key id in hex>+<base64>."""
        return join_vkey(self.name, ED25519, self.public_key)

    @staticmethod
    def decode(vkey: str) -> Ed25519Verifier:
        """Return the key that a vkey spells; NoteError if malformed, of another type, or its id is wrong."""
        name, signature_type, public_key = split_vkey(vkey)
        if signature_type != ED25519:
            raise NoteError(f"not an Ed25519 verifier key: {vkey[:200]!r}; its type is {signature_type:02x}")
        return Ed25519Verifier(name, public_key)


class Ed25519Signer:
    """An Ed25519 private key under a name, made from 32 secret bytes that the caller drew at random.

    Raises NoteError for a name that cannot be one, ValueError for another number of bytes.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Ed25519Verifier(name, self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.verifier.encode()})"

    @property
    def name(self) -> str:
        """The key's name."""
        return self.verifier.name

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        return self.verifier.key_id

    def sign(self, text: bytes) -> bytes:
        """Return the 64-byte signature over `text`, the same for the same text (RFC 8032)."""
        return self._key.sign(text)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: whose key, and the signature itself.  Raises NoteError if it cannot be one."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != _KEY_ID_SIZE or not self.signature:
            raise NoteError(f"the signature of {self.name!r} is too short")

    def encode(self) -> str:
        """Return the line without its newline."""
        return f"— {self.name} {encode_base64(self.key_id + self.signature)}"

    @staticmethod
    def decode(line: str) -> Signature:
        """Return what `encode` wrote; NoteError for any other line."""
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        data = decode_base64(encoded)
        if dash != "—" or data is None:
            raise NoteError(f"not a signature line: {line[:200]!r}; expected — <name> <base64>")
        return Signature(name, data[:_KEY_ID_SIZE], data[_KEY_ID_SIZE:])


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures, of which nothing is known yet: `open_note` tells whether to believe it.

    Raises NoteError if the text is not whole lines free of control characters, or unless 1 to 100 signatures
    are there.
    """

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        if not is_note_text(self.text):
            raise NoteError("a note's text must end in a newline and have no other control character")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise NoteError(f"a note has 1 to {MAX_SIGNATURES} signatures, not {len(self.signatures)}")

    def encode(self) -> bytes:
        """Return the note as it is published."""
        return "\n".join([self.text, *(signature.encode() for signature in self.signatures), ""]).encode()

    @staticmethod
    def decode(data: bytes) -> Note:
        """Return what `encode` wrote; NoteError for any other bytes."""
        try:
            text, blank, signatures = data.decode().rpartition("\n\n")
        except UnicodeDecodeError as error:
            raise NoteError(f"a note must be UTF-8; byte {error.start} is not") from None
        if not blank or not signatures.endswith("\n"):
            raise NoteError("a note is its text, an empty line, and signature lines with a newline each")
        lines = signatures[:-1].split("\n", MAX_SIGNATURES)
        return Note(text + "\n", tuple(Signature.decode(line) for line in lines))


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note that at least one known key signed.

    `verified` has the signatures of known keys, the first of each key, so that a quorum may be counted;
    `unknown` those of all others, about which nothing is known.
    """

    text: str
    verified: tuple[Signature, ...]
    unknown: tuple[Signature, ...]


def sign_note(text: str, signers: Iterable[Signer]) -> bytes:
    """Return the note that says `text`, signed by each signer; NoteError if `text` cannot be a note's."""
    data = text.encode(errors="surrogatepass")  # a lone surrogate is refused below, with words
    signatures = (Signature(signer.name, signer.key_id, signer.sign(data)) for signer in signers)
    return Note(text, tuple(signatures)).encode()


def key_label(key: Verifier | Signature) -> str:
    """Return how a key is told from others of its name, the beginning of its vkey: <name>+<key id in hex>.

    >>> key_label(Ed25519Signer("example.com/log", bytes(32)).verifier)
    'example.com/log+1dde4531'
    """
    return f"{key.name}+{key.key_id.hex()}"


def open_note(data: bytes, verifiers: Sequence[Verifier]) -> OpenedNote:
    """Return the note's text after checking it against the known keys (C2SP signed-note, "Signatures").

    Raises NoteError if it is malformed; SignatureError if a known key's signature does not fit, UnknownKeyError if
    there is none of any known key; ValueError if two verifiers share name and key id.
    """
    note = Note.decode(data)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    if len(known) != len(verifiers):
        raise ValueError("two of the verifiers have the same name and key id")
    verified: dict[tuple[str, bytes], Signature] = {}
    unknown = []
    for signature in note.signatures:
        key = signature.name, signature.key_id
        if key not in known:
            unknown.append(signature)
        elif known[key].verify(note.text.encode(), signature.signature):
            verified.setdefault(key, signature)
        else:
            raise SignatureError(f"the signature of {signature.name!r} does not fit: the note was altered")
    if not verified:
        signed, known_ones = (_labels(keys) for keys in (note.signatures, verifiers))
        raise UnknownKeyError(f"no known key has signed this note (signed by: {signed}; known: {known_ones})")
    return OpenedNote(note.text, tuple(verified.values()), tuple(unknown))


def _labels(keys: Iterable[Verifier | Signature]) -> str:
    labels = sorted({key_label(key) for key in keys})
    more = f" and {len(labels) - _LABELS_MAX} more" if len(labels) > _LABELS_MAX else ""
    return (", ".join(labels[:_LABELS_MAX]) or "none") + more


def is_name(name: str) -> bool:
    """Tell whether a key can have this name: not empty, and without any space, plus or control character."""
    return is_line(name) and "+" not in name and name.split() == [name]


def check_name(name: str) -> None:
    """Raise NoteError for what cannot be a key's name."""
    if not is_name(name):
        raise NoteError(f"not a key name: {name[:100]!r}; expected no space, no plus: example.com/log")
