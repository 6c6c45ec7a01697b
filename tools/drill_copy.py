"""A copy of a log that may be tampered with: its tables in memory, and a key that is good for nothing else.

Nobody signs a forged history with a key that matters.  So all checkpoints of the copy are signed anew, with a key made
for this drill: what an insider who holds the log's key could do is done with that one.

    copy = copy_of(tables, blocks up to …, signer)      → a case alters it →      copy.write(folder)

`Book` is the log as a forger sees it, as entries and where commits end; `Copy.rewrite` makes everything else follow.
What a case is: `tools.drill_case`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from archive import (
    ROW_EVENT,
    TABLES,
    Archiver,
    Block,
    Caches,
    DataFolder,
    ManualClock,
    MemoryPublished,
    NotFound,
    Row,
    Seal,
    SealFile,
    Submission,
    Vault,
    View,
    Write,
    commitment_of,
    decode_block,
    encode_seal,
    node_key,
    open_row,
    parse_row,
)
from merkle import Checkpoint, Ed25519Signer, Frontier, leaf_hash, sign_checkpoint, sign_note

PAGE = 4_096
ORIGIN = "example.org/drill"
ENTRIES_MIN = 300
"""Fewer make no node of the tree, which must be tampered with, too."""
COMMITS_MIN = 12
BUNDLE = 256
START_US = 1_700_000_000_000_000


@dataclass
class Book:
    """Entries, and the size of the log after each commit."""

    leaves: list[bytes]
    rows: list[bytes]
    sizes: list[int]

    def drop(self, index: int) -> None:
        """Take an entry out and close the ranks."""
        del self.leaves[index], self.rows[index]
        self.sizes = [size - (size > index) for size in self.sizes]

    def insert(self, index: int, leaf: bytes, row: bytes) -> None:
        """Put an entry in."""
        self.leaves.insert(index, leaf)
        self.rows.insert(index, row)
        self.sizes = [size + (size > index or size == len(self.leaves) - 1) for size in self.sizes]


@dataclass
class Copy:
    """Everything that is stored of a log."""

    tables: dict[str, dict[bytes, bytes]]
    seal: bytes
    """Bytes of the seal's file."""
    signer: Ed25519Signer
    vault: Vault | None = None
    cosigned: bytes = b""
    """The checkpoint that the outside is shown, with the signatures of witnesses."""
    after: list[str] = field(default_factory=list)
    """What is to be done to the file once it is written: "cut" or "page"."""
    vault_harm: Callable[[View], Sequence[Write]] | None = None
    """What is to be written into a copy of the vault, given what is in it."""

    def copy(self) -> Copy:
        """Return one to tamper with."""
        tables = {name: dict(rows) for name, rows in self.tables.items()}
        return Copy(tables, self.seal, self.signer, self.vault, self.cosigned)

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in order."""
        return [decode_block(value) for _, value in sorted(self.tables["blocks"].items())]

    def book(self) -> Book:
        """Return the log as entries."""
        sizes = [block.size for block in self.blocks]
        return Book(self._parts("leaves", 2), self._parts("rows", 4), sizes)

    def rewrite(self, book: Book, *, signer: Ed25519Signer | None = None, seal: bool = True) -> None:
        """Make every table follow from these entries, as whoever holds the key could."""
        key = signer or self.signer
        self.tables = {name: {} for name in TABLES}
        frontier, previous, start = Frontier(), bytes(32), 0
        for number, size in enumerate(book.sizes):
            frontier, nodes = frontier.grow([leaf_hash(leaf) for leaf in book.leaves[start:size]])
            block = Block(number, start, size - start, previous, frontier.root())
            self._put("leaves", start, book.leaves[start:size], 2)
            self._put("rows", start, book.rows[start:size], 4)
            self.tables["nodes"] |= {node_key(level, index): value for level, index, value in nodes}
            self.tables["blocks"][number.to_bytes(8)] = block.encode()
            self.tables["checkpoints"][size.to_bytes(8)] = sign_checkpoint(
                Checkpoint(key.name, size, block.root), key
            )
            previous, start = block.hash(), size
        if seal:
            self.reseal()

    def reseal(self) -> None:
        """Write the seal as it would be had the log always been like this."""
        last = self.blocks[-1]
        self.seal = seal_bytes(last.size, last.root, last.number)

    def keep(self, blocks: int) -> None:
        """Set the database back to its first blocks; the seal stays."""
        book = self.book()
        book.sizes = book.sizes[:blocks]
        size = book.sizes[-1]
        self.rewrite(Book(book.leaves[:size], book.rows[:size], book.sizes), seal=False)

    def edit(self, table: str, index: int, position: int, part: bytes) -> None:
        """Overwrite bytes of one leaf or row in place, `position` bytes into it."""
        key, at = self.place(table, index)
        value = self.tables[table][key]
        self.tables[table][key] = value[: at + position] + part + value[at + position + len(part) :]

    def place(self, table: str, index: int) -> tuple[bytes, int]:
        """Return the key of the bundle that holds an entry, and where in it the entry begins."""
        width = 2 if table == "leaves" else 4
        key = max(key for key in self.tables[table] if int.from_bytes(key) <= index)
        value, at = self.tables[table][key], width
        for _ in range(index - int.from_bytes(key)):
            at += int.from_bytes(value[at - width : at]) + width
        return key, at

    def _parts(self, table: str, width: int) -> list[bytes]:
        parts = []
        for _, value in sorted(self.tables[table].items()):
            at = 0
            while at < len(value):
                start = at + width
                at = start + int.from_bytes(value[at:start])
                parts.append(value[start:at])
        return parts

    def _put(self, table: str, first: int, parts: Sequence[bytes], width: int) -> None:
        """Bundle parts up to each multiple of 256."""
        at = first
        while at < first + len(parts):
            stop = min(at - at % BUNDLE + BUNDLE, first + len(parts))
            pieces = [len(part).to_bytes(width) + part for part in parts[at - first : stop - first]]
            self.tables[table][at.to_bytes(8)] = b"".join(pieces)
            at = stop

    def write(self, folder: DataFolder) -> None:
        """Write the copy into a data folder."""
        folder.log.mkdir(mode=0o700, parents=True)
        store = folder.open_log(read_only=False)
        store.commit(
            [
                Write(table, key, value)
                for table, values in self.tables.items()
                for key, value in sorted(values.items())
            ]
        )
        store.close()
        (folder.log / "seal").write_bytes(self.seal)
        if self.cosigned:
            folder.cosigned.write_bytes(self.cosigned)
        for harm in self.after:
            HARM[harm](folder.log / "data.mdb")


def seal_bytes(size: int, root: bytes, block: int) -> bytes:
    """Return a seal's file as an archiver would have left it."""
    return encode_seal(Seal(1, size, root, block))


