"""Every byte of the archive's formats: golden vectors, a second implementation, and anything at all.

The vectors in tests/vectors/archive are kept by hand: nothing regenerates them, so a change of a format must
change a vector where a reviewer sees it.  `tests.archive.spec` computes each of them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    FormatError,
    Header,
    IntegrityError,
    Leaf,
    MemoryStore,
    Opening,
    Seal,
    Vault,
    Write,
    check_row,
    commitment_of,
    control_body,
    decode_block,
    field_code,
    newest_seal,
    node_key,
    open_entry,
    open_row,
    parse_leaf,
    parse_opening,
    parse_row,
    routing_hash,
    tag_of,
)
from archive.block import Block
from archive.bundles import bundle, unbundle
from archive.datakey import DataKey
from archive.entry import (
    decode_header,
    encode_control,
    encode_header,
    id_hash,
    keys_of,
    other_keys,
    seal_entry,
)
from archive.openings import canonical_header
from archive.seal import decode_seal, encode_seal
from archive.vault import TABLES as VAULT_TABLES
from archive.wire import (
    BACK,
    FRONT,
    Append,
    Appended,
    Published,
    Receipt,
    Refusal,
    Subscribe,
    decode_frames,
    encode_frame,
)
from merkle import leaf_hash
from tests.archive import spec
from tests.archive.site import event

FOLDER = Path(__file__).parent.parent / "vectors" / "archive"
ENTRY, BLOCK, VAULT = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("entry", "block", "vault")
)
KEYS = {name: bytes.fromhex(text) for name, text in ENTRY["keys"].items()}
OPENING = bytes.fromhex(ENTRY["opening"]["opening"])
LEAF = bytes.fromhex(ENTRY["leaf_private"]["leaf"])
ROWS = [bytes.fromhex(row["row"]) for row in ENTRY["rows"]]
HEADERS = [bytes.fromhex(one["header"]) for one in ENTRY["headers"]]


def flat(value: Any) -> bytes:
    """Join the hexadecimal fields of a vector, in order."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(map(flat, value.values() if isinstance(value, dict) else value))


def plain(value: Any) -> Any:
    """Return a vector's value with each {"hex": …} as bytes."""
    if isinstance(value, dict):
        if set(value) == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


# --- golden vectors ------------------------------------------------------------------------------


def test_keys_follow_from_secrets() -> None:
    """Tag key and data keys of one and of several subjects are those of the page."""
    one, two = KEYS["secret"], KEYS["second_secret"]
    assert spec.tag_key(one) == KEYS["tag_key"]
    assert spec.data_key([one]) == KEYS["data_key"]
    assert spec.data_key([one, two]) == KEYS["data_key_of_both"]


def test_tags() -> None:
    """A tag is 16 bytes of SHA-256 over domain, tag key and sequence number."""
    for case in ENTRY["tags"]:
        key, sequence, tag = bytes.fromhex(case["tag_key"]), case["sequence"], bytes.fromhex(case["tag"])
        assert spec.tag(key, sequence) == tag_of(key, sequence) == tag


def test_id_hash() -> None:
    """An id is looked up by a keyed hash of producer and id."""
    case = ENTRY["id_hash"]
    expected = bytes.fromhex(case["hash"])
    assert spec.id_hash(KEYS["id_key"], case["producer"], case["id"]) == expected
    assert id_hash(KEYS["id_key"], case["producer"], case["id"]) == expected


def test_routes() -> None:
    """A route is a 2-byte field code and an 8-byte keyed hash of field and value."""
    for case in ENTRY["routes"]:
        field, value = case["field"], case["value"]
        code, routing = bytes.fromhex(case["code"]), bytes.fromhex(case["hash"])
        assert spec.sha256(field.encode()).hex() == case["sha256_of_field"]
        assert spec.route(KEYS["route_key"], field, value) == code + routing
        assert (field_code(field), routing_hash(KEYS["route_key"], field, value)) == (code, routing)


