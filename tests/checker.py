"""A judge of whole logs that shares no code with what it judges.

It reads the raw tables, recomputes all that follows from leaves and rows by `tests.archive.spec`, and fails
where anything stored says otherwise: tree, blocks, chain, checkpoints, nodes, openings, tags, sequences, ids.

    entries = check_log(log, vault, vault_key, origin, public_key)

The program for users is `tools.verify_log`; this one is for crash tests, and must stay independent of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from archive import Store
from tests.archive import spec

Table = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Entry:
    """An entry as the judge read it; a control entry has a body, a private one the rest."""

    index: int
    time_s: int
    body: dict[str, Any] | None = None
    subject: str = ""
    sequence: int = 0
    sender: str = ""
    id: str | None = None
    payload: bytes = b""
    extra: dict[str, Any] = field(default_factory=dict)


def check_log(log: Store, vault: Store, vault_key: bytes, origin: str, public: bytes) -> list[Entry]:
    """Return every entry of a log, or fail with what is wrong.  `public` is the 32-byte Ed25519 key."""
    tables = {name: table(log, name) for name in ("leaves", "rows", "nodes", "blocks", "checkpoints")}
    leaves = parts(tables["leaves"], 2)
    rows = parts(tables["rows"], 4)
    assert len(leaves) == len(rows), "a leaf without a row, or a row without a leaf"
    roots = Roots(leaves)
    sizes = check_blocks(tables["blocks"], roots)
    assert sizes[-1:] == [len(leaves)] or not leaves, "the last block does not end at the last leaf"
    check_checkpoints(tables["checkpoints"], sizes, roots, origin, Ed25519PublicKey.from_public_bytes(public))
    expected = [(b"\x01" + spec.u64(at), roots.between(256 * at, 256)) for at in range(len(leaves) // 256)]
    assert tables["nodes"] == expected, "a node above 256 leaves is missing, wrong or too many"
    entries = list(read_entries(leaves, rows, Names(vault, vault_key)))
    check_order(entries)
    return entries


def table(store: Store, name: str) -> Table:
    """Return a whole table of a store."""
    with store.view() as view:
        return list(view.scan(name))


def parts(bundles: Table, width: int) -> list[bytes]:
    """Return the parts of bundles, which must follow without gap and never cross a multiple of 256."""
    found: list[bytes] = []
    for key, value in bundles:
        assert int.from_bytes(key, "big") == len(found), f"a gap or an overlap at {len(found)}"
        first, at = len(found), 0
        while at < len(value):
            size = int.from_bytes(value[at : at + width], "big")
            found.append(value[at + width : at + width + size])
            assert len(found[-1]) == size, "a part is cut off"
            at += width + size
        assert first // 256 == (len(found) - 1) // 256, f"the bundle at {first} crosses a multiple of 256"
    return found


class Roots:
    """RFC 6962 roots over leaves, each perfect subtree computed once."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def between(self, start: int, count: int) -> bytes:
        """Return the root over `count` leaves from `start`."""
        if count <= 1:
            return spec.tree_root(self._leaves[start : start + count])
        if (start, count) not in self._known:
            left = 1 << (count - 1).bit_length() - 1
            pair = self.between(start, left) + self.between(start + left, count - left)
            self._known[start, count] = spec.sha256(b"\x01" + pair)
        return self._known[start, count]


def check_blocks(blocks: Table, roots: Roots) -> list[int]:
    """Return the size after each block."""
    sizes, size, previous = [], 0, bytes(32)
    for number, (key, value) in enumerate(blocks):
        count = int.from_bytes(value[17:21], "big")
        assert count >= 1, f"block {number} is empty"
        expected = spec.block(number, size, count, previous, roots.between(0, size + count))
        assert (key, value) == (spec.u64(number), expected), f"block {number} is not what its entries make it"
        size, previous = size + count, spec.block_hash(value)
        sizes.append(size)
    return sizes


def check_checkpoints(
    notes: Table, sizes: list[int], roots: Roots, origin: str, public: Ed25519PublicKey
) -> None:
    """Check that each block, and nothing else, has a signed note of its root."""
    assert [key for key, _ in notes] == [spec.u64(size) for size in sizes], "blocks and checkpoints differ"
    for size, (_, note) in zip(sizes, notes, strict=True):
        text, _, signature = note.partition(b"\n\n")
        root = base64.b64encode(roots.between(0, size)).decode()
        assert text.decode() == f"{origin}\n{size}\n{root}", f"checkpoint {size} names another root"
        dash, name, blob = signature.decode().split()
        assert (dash, name) == ("—", origin), f"checkpoint {size} is signed by another name"
        public.verify(base64.b64decode(blob)[4:], text + b"\n")


