"""Where a check may go on: what was verified, in a file that the auditor keeps.

After a check without findings, everything that the next one needs to know is small: the frontier of the tree, the hash
of the last block, the last time, how many entries each subject has, and what headers have to say.  Kept away from the
log, it is at the same time the auditor's memory: a log that was rewritten, however well, does not continue it.

The file is JSON, a line a field, with a digest over the rest, which finds damage and not malice: keep the file where
only you can write.  Format: docs/formats/findings.md.

>>> from archive.block import NO_BLOCK
>>> state = Resume("example.org/log", 0, Frontier(), -1, NO_BLOCK, 0, None)
>>> Resume.decode(state.encode()) == state
True
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np

from archive.errors import FormatError
from merkle import Frontier

FORMAT: Final = "treering/verified/v1"


@dataclass(frozen=True, slots=True)
class Resume:
    """All that a later check must know of the entries 0…size-1."""

    origin: str
    size: int
    frontier: Frontier
    block: int
    """Number of the block that ends at `size`; -1 for the empty log."""
    block_hash: bytes
    time_s: int
    sequences: array[int] | None
    """Entries of each subject by its number; None if the vault was not at hand."""
    header_version: int | None = None
    """Of the headers that follow (`archive.filing`); None if nobody looked, as in earlier versions."""

    def encode(self) -> bytes:
        """Return the file's bytes."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "origin": self.origin,
            "size": self.size,
            "root": self.frontier.root().hex(),
            "frontier": [node.hex() for node in self.frontier.nodes],
            "block": self.block,
            "block_hash": self.block_hash.hex(),
            "time": self.time_s,
            "sequences": None if self.sequences is None else _packed(self.sequences),
        }
        if self.header_version is not None:
            body["header"] = self.header_version
        return (json.dumps({**body, "digest": _digest(body)}, indent=0, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def decode(data: bytes) -> Resume:
        """Return what `encode` wrote; raise FormatError for any other bytes."""
        try:
            body = json.loads(data)
            if body.pop("digest") != _digest(body) or body["format"] != FORMAT:
                raise FormatError("saved check: not of this format, or damaged; check the log from its start")
            made = _parsed(body)
            usual = made.encode() == data
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise FormatError(f"saved check: {type(error).__name__}; check the log from its start") from None
        if not usual:
            raise FormatError("saved check: not in its usual spelling; check the log from its start")
        return made


def _parsed(body: dict[str, Any]) -> Resume:
    frontier = Frontier(body["size"], tuple(map(bytes.fromhex, body["frontier"])))
    packed = body["sequences"]
    hashes = [*frontier.nodes, bytes.fromhex(body["block_hash"]), bytes.fromhex(body["root"])]
    if any(len(one) != 32 for one in hashes) or frontier.root().hex() != body["root"] or body["block"] < -1:
        raise FormatError("saved check: its hashes do not fit; check the log from its start")
    return Resume(
        str(body["origin"]),
        frontier.size,
        frontier,
        int(body["block"]),
        bytes.fromhex(body["block_hash"]),
        int(body["time"]),
        None if packed is None else _unpacked(packed),
        int(body["header"]) if "header" in body else None,
    )


def _digest(body: dict[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _packed(sequences: array[int]) -> str:
    return b64encode(np.array(sequences, dtype=">u8").tobytes()).decode()


def _unpacked(text: str) -> array[int]:
    big = np.frombuffer(b64decode(text, validate=True), dtype=">u8")
    return array("Q", big.astype(np.uint64).tobytes())
