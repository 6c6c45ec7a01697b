"""Promise: as what an entry is filed, and about whom besides, stands in its header; whoever files it anew is found."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    ROW_BINDING,
    ROW_EVENT,
    ROW_FRAME,
    ROW_REFUSED,
    STRETCH,
    TABLES,
    Check,
    Finding,
    Findings,
    Given,
    Header,
    Job,
    LogSource,
    MemoryStore,
    NotFound,
    OneKey,
    Receipt,
    Refusal,
    Resume,
    StretchAnswer,
    SubjectKeys,
    Submission,
    Vault,
    Write,
    check_stretch,
    encode_control,
    header_version,
    open_row,
    parse_opening,
    parse_row,
    size_of,
)
from archive.datakey import DataKey
from archive.drafting import Drafter
from archive.entry import decode_header, encode_header
from archive.filing import misfiled
from archive.openings import Entry, Openings
from tests.archive import spec
from tests.archive.site import SIGNER, VAULT_KEY, Site, event
from tests.archive.test_formats import plain
from tools.drill_copy import Copy, filed

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "archive" / "filing.json").read_text())
SMALL = 256
"""Entries of a stretch here: the least that ends where bundles and nodes do."""
KINDS = {ROW_EVENT: None, ROW_FRAME: "frame", ROW_REFUSED: "refused", ROW_BINDING: "binding"}
Part = tuple[int | None, Sequence[Submission]]
"""Version that a start entry says of the headers that follow, None for nothing; and what follows."""


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a log of a few hundred entries be checked in several stretches."""
    monkeypatch.setattr("archive.fsck.STRETCH", SMALL)
    monkeypatch.setattr("archive.fsck.STRETCH_LEVEL", SMALL.bit_length() - 1)


@contextmanager
def silent(*, really: bool = True) -> Iterator[None]:
    """Write headers as earlier software did: they do not say as what they are filed."""
    with pytest.MonkeyPatch.context() as patch:
        if really:
            patch.setattr("archive.drafting.told", lambda one: one)
        yield


def sent(kind: int = ROW_EVENT, *also: str, **changes: Any) -> Submission:
    """Return a submission of some kind that is also about these subjects."""
    return event(b"{}", kind=kind, also=list(also), **changes)


def made(*parts: Part, said: bool | None = None) -> Copy:
    """Return a log of these parts.

    Headers say as what they are filed where the start entry says so, unless `said` decides otherwise.
    """
    site = Site()
    for version, submissions in parts:
        archiver = site.start()
        with silent(really=version in {None, 1} if said is None else not said):
            for at in range(0, len(submissions), 50):
                assert all(isinstance(one, Receipt) for one in archiver.step(submissions[at : at + 50]))
    with site.log.view() as view:
        copy = Copy({table: dict(view.scan(table)) for table in TABLES}, b"", SIGNER)
    copy.vault = Vault(site.vault, VAULT_KEY, site.random)
    book, versions = copy.book(), iter([version for version, _ in parts])
    for index, leaf in enumerate(book.leaves):
        if b'"control":"start"' in leaf:
            version = next(versions)
            body = {"control": "start"} | ({} if version is None else {"header": version})
            book.leaves[index] = encode_control(int.from_bytes(leaf[2:10]), body)
    copy.rewrite(book)
    return copy


def stored(copy: Copy) -> tuple[MemoryStore, int]:
    """Return a copy in a store, and its size."""
    store = MemoryStore(TABLES)
    store.commit([Write(table, *item) for table, values in copy.tables.items() for item in values.items()])
    with store.view() as view:
        return store, size_of(view)


def checked(copy: Copy, resume: Resume | None = None) -> tuple[list[Finding], Resume | None]:
    """Return what a check with the vault finds, and where the next may go on."""
    store, size = stored(copy)
    given = Given(OneKey(SIGNER.verifier), copy.vault, with_vault=True, resume=resume)
    check = Check(LogSource(store, lambda: size), size, given)
    return list(check.findings()), check.resume


def named(findings: Iterable[Finding]) -> list[tuple[str, int | None]]:
    """Return check and index of each finding."""
    return [(one.check, one.index) for one in findings]


