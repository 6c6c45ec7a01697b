"""Receipts and openings: what a person can keep to show, without us, that an event is in the log.

A *receipt* is public: index, leaf, inclusion proof and signed checkpoint, as one C2SP tlog-proof text.  It shows
that an entry is there, and says nothing about what the entry means.  An *opening* is private: salt, header and
payload, of which the leaf holds the hash.  Both together show that just this event is in the log; the opening alone
shows nothing, and a receipt never contains any of it, so that it may be shown to anyone.

    with source.open() as log:
        text = Prover(log).receipt(17).encode()          17.tlog-proof

    proof = TlogProof.decode(text)
    check_receipt(proof, verifier)                       inclusion and signature
    check_opening(proof.extra, opening)                  and it is this event

The specification is docs/formats/receipt.md; who may be given an opening is decided in `api.receipts`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import msgspec

from archive.entry import (
    LEAF_PRIVATE,
    SALT_SIZE,
    Leaf,
    Opened,
    check_row,
    commitment_of,
    open_row,
    parse_leaf,
    parse_opening,
    parse_row,
)
from archive.errors import FormatError, IntegrityError, NotFound
from archive.log import Log
from archive.tiles import TileNodes
from archive.vault import Vault
from merkle import Checkpoint, ProofError, TlogProof, Verifier, leaf_hash, prove_inclusion


class Prover:
    """Makes receipts from one view of a log; many of them share what was read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._nodes = TileNodes(log)

    def receipt(self, index: int, size: int | None = None) -> TlogProof:
        """Return the receipt of an entry under the first checkpoint that covers it, or under that of `size`.

        Raises NotFound if there is no such entry, or no checkpoint of that size that covers it.
        """
        leaf = self._log.leaf(index)
        signed, note = self._checkpoint(index, size)
        return TlogProof(index, tuple(prove_inclusion(index, signed, self._nodes)), note, leaf)

    def _checkpoint(self, index: int, size: int | None) -> tuple[int, bytes]:
        if size is None:
            return self._log.covering(index)
        if index < size <= self._log.size:
            signed, note = self._log.covering(size - 1)
            if signed == size:
                return signed, note
        raise NotFound(
            f"no checkpoint of size {size} covers entry {index}; leave the size out for the first one"
        )


def check_receipt(
    proof: TlogProof, verifier: Verifier, *, origin: str | None = None
) -> tuple[Checkpoint, Leaf]:
    """Return checkpoint and leaf of a receipt after checking signature, inclusion and the leaf's form.

    `origin` is as in `merkle.open_checkpoint`.  Raises merkle's NoteError, FormatError or ProofError, or the
    archive's FormatError, where the receipt does not show what it claims.
    """
    if not proof.extra:
        raise ProofError("the receipt holds no leaf (extra line); it cannot be checked by itself")
    return proof.verify(leaf_hash(proof.extra), verifier, origin=origin), parse_leaf(proof.extra)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a leaf commits to: `salt` (32 bytes), `header` (MessagePack) and `payload` (the bytes received)."""

    salt: bytes
    header: bytes
    payload: bytes

    def encode(self) -> bytes:
        """Return the bytes that the commitment is over (docs/formats/entry.md)."""
        return self.salt + len(self.header).to_bytes(4) + self.header + self.payload

    @staticmethod
    def decode(data: bytes) -> Opening:
        """Return what `encode` wrote; raise FormatError for other bytes."""
        payload = parse_opening(data).payload  # also checks the header
        header_end = len(data) - len(payload)
        return Opening(data[:SALT_SIZE], data[SALT_SIZE + 4 : header_end], payload)

    def to_json(self) -> dict[str, str]:
        """Return the opening as a JSON object: salt in hex, header and payload in base64."""
        return {
            "salt": self.salt.hex(),
            "header": b64encode(self.header).decode(),
            "payload": b64encode(self.payload).decode(),
        }

    @staticmethod
    def from_json(text: bytes) -> Opening:
        """Return the opening in a JSON text; other members are passed over.  Raises FormatError."""
        try:
            value: Any = msgspec.json.decode(text)
            salt = bytes.fromhex(value["salt"])
            header, payload = (b64decode(value[name], validate=True) for name in ("header", "payload"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"opening: not JSON: {error}") from None
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise FormatError(
                f"opening: expected an object with salt (hex), header and payload (base64): {error}"
            ) from None
        if len(salt) != SALT_SIZE:
            raise FormatError(f"opening: a salt has {SALT_SIZE} bytes, not {len(salt)}")
        return Opening(salt, header, payload)


def open_entry_of(log: Log, vault: Vault, index: int) -> Opening:
    """Return the opening of an entry, checked against its leaf.

    Raises NotFound beyond the size, for a control entry (its leaf hides nothing) and for an erased one; IntegrityError
    or FormatError if its bytes changed.
    """
    leaf = log.leaf(index)
    if parse_leaf(leaf).kind != LEAF_PRIVATE:
        raise NotFound(f"entry {index} is a control entry: its leaf is all there is, nothing to open")
    data = log.row(index)
    # First, since a bit that flips in a subject's number makes it that of another, who may be erased.
    check_row(data)
    row = parse_row(data)
    opening = Opening.decode(open_row(row, vault.data_key(row.subjects)))
    check_opening(leaf, opening)
    return opening


def check_opening(leaf: bytes, opening: Opening) -> Opened:
    """Return what is in an opening after checking that the leaf commits to it; raise IntegrityError if not."""
    parsed = parse_leaf(leaf)
    if parsed.kind != LEAF_PRIVATE:
        raise IntegrityError("a control entry commits to nothing beside its leaf; there is nothing to open")
    if commitment_of(opening.encode()) != parsed.commitment:
        raise IntegrityError("the leaf does not commit to this opening: salt, header or payload differ")
    return parse_opening(opening.encode())
