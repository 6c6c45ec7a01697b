"""The native kernel and its twin: for any arguments the same bytes, or the same error.

Where the extension was not built, one test says so and what to install, and the others hold the twin to its vectors.
The twin is the definition, and the golden vectors hold the twin to the written formats.  So what is tested here is
that nobody can tell the two apart: valid entries, damaged ones, wrong lengths, wrong types, empty lists.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archive import FormatError, IntegrityError, Row, Share, outline, parse_row, row_at, subjects_at, twin
from archive.bundles import bundle
from archive.datakey import DataKey
from archive.entry import (
    HEAD_SIZE_MAX,
    NO_ID,
    RANDOM_SIZE,
    Draft,
    Header,
    encode_header,
    leaf_prefix,
    open_entry,
    row_prefix,
)
from archive.kernel import Kernel, choose
from tests.archive import spec
from tests.archive.test_formats import ENTRY, LEAF, OPENING, ROWS
from tools.settings import SettingsError, load

BEGIN = leaf_prefix(1_700_000_000)
native: Kernel = twin
with suppress(ImportError):
    from archive import native as built

    native = built
KERNELS: list[Kernel] = [twin, native]

headers = st.builds(
    lambda subject, sequence, keys: encode_header(Header(subject, sequence, 5, "", "", "json", keys, {})),
    st.text(max_size=20),
    st.integers(0, 2**63),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
secrets = st.binary(min_size=32, max_size=32)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Draw what stands before the nonce of a row."""
    numbers = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=16))
    routes = draw(st.integers(0, 32))
    kind = draw(st.integers(1, 4)) | draw(st.sampled_from([0, 0x80]))
    return row_prefix(kind, numbers, routes) + draw(st.binary(min_size=16, max_size=16)) + bytes(10 * routes)


