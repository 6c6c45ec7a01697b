"""verify-log's check of steering: each entry speaks of what is before it, and attestations agree with each other."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive import (
    Activate,
    ActiveReducer,
    Attest,
    Attestations,
    DataFolder,
    Finding,
    InvalidEvent,
    Retry,
    Skip,
    Steering,
    check_log,
    steering_body,
)
from archive import LogSource as Source
from archive.steering import fault_at
from merkle import Ed25519Signer
from tests.archive.site import ORIGIN, Site, event
from tests.archive.test_steering import steerings
from tests.tools.test_verify_log import published, served
from tools import verify_log
from tools.drill_copy import Copy, copy_of

__all__ = ["served"]

CODE, ONE, OTHER = "0" * 64, "a" * 64, "b" * 64
KEY = Ed25519Signer(ORIGIN, b"k" * 32)


def attest(size: int = 2, digest: str = ONE, **changes: Any) -> Attest:
    """Return an attestation of a reducer `r`."""
    return msgspec.structs.replace(Attest(size, "r", 1, CODE, 1, digest), **changes)


def found(*entries: tuple[int, Steering]) -> list[Finding]:
    """Return what is found in entries of these indices."""
    check = Attestations()
    return [finding for index, one in entries for finding in check.take(index, one)]


def test_the_same_twice_is_no_finding() -> None:
    """A worker that was killed after it had attested may attest again."""
    assert found((3, attest()), (5, attest()), (9, attest())) == []


@pytest.mark.parametrize("changes", [{"digest": OTHER}, {"states": 2}])
def test_a_contradiction_is_found_at_the_entry_that_makes_it(changes: dict[str, Any]) -> None:
    """The later of two that speak of the same states is named, and which one it contradicts."""
    (finding,) = found((3, attest()), (5, attest(**changes)))
    assert (finding.check, finding.index, finding.kind) == ("steering", 5, "altered")
    assert "than entry 3 does" in finding.detail


@pytest.mark.parametrize("changes", [{"size": 1}, {"version": 2}, {"code_digest": OTHER}, {"reducer": "s"}])
def test_of_other_states_anything_may_be_said(changes: dict[str, Any]) -> None:
    """Another size, version, code or reducer has other states."""
    assert found((3, attest()), (5, attest(digest=OTHER, **changes))) == []


@pytest.mark.parametrize(
    ("entry", "excused"),
    [
        (Skip("r", 1), True),
        (Retry(reducer="r", index=1), True),
        (Skip("s", 1), False),
        (Retry(module="m"), False),
    ],
)
def test_a_skip_between_two_excuses_the_second(entry: Steering, *, excused: bool) -> None:
    """An entry between them that changes this reducer's fold; one before both excuses nothing."""
    assert (found((3, attest()), (4, entry), (5, attest(digest=OTHER))) == []) == excused
    assert len(found((2, entry), (3, attest()), (5, attest(digest=OTHER)))) == 1


def test_what_nobody_understands_is_said_and_no_finding() -> None:
    """A newer archiver may write kinds that are unknown here; a body without a kind is not passed over either."""
    check = Attestations()
    bodies: list[dict[str, Any]] = [{"control": "origin"}, {"control": "start"}, {"control": "rotate"}]
    for index, body in enumerate([*bodies, steering_body(attest(2))]):
        assert list(check.take_body(index, body)) == []
    assert check.remarks() == []
    bodies = [{}, {"control": 5}, {"control": "steal"}, {"control": ["start"]}]
    for index, body in enumerate(bodies, 4):
        assert list(check.take_body(index, body)) == []
    assert check.remarks() == [
        "control entries of no known kind: 4, 5, 6, …; a newer version may know what they say"
    ]