def filed_anew(copy: Copy, index: int, kind: int, subjects: Sequence[int] | None = None) -> Copy:
    """Return a copy in which one row is filed otherwise, under the right key, while all leaves stay."""
    forged = copy.copy()
    assert forged.vault is not None
    book = forged.book()
    theirs = parse_row(book.rows[index]).subjects
    book.rows[index] = filed(forged.vault, book.rows[index], kind, theirs if subjects is None else subjects)
    assert book.leaves == copy.book().leaves
    forged.rewrite(book)
    return forged


def headers(copy: Copy) -> dict[int, Header]:
    """Return the header of each private entry."""
    assert copy.vault is not None
    rows = {at: parse_row(row) for at, row in enumerate(copy.book().rows) if row}
    return {
        at: parse_opening(open_row(row, copy.vault.data_key(row.subjects))).header for at, row in rows.items()
    }


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["headers"], ids=lambda case: str(case["note"]))
def test_headers_are_those_of_the_format(case: dict[str, Any]) -> None:
    """What the archiver is sent becomes the header of the page; and the row that it is for is filed as it says."""
    subject, sequence, *rest, extra = plain(case["value"])
    received_us, source, sender, form, keys = rest
    kind, also, identifier = int(case["kind"], 16), case["also"], extra.get("id")
    others = {name: value for name, value in extra.items() if name not in {"kind", "also", "id"}}
    one = Submission(
        kind, subject, b"", received_us, source, sender, form, keys, others, identifier, list(also)
    )
    made_of = SubjectKeys(7, subject, bytes(32), DataKey(bytes(32)))
    draft = Drafter(bytes(32)).draft(one, bytes(16), made_of, sequence)
    assert draft.header.hex() == case["header"] == spec.msgpack(plain(case["value"])).hex()
    assert list(misfiled(kind, also, decode_header(draft.header).extra)) == []


@pytest.mark.parametrize("case", GOLDEN["starts"])
def test_a_start_entry_says_which_headers_follow(case: dict[str, Any]) -> None:
    """What it does not say is 1."""
    assert header_version(json.loads(case["text"])) == case["version"]


@pytest.mark.parametrize("odd", [0, -2, 1.5, 2.0, "2", None, [2], {}])
def test_what_is_no_version_promises_nothing(odd: object) -> None:
    """A member that nobody writes is passed over, as if it were not there."""
    assert header_version({"control": "start", "header": odd}) == 1


def test_a_header_says_what_is_not_usual_and_nothing_else() -> None:
    """Kind and further subjects stand in it; of an event about one subject not a byte is added."""
    some = [
        sent(extra={"conn": b"12345678"}),
        sent(ROW_FRAME, extra={"conn": b"12345678"}),
        sent(ROW_REFUSED, subject="refused:1", keys={}, id="x"),
        sent(ROW_EVENT, "student:zoe", "student:bob"),
        sent(ROW_BINDING, "provisional:1"),
    ]
    told, old = headers(made((2, some))), headers(made((None, some)))
    assert [one.extra for one in told.values()] == [
        {"conn": b"12345678"},
        {"conn": b"12345678", "kind": "frame"},
        {"id": "x", "kind": "refused"},
        {"also": ["student:zoe", "student:bob"]},
        {"kind": "binding", "also": ["provisional:1"]},
    ]
    assert encode_header(told[2]) == encode_header(old[2])
    assert [one.extra.keys() & {"kind", "also"} for one in old.values()] == [set()] * 5


@given(st.lists(st.tuples(st.sampled_from(list(KINDS)), st.booleans(), st.booleans()), max_size=9))
def test_what_a_batch_holds_does_not_change_what_one_says(some: list[tuple[int, bool, bool]]) -> None:
    """Drafted together, by whatever way, each header is what it is alone; and the log verifies."""
    batch = [
        sent(kind, *(["student:bob"] if also else []), id=f"{at}" if known else None)
        for at, (kind, also, known) in enumerate(some)
    ]
    copy = made((2, batch))
    assert checked(copy)[0] == []
    for header, one in zip(headers(copy).values(), batch, strict=True):
        own = {"id": one.id, "kind": KINDS[one.kind], "also": one.also or None}
        assert header.extra == {name: value for name, value in own.items() if value is not None}


