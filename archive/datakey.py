"""A data key: the 32 bytes under which the rows of a subject are encrypted (AES-256-GCM).

It is kept as bytes, which the native kernel takes as they are.  The object of `cryptography` with its expanded key
takes 3 KB, and making one anew for each row that is opened by itself costs no more than fetching a kept one from
main memory (measured: 1.9 us for opening 500 bytes, either way); so none is kept.

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

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise ValueError(f"a data key has {KEY_SIZE} bytes, not {len(raw)}")
        self.raw = raw

    def encrypt(self, nonce: bytes, plain: bytes, head: bytes) -> bytes:
        """Return ciphertext and tag of `plain`; `head` is authenticated with it."""
        return AESGCM(self.raw).encrypt(nonce, plain, head)

    def decrypt(self, nonce: bytes, closed: bytes, head: bytes) -> bytes:
        """Return what was encrypted; raise InvalidTag if anything of it was altered."""
        return AESGCM(self.raw).decrypt(nonce, closed, head)