@pytest.mark.parametrize("case", ENTRY["headers"])
def test_headers(case: dict[str, Any]) -> None:
    """A header is one MessagePack array, shortest encodings, maps sorted."""
    value, header = plain(case["value"]), bytes.fromhex(case["header"])
    assert spec.msgpack(value) == header
    assert encode_header(Header(*value)) == header
    assert decode_header(header) == Header(*value)


def test_opening_and_commitment() -> None:
    """An opening is salt, header length, header, payload; its commitment hashes all of it."""
    salt, _, header, payload = (bytes.fromhex(text) for text in ENTRY["opening"]["fields"].values())
    assert spec.opening(salt, header, payload) == flat(ENTRY["opening"]["fields"]) == OPENING
    assert spec.commitment(OPENING) == commitment_of(OPENING) == bytes.fromhex(ENTRY["opening"]["commitment"])
    opened = parse_opening(OPENING)
    assert (opened.salt, encode_header(opened.header), opened.payload) == (salt, header, payload)


def test_private_leaf() -> None:
    """The leaf of a private entry is 58 bytes and says a time, a tag and a commitment."""
    _, _, time, tag, commitment = (bytes.fromhex(text) for text in ENTRY["leaf_private"]["fields"].values())
    time_s = int.from_bytes(time, "big")
    assert len(LEAF) == 58
    assert LEAF == flat(ENTRY["leaf_private"]["fields"]) == spec.private_leaf(time_s, tag, commitment)
    assert parse_leaf(LEAF) == Leaf(1, time_s, tag, commitment, b"")
    assert parse_leaf(spec.private_leaf(2**64 - 1, tag, commitment)).time_s == 2**64 - 1
    assert spec.sha256(b"\0" + LEAF) == leaf_hash(LEAF) == bytes.fromhex(ENTRY["leaf_private"]["leaf_hash"])


def test_control_leaf() -> None:
    """The leaf of a control entry holds canonical JSON."""
    case = ENTRY["leaf_control"]
    leaf, time_s = bytes.fromhex(case["leaf"]), int(case["fields"]["time"], 16)
    assert case["text"].encode() == bytes.fromhex(case["fields"]["body"])
    assert leaf == flat(case["fields"]) == spec.control_leaf(time_s, case["body"])
    assert encode_control(time_s, case["body"]) == leaf
    assert control_body(parse_leaf(leaf)) == case["body"]
    assert spec.sha256(b"\0" + leaf) == leaf_hash(leaf) == bytes.fromhex(case["leaf_hash"])


@pytest.mark.parametrize("case", ENTRY["rows"])
def test_rows(case: dict[str, Any]) -> None:
    """A row is head, nonce, ciphertext and checksum; sealing the same entry gives these bytes."""
    fields, row, key = case["fields"], bytes.fromhex(case["row"]), bytes.fromhex(case["data_key"])
    kind, nonce = int(fields["kind"], 16), bytes.fromhex(fields["nonce"])
    subjects = [int(text, 16) for text in fields["subjects"]]
    routes = [flat(route) for route in fields["routes"]]
    identifier = bytes.fromhex(fields["id_hash"])
    assert flat(fields) == row
    assert spec.row(kind, subjects, identifier, routes, nonce, key, OPENING) == row
    _, leaf_row = seal_entry(
        1_700_000_001,
        kind,
        subjects,
        identifier,
        b"".join(routes),
        KEYS["tag_key"],
        DataKey(key),
        1,
        HEADERS[0],
        parse_opening(OPENING).payload,
        OPENING[:32],
        nonce,
    )
    assert leaf_row == row
    check_row(row)
    parsed = parse_row(row)
    assert (parsed.kind, parsed.provisional) == (kind & 0x7F, kind >= 0x80)
    assert (parsed.subjects, parsed.identifier, parsed.nonce) == (tuple(subjects), identifier, nonce)
    assert [parsed.route(route[:2]) for route in routes] == [route[2:] for route in routes]
    assert parsed.route(b"??") is None
    assert open_row(parsed, DataKey(key)) == OPENING