@pytest.mark.parametrize(
    "extra", [{"kind": "refused"}, {"kind": "event"}, {"kind": None}, {"also": []}, {"also": 5}, {"id": "x"}]
)
@pytest.mark.parametrize("kind", [ROW_EVENT, ROW_REFUSED])
def test_nobody_else_says_as_what_something_is_filed(extra: dict[str, Any], kind: int) -> None:
    """A submission that brings such a member along is refused by itself: its neighbours are kept, without a gap."""
    site = Site()
    answers = site.start().step([sent(id="a"), sent(kind, extra={"conn": b"1", **extra}), sent(id="b")])
    assert [type(one) for one in answers] == [Receipt, Refusal, Receipt]
    assert isinstance(answers[1], Refusal)
    assert (answers[1].reason, next(iter(extra)) in answers[1].detail) == ("invalid", True)
    assert [(one.sequence, one.extra) for one in site.events()] == [(1, {"id": "a"}), (2, {"id": "b"})]


def test_what_is_about_several_is_provisional_as_its_first_subject_is() -> None:
    """Who has not said who he is may be named with others; the row's mark of that is no finding."""
    assert checked(made((2, [sent(ROW_EVENT, "student:bob", subject="provisional:1", keys={})])))[0] == []


# --- what is found --------------------------------------------------------------------------------

ANN, BOB, EVE = 0, 1, 2
FORGERIES: dict[str, tuple[Submission, int, tuple[int, ...], str]] = {
    "an event as refused": (sent(), ROW_REFUSED, (ANN,), "as refused, but it was received as an event"),
    "an event as a binding": (sent(), ROW_BINDING, (ANN,), "as a binding, but it was received as an event"),
    "a frame as an event": (
        sent(ROW_FRAME),
        ROW_EVENT,
        (ANN,),
        "as an event, but it was received as a protocol frame",
    ),
    "what was refused as an event": (
        sent(ROW_REFUSED),
        ROW_EVENT,
        (ANN,),
        "as an event, but it was received as refused",
    ),
    "a binding as a frame": (
        sent(ROW_BINDING, "student:bob"),
        ROW_FRAME,
        (ANN, BOB),
        "received as a binding",
    ),
    "without the second": (sent(ROW_EVENT, "student:bob"), ROW_EVENT, (ANN,), "further subjects"),
    "without the last": (
        sent(ROW_EVENT, "student:bob", "student:eve"),
        ROW_EVENT,
        (ANN, BOB),
        "further subjects",
    ),
    "about somebody else": (sent(ROW_EVENT, "student:bob"), ROW_EVENT, (ANN, EVE), "further subjects"),
    "in another order": (
        sent(ROW_EVENT, "student:bob", "student:eve"),
        ROW_EVENT,
        (ANN, EVE, BOB),
        "further subjects",
    ),
    "about one more": (sent(), ROW_EVENT, (ANN, BOB), "further subjects"),
}
"""What was sent, as what it is filed instead, about whom, and what is said of it."""
PEOPLE = [sent(subject=f"student:{name}", keys={"student": name}) for name in ("ann", "bob", "eve")]


@pytest.mark.parametrize("name", FORGERIES)
def test_a_record_that_was_filed_anew_is_found(name: str) -> None:
    """Whoever holds every key can encrypt the row again; what the leaf commits to still says what it was."""
    one, kind, subjects, detail = FORGERIES[name]
    honest = made((2, [*PEOPLE, one, sent()]))
    at = 2 + len(PEOPLE)
    assert checked(honest)[0] == []
    forged = filed_anew(honest, at, kind, subjects)
    findings, _ = checked(forged)
    assert named(findings) == [("header", at)]
    assert detail in findings[0].detail
    book, by_itself = forged.book(), Findings()
    assert forged.vault is not None
    Openings(forged.vault, by_itself, [(1, 2)]).check(*Entry(at, book.leaves[at], book.rows[at]))
    assert [one.detail for one in by_itself] == [findings[0].detail]


