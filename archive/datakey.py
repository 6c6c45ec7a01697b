"""A data key: the 32 bytes under which the rows of a subject are encrypted (AES-256-GCM).

It is kept as bytes, which the native kernel takes as they are; the object of `cryptography` with its expanded key,
a kilobyte each, is made when a row is opened by itself, and kept from then on.

>>> key = DataKey(bytes(32))
>>> key.decrypt(bytes(12), key.encrypt(bytes(12), b"opening", b"head"), b"head")
b'opening'

Where it comes from is `archive.vault`; what it encrypts, `archive.entry`.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE: Final = 32


class DataKey:
    """A key of 32 bytes, else ValueError.  Its bytes are never shown by `repr`."""

    __slots__ = ("_cipher", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise ValueError(f"a data key has {KEY_SIZE} bytes, not {len(raw)}")
        self.raw = raw
        self._cipher: AESGCM | None = None

    @property
    def cipher(self) -> AESGCM:
        """The key, expanded."""
        if self._cipher is None:
            self._cipher = AESGCM(self.raw)
        return self._cipher

    def encrypt(self, nonce: bytes, plain: bytes, head: bytes) -> bytes:
        """Return ciphertext and tag of `plain`; `head` is authenticated with it."""
        return self.cipher.encrypt(nonce, plain, head)

    def decrypt(self, nonce: bytes, closed: bytes, head: bytes) -> bytes:
        """Return what was encrypted; raise InvalidTag if anything of it was altered."""
        return self.cipher.decrypt(nonce, closed, head)
