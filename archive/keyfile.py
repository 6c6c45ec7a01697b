"""Private keys in files: one line, readable by their owner only.

    PRIVATE+KEY+<name>+<key id in hex>+base64(<signature type> <32 secret bytes>)

It is the form of Go's sumdb/note.  The type says what the key may be used for (a log's 01, a witness's 04 or 06), and
the key id that the line was not mistyped.  A file that others may read is refused, and none is ever overwritten.

>>> parse_key(encode_key("example.com/log", ED25519, bytes(32)), "here").verifier.name
'example.com/log'

Where a deployment keeps its keys: `archive.folder`.  How its log changes from one to the next: `archive.rotation`.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from pathlib import Path

from archive.errors import KEYS, IntegrityError, InvalidEvent, NotFound
from archive.files import sync_folder
from merkle import ED25519, Cosigner, Ed25519Signer, NoteError

KEY_PREFIX = "PRIVATE+KEY"

PrivateKey = Ed25519Signer | Cosigner


def encode_key(name: str, signature_type: int, seed: bytes) -> str:
    """Return the line of a private key, with its newline; NoteError for a name that cannot be one."""
    key_id = _key(name, signature_type, seed).verifier.key_id.hex()
    return f"{KEY_PREFIX}+{name}+{key_id}+{b64encode(bytes([signature_type]) + seed).decode()}\n"


def parse_key(text: str, where: str) -> PrivateKey:
    """Return the key in a line; raise IntegrityError, which says `where`, if it is none or was altered."""
    pieces = text.strip().split("+", 4)
    try:
        prefix, name, key_id, body = f"{pieces[0]}+{pieces[1]}", pieces[2], pieces[3], b64decode(pieces[4])
        key = _key(name, body[0], body[1:])
    except (IndexError, ValueError, NoteError) as error:
        raise IntegrityError(f"{where}: not a signing key: {error}", section=KEYS) from None
    if prefix != KEY_PREFIX or key.verifier.key_id.hex() != key_id:
        raise IntegrityError(f"{where}: not a signing key, or altered", section=KEYS)
    return key


def read_key(path: Path) -> PrivateKey:
    """Return the key in a file; raise NotFound or IntegrityError if there is none that can be used."""
    return parse_key(read_secret(path), str(path))


def read_secret(path: Path) -> str:
    """Return a secret file's text; raise NotFound if missing, IntegrityError if no text or others may read it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise NotFound(
            f"{path}: no such key; `treering serve` makes one at its first start", section=KEYS
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise IntegrityError(
            f"{path}: others may read this key; chmod 600 it, and rotate it if they may have", section=KEYS
        )
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise IntegrityError(
            f"{path}: not a key, or altered: it holds bytes that are no text", section=KEYS
        ) from None


def write_new_key(path: Path, line: str) -> None:
    """Write a key to a new file, durably, mode 0600; raise InvalidEvent if there is a file of that name."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link fails where something is: no key is lost to a mistyped name.
        os.link(temporary, path)
    except FileExistsError:
        raise InvalidEvent(f"{path}: there is a file already, and no key is ever overwritten") from None
    finally:
        os.unlink(temporary)
    sync_folder(path.parent)


def _key(name: str, signature_type: int, seed: bytes) -> PrivateKey:
    if signature_type == ED25519:
        return Ed25519Signer(name, seed)
    return Cosigner(name, seed, signature_type)