def test_sealed_leaf_is_the_vector() -> None:
    """Sealing an entry gives the leaf of the vectors, byte for byte."""
    opened, key = parse_opening(OPENING), DataKey(KEYS["data_key"])
    arguments = (1_700_000_001, 1, (7,), bytes(16), b"", KEYS["tag_key"], key, 1, HEADERS[0], opened.payload)
    assert seal_entry(*arguments, opened.salt, bytes(12)).leaf == LEAF


@pytest.mark.parametrize("number", range(len(BLOCK["blocks"])))
def test_blocks(number: int) -> None:
    """A block names its place, the block before and the root over all leaves so far; its hash names it."""
    case = BLOCK["blocks"][number]
    data, leaves = bytes.fromhex(case["block"]), [bytes.fromhex(text) for text in BLOCK["leaves"]]
    previous = bytes.fromhex(BLOCK["blocks"][number - 1]["hash"]) if number else bytes(32)
    block = decode_block(data)
    root = spec.tree_root(leaves[: block.size])
    assert data == flat(case["fields"]) == spec.block(number, block.first, block.count, previous, root)
    assert block == Block(number, [0, 1][number], [1, 2][number], previous, root)
    assert block.encode() == data
    assert block.hash() == spec.block_hash(data) == bytes.fromhex(case["hash"])


@pytest.mark.parametrize("number", range(len(BLOCK["seal_slots"])))
def test_seal_slots(number: int) -> None:
    """A slot of the seal is 512 bytes: magic, turn, size, root, block, checksum, zeros."""
    case = BLOCK["seal_slots"][number]
    fields = dict(case["fields"])
    slot = bytes.fromhex(case["before_zeros"]) + bytes(fields.pop("zeros"))
    turn, size, block = (int(fields[name], 16) for name in ("turn", "size", "block"))
    root = bytes.fromhex(fields["root"])
    assert flat(fields) == slot[:96]
    assert slot == spec.seal_slot(turn, size, root, block) == encode_seal(Seal(turn, size, root, block))
    assert decode_seal(slot) == Seal(turn, size, root, block)


def test_node_keys() -> None:
    """A node's key is its tile level and its index."""
    for case in BLOCK["node_keys"]:
        assert node_key(case["level"], case["index"]).hex() == case["key"]


def test_vault_reads_the_vectors() -> None:
    """A vault with the wrapped site secret and subject of the vectors gives their keys and name."""
    site, subject = VAULT["site"], VAULT["subject"]
    vault_key, name = bytes.fromhex(VAULT["vault_key"]), subject["name"]
    nonces = [bytes.fromhex(case["fields"]["nonce"]) for case in (site, subject)]
    secret, secret_of_site = bytes.fromhex(subject["secret"]), bytes.fromhex(site["secret"])
    assert spec.wrap(vault_key, nonces[0], secret_of_site, b"treering/site/v1").hex() == site["value"]
    wrapped = spec.wrap(vault_key, nonces[1], secret + name.encode(), spec.subject_aad(7))
    assert wrapped.hex() == subject["value"] == flat(subject["fields"]).hex()
    assert (spec.subject_aad(7).hex(), spec.u64(7).hex()) == (subject["aad"], subject["key"])
    derived = {
        purpose: spec.hkdf_expand(secret_of_site, f"treering/{purpose}/v1") for purpose in ("id", "route")
    }
    name_key = spec.hkdf_expand(secret_of_site, "treering/name/v1")
    name_hash = spec.keyed(16, name_key, name.encode())
    assert name_hash.hex() == VAULT["name_hash"]
    store = MemoryStore(VAULT_TABLES)
    store.commit(
        [Write("meta", b"site", bytes.fromhex(site["value"])), Write("names", name_hash, spec.u64(7))]
    )
    store.commit([Write("subjects", spec.u64(7), wrapped)])
    vault = Vault(store, vault_key, bytes)
    keys = vault.find(name)
    assert keys is not None
    assert (keys.number, keys.name, keys.tag_key.hex()) == (7, name, subject["tag_key"])
    assert derived == {"id": vault.id_key, "route": vault.route_key}
    assert [vault.id_key.hex(), vault.route_key.hex()] == [VAULT["derived"][f"{one}_key"] for one in derived]
    assert open_row(parse_row(ROWS[0]), vault.data_key([7])) == OPENING


