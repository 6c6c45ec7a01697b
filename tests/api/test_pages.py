"""The page shows what there is, as text: nothing that came from outside is ever markup."""

from __future__ import annotations

import asyncio
import html
import re
from threading import Event
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import Services, pages
from replay import STATUS_FILE, Fault, ModuleStatus, Record, ShardStatus, struck, write_status
from tests.api.front import ORIGIN, Front
from tests.world import event

HOSTILE = "<script>alert('x')</script>&\"<img src=x onerror=alert(1)>"


def test_the_page_shows_the_log_and_the_states(front: Front, http: TestClient) -> None:
    """Origin, size, root, lag of each shard, and a table for each reducer."""
    front.archiver.step([event("ann"), event("bob", doc_id="poem")])
    front.reduce()
    response = http.get("/")
    assert response.status_code == 200
    text = response.text
    assert ORIGIN in text
    assert front.archiver.root.hex() in text
    assert ">ready<" in text
    for reducer in front.reducers.values():
        assert reducer.name in text
    assert '<td class="key">bob</td><td class="key">poem</td>' in text


@pytest.mark.parametrize("name", [HOSTILE, "{{ 7 * 7 }}{% raw %}", "</td></table>"])
def test_names_and_states_are_escaped(front: Front, http: TestClient, name: str) -> None:
    """A student called <script> is shown as such, and runs nowhere; no more does a template."""
    front.archiver.step([event(name, name, doc_id=name), event(name, "bad")])
    front.reduce()
    text = http.get("/").text
    assert name in html.unescape(text)
    assert text.count("<script") == text.count("<img") == text.count("onerror=alert(1)>") == 0
    assert text.count("</table>") == len(front.reducers) + 1  # one of the modules


def test_nothing_on_the_page_may_run(http: TestClient) -> None:
    """A content security policy stands behind the escaping, and no copy of the page is kept."""
    headers = http.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "script-src" not in headers["content-security-policy"]
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_the_page_says_what_is_wrong(front: Front, http: TestClient) -> None:
    """States that are being rebuilt, and an archiver that is away, are told apart from "no events"."""
    front.reduce()
    assert "No events yet." in http.get("/").text
    front.clear(0)
    text = http.get("/").text
    assert "states are being rebuilt" in text
    assert "Being rebuilt." in text
    front.direct.is_connected = False
    assert "the archiver is not running" in http.get("/").text


def test_a_quarantine_is_shown(front: Front, http: TestClient) -> None:
    """A key that stands still says since which entry."""
    front.archiver.step([event("ann", "bad")])
    front.reduce()
    assert "stands still since entry 2" in http.get("/").text


def test_the_newest_states_come_first_and_long_ones_are_cut(front: Front, http: TestClient) -> None:
    """At most 40 rows a reducer, and the end of a long text rather than its beginning."""
    text = "x" * 300 + " the end"
    commands = {"bundles": [{"commands": [{"ty": "is", "ibi": 1, "s": text}]}]}
    front.archiver.step([event(f"s{n:03}", "e", doc_id="d") for n in range(60)])
    front.archiver.step([event("writer", "google_docs_save", commands, doc_id="d")])
    front.reduce()
    page = http.get("/").text
    of_students = [one for one in front.reducers.values() if one.scope[0] != "class"]
    assert page.count('<td class="key">writer</td>') == len(of_students)
    assert "x" * 200 not in page
    counts = page.split("<h2>event_count")[1].split("</table>")[0]
    assert counts.count("<tr><td") == 40


def students_of(page: str, name: str) -> list[str]:
    """Return the keys that a table shows, in its order."""
    table = page.partition(f"<h2>{name}")[2].partition("</table>")[0]
    return re.findall('<tr><td class="key">([^<]*)', table)


def test_the_states_shown_are_those_that_changed_last(front: Front, http: TestClient) -> None:
    """Of more states than there is room for, the newest are shown, wherever their keys stand, and it says so."""
    names = [f"s{(number * 37) % 60:03}" for number in range(60)]
    for name in names:
        front.archiver.step([event(name)])
    front.reduce()
    page = http.get("/").text
    assert students_of(page, "event_count") == names[:19:-1]
    assert "the 40 newest of 60" in page
    assert "by key" not in page


@pytest.mark.parametrize(("name", "bound", "count"), [("SCANNED", 5, 4), ("SCANNED_BYTES", 30, 3)])
def test_too_many_states_are_not_called_the_newest(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch, name: str, bound: int, count: int
) -> None:
    """Where there are too many to look at, the first by key over all shards are shown, and called that."""
    monkeypatch.setattr(pages, "STATES_SHOWN", 4)
    monkeypatch.setattr(pages, name, bound)
    front.archiver.step([event(f"s{number:03}") for number in range(30)])
    front.reduce()
    page = http.get("/").text
    assert students_of(page, "event_count") == [f"s{number:03}" for number in range(count)]
    table = page.partition("<h2>event_count")[2].partition("</table>")[0]
    assert f"the first {count} by key" in table
    assert "newest of" not in table


def test_where_every_state_is_shown_there_is_no_note(front: Front, http: TestClient) -> None:
    """A small class is shown whole, newest first."""
    front.archiver.step([event(name) for name in ("bob", "ann", "eve")])
    front.reduce()
    page = http.get("/").text
    assert students_of(page, "event_count") == ["eve", "ann", "bob"]
    assert "newest of" not in page
    assert "by key" not in page


