"""The public leaves, wherever they lie: a folder that `treering export tiles` wrote, or a server's address.

Neither is trusted.  Leaves are read bundle by bundle, hashed, and at each size whose root is known the roots must
agree; only when all leaves are read without an error are they those of the log.

    source = open_leaves("http://127.0.0.1:8400")
    checkpoint = open_signed(source.read("checkpoint"), [verifier])
    for leaf in verified_leaves(source, checkpoint.size, {checkpoint.size: checkpoint.root}): ...

Who serves them: `api.log`, or any web server over a folder.  What a server may take of us: `tools.fetching`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from archive import IntegrityError, KeyRing, NotFound, Unavailable, read_rotation
from merkle import (
    TILE_WIDTH,
    Bundle,
    Checkpoint,
    Ed25519Verifier,
    Frontier,
    SignatureError,
    decode_bundle,
    key_label,
    leaf_hash,
    open_checkpoint,
    open_note,
)
from tools.fetching import Fetcher, address


class LeafSource(Protocol):
    """Where files of a log are read, by their paths below the log's prefix."""

    def read(self, path: str) -> bytes:
        """Return a file; raise NotFound if it is not there, Unavailable if it cannot be read now."""

    def close(self) -> None:
        """Give up what reading takes."""


class FolderSource:
    """A static log in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> bytes:
        """Return a file of the folder."""
        try:
            return (self._folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self._folder / path}: not there") from None
        except OSError as error:
            raise Unavailable(f"{self._folder / path}: {error.strerror}") from error

    def close(self) -> None:
        """Do nothing: no file is open."""


class HttpSource:
    """A log behind an address, which ends before /checkpoint."""

    def __init__(self, url: str, fetcher: Fetcher | None = None) -> None:
        self._url = address(url)
        self._fetcher = fetcher or Fetcher()

    def read(self, path: str) -> bytes:
        """Return a file of the server."""
        (content,) = self._fetcher.get([f"{self._url}/{path}"])
        if content is None:
            raise NotFound(f"{self._url}/{path}: not there")
        return content

    def close(self) -> None:
        """Give up the connection."""
        self._fetcher.close()


def open_leaves(place: str) -> LeafSource:
    """Return the log in a folder or at an address, which may be that of a whole server: its log is at /log.

    It is to be closed.  Raises NotFound if there is no log, or no address, Unavailable if the server does not answer.
    """
    remote = place.startswith(("http://", "https://"))
    tried = [place, f"{place.rstrip('/')}/log"]
    for one in tried:
        source: LeafSource = HttpSource(one) if remote else FolderSource(Path(one))
        with ExitStack() as undo:
            undo.callback(source.close)
            with suppress(NotFound):
                source.read("checkpoint")
                undo.pop_all()
                return source
    raise NotFound(f"{place}: there is no log: neither checkpoint nor log/checkpoint is there")


def open_signed(note: bytes, verifiers: Sequence[Ed25519Verifier]) -> Checkpoint:
    """Return the checkpoint in a note that one of a log's keys has signed; with no keys at all, an unsigned one.

    A log may have had several keys, one after the other: whether it was this one's turn only `ring_of_leaves` can tell.
    Raises merkle's errors.
    """
    return open_checkpoint(note, signer_of(note, verifiers)) if verifiers else unsigned(note)


def signer_of(note: bytes, verifiers: Sequence[Ed25519Verifier]) -> Ed25519Verifier:
    """Return the last of a log's keys that has signed a checkpoint.

    Raises merkle's errors if none has, or the note is no checkpoint; UnknownKeyError names all keys that were tried.
    """
    for verifier in reversed(verifiers):
        with suppress(SignatureError):
            open_checkpoint(note, verifier)
            return verifier
    open_note(note, list({key_label(one): one for one in verifiers}.values()))
    raise AssertionError("a note was opened that no key opens")


def ring_of_leaves(
    rotations: Sequence[tuple[int, dict[str, Any]]], known: Sequence[Ed25519Verifier], signer: Ed25519Verifier
) -> KeyRing:
    """Return which key signs which sizes, given all rotations among a log's leaves and all keys that somebody knows.

    `signer` is the known key that has signed those leaves' root: the only one of a log that never changed its key.
    Raises IntegrityError if a rotation is not sound, or a known key is none of the log's: the leaves end before its
    time, or were carried on under a key that the log had given up.  Which of the two it is they cannot show.
    """
    ring = KeyRing(read_rotation(*rotations[0])[0] if rotations else signer)
    for index, body in rotations:
        ring.learn(index, body)
    for one in known:
        if all(one != key for _, key in ring.keys):
            raise IntegrityError(
                f"the leaves do not lead to the key {key_label(one)}: this copy ends before that key's time, is of "
                "another log, or was carried on under a key that was given up; take a copy that is signed by the "
                "present key"
            )
    return ring


def check_turn(note: bytes, ring: KeyRing) -> None:
    """Raise IntegrityError if a checkpoint is not signed by the key whose turn it was at its size."""
    try:
        ring.open(note)
    except SignatureError:
        size = unsigned(note).size
        raise IntegrityError(
            f"the checkpoint of size {size} is not signed by the key of that size, {key_label(ring.at(size))}: "
            "the log was carried on under a key that it had given up, or was not yet to have"
        ) from None


def unsigned(note: bytes) -> Checkpoint:
    """Return the checkpoint in a note that nobody has vouched for; raise merkle's FormatError if it is none."""
    return Checkpoint.decode(note.decode("utf-8", "replace").partition("\n\n")[0] + "\n")


def verified_leaves(source: LeafSource, size: int, roots: Mapping[int, bytes]) -> Iterator[bytes]:
    """Yield leaves 0…size-1; raise IntegrityError if the root at one of these sizes is another.

    What was yielded holds only if the iteration ends without an error.  `roots` must name the root at `size`.
    """
    assert size in roots, "leaves without a root to hold them against prove nothing"
    frontier = Frontier()
    _check_root(frontier, roots)
    for start in range(0, size, TILE_WIDTH):
        leaves = _bundle(source, start // TILE_WIDTH, min(TILE_WIDTH, size - start))
        hashes, done = [leaf_hash(leaf) for leaf in leaves], 0
        for stop in sorted({*(at - start for at in roots if start < at <= start + len(leaves)), len(leaves)}):
            frontier = frontier.extend_all(hashes[done:stop])
            done = stop
            _check_root(frontier, roots)
        yield from leaves


def _bundle(source: LeafSource, index: int, width: int) -> list[bytes]:
    """Return `width` leaves; a full bundle stands in for a partial one that is gone (C2SP tlog-tiles)."""
    path = Bundle(index, width).path()
    try:
        leaves = decode_bundle(source.read(path))
    except NotFound:
        leaves = decode_bundle(source.read(Bundle(index).path()))[:width]
    if len(leaves) != width:
        raise IntegrityError(f"{path} holds {len(leaves)} leaves, not {width}")
    return leaves


def _check_root(frontier: Frontier, roots: Mapping[int, bytes]) -> None:
    expected = roots.get(frontier.size)
    if expected is not None and frontier.root() != expected:
        raise IntegrityError(
            f"the first {frontier.size} leaves have the root {frontier.root().hex()}, but {expected.hex()} was signed"
        )