def test_vault_combines_secrets_in_the_order_of_the_row() -> None:
    """The key of a row about several subjects is derived from all their secrets, in order."""
    secrets = [KEYS["secret"], KEYS["second_secret"]]
    draws = iter([bytes(32), bytes(12), secrets[0], bytes(12), secrets[1], bytes(12)])
    vault = Vault(MemoryStore(VAULT_TABLES), bytes(32), lambda _: next(draws))
    vault.admit(name for name in ("a:1", "b:2"))
    assert open_row(parse_row(ROWS[1]), vault.data_key([0, 1])) == OPENING
    with pytest.raises(IntegrityError, match="not under this key"):
        open_row(parse_row(ROWS[1]), vault.data_key([1, 0]))


# --- anything at all -----------------------------------------------------------------------------

FRAMES = [
    encode_frame(Append(3, [event(b"{}", id="x", extra={"conn": b"12345678", "frame": 0})]))
    + encode_frame(Subscribe()),
    encode_frame(Appended(3, [Receipt(2, 3), Refusal("conflict", "…")], 3, bytes(32)))
    + encode_frame(Published(3)),
]
LEAVES = [LEAF, bytes.fromhex(ENTRY["leaf_control"]["leaf"])]
BLOCKS = [bytes.fromhex(case["block"]) for case in BLOCK["blocks"]]
SLOTS = [bytes.fromhex(case["before_zeros"]) + bytes(416) for case in BLOCK["seal_slots"]]
BUNDLES = [bundle(LEAVES, 2), bundle(ROWS, 4)]