def test_all_who_look_share_a_page(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten tabs cost no more than one: those who come while it is made wait for it, those who come soon are given it."""
    front.reduce()
    monkeypatch.setattr(pages, "FRESH_S", 60.0)
    made, plain = list[int](), pages._context

    def counted(services: Services) -> dict[str, Any]:
        made.append(1)
        return plain(services)

    monkeypatch.setattr(pages, "_context", counted)

    async def look() -> None:
        overview = pages.Overview(front.services)
        seen = {*await asyncio.gather(*(overview.page() for _ in range(10))), await overview.page()}
        assert (len(made), len(seen), ">ready<" in seen.pop()) == (1, 1, True)
        overview._made_at -= 60.0
        await overview.page()
        assert len(made) == 2

    asyncio.run(look())


def test_nobody_waits_while_the_page_is_made(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and states are answered meanwhile: here, the page cannot be finished before they are."""
    front.reduce()
    answered, plain = Event(), pages._context
    others = []

    def slow(services: Services) -> dict[str, Any]:
        others.append(answered.wait(30.0))
        return plain(services)

    monkeypatch.setattr(pages, "_context", slow)

    async def look() -> str:
        page = asyncio.create_task(pages.Overview(front.services).page())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answered.set()
        return await page

    assert ">ready<" in asyncio.run(look())
    assert others == [True]


def fault(name: str, shards: dict[str, int], reason: str = "SIGSEGV") -> ModuleStatus:
    """Return how a module is that died in these shards, at these entries."""
    found = {}
    for shard, index in shards.items():
        one = Fault("died", index, 1, 100.0, reason, name)
        found[shard] = ShardStatus(struck(struck(Record("cell"), one), one), 0.0)
    return ModuleStatus(found)


def test_every_trouble_and_every_command_is_shown(front: Front, http: TestClient) -> None:
    """Of each module and each shard, what has the same cause once, and no more than fits on a page."""
    front.reduce()
    statuses = {
        "activity": fault("event_count", {"0": 7, "1": 9}),
        "writing": fault("reconstruct", {str(shard): 20 for shard in range(2)}),
        "progress": fault("words", {str(shard): 100 + shard for shard in range(8)}),
    }
    write_status(front.folder.run / STATUS_FILE, statuses)
    text = html.unescape(http.get("/").text)
    for index in (7, 9):
        assert f"treering skip event_count {index} --data {front.folder.path}<" in text
    assert "shard 0: reducer event_count died at entry 7: SIGSEGV" in text
    assert "shard 1: reducer event_count died at entry 9: SIGSEGV" in text
    assert text.count("treering skip reconstruct 20") == 1
    assert "shards 0, 1: reducer reconstruct died at entry 20: SIGSEGV" in text
    assert text.count("treering skip words ") == text.count("reducer words died") == pages.TROUBLES_SHOWN
    assert text.count("and 3 more: treering doctor") == 2
    assert "3 modules wait for you: activity, progress, writing" in text
    write_status(front.folder.run / STATUS_FILE, {"activity": statuses["activity"]})
    assert "1 module waits for you: activity<" in http.get("/").text
    write_status(front.folder.run / STATUS_FILE, {})
    assert "for you" not in http.get("/").text


def test_modules_that_wait_stand_first(front: Front, http: TestClient) -> None:
    """Who must do something sees it without scrolling past what is well."""
    front.reduce()
    plain = re.findall(r'<tr><td class="key">(\w+)', http.get("/").text.partition("<h2>Modules")[2])
    last = plain[plain.index("writing")]
    write_status(front.folder.run / STATUS_FILE, {last: fault("reconstruct", {"0": 20})})
    shown = re.findall(r'<tr><td class="key">(\w+)', http.get("/").text.partition("<h2>Modules")[2])
    assert plain[0] != last
    assert shown[0] == last
    modules = len(front.modules)
    assert shown[1:modules] == [one for one in plain[:modules] if one != last]


def test_long_keys_fields_and_reasons_are_cut(front: Front, http: TestClient) -> None:
    """Whatever stands in a key, a state or an error, a row stays a row: the page has a bound, and can be read."""
    long = "first" + "a" * 900 + "last"
    front.archiver.step([event(long), event("ann", "bad")])
    front.reduce()
    statuses = {"writing": fault("reconstruct", {"0": 20}, "A" * 5_000)}
    write_status(front.folder.run / STATUS_FILE, statuses)
    text = http.get("/").text
    assert "a" * 101 not in text
    assert re.search('<td class="key">firsta+…a+last</td>', text)
    assert "A" * 200 in text
    assert "A" * 301 not in text
    assert re.search(r"td\.key \{[^}]*max-width", text)
    assert re.search(r"td\.why \{[^}]*overflow-wrap: anywhere", text)
    assert "td.key { white-space: nowrap" not in text


@pytest.mark.parametrize(
    "state",
    [
        {f"field{number}": number for number in range(2_500)},
        {f"{number}" + "n" * 5_000: "v" * 5_000 for number in range(2_500)},
        ["x" * 50] * 2_500,
        "x" * 50_000,
    ],
    ids=["fields", "texts", "list", "text"],
)
def test_of_a_state_a_bounded_part_is_shown(state: Any) -> None:
    """A state may have megabytes, and the page shows 40 of each reducer every two seconds."""
    text = pages.shown(state)
    assert len(text) < 700
    assert "…" in text
    if isinstance(state, dict):
        assert text.endswith("… and 2,480 more")