drafts = st.builds(
    Draft,
    subject=st.just(0),
    identifier=st.just(NO_ID),
    head=heads(),
    tag_key=secrets,
    data_key=st.builds(DataKey, secrets),
    sequence=st.integers(0, 2**64 - 1),
    header=headers,
    payload=st.binary(max_size=200) | st.binary(min_size=5_000, max_size=5_000),
)


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or which error it raises (with its words where they are ours)."""
    try:
        return call()
    except (FormatError, IntegrityError) as error:
        return type(error), str(error)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        return type(error)


def same(name: str, *arguments: Any) -> Any:
    """Return what both kernels answer, which must be the same."""
    first, second = (outcome(partial(getattr(one, name), *arguments)) for one in KERNELS)
    assert first == second, name
    return first


def chance(count: int, seed: int = 7) -> bytes:
    """Return salts and nonces for so many drafts."""
    return b"".join(spec.sha256(bytes([seed]) + spec.u64(n))[:22] * 2 for n in range(count))


def draft(**changes: Any) -> Draft:
    """Return a plain draft, but for `changes`."""
    plain: dict[str, Any] = {
        "subject": 0,
        "identifier": NO_ID,
        "head": row_prefix(1, (0,), 0) + NO_ID,
        "tag_key": bytes(32),
        "data_key": DataKey(bytes(32)),
        "sequence": 1,
        "header": encode_header(Header("student:ann", 1, 5, "", "", "json", {}, {})),
        "payload": b"{}",
    }
    return Draft(**{**plain, **changes})


def test_the_native_kernel_was_built() -> None:
    """A checkout whose extension is missing, or older than its source, would test nothing of it."""
    if os.environ.get("TREERING_KERNEL") != "python":
        hint = "needs a C compiler and the headers of OpenSSL 3 (libssl-dev); or set TREERING_KERNEL=python"
        assert native is not twin, f"archive/_kernel was not built: {hint}, then `pip install -e .` again"
        from archive import _kernel, _kernel_prepare

        for module in (_kernel, _kernel_prepare):
            source = Path(twin.__file__).with_name(f"{module.__name__.split('.')[1]}.c")
            built_at = Path(module.__file__ or "").stat().st_mtime
            assert built_at >= source.stat().st_mtime, f"older than {source.name}; run `make` again"


@given(st.lists(drafts, max_size=5))
def test_sealing_gives_the_same_bytes(some: list[Draft]) -> None:
    """Leaves, rows and leaf hashes do not depend on the kernel, and both can open what either sealed."""
    leaves, rows, hashes = same("seal_many", BEGIN, some, chance(len(some)))
    assert len(leaves) == len(rows) == len(hashes) == len(some)
    parsed = same("parse_rows", rows)
    opened = same("open_rows", parsed, [one.data_key for one in some])
    assert [one.payload for one in opened] == [one.payload for one in some]
    for leaf, row, one in zip(leaves, parsed, some, strict=True):
        assert open_entry(leaf, row, one.data_key).payload == one.payload


@pytest.mark.parametrize("kernel", KERNELS, ids=["twin", "native"])
def test_the_golden_entry_is_sealed_to_the_byte(kernel: Kernel) -> None:
    """Both write the entry of the published vectors as it stands there."""
    case, row = ENTRY["rows"][0], ROWS[0]
    (parsed,) = kernel.parse_rows([row])
    assert isinstance(parsed, Row)
    assert parsed.head + parsed.nonce + parsed.ciphertext == row[:-4]
    key = DataKey(bytes.fromhex(case["data_key"]))
    (opened,) = kernel.open_rows([parsed], [key])
    header = encode_header(opened.header)
    assert opened.salt + spec.u32(len(header)) + header + opened.payload == OPENING
    golden = draft(
        head=parsed.head,
        tag_key=bytes.fromhex(ENTRY["keys"]["tag_key"]),
        data_key=key,
        sequence=opened.header.sequence,
        header=header,
        payload=opened.payload,
    )
    sealed = kernel.seal_many(LEAF[:10], [golden], opened.salt + parsed.nonce)
    assert sealed == ([LEAF], [row], [spec.sha256(b"\0" + LEAF)])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sequence": -1}, OverflowError),
        ({"sequence": 2**64}, OverflowError),
        ({"tag_key": bytes(31)}, ValueError),
        ({"head": bytes(HEAD_SIZE_MAX + 1)}, ValueError),
    ],
    ids=str,
)
def test_a_draft_that_cannot_be_sealed_is_refused_alike(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    """Wrong lengths and numbers raise the same error, wherever in a batch they stand, and nothing is half done."""
    assert same("seal_many", BEGIN, [draft(), draft(**changes)], chance(2)) is error


@pytest.mark.parametrize("field", ["head", "tag_key", "data_key", "sequence", "header", "payload"])
@pytest.mark.parametrize(
    "value", [None, "k" * 32, bytearray(32), 0.5, object()], ids=lambda one: type(one).__name__
)
def test_the_native_kernel_reads_no_object_as_another(field: str, value: Any) -> None:
    """A field of a wrong type is an error before anything is sealed, never memory taken for bytes."""
    with pytest.raises((TypeError, AttributeError)):
        native.seal_many(BEGIN, [draft(), draft(**{field: value})], chance(2))


@pytest.mark.parametrize(
    ("begin", "random"), [(BEGIN, 43), (BEGIN, 45), (BEGIN, 88), (BEGIN[1:], 44), (b"", 0)]
)
def test_randomness_is_counted(begin: bytes, random: int) -> None:
    """Too little randomness is an error, never a repeated nonce."""
    assert same("seal_many", begin, [draft()], bytes(random)) is ValueError
    assert RANDOM_SIZE == 44


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_hashes_are_the_same(entries: list[bytes]) -> None:
    """Leaf hashes and nodes are RFC 6962's, for entries of any length."""
    hashes = same("leaf_hashes", entries)
    assert hashes == [spec.sha256(b"\0" + one) for one in entries]
    if len(hashes) % 2:
        assert same("pair_up", hashes) is ValueError
    else:
        nodes = [spec.sha256(b"\1" + a + b) for a, b in zip(hashes[::2], hashes[1::2], strict=True)]
        assert same("pair_up", hashes) == nodes
    assert len(same("pair_up", [*entries, *entries])) == len(entries)