def _cut(path: Path) -> None:
    """Take the last quarter of a file away."""
    os.truncate(path, path.stat().st_size * 3 // 4)


def _page(path: Path) -> None:
    """Let a page near the middle of a file say that it is another one."""
    data = path.read_bytes()
    pages = len(data) // PAGE
    # A page begins with its own number; what continues a long value begins with anything.
    number = next(
        n for n in range(pages // 2, pages) if data[n * PAGE : n * PAGE + 8] == n.to_bytes(8, sys.byteorder)
    )
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        file.write((1 << 40).to_bytes(8, sys.byteorder))


HARM = {"cut": _cut, "page": _page}


def copy_of(view: View, entries: int, signer: Ed25519Signer, vault: Vault | None) -> Copy:
    """Return a copy of the first commits of a log, up to about `entries` entries, its checkpoints signed by `signer`.

    It ends before the log first changed its key, and has at least a dozen commits.  Raises NotFound if there is
    too little to copy.
    """
    tables = {name: dict(view.scan(name)) for name in ("leaves", "rows", "blocks")}
    whole = Copy(tables, b"", signer, vault)
    book = whole.book()
    rotated = next(
        (at for at, leaf in enumerate(book.leaves) if b'"control":"rotate"' in leaf), len(book.leaves)
    )
    size = _size_of_copy([one for one in book.sizes if one <= rotated], entries)
    book.sizes = [one for one in book.sizes if one <= size]
    if len(book.sizes) < COMMITS_MIN:
        book.sizes = [2, *(size * number // COMMITS_MIN for number in range(1, COMMITS_MIN + 1))]
    whole.rewrite(Book(book.leaves[:size], book.rows[:size], book.sizes))
    return whole


def _size_of_copy(sizes: Sequence[int], entries: int) -> int:
    """Return at which of the commits a copy of about so many entries ends; raise NotFound if all are too small."""
    if not sizes or sizes[-1] < ENTRIES_MIN:
        raise NotFound(
            f"only {sizes[-1] if sizes else 0} entries can be copied, up to the first change of key; a drill takes "
            f"{ENTRIES_MIN}: leave --data out, to try it on a log that is made for it"
        )
    enough = [size for size in sizes if size >= ENTRIES_MIN]
    return max((size for size in enough if size <= entries), default=enough[0])


def small_log(folder: DataFolder, *, commits: int = 26, commit: int = 24, students: int = 9) -> Ed25519Signer:
    """Make a little log of a class, with everything on, in a folder; return its key."""
    folder.create()
    clock = ManualClock(START_US)
    signer = folder.signer(os.urandom, ORIGIN)
    store, vault = folder.open_log(read_only=False), folder.open_vault(os.urandom, read_only=False)
    archiver = Archiver(
        ORIGIN,
        store,
        vault,
        caches=Caches(),
        seal=SealFile(folder.log / "seal"),
        published=MemoryPublished(),
        clock=clock,
        random=os.urandom,
        sign=lambda text: sign_note(text, [signer]),
    )
    archiver.open({"software": "drill"})
    for number in range(commits):
        clock.time_us += 60_000_000
        archiver.step([_event(number * commit + n, n % students, clock.time_us) for n in range(commit)])
    vault.close()
    store.close()
    return signer


def _event(number: int, student: int, now_us: int) -> Submission:
    """Return an event of a student; one in each commit is also about another."""
    return Submission(
        kind=ROW_EVENT,
        subject=f"student:s{student}",
        payload=b'{"answer":%d}' % number,
        received_us=now_us,
        source="drill",
        sender="class",
        form="json",
        keys={"student": f"s{student}", "doc_id": f"d{student}"},
        id=f"drill-{number}",
        also=["student:s0"] if number % 24 == 1 else [],
    )


def opened(vault: Vault, row: bytes) -> tuple[Row, bytes]:
    """Return a row taken apart, and its opening."""
    parsed = parse_row(row)
    return parsed, open_row(parsed, vault.data_key(parsed.subjects))


def closed(vault: Vault, row: Row, head: bytes, opening: bytes) -> bytes:
    """Return a row with another head or opening, encrypted and with the right checksum: no outsider could."""
    body = head + row.nonce + vault.data_key(row.subjects).encrypt(row.nonce, opening, head)
    return body + crc32(body).to_bytes(4)


def filed(vault: Vault, row: bytes, kind: int, subjects: Sequence[int]) -> bytes:
    """Return a row with the same opening, filed as another kind or about others: encrypted anew, under their key."""
    parsed, opening = opened(vault, row)
    numbers = b"".join([number.to_bytes(8) for number in subjects])
    kind += row[1] - parsed.kind  # whether the subject is provisional stands in the same byte
    head = bytes((row[0], kind, len(subjects), row[3])) + numbers + parsed.identifier + parsed.routes
    body = head + parsed.nonce + vault.data_key(subjects).encrypt(parsed.nonce, opening, head)
    return body + crc32(body).to_bytes(4)


def with_payload(vault: Vault, leaf: bytes, row: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """Return leaf and row of the same entry with another payload."""
    parsed, opening = opened(vault, row)
    altered = opening[: 36 + int.from_bytes(opening[32:36])] + payload
    return leaf[:26] + commitment_of(altered), closed(vault, parsed, parsed.head, altered)