def test_who_is_erased_can_be_filed_about_as_before() -> None:
    """An entry that one of its subjects took with her is not opened: it is counted, and nothing is found."""
    copy = made((2, [*PEOPLE, sent(ROW_EVENT, "student:bob")]))
    vault = copy.vault
    assert vault is not None
    vault._store.commit([Write("subjects", BOB.to_bytes(8), None)])
    vault.forget()
    with pytest.raises(NotFound):
        vault.keys(BOB)
    store, size = stored(copy)
    check = Check(LogSource(store, lambda: size), size, Given(vault=vault, with_vault=True))
    assert list(check.findings()) == []
    assert (check.tally.opened, check.tally.erased) == (2, 2)


MIXED = [
    sent(),
    sent(ROW_FRAME),
    sent(ROW_REFUSED),
    sent(ROW_BINDING, "student:bob"),
    sent(ROW_EVENT, "student:bob"),
]


@pytest.mark.parametrize("version", [None, 1])
def test_headers_of_older_logs_need_not_say_it(version: int | None) -> None:
    """Entries of earlier software verify, whatever they are; and of those nobody can tell if they were filed anew."""
    old = made((version, MIXED), said=False)
    assert checked(old)[0] == []
    assert checked(filed_anew(old, 2, ROW_REFUSED))[0] == []
    assert checked(filed_anew(old, 6, ROW_EVENT, (ANN,)))[0] == []


def test_what_an_older_header_says_must_be_so_all_the_same() -> None:
    """Nobody had to say it there; what is said, and is wrong, was filed anew."""
    old = made((1, MIXED), said=True)
    assert checked(old)[0] == []
    assert named(checked(filed_anew(old, 3, ROW_EVENT))[0]) == [("header", 3)]
    assert named(checked(filed_anew(old, 6, ROW_EVENT, (ANN,)))[0]) == [("header", 6)]
    assert checked(filed_anew(old, 2, ROW_FRAME))[0] == [], "an event says nothing, as everything did"


@pytest.mark.parametrize("version", [2, 3, 2**60])
def test_a_start_entry_binds_what_follows(version: int) -> None:
    """Software that says that its headers say it, and does not say it, is found out; a later version says no less."""
    assert named(checked(made((version, MIXED), said=False))[0]) == [("header", at) for at in (3, 4, 5, 5, 6)]


# --- across stretches, processes and checks -------------------------------------------------------

EVENTS = [sent()] * 300


def places(copy: Copy, kind: int) -> list[int]:
    """Return the indices of the entries of a kind."""
    return [at for at, row in enumerate(copy.book().rows) if row and parse_row(row).kind == kind]


@pytest.mark.parametrize("filler", [0, 5, 253, 254, 300, 600])
def test_what_headers_say_is_asked_from_the_start_entry_on(filler: int) -> None:
    """Old software, then new, then old again: wherever stretches end, each entry is judged by its own time."""
    some = [*[sent()] * filler, sent(ROW_FRAME), sent()]
    copy = made((None, some), (2, some), (None, some))
    assert checked(copy)[0] == []
    frames = places(copy, ROW_FRAME)
    for kind, step in ((ROW_EVENT, 0), (ROW_REFUSED, 1)):
        found = [named(checked(filed_anew(copy, at + step, kind))[0]) for at in frames]
        assert found == [[], [("header", frames[1] + step)], []]


def test_stretches_may_be_checked_in_any_order_elsewhere() -> None:
    """Each says what it cannot decide, small enough to be sent; whoever joins them decides."""
    copy = made((None, [*EVENTS, sent(ROW_FRAME)]), (2, [*EVENTS, *EVENTS]))
    forged = filed_anew(copy, 900, ROW_REFUSED)
    store, size = stored(forged)
    source, keys = LogSource(store, lambda: size), OneKey(SIGNER.verifier)

    def run(jobs: Iterable[Job]) -> Iterator[tuple[Job, StretchAnswer]]:
        some = list(jobs)
        answers = {
            job.start: pickle.dumps(check_stretch(source, job, keys, forged.vault)) for job in reversed(some)
        }
        yield from ((job, pickle.loads(answers[job.start])) for job in some)

    given = Given(keys, forged.vault, with_vault=True)
    findings = list(Check(source, size, given, run=run).findings())
    assert named(findings) == [("header", 900)]
    assert findings == checked(forged)[0]