@given(st.lists(st.binary(max_size=300), max_size=8), st.sampled_from([2, 4]), st.data())
def test_bundles_are_read_the_same(parts: list[bytes], width: int, data: st.DataObject) -> None:
    """A bundle gives its parts; cut or altered anywhere it gives what the twin says, or the twin's error."""
    whole = bundle(parts, width)
    assert same("unbundle", whole, width) == parts
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    same("unbundle", cut, width)
    same("bundle_hashes", cut)
    assert same("bundle_hashes", bundle([LEAF] * len(parts), 2)) == [spec.sha256(b"\0" + LEAF)] * len(parts)
    same("unbundle", altered(whole, data), width)


def altered(value: bytes, data: st.DataObject) -> bytes:
    """Return a value with one byte changed."""
    if not value:
        return value
    at = data.draw(st.integers(0, len(value) - 1))
    return value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]


@given(st.data())
def test_any_change_of_a_row_is_noticed_alike(data: st.DataObject) -> None:
    """Whatever byte of a row is changed, both parse it the same or refuse it, and neither opens it."""
    row, key = data.draw(st.sampled_from(ROWS)), DataKey(bytes.fromhex(ENTRY["rows"][0]["data_key"]))
    changed = altered(row, data)
    parsed = same("parse_rows", [b"", row, changed])
    if isinstance(parsed, list):
        assert parsed[0] is None
        refused = same("open_rows", parsed[2:], [key])
        if changed[:-4] != row[:-4]:
            assert refused[0] is IntegrityError


@given(st.lists(st.binary(max_size=160) | st.sampled_from([*ROWS, b""]), max_size=4))
def test_any_bytes_are_parsed_alike(rows: list[bytes]) -> None:
    """Bytes that are no rows are refused with the same words, by whichever kernel."""
    same("parse_rows", rows)


@given(st.lists(st.sampled_from([*ROWS, b"", b"\0" * 5]) | st.binary(max_size=90), max_size=6), st.data())
def test_plain_rows_end_at_the_same_place(rows: list[bytes], data: st.DataObject) -> None:
    """What is whole, known and right by its checksum is told from the rest alike, wherever one begins to read."""
    whole = bundle(rows, 4)
    at, count, identifiers, places = same("plain_rows", whole, 0)
    assert whole[:at] == bundle(rows[:count], 4)
    assert len(identifiers) == len(places) <= count
    for one in (whole[: data.draw(st.integers(0, len(whole)))], altered(whole, data)):
        for start in range(min(len(one), 40) + 1):
            same("plain_rows", one, start)
    assert same("plain_rows", whole, -1) is same("plain_rows", whole, len(whole) + 1) is ValueError


@st.composite
def routed_rows(draw: st.DrawFn) -> bytes:
    """Draw a row of any kind with a few routes, whose values are few enough that some fall to a share."""
    routes = draw(st.lists(st.tuples(st.sampled_from([b"SC", b"XY"]), st.integers(0, 5)), max_size=3))
    kind = draw(st.integers(1, 4)) | draw(st.sampled_from([0, 0, 0x80]))
    numbers = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    named = b"".join(code + spec.u64(value) for code, value in routes)
    return row_prefix(kind, numbers, len(routes)) + NO_ID + named + bytes(12 + 32 + 4 + 16 + 4)


shares = st.builds(Share, st.integers(0, 2), st.integers(1, 3), st.none()) | st.builds(
    Share, st.just(0), st.just(1), st.integers(0, 5).map(spec.u64)
)
answers = st.none() | st.lists(st.just("reducer"), max_size=1)


@given(st.lists(routed_rows() | st.just(b""), max_size=6), shares, st.data())
def test_rows_are_picked_alike_and_by_what_they_say(
    rows: list[bytes], share: Share, data: st.DataObject
) -> None:
    """A reader gets what his answers and the kinds of the rows say, between any two indices, and nothing else."""
    parsed = [parse_row(row) if row else None for row in rows]
    outlines = [outline(row.routes, share) for row in parsed if row is not None]
    known = {one: data.draw(answers) for one in outlines if data.draw(st.booleans())}
    start, stop = data.draw(st.integers(0, 110)), data.draw(st.integers(100, 110))
    found = same("pick_rows", bundle(rows, 4), 100, start, stop, share, known)
    due = []
    for index, row in enumerate(parsed, 100):
        if row is None or not start <= index < stop:
            continue
        plain = row.kind == 1 and not row.provisional
        answer = known.get(outline(row.routes, share)) if plain else None
        if answer or (answer is None and (plain or row.provisional or row.kind == 4)):
            due.append((index, row.data, row.subjects, answer))
    end, asked, indices, places, told, tally = found
    whole = bundle(rows, 4)
    picked = [(row_at(whole, place), subjects_at(whole, place)) for place in places]
    assert [(at, *row, one) for at, row, one in zip(indices, picked, told, strict=True)] == due
    assert end == min(max(stop, 100), 100 + len(rows))
    assert asked == sum(answer is None for *_, answer in due)
    events = [
        row for row in parsed[max(0, start - 100) : max(0, stop - 100)] if row is not None and row.kind == 1
    ]
    assert tally == Counter(outline(row.routes, share) for row in events if not row.provisional)


