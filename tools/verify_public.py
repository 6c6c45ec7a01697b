"""Checking a log as the public sees it: checkpoint, entries and tiles, over HTTP or in a folder of exported files.

Whoever publishes a log in C2SP's layout (docs/formats/checkpoint.md) is checked by the same means as his database:
every public entry is read and hashed, every tile is compared byte for byte, and the root must be the one that the
checkpoint signs.  Private rows, blocks and the seal are not public, so nothing is said about them.

    outcome = verify_public("http://127.0.0.1:8400", verifier)

Of a log that grows meanwhile, the part up to the checkpoint is checked that was fetched first.  A stretch is held at a
time; what is kept of it is one hash for the tiles above, and the rotations of keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from archive import (
    STRETCH,
    Attestations,
    Finding,
    Findings,
    FormatError,
    IntegrityError,
    KeyRing,
    Keys,
    Leaves,
    NotFound,
    OneKey,
    Remembered,
    Resume,
    Tally,
    joined_root,
    read_rotation,
    scan_leaves,
)
from merkle import (
    TILE_WIDTH,
    Bundle,
    Checkpoint,
    Ed25519Verifier,
    Frontier,
    MerkleError,
    Note,
    Policy,
    Tile,
    UnknownKeyError,
    decode_bundle,
    encode_bundle,
    tile_rows,
)
from tools.console import Advance, progress
from tools.fetching import AT_ONCE, Fetcher, address
from tools.verify_folder import Outcome, open_kept, stranger
from tools.verify_policy import cosigned_size, key_of, quorum

HELD = 2 * AT_ONCE
"""Bundles that are fetched before the first of them is read: one may have 17 MiB."""
TRIES = 3
REDIRECTS = 5
_BRING = (
    "if the log changed its key before --since, that is not read again: bring the key of later "
    "(treering keys history lists all), or leave --since out"
)
Read = Callable[[Sequence[str]], list[bytes | None]]
"""Returns the bytes at each path below the log, None where there is nothing."""


def is_public(data: str) -> bool:
    """Tell whether this names a server or a folder of exported tiles, rather than a data folder."""
    return data.startswith(("http://", "https://")) or (Path(data) / "checkpoint").is_file()


def verify_public(
    data: str,
    verifier: Ed25519Verifier | None,
    kept: Sequence[bytes] = (),
    resume: Resume | None = None,
    policy: Policy | None = None,
) -> Outcome:
    """Check the public part of a log; `kept` are checkpoints, as signed notes.

    Raises NotFound where there is none, Unavailable if it cannot be fetched, NoteError if none of the log's keys has
    signed one that was kept.
    """
    started = time.monotonic()
    with _reader(data) as read:
        note = read(["checkpoint"])[0]
        if note is None:
            raise NotFound(f"{data}: no checkpoint there; name a server, or a folder of exported tiles")
        checkpoint = Checkpoint.decode(Note.decode(note).text)
        check = _Public(read, checkpoint, open_kept(kept, OneKey()), resume)
        known = verifier or key_of(policy, note)
        with progress("verifying", max(checkpoint.size - check.frontier.size, 0)) as advance:
            findings = [*check.findings(advance)]
            check.must_follow = check.must_follow or bool(findings)
            findings += check.signed(note, known, policy)
        open_kept(kept, check.keys(known))
    return Outcome(
        findings,
        check.tally,
        time.monotonic() - started,
        None if findings else check.resume(),
        max(check.tally.entries - (resume.size if resume else 0), 0),
        public=True,
        signed=known is not None,
        cosigned=check.cosigned,
    )


@contextmanager
def _reader(data: str) -> Iterator[Read]:
    if not data.startswith(("http://", "https://")):
        yield lambda paths: [_file(Path(data) / path) for path in paths]
        return
    with closing(Fetcher(redirects=REDIRECTS, tries=TRIES)) as fetcher:
        base = address(data)
        if fetcher.get([f"{base}/checkpoint"]) == [None]:
            base += "/log"
        yield lambda paths: fetcher.get([f"{base}/{path}" for path in paths])


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


class _Public:
    """A check of the entries up to one checkpoint."""

    def __init__(
        self, read: Read, checkpoint: Checkpoint, kept: Sequence[Checkpoint], resume: Resume | None
    ) -> None:
        before = resume.frontier if resume else Frontier()
        aligned = before.size - before.size % STRETCH
        self.frontier = Frontier(aligned, before.nodes[: aligned.bit_count()])
        self.tally = Tally(origin=checkpoint.origin, checkpoints=1)
        self._read, self._checkpoint = read, checkpoint
        self._memory = Remembered(kept=kept, resume=resume)
        self._before = before.size
        self.must_follow = not before.size
        """Whether a key that does not fit is a finding, and not one of later than --since which was not brought."""
        self._time_s = resume.time_s if resume else 0
        self._higher: dict[tuple[int, int], bytes] = {}
        self._rotations: list[tuple[int, dict[str, Any]]] = []
        self._attestations = Attestations(aligned, self._earlier)
        self._whole = True
        self.cosigned: int | None = None

    def findings(self, advance: Advance) -> Iterator[Finding]:
        """Yield every finding but those about signatures."""
        yield from self._memory.beyond(self._checkpoint.size)
        yield from self._memory.of_another(self._checkpoint.origin)
        yield from self._against({self.frontier.size: self.frontier.root()})
        if self.frontier.size == self._checkpoint.size:
            self.tally.entries, self.tally.root = self.frontier.size, self.frontier.root()
        while self.frontier.size < self._checkpoint.size and self._whole:
            start = self.frontier.size
            stop = min(start - start % STRETCH + STRETCH, self._checkpoint.size)
            yield from self._stretch(start, stop)
            advance(stop - start)
        self.tally.remarks += self._attestations.remarks()
        if self._whole:
            yield from self._higher_tiles()

    def signed(
        self, note: bytes, verifier: Ed25519Verifier | None, policy: Policy | None
    ) -> Iterator[Finding]:
        """Yield what is wrong with the signatures, once the entries said which keys there were."""
        try:
            keys: Keys = OneKey() if verifier is None else self._ring(verifier)
            self._refuse_unknown(note, keys)
            self.tally.remarks += stranger(note, keys)
            keys.open(note)
        except IntegrityError as error:
            yield Finding("keys", None, str(error), "signature")
        except MerkleError as error:
            yield Finding("checkpoint", None, f"size {self._checkpoint.size}: {error}", "signature")
        else:
            if policy is None:
                return
            checked = quorum(note, policy, keys)
            if isinstance(checked, Finding):
                yield checked
            else:
                self.cosigned = cosigned_size(policy, checked)

    def _ring(self, known: Ed25519Verifier) -> KeyRing:
        """Return the log's keys; raise IntegrityError if they are not sound, or the known one is none of them."""
        ring = _ring_from(self._rotations, known)
        if all(known != key for _, key in ring.keys):
            if not self.must_follow:
                raise NotFound(f"{known.encode()} is none of the log's keys after --since; {_BRING}")
            raise IntegrityError(f"the log was never signed by {known.encode()}")
        return ring

    def _refuse_unknown(self, note: bytes, keys: Keys) -> None:
        """Raise NotFound if no known key has signed, and there may be one that a change of key before --since made."""
        try:
            keys.open(note)
        except UnknownKeyError as error:
            if not self.must_follow:
                raise NotFound(f"the newest checkpoint: {error}; {_BRING}") from None
        except MerkleError:  # a finding, see `signed`
            pass

    def keys(self, verifier: Ed25519Verifier | None) -> Keys:
        """Return the log's keys, once its entries were read; the known one alone, where they do not lead to others."""
        try:
            return OneKey() if verifier is None else self._ring(verifier)
        except IntegrityError:  # a finding, see `signed`
            return OneKey(verifier)

    def resume(self) -> Resume | None:
        """Return where the next check in public may go on; of blocks it knows nothing."""
        if self.frontier.size != self._checkpoint.size:
            return None
        return Resume(
            self._checkpoint.origin, self.frontier.size, self.frontier, -1, bytes(32), self._time_s, None
        )

    def _stretch(self, start: int, stop: int) -> Iterator[Finding]:
        found = Findings()
        leaves = scan_leaves(self._bundles(start, stop), start, stop, found)
        self._rotations += [item for item in leaves.controls.items() if item[1].get("control") == "rotate"]
        backwards = leaves.first_s is not None and leaves.first_s < self._time_s
        if backwards and start >= self._before:  # what is read again stands before the time that was saved
            found.add("time", start, "its archive time is before that of the entry before", "order")
        self._time_s = self._time_s if leaves.last_s is None else leaves.last_s
        self._tiles(0, start, leaves.hashes, found)
        yield from found
        yield from self._origin(leaves)
        self._whole = leaves.whole
        if leaves.whole:
            yield from self._grow(leaves)

    def _bundles(self, start: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
        places = [
            Bundle(at // TILE_WIDTH, min(TILE_WIDTH, stop - at)) for at in range(start, stop, TILE_WIDTH)
        ]
        for place, data in self._fetched(places):
            kept = data
            if data is None and not place.is_full:
                kept = _first(self._read([Bundle(place.index).path()])[0], place.width)
            if kept is not None:
                yield (place.index * TILE_WIDTH).to_bytes(8), kept

    def _fetched(self, places: Sequence[Bundle]) -> Iterator[tuple[Bundle, bytes | None]]:
        for at in range(0, len(places), HELD):
            some = places[at : at + HELD]
            yield from zip(some, self._read([place.path() for place in some]), strict=True)

    def _earlier(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield indices and bodies of control entries that an earlier check has read."""
        for at in range(start - start % TILE_WIDTH, stop, STRETCH):
            end = min(at + STRETCH, stop)
            controls = scan_leaves(self._bundles(at, end), at, end, Findings()).controls
            yield from ((index, body) for index, body in controls.items() if index >= start)

    def _origin(self, leaves: Leaves) -> Iterator[Finding]:
        for index, body in leaves.controls.items():
            if (body.get("control") == "origin") != (index == 0):
                yield Finding("origin", index, "the origin entry must be entry 0, and no other", "order")
            yield from self._attestations.take_body(index, body)
        named = leaves.controls.get(0, {}).get("origin", self._checkpoint.origin)
        if leaves.start == 0 and named != self._checkpoint.origin:
            yield Finding("origin", 0, f"it names the log {named!r}, the checkpoint another")
        self.tally.control += len(leaves.controls)
        self.tally.attested = self._attestations.count

    def _grow(self, leaves: Leaves) -> Iterator[Finding]:
        """Add a stretch to the frontier; compare its tiles of level 1, and the roots that somebody knows."""
        start, stop, local, rows = leaves.start, leaves.stop, Frontier(), list[bytes]()
        edges = sorted({start, stop, *self._memory.sizes(start, stop)})
        roots = {}
        for before, size in pairwise(edges):
            local, completed = local.grow(leaves.hashes[before - start : size - start])
            rows += [value for level, _, value in completed if level == 1]
            roots[size] = joined_root(self.frontier.nodes, local.root())
        found = Findings()
        self._tiles(1, start // TILE_WIDTH, rows, found)
        if stop - start == STRETCH:
            self.frontier, completed = self.frontier.grow(local.nodes, level=16)
            self._higher |= {(level, index): value for level, index, value in completed}
        else:
            self.frontier = Frontier(stop, (*self.frontier.nodes, *local.nodes))
        self.tally.entries, self.tally.root = stop, self.frontier.root()
        yield from found
        yield from self._against(roots)

    def _against(self, roots: dict[int, bytes]) -> Iterator[Finding]:
        size, root = self._checkpoint.size, self._checkpoint.root
        if roots.get(size, root) != root:
            yield Finding("root", None, f"the root at size {size} is not the one that the checkpoint names")
        yield from self._memory.against(roots)

    def _tiles(self, level: int, first: int, hashes: Sequence[bytes], found: Findings) -> None:
        """Compare hashes, from number `first` (a multiple of 256) of a level on, with the tiles that hold them."""
        starts = range(0, len(hashes), TILE_WIDTH)
        tiles = [Tile(level, (first + at) // TILE_WIDTH, min(TILE_WIDTH, len(hashes) - at)) for at in starts]
        answers = self._read([tile.path() for tile in tiles])
        for at, tile, answer in zip(starts, tiles, answers, strict=True):
            data = answer
            if data is None and not tile.is_full:
                whole = self._read([Tile(level, tile.index).path()])[0]
                data = None if whole is None else whole[: 32 * tile.width]
            if data != b"".join(hashes[at : at + TILE_WIDTH]):
                what = "is missing" if data is None else "is not that of its entries"
                index = (first + at) << 8 * level
                found.add("nodes", index, f"{tile.path()} {what}", "missing" if data is None else "altered")

    def _higher_tiles(self) -> Iterator[Finding]:
        for row in tile_rows(self._checkpoint.size)[2:]:
            known = {index: value for (level, index), value in self._higher.items() if level == row.level}
            for tile in sorted({index // TILE_WIDTH for index in known}):
                width = min(TILE_WIDTH, row.full * TILE_WIDTH + row.partial - tile * TILE_WIDTH)
                yield from self._higher_tile(Tile(row.level, tile, width), known)

    def _higher_tile(self, tile: Tile, known: dict[int, bytes]) -> Iterator[Finding]:
        data = self._read([tile.path()])[0] or self._read([Tile(tile.level, tile.index).path()])[0] or b""
        for at in range(tile.width):
            value = known.get(tile.index * TILE_WIDTH + at)
            if value is not None and data[32 * at : 32 * at + 32] != value:
                index = (tile.index * TILE_WIDTH + at) << 8 * tile.level
                yield Finding("nodes", index, f"{tile.path()} is missing, or not that of its entries")
                return


def _first(data: bytes | None, width: int) -> bytes | None:
    """Return the first entries of a full bundle, where the partial one is not kept any more."""
    if data is None:
        return None
    try:
        return encode_bundle(decode_bundle(data)[:width])
    except (FormatError, MerkleError):
        return data


def _ring_from(rotations: Sequence[tuple[int, dict[str, Any]]], known: Ed25519Verifier) -> KeyRing:
    """Return the keys that rotations name, the known one where there are none; raise IntegrityError if unsound."""
    ring = KeyRing(read_rotation(*rotations[0])[0] if rotations else known)
    for index, body in rotations:
        ring.learn(index, body)
    return ring