def test_a_long_log_of_frames_hands_back_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an old log's headers do not say would fill the memory of whoever joins: it is bounded as findings are."""
    monkeypatch.setattr("archive.fsck.STRETCH", STRETCH)
    copy = made((None, [sent(ROW_FRAME)] * 2_000))
    store, size = stored(copy)
    job = Job(256, 1_280, 256, [], [])
    answer = check_stretch(LogSource(store, lambda: size), job, OneKey(), copy.vault)
    assert len(answer.unsaid) == 1_000
    assert [one for one in answer.findings if one.check == "header"] == []


def early(copy: Copy, size: int) -> Copy:
    """Return the log as it was at one of its sizes."""
    before = copy.copy()
    before.keep([block.size for block in copy.blocks].index(size) + 1)
    return before


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("first", "second"), [(None, None), (2, None), (None, 2)])
def test_a_check_goes_on_with_the_version_of_its_place(
    first: int | None, second: int | None, known: bool
) -> None:
    """What was saved says which headers there were; where an earlier verify-log saved it, the log itself does."""
    copy = made((first, EVENTS), (second, [*EVENTS, sent(ROW_FRAME), sent()]))
    size = copy.blocks[-2].size
    saved = checked(early(copy, size))[1]
    assert saved is not None
    assert saved.header_version == (second or 1)
    saved = saved if known else replace(saved, header_version=None)
    saved = Resume.decode(saved.encode())
    assert checked(copy, saved)[0] == []
    last = copy.blocks[-1].size - 1
    forged = filed_anew(copy, last, ROW_REFUSED)
    assert named(checked(forged, saved)[0]) == ([("header", last)] if second == 2 else [])


def test_what_was_saved_is_believed_and_not_what_the_log_says_now() -> None:
    """Entries before a saved check are not read again: an old start entry that was altered since excuses nobody."""
    copy = made((None, EVENTS), (2, [*EVENTS, sent(ROW_FRAME), sent()]))
    saved = checked(early(copy, copy.blocks[-2].size))[1]
    assert saved is not None
    last = copy.blocks[-1].size - 1
    forged, leaf = filed_anew(copy, last, ROW_REFUSED), copy.book().leaves[302]
    forged.edit("leaves", 302, leaf.index(b'"header":2') + 9, b"1")
    assert named(checked(forged, saved)[0]) == [("header", last)]
    assert checked(forged, replace(saved, header_version=None))[0] == [], (
        "an earlier verify-log did not save it"
    )


pieces = st.integers(0, 120).map(lambda count: [sent()] * count) | st.sampled_from(MIXED).map(
    lambda one: [one]
)
histories = st.lists(
    st.tuples(st.sampled_from([None, 1, 2]), st.lists(pieces).map(lambda some: [*chain(*some)])),
    min_size=1,
    max_size=4,
)


@given(histories, st.data())
def test_each_entry_is_judged_by_the_start_entry_before_it(parts: list[Part], data: st.DataObject) -> None:
    """Any history of software, any rows filed anew, any cut by stretches, or by a check that goes on from another."""
    copy = made(*parts)
    promised = [version == 2 for version, some in parts for _ in some]
    private = [at for at, row in enumerate(copy.book().rows) if row]
    chosen = (
        data.draw(st.lists(st.sampled_from(range(len(private))), unique=True, max_size=4)) if private else []
    )
    forged, due = copy, list[tuple[str, int | None]]()
    for which in sorted(chosen):
        kind = data.draw(st.sampled_from(list(KINDS)))
        before = parse_row(copy.book().rows[private[which]]).kind
        forged = filed_anew(forged, private[which], kind)
        due += [("header", private[which])] if promised[which] and kind != before else []
    whole, _ = checked(forged)
    assert named(whole) == due
    size = data.draw(st.sampled_from([block.size for block in copy.blocks]))
    saved = checked(early(copy, size))[1]
    assert saved is not None
    later = [one for one in due if one[1] is not None and one[1] >= size]
    assert named(checked(forged, saved)[0]) == later
    assert named(checked(forged, replace(saved, header_version=None))[0]) == later