@given(st.lists(routed_rows(), min_size=1, max_size=3), st.data())
def test_a_damaged_bundle_is_picked_alike(rows: list[bytes], data: st.DataObject) -> None:
    """Cut or altered anywhere, a bundle gives the same, or the twin's error; no share at all is a mistake."""
    whole = bundle(rows, 4)
    for one in (altered(whole, data), whole[: data.draw(st.integers(0, len(whole)))]):
        same("pick_rows", one, 5, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9)), Share(), {})
    assert same("pick_rows", whole, 0, 0, 9, Share(0, 0), {}) is ValueError
    assert same("pick_rows", whole, 0, 0, 9, Share(wanted=b"short"), {}) is ValueError


@pytest.mark.parametrize("place", [-1, 0, 3, 5, 10_000, 2**62])
def test_a_place_that_is_none_is_no_row(place: int) -> None:
    """A kernel reads nothing beyond a bundle: what begins nowhere is unusual, and too few places are a mistake."""
    _, (row,), _ = twin.seal_many(BEGIN, [draft()], chance(1))
    whole, how = bundle([row], 4), (dict, json.loads, max, 200)
    for kernel in KERNELS:
        keys = kernel.Keys(9)
        keys.put(0, bytes(32))
        assert kernel.read_events([1], [whole], [place], keys, b"module:", how) == ([None], [0])
        assert kernel.read_events([1], [whole[:-1]], [4], keys, b"module:", how) == ([None], [0])
        assert keys.unknown([whole], [place]) == keys.unknown([whole[:-1]], [4]) == []
        for call in (
            lambda: kernel.read_events([1], [whole], [], keys, b"module:", how),  # noqa: B023
            lambda: kernel.read_events([], [whole], [4], keys, b"module:", how),  # noqa: B023
            lambda: keys.unknown([whole], []),  # noqa: B023
        ):
            assert outcome(call) is ValueError


@given(st.binary(min_size=36, max_size=80), st.integers(0, 60))
def test_any_opening_is_taken_apart_alike(opening: bytes, length: int) -> None:
    """What was encrypted need not be sound: a header that lies about its length, or is none, is named alike."""
    key, head, nonce = DataKey(bytes(32)), row_prefix(1, (0,), 0) + NO_ID, bytes(12)
    for one in (opening, opening[:32] + spec.u32(length) + opening[36:]):
        row = head + nonce + key.encrypt(nonce, one, head)
        (parsed,) = same("parse_rows", [row + spec.u32(0)])
        same("open_rows", [parsed], [key])


def test_the_first_unsound_row_is_the_one_named() -> None:
    """Where several rows are unsound, a caller hears of the first, as from a loop."""
    _, rows, _ = twin.seal_many(BEGIN, [draft(header=b"\xc0"), draft()], chance(2))
    parsed = twin.parse_rows(rows)
    key, other = DataKey(bytes(32)), DataKey(bytes([1]) * 32)
    assert same("open_rows", parsed, [key, other])[0] is FormatError
    assert same("open_rows", parsed[::-1], [other, key])[0] is IntegrityError
    assert same("open_rows", parsed, [key]) is ValueError
    assert same("open_rows", [], []) == []