@pytest.mark.parametrize("public", [False, True])
def test_the_command_says_what_it_does_not_understand(
    public: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder and in public it is a note under a good verdict."""
    site = Site()
    archiver = site.start()
    for _ in range(16):
        archiver.step([event(b"{}")] * 20)
    index = archiver.control({"control": "steal"})
    with site.log.view() as view:
        copy = copy_of(view, 1_000, KEY, None)
    if public:
        published(copy, tmp_path / "log")
    else:
        copy.write(DataFolder(tmp_path / "log"))
    assert verify_log.main([str(tmp_path / "log"), "--vkey", KEY.verifier.encode()]) == 0
    assert f"note: control entries of no known kind: {index};" in capsys.readouterr().out


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([ONE, OTHER, None])), min_size=1, max_size=12),
    st.integers(0, 12),
)
def test_a_check_that_goes_on_finds_what_the_whole_one_finds(
    said: list[tuple[int, str | None]], since: int
) -> None:
    """An attestation contradicts those before it also where they were read by an earlier check, which is asked."""
    entries: list[tuple[int, Steering]] = [
        (index, Skip("r", 0) if digest is None else attest(min(size, index), digest))
        for index, (size, digest) in enumerate(said, 1)
    ]
    asked = list[tuple[int, int]]()

    def earlier(start: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
        asked.append((start, stop))
        return [(index, steering_body(one)) for index, one in entries if start <= index < stop]

    check = Attestations(since, earlier)
    later = [finding for index, one in entries if index >= since for finding in check.take(index, one)]
    assert later == [finding for finding in found(*entries) if (finding.index or 0) >= since]
    assert sum(stop - start for start, stop in asked) <= since, "nothing is read twice"


def test_nothing_is_read_again_for_attestations_of_what_is_new() -> None:
    """As long as reducers attest soon after the size of which they speak, a check that goes on reads nothing again."""

    def earlier(start: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
        raise AssertionError(f"{start} to {stop} was read again")

    check = Attestations(100, earlier)
    assert list(check.take(120, attest(100))) == list(check.take(130, attest(110))) == []


@pytest.mark.parametrize("public", [False, True])
def test_the_command_that_goes_on_finds_it(
    tampered: tuple[Copy, int], public: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --since as without, in a folder and in public: one attestation before that place, the other behind it."""
    copy, index = tampered
    early, since = copy.copy(), tmp_path / "since"
    early.keep([block.size for block in early.blocks].index(index) + 1)
    early.reseal()
    for name, one in (("early", early), ("late", copy)):
        if public:
            published(one, tmp_path / name)
        else:
            one.write(DataFolder(tmp_path / name))
    vkey = ["--vkey", KEY.verifier.encode()]
    assert verify_log.main([str(tmp_path / "early"), *vkey, "--save", str(since)]) == 0
    capsys.readouterr()
    assert verify_log.main([str(tmp_path / "late"), *vkey, "--since", str(since), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["check"], finding["index"]) == ("steering", index)


def test_what_is_said_of_the_future_is_a_finding() -> None:
    """An attestation of more than there is, a retry of what is not before it, a module that goes back to the future."""
    entries: list[tuple[int, Steering]] = [(3, attest(4)), (4, Retry(reducer="r", index=4))]
    entries.append((5, Activate("m", (), since=6)))
    assert [(one.index, one.kind) for one in found(*entries)] == [(3, "order"), (4, "order"), (5, "order")]
    assert found((3, attest(3)), (4, Retry(reducer="r", index=3)), (5, Activate("m", (), since=5))) == []


def test_what_the_page_allows_is_no_finding() -> None:
    """A skip may name any entry, itself and later ones too; an activation without reducers switches a module off."""
    assert (
        found((3, Skip("r", 4)), (4, Skip("r", 4)), (5, Skip("r", 2**53 - 1)), (6, Activate("m", ()))) == []
    )


@given(steerings)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_archiver_takes_is_no_finding(steering: Steering) -> None:
    """One message of whoever reaches the socket must not spoil the log for ever: the archiver and the check agree."""
    site = Site()
    archiver = site.start()
    with suppress(InvalidEvent):
        archiver.control(steering_body(steering))
    taken = archiver.head.size > 2
    assert taken == (fault_at(steering, 2) is None)
    assert list(check_log(Source(site.log, site.published.get), site.published.get())) == []


def test_a_malformed_body_is_a_finding_that_names_the_field() -> None:
    """What only looks like steering is unreadable; what is another kind of entry is nobody's business here."""
    check = Attestations()
    (finding,) = check.take_body(7, {"control": "attest", "size": -1})
    assert (finding.index, finding.kind) == (7, "unreadable")
    assert "size" in finding.detail
    assert list(check.take_body(8, {"control": "start", "software": "x"})) == []
    assert check.count == 0


def test_a_whole_log_is_checked_across_its_blocks() -> None:
    """The archiver takes what may be said at its place; the check of the log finds what contradicts."""
    site = Site()
    archiver = site.start()
    for _ in range(3):
        archiver.step([event(b"{}")])
    first = archiver.control(steering_body(attest(4)))
    archiver.step([event(b"{}")])
    row = ActiveReducer("r", 1, ("student",), CODE)
    archiver.control(steering_body(Activate("m", (row,))))
    last = archiver.control(steering_body(attest(4, OTHER)))
    source = Source(site.log, site.published.get)
    (finding,) = check_log(source, site.published.get())
    assert (finding.check, finding.index) == ("steering", last)
    assert f"entry {first}" in finding.detail


@pytest.fixture
def tampered() -> tuple[Copy, int]:
    """Return a log whose owner had his archiver append a contradiction, signed as it should be, and where it is."""
    site = Site()
    archiver = site.start()
    for _ in range(16):
        archiver.step([event(b"{}")] * 20)
    archiver.control(steering_body(attest(3)))
    index = archiver.control(steering_body(attest(3, OTHER)))
    with site.log.view() as view:
        return copy_of(view, 1_000, KEY, None), index


def test_the_command_finds_it_in_a_folder_and_over_http(
    tampered: tuple[Copy, int], served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signatures, roots and rows are all right, and it is found all the same; from the public leaves alone, too."""
    copy, index = tampered
    copy.write(DataFolder(tmp_path / "data"))
    published(copy, tmp_path / "public")
    for place in (str(tmp_path / "data"), served):
        assert verify_log.main([place, "--vkey", KEY.verifier.encode(), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert [(one["check"], one["index"]) for one in report["findings"]] == [("steering", index)], place
        assert report["attested"] == 2