class Names:
    """The vault, opened by the page that describes it."""

    def __init__(self, vault: Store, vault_key: bytes) -> None:
        wrapped = dict(table(vault, "subjects"))
        site = spec.unwrap(vault_key, dict(table(vault, "meta"))[b"site"], b"treering/site/v1")
        self.id_key = spec.hkdf_expand(site, "treering/id/v1")
        self.route_key = spec.hkdf_expand(site, "treering/route/v1")
        name_key = spec.hkdf_expand(site, "treering/name/v1")
        self.secrets: dict[int, bytes] = {}
        self.names: dict[int, str] = {}
        for key, value in wrapped.items():
            number = int.from_bytes(key, "big")
            plain = spec.unwrap(vault_key, value, spec.subject_aad(number))
            self.secrets[number], self.names[number] = plain[:32], plain[32:].decode()
        hashes = {spec.keyed(16, name_key, name.encode()): spec.u64(no) for no, name in self.names.items()}
        assert hashes == dict(table(vault, "names")), "names and subjects of the vault differ"


KINDS = {1: None, 2: "frame", 3: "refused", 4: "binding"}


def read_entries(leaves: Sequence[bytes], rows: Sequence[bytes], names: Names) -> Iterator[Entry]:
    """Yield every entry, each opened and held against its leaf."""
    version = 1
    for index, (leaf, row) in enumerate(zip(leaves, rows, strict=True)):
        time_s = int.from_bytes(leaf[2:10], "big")
        if leaf[:2] == b"\x01\x02":
            body = json.loads(leaf[10:])
            assert (leaf, row) == (spec.control_leaf(time_s, body), b""), (
                f"control entry {index} is malformed"
            )
            version = body.get("header", 1) if body["control"] == "start" else version
            yield Entry(index, time_s, body)
        else:
            entry = read_private(index, time_s, leaf, row, names)
            check_filing(entry, row, names, version)
            yield entry


def check_filing(entry: Entry, row: bytes, names: Names, version: int) -> None:
    """Check that a header says, as its version must, as what the row files it, and about whom besides."""
    further = [names.names[int.from_bytes(row[at : at + 8], "big")] for at in range(12, 4 + 8 * row[2], 8)]
    for member, filed in (("kind", KINDS[row[1] & 0x7F]), ("also", further or None)):
        said = entry.extra.get(member)
        assert said == filed or (version < 2 and said is None), f"entry {entry.index}: {member} is not {said}"


def read_private(index: int, time_s: int, leaf: bytes, row: bytes, names: Names) -> Entry:
    """Return one private entry; every byte of leaf and row must follow from what is in it."""
    assert spec.u32(zlib.crc32(row[:-4])) == row[-4:], f"row {index} rotted"
    kind, count, routed = row[1:4]
    subjects = [int.from_bytes(row[at : at + 8], "big") for at in range(4, 4 + 8 * count, 8)]
    head_end = 4 + 8 * count + 16 + 10 * routed
    nonce = row[head_end : head_end + 12]
    secrets = [names.secrets[number] for number in subjects]
    key = spec.data_key(secrets)
    opening = spec.unwrap(key, row[head_end:-4], row[:head_end])
    header_end = 36 + int.from_bytes(opening[32:36], "big")
    subject, sequence, received, source, sender, form, keys, extra = msgspec.msgpack.decode(
        opening[36:header_end]
    )
    header = spec.msgpack([subject, sequence, received, source, sender, form, keys, extra])
    assert opening[36:header_end] == header, f"entry {index}: its header is not canonical"
    identifier = spec.id_hash(names.id_key, sender, extra["id"]) if "id" in extra else bytes(16)
    subject_kind, _, label = subject.partition(":")
    assert subject_kind not in keys, f"entry {index}: its subject's key field stands in the header, too"
    if subject_kind not in {"source", "provisional", "refused"}:
        keys = {**keys, subject_kind: label}
    routes = [spec.route(names.route_key, field, keys[field]) for field in sorted(keys)]
    assert row == spec.row(kind, subjects, identifier, routes, nonce, key, opening), f"row {index} differs"
    assert names.names[subjects[0]] == subject, f"entry {index}: the vault names another subject"
    tag = spec.tag(spec.tag_key(secrets[0]), sequence)
    assert leaf == spec.private_leaf(time_s, tag, spec.commitment(opening)), (
        f"leaf {index} commits to other bytes"
    )
    payload = opening[header_end:]
    return Entry(index, time_s, None, subject, sequence, sender, extra.get("id"), payload, extra)


def check_order(entries: Sequence[Entry]) -> None:
    """Check what holds across entries: time, sequences, ids, the first entry."""
    times = [entry.time_s for entry in entries]
    assert times == sorted(times), "time decreased"
    seen: Counter[str] = Counter()
    ids: set[tuple[str, str]] = set()
    for entry in entries:
        assert ((entry.body or {}).get("control") == "origin") == (entry.index == 0), "entry 0 is the origin"
        if entry.body is None:
            seen[entry.subject] += 1
            assert entry.sequence == seen[entry.subject], f"entry {entry.index}: a sequence number is off"
        if entry.id is not None:
            assert (entry.sender, entry.id) not in ids, f"entry {entry.index}: an id is there twice"
            ids.add((entry.sender, entry.id))