@given(st.binary(max_size=600) | st.text(alphabet='[]{}"\\a', max_size=600).map(str.encode))
def test_brackets_are_counted_alike(payload: bytes) -> None:
    """The number that bounds the depth of JSON is the same, also beyond what one byte can count."""
    assert same("brackets", payload) == payload.count(b"[") + payload.count(b"{")
    assert same("brackets", b"[" * 1_000 + payload) == 1_000 + same("brackets", payload)


@given(
    st.binary(max_size=300) | st.text(alphabet='[]{}"\\\\,a', max_size=300).map(str.encode),
    st.integers(0, 20),
    st.integers(0, 20),
)
@example(b'"\\', 0, 0)
@example(b'["a\\"[,', 0, 1)
@example(b"[]],[[", 9, 1)
def test_what_is_too_much_is_so_alike(payload: bytes, values_max: int, depth_max: int) -> None:
    """Values and depth are counted alike in any bytes, also where a string has no end or a bracket was never opened."""
    assert same("excess", payload, values_max, depth_max) in {0, 1, 2}


@pytest.mark.parametrize("name", ["leaf_hashes", "pair_up", "parse_rows"])
@pytest.mark.parametrize("items", [["text"], [b"a", None], [b"a", 5], 7, None])
def test_what_is_not_bytes_is_refused(name: str, items: Any) -> None:
    """The native kernel never reads an object as if it were bytes."""
    with pytest.raises(TypeError):
        getattr(native, name)(items)


def test_nothing_is_lost_or_kept_by_mistake() -> None:
    """A thousand calls, half of them refused, leave as many references as before."""
    some = [draft(payload=os.urandom(700)) for _ in range(3)]
    bad = [*some, draft(tag_key=b"")]
    watched = [one for each in some for one in (each.payload, each.header, each.head, each.data_key.raw)]

    def use() -> None:
        _, rows, _ = native.seal_many(BEGIN, some, chance(3))
        native.open_rows([row for row in native.parse_rows(rows) if row], [one.data_key for one in some])
        outcome(lambda: native.seal_many(BEGIN, bad, chance(4)))
        outcome(lambda: native.parse_rows([*rows, b"x"]))

    use()
    gc.collect()
    before = [sys.getrefcount(one) for one in watched]
    for _ in range(500):
        use()
    gc.collect()
    assert [sys.getrefcount(one) for one in watched] == before


def test_threads_do_not_disturb_each_other() -> None:
    """Work goes on without the interpreter's lock; calls from several threads give what one alone gives."""
    some = [draft(sequence=n, payload=bytes([n]) * 3_000) for n in range(200)]
    due = twin.seal_many(BEGIN, some, chance(200))
    keys = [one.data_key for one in some]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            made = native.seal_many(BEGIN, list(some), chance(200))
            rows = [row for row in native.parse_rows(made[1]) if row is not None]
            if made != due or [o.payload for o in native.open_rows(rows, keys)] != [d.payload for d in some]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("value", "name"), [("python", "archive.twin"), ("native", "archive.native"), (None, "archive.native")]
)
def test_the_environment_chooses(value: str | None, name: str) -> None:
    """Whoever distrusts the native kernel can do without it, in any process, by one variable."""
    environment = {key: one for key, one in os.environ.items() if key != "TREERING_KERNEL"}
    environment |= {} if value is None else {"TREERING_KERNEL": value}
    show = "import json, archive.kernel; print(json.dumps(archive.kernel.kernel.__name__))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", show], env=environment, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == name


def test_the_variable_is_no_setting() -> None:
    """A server that is told which kernel to use starts like any other; unknown variables are refused as before."""
    assert load({}, {"TREERING_KERNEL": "python"}, None) == load({}, {}, None)
    with pytest.raises(SettingsError):
        load({}, {"TREERING_KERNELS": "python"}, None)


def test_a_kernel_that_is_not_there_is_no_surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extension the twin runs, unless the native one was asked for by name; a typing error is told."""
    monkeypatch.setitem(sys.modules, "archive.native", None)
    monkeypatch.delattr("archive.native")
    assert choose({}) is twin
    assert choose({"TREERING_KERNEL": "python"}) is twin
    with pytest.raises(ImportError, match="not built"):
        choose({"TREERING_KERNEL": "native"})
    with pytest.raises(ValueError, match="auto, native or python"):
        choose({"TREERING_KERNEL": "fast"})