@st.composite
def near(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """Draw anything, or something valid that was cut, flipped, doubled or spliced."""
    data = bytearray(draw(st.sampled_from([*valid, draw(st.binary(max_size=200))])))
    for _ in range(draw(st.integers(0, 3))):
        at, to = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        piece = draw(st.sampled_from([b"", bytes(data[at:to]) * 2, b"\xff", draw(st.binary(max_size=9))]))
        data[at:to] = piece
    return bytes(data)


def either(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Return what `parse` makes of `data`, None where it raises FormatError; other errors come through."""
    try:
        return parse(data)
    except FormatError:
        return None


@given(near(LEAVES))
def test_any_bytes_are_a_leaf_or_refused(data: bytes) -> None:
    """A leaf that is read encodes again to the same bytes; anything else is a FormatError."""
    leaf = either(parse_leaf, data)
    if leaf is not None:
        parts = leaf.tag + leaf.commitment + leaf.body
        assert bytes((1, leaf.kind)) + spec.u64(leaf.time_s) + parts == data


@given(near([leaf[10:] for leaf in LEAVES]))
def test_any_bytes_are_a_control_body_or_refused(data: bytes) -> None:
    """A control body that is read encodes again to the same bytes; anything else is a FormatError."""
    body = either(control_body, Leaf(2, 5, b"", b"", data))  # type: ignore[arg-type]
    if body is not None:
        assert encode_control(5, body)[10:] == data


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b"[]",
        b"",
        b'{"a":1e400}',
    ]
    + [b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (900, 1000, 100_000)],
)
def test_a_control_body_has_one_spelling(text: bytes) -> None:
    """Half a surrogate pair, NaN, another order, doubled names, blanks and bottomless nesting are refused."""
    depth_is_fine = text.startswith(b'{"a":[') and len(text) < 1_900
    if depth_is_fine:
        assert either(control_body, Leaf(2, 5, b"", b"", text)) is not None  # type: ignore[arg-type]
    else:
        with pytest.raises(FormatError):
            control_body(Leaf(2, 5, b"", b"", text))


@given(near(ROWS))
def test_any_bytes_are_a_row_or_refused(data: bytes) -> None:
    """A row that is read is the sum of its parts; anything else is a FormatError."""
    row = either(parse_row, data)
    if row is not None:
        assert row.head + row.nonce + row.ciphertext + data[-4:] == data
        subjects = b"".join(map(spec.u64, row.subjects))
        kind = row.kind | (0x80 if row.provisional else 0)
        counts = bytes((1, kind, len(row.subjects), len(row.routes) // 10))
        assert counts + subjects + row.identifier + row.routes == row.head


@given(near(HEADERS))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    """A header that is read encodes again to the one spelling of what these bytes spell, which is read as the same.

    So nothing of it is lost, and bytes in the one spelling come back as they are.  Others are read as well, and are a
    finding of the check (`archive.openings`); so is a map with keys that are no text, which has no such spelling.
    """
    header = either(decode_header, data)
    if header is None:
        return
    fields = msgspec.msgpack.decode(data)
    again = canonical_header(header)
    assert (again is None) == any(type(key) is not str for key in keys_within(fields[7]))
    if again is None:
        return
    assert encode_header(decode_header(again)) == again == encode_header(tuple(fields))
    with suppress(TypeError):  # the second implementation knows neither floats nor extensions
        assert spec.msgpack(fields) == again


def keys_within(value: Any) -> Iterator[Any]:
    """Yield the keys of all maps in a value."""
    if isinstance(value, dict):
        yield from value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_within(one)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=20,
)


@given(
    st.tuples(*[st.text()], st.integers(-(1 << 63), (1 << 64) - 1), st.integers(0, 1 << 63)),
    st.tuples(*[st.text()] * 3),
    st.dictionaries(st.text(), st.text()),
    st.dictionaries(st.text(), PLAIN),
)
def test_any_header_is_written_as_the_page_says_and_read_as_it_was(
    first: tuple[str, int, int], texts: tuple[str, str, str], keys: dict[str, str], extra: dict[str, Any]
) -> None:
    """Whatever stands in its fields: the bytes are those of the second implementation, and come back as the header."""
    header = Header(*first, *texts, keys, extra)
    data = encode_header(header)
    assert data == encode_header((*first, *texts, keys, extra)) == spec.msgpack([*first, *texts, keys, extra])
    assert decode_header(data) == header


@given(near([OPENING]))
def test_any_bytes_are_an_opening_or_refused(data: bytes) -> None:
    """An opening that is read encodes again to the same bytes, header and all; anything else is a FormatError."""
    opened = either(parse_opening, data)
    opening = either(Opening.decode, data)
    assert (opened is None) == (opening is None)
    if opened is None:
        return
    assert opening.encode() == data
    assert (opening.salt, opening.payload) == (opened.salt, opened.payload)
    assert decode_header(opening.header) == opened.header or "nan" in repr(opened.header)
    assert Opening.from_json(msgspec.json.encode(opening.to_json())) == opening


@given(near([msgspec.json.encode(Opening.decode(OPENING).to_json())]))
def test_any_text_is_an_opening_or_refused(data: bytes) -> None:
    """An opening that is read from JSON is written as one that is read as the same; anything else is a FormatError."""
    opening = either(Opening.from_json, data)
    if opening is not None:
        assert Opening.from_json(msgspec.json.encode(opening.to_json())) == opening


@given(near(BLOCKS))
def test_any_bytes_are_a_block_or_refused(data: bytes) -> None:
    """A block that is read encodes again to the same bytes; anything else is a FormatError."""
    block = either(decode_block, data)
    if block is not None:
        assert block.encode() == data


@given(near(SLOTS))
def test_any_bytes_are_a_seal_or_nothing(data: bytes) -> None:
    """A slot whose checksum is right encodes again to what counts of it; anything else holds nothing."""
    for seal in (decode_seal(data), newest_seal(data)):
        if seal is not None:
            assert encode_seal(seal)[:96] in data


@given(near(BUNDLES), st.sampled_from([2, 4]))
def test_any_bytes_are_a_bundle_or_refused(data: bytes, width: int) -> None:
    """A bundle that is read encodes again to the same bytes; anything else is a FormatError."""
    parts = either(lambda value: list(unbundle(value, width)), data)
    if parts is not None:
        assert bundle(parts, width) == data


@given(near(FRAMES), st.sampled_from([FRONT, BACK]))
def test_any_bytes_are_frames_or_refused(data: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    """What can be read is taken off the buffer, what is not complete stays; the rest is a FormatError.

    A message that was read is written as a frame that is read as the same; how it was spelled before is not kept.
    """
    buffer = bytearray(data)
    found = either(lambda _: decode_frames(buffer, decoder), data)
    if found is not None:
        messages, left = found
        assert (len(buffer), bytes(buffer)) == (left, data[len(data) - left :])
        again = bytearray(b"".join(map(encode_frame, messages)))
        whole = bytes(again)
        repeated, none = decode_frames(again, decoder)
        assert (b"".join(map(encode_frame, repeated)), none) == (whole, 0)
        assert [type(one) for one in repeated] == [type(one) for one in messages]


@pytest.mark.parametrize(("data", "decoder"), [(FRAMES[0], FRONT), (FRAMES[1], BACK)])
def test_frames_may_arrive_byte_by_byte(data: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    """How the network cuts a message does not matter."""
    buffer, messages = bytearray(), []
    for byte in data:
        buffer.append(byte)
        messages += decode_frames(buffer, decoder)[0]
    assert messages == decode_frames(bytearray(data), decoder)[0]
    assert len(messages) == 2


# --- what encodes, decodes; what changes, is found -----------------------------------------------

names = st.text(max_size=9)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | names | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
headers = st.builds(
    Header,
    names,
    st.integers(1, 2**63),
    st.integers(0, 2**63),
    names,
    names,
    names,
    st.dictionaries(names, names, max_size=20),
    st.dictionaries(names, values, max_size=4),
)


@given(headers)
def test_a_header_has_one_encoding(header: Header) -> None:
    """Equal headers have equal bytes, whatever the order in which their maps were filled."""
    backwards = msgspec.structs.replace(
        header,
        keys=dict(reversed(header.keys.items())),
        extra=dict(reversed(header.extra.items())),
    )
    data = encode_header(header)
    assert encode_header(backwards) == data == spec.msgpack(list(msgspec.structs.astuple(header)))
    assert decode_header(data) == header


@pytest.mark.parametrize("size", [7, 9])
def test_a_header_has_eight_fields(size: int) -> None:
    """A header that is short, or says more than we know, is not read as if it were none of our business."""
    value = ["s:x", 1, 2, "", "", "json", {}, {}, None][:size]
    with pytest.raises(FormatError, match="entry header"):
        decode_header(spec.msgpack(value))


numbers = st.integers(0, 2**64 - 1)


@given(numbers, numbers, st.binary(min_size=32, max_size=32), numbers)
def test_a_seal_is_read_as_it_was_written(turn: int, size: int, root: bytes, block: int) -> None:
    """Every number of 8 bytes comes back, whatever its size."""
    slot = encode_seal(Seal(turn, size, root, block))
    assert slot == spec.seal_slot(turn, size, root, block)
    assert decode_seal(slot) == Seal(turn, size, root, block)
    older = encode_seal(Seal(turn - 1, 2**64 - 1, root, block)) if turn else bytes(512)
    assert newest_seal(slot + older) == newest_seal(older + slot) == decode_seal(slot)


@given(
    headers,
    st.binary(max_size=300),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=16),
    st.sampled_from([1, 2, 3, 4, 0x81, 0x84]),
    st.integers(0, 32),
)
def test_an_entry_opens_to_what_was_sealed(
    header: Header, payload: bytes, subjects: list[int], kind: int, routed: int
) -> None:
    """Whatever is sealed is read back, and both parts are the bytes of the page."""
    encoded, key, routes = encode_header(header), bytes(range(32)), bytes(range(10)) * routed
    leaf, row = seal_entry(
        9,
        kind,
        subjects,
        b"i" * 16,
        routes,
        b"t" * 32,
        DataKey(key),
        3,
        encoded,
        payload,
        b"s" * 32,
        b"n" * 12,
    )
    opening = spec.opening(b"s" * 32, encoded, payload)
    assert leaf == spec.private_leaf(9, spec.tag(b"t" * 32, 3), spec.commitment(opening))
    assert row == spec.row(kind, subjects, b"i" * 16, [bytes(range(10))] * routed, b"n" * 12, key, opening)
    opened = open_entry(leaf, parse_row(row), DataKey(key))
    assert (opened.header, opened.payload) == (header, payload)


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_every_flipped_bit_of_a_row_is_found(number: int) -> None:
    """One changed bit anywhere fails the checksum, and where the checksum is mended too, the opening."""
    row, key = ROWS[number], DataKey(bytes.fromhex(ENTRY["rows"][number]["data_key"]))
    assert open_entry(LEAF, parse_row(row), key).payload == parse_opening(OPENING).payload
    for bit in range(8 * len(row)):
        changed = bytearray(row)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError, match="checksum"):
            check_row(bytes(changed))
        if bit < 8 * (len(row) - 4):
            with pytest.raises((FormatError, IntegrityError)):
                open_entry(LEAF, parse_row(bytes(changed)), key)


def test_every_flipped_bit_of_a_commitment_is_found() -> None:
    """A row that decrypts, but is not the one the leaf commits to, is refused: AES-GCM alone binds nobody."""
    row, key = parse_row(ROWS[0]), DataKey(KEYS["data_key"])
    for bit in range(8 * 26, 8 * 58):
        leaf = bytearray(LEAF)
        leaf[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError, match="commits"):
            open_entry(bytes(leaf), row, key)


@pytest.mark.parametrize("slot", SLOTS)
def test_every_flipped_bit_of_a_seal_is_found(slot: bytes) -> None:
    """A slot in which one bit of what counts was changed holds nothing."""
    for bit in range(8 * 96):
        changed = bytearray(slot)
        changed[bit // 8] ^= 1 << bit % 8
        assert decode_seal(bytes(changed)) is None


def test_a_control_entry_is_at_most_a_c2sp_entry() -> None:
    """65,535 bytes of leaf are taken, one more is refused."""
    room = 65_535 - 10 - len('{"a":""}')
    assert parse_leaf(encode_control(1, {"a": "x" * room})).kind == 2
    with pytest.raises(FormatError, match="65536 bytes; at most 65535"):
        encode_control(1, {"a": "x" * (room + 1)})


def test_a_frame_may_not_announce_more_than_anybody_sends() -> None:
    """A length beyond the limit ends the connection at once, instead of waiting for so much."""
    with pytest.raises(FormatError, match="frame of 268435457 bytes"):
        decode_frames(bytearray(spec.u32((256 << 20) + 1)), FRONT)


@pytest.mark.parametrize("kind", ["source", "refused", "provisional"])
def test_a_key_field_named_like_a_kind_of_subject_is_kept(kind: str) -> None:
    """A sender may call a field of his "source": nothing of what he sends is lost for it."""
    keys = {kind: "x", "doc_id": "d"}
    header = Header(f"{kind}:tool", 1, 0, "tool", "", "json", other_keys(f"{kind}:tool", keys), {})
    assert keys_of(header) == keys
