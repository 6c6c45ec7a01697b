"""The post: everything that was said is in the log before a position is saved, whatever the archiver answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archive import (
    Activate,
    Answer,
    LogSource,
    NotFound,
    Receipt,
    Refusal,
    Retry,
    Skip,
    Submission,
    Unavailable,
)
from reducers import Emit, Event, Message, Module, Reducer, reducer
from replay import (
    HOPS_MAX,
    Crew,
    Gathered,
    Holding,
    Outgoing,
    Runner,
    Unsent,
    catalogue_of,
    message_id,
    read_unsent,
)
from tests.tools.test_worker import Waits, stop
from tests.world import World, event
from tools import post as post_module
from tools import worker
from tools.post import Finding, Post, origin_of, tell, time_of
from tools.ticker import Ticker
from tools.worker import Duties, tail

ORIGIN = "example.org/log"
CLOCK = count(0, 10).__next__
Respond = Callable[[Sequence[Submission]], list[Answer]]


class Archiver:
    """A client whose archiver keeps what it has no id of, unless `respond` knows better."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.kept: dict[str | None, Submission] = {}
        self.asked: list[int] = []
        self.respond = respond

    def append(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Answer."""
        self.asked.append(len(submissions))
        if self.respond is not None:
            return self.respond(submissions)
        for one in submissions:
            self.kept.setdefault(one.id, one)
        order = list(self.kept)
        return [Receipt(order.index(one.id), len(order)) for one in submissions]


class Sayers(Crew):
    """A crew that has said something, of which the test knows all."""

    def __init__(self, said: Iterable[Outgoing] = (), reducers: Sequence[Reducer[Any]] = ()) -> None:
        self.said, self._holdings, self.runners = list(said), [Holding(reducers, module="m")], []

    @property
    def holdings(self) -> list[Holding]:
        """What ticks are for."""
        return self._holdings

    @property
    def outbox(self) -> list[Outgoing]:
        """What waits."""
        return list(self.said)

    def sent(self) -> None:
        """Nothing waits."""
        self.said.clear()


def said(at: int, *, reducer_: str = "r", hops: int = 1, data: Any = None) -> Outgoing:
    """Return something said at an event."""
    message = Message("m.t", {"class": "7b"}, data)
    return Outgoing("m", reducer_, ("ann",), at, 0, message, (0,), hops, 5, 6, "ann")


def posting(client: Archiver, told: list[Finding] | None = None, name: str = "student:ann") -> Post:
    """Return a post for a log in which subject 0 is ann."""
    return Post(client, ORIGIN, lambda _: name, told=(told if told is not None else []).append)


def test_all_is_sent_in_order_and_then_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages go in batches no larger than is good for a commit, by number and by bytes."""
    monkeypatch.setattr(post_module, "BATCH_ENTRIES", 3)
    client, crew = Archiver(), Sayers([said(at) for at in range(7)])
    post = posting(client)
    assert post.deliver(crew)
    assert crew.outbox == []
    assert (client.asked, post.counts) == ([3, 3, 1], {"sent": 7})
    assert list(client.kept) == [message_id(ORIGIN, said(at)) for at in range(7)]
    monkeypatch.setattr(post_module, "BATCH_BYTES", 1)
    client.asked.clear()
    assert post.deliver(Sayers([said(8), said(9)]))
    assert client.asked == [1, 1]


def test_nothing_said_asks_nobody() -> None:
    """A crew that is silent costs the archiver nothing."""
    client = Archiver()
    assert posting(client).deliver(Sayers())
    assert client.asked == []


@pytest.mark.parametrize("how", ["raises", "refuses"])
def test_an_archiver_that_is_away_is_asked_again_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """What was answered is not sent twice, what was not is kept, and the operator reads one line."""
    monkeypatch.setattr(post_module, "BATCH_ENTRIES", 2)
    client, crew = Archiver(), Sayers([said(at) for at in range(5)])

    def away(submissions: Sequence[Submission]) -> list[Answer]:
        if how == "raises":
            raise Unavailable("no answer")
        return [Refusal("unavailable", "no space") for _ in submissions]

    def once(submissions: Sequence[Submission]) -> list[Answer]:
        client.respond = None
        answers = client.append(submissions)
        client.respond = away
        return answers

    client.respond = once
    post = posting(client)
    assert not post.deliver(crew)
    assert not post.deliver(crew)
    assert len(crew.outbox) == 5
    client.respond = None
    assert post.deliver(crew)
    assert (len(client.kept), post.counts, crew.outbox) == (5, {"sent": 5}, [])
    assert capsys.readouterr().err.count("messages wait") == 1
    client.respond = away
    assert not post.deliver(Sayers([said(9)]))
    assert capsys.readouterr().err.count("messages wait") == 1, "a second absence is told again"


@pytest.mark.parametrize("reason", ["conflict", "invalid"])
def test_what_is_refused_is_a_finding_told_once_for_each_reducer(reason: str) -> None:
    """It names reducer and entry, the others go on, and what comes later is counted."""
    told: list[Finding] = []
    client = Archiver(
        lambda some: [Refusal(reason, "no") if one.payload[8:9] == b"1" else Receipt(0, 1) for one in some]
    )
    post = posting(client, told)
    crew = Sayers([said(3, data=1), said(4, data=2), said(5, data=1), said(6, data=1, reducer_="q")])
    assert post.deliver(crew)
    assert crew.outbox == []
    assert told == [Finding(reason, "m", "r", 3, "no"), Finding(reason, "m", "q", 6, "no")]
    assert post.counts == {"sent": 1, reason: 3}


def test_a_message_too_far_is_not_sent_and_told() -> None:
    """A loop of modules ends here, and the chain's last message is in nobody's log."""
    told: list[Finding] = []
    client = Archiver()
    post = posting(client, told)
    assert post.deliver(Sayers([said(3, hops=HOPS_MAX + 1), said(4, hops=HOPS_MAX)]))
    assert [one.kind for one in told] == ["hops"]
    assert list(client.kept) == [message_id(ORIGIN, said(4))]


def test_what_came_of_an_erased_person_is_not_said() -> None:
    """It is counted, and nobody need look; sent, it would make the person known anew."""
    told: list[Finding] = []

    def gone(number: int) -> str:
        raise NotFound(f"subject {number} is erased")

    client = Archiver()
    post = Post(client, ORIGIN, gone, told=told.append)
    assert post.deliver(Sayers([said(3)]))
    assert (told, client.kept, post.counts) == ([], {}, {"erased": 1})


def test_a_finding_is_one_line_that_names_reducer_and_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """The operator reads which module to look at, and where; the line names no key."""
    tell(Finding("conflict", "m", "r", 3, "id 'x' was used for other content, entry 9"))
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert all(part in shown.err for part in ("module m", "reducer r", "entry 3", "conflict", "entry 9"))


def test_a_module_that_leaves_takes_nothing_of_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the outbox is sent when the archiver goes away, and then a module is let go: what is left is sent."""
    monkeypatch.setattr(post_module, "BATCH_ENTRIES", 2)
    client = Archiver()
    keep = client.append

    def twice(submissions: Sequence[Submission]) -> list[Answer]:
        if len(client.asked) == 2:
            raise Unavailable("no answer")
        client.respond = None
        client.asked.pop()
        answers = keep(submissions)
        client.respond = twice
        return answers

    client.respond = twice
    crew = Sayers([*(said(at, reducer_="gone") for at in range(2)), *(said(at) for at in range(3))])
    post = posting(client)
    assert not post.deliver(crew)
    del crew.said[:2]
    client.respond = None
    assert post.deliver(crew)
    assert list(client.kept)[2:] == [message_id(ORIGIN, said(at)) for at in range(3)]


# --- after a skip --------------------------------------------------------------------------------


@reducer(scope=("student",), version=1)
def numbering(state: int, event: Event, emit: Emit) -> int:
    """Tell the class how many events there were: what a skipped event changes for all behind it."""
    if event.type == "e":
        emit("numbering.now", keys={"class": "7b"}, data=state + 1)
        return state + 1
    return state


def numbered(*submissions: Submission) -> tuple[World, list[int], Post, list[Finding]]:
    """Return a log of these, the indices, and a post that has delivered what was said of them."""
    world, told = World(reducers=[numbering]), list[Finding]()
    world.steer(Activate("all", tuple(Holding([numbering]).identities)))
    indices = [one.index for one in world.append(list(submissions))]
    post = Post(Real(world), ORIGIN, world.vault().name, told=told.append)
    fold_and_deliver(world, post, world.runner())
    return world, indices, post, told


def fold_and_deliver(world: World, post: Post, runner: Runner) -> None:
    """Let a worker fold all that there is, and send and save after every slice."""
    crew = Crew([], world.vault())
    crew.runners = [runner]
    while runner.step(world.source, ahead=True) or crew.outbox:
        assert post.deliver(crew)
        runner.save(world.source)


@pytest.mark.parametrize("how", ["live", "rebuilt"])
def test_what_is_said_otherwise_after_a_skip_is_no_finding(how: str) -> None:
    """The reducer is a function of the log: it is the log that says something else now; the first message stands."""
    world, (first, *others), post, told = numbered(*(event("ann") for _ in range(3)), event("bob"))
    runner = world.runner()
    sent = post.counts["sent"]
    world.steer(Skip("numbering", first))
    world.append([event("ann")])
    if how == "rebuilt":
        world.states.clear()
        runner = world.runner()
    fold_and_deliver(world, post, runner)
    assert told == []
    assert (post.counts["superseded"], post.counts["conflict"]) == (len(others) - 1, 0)
    assert post.counts["sent"] > sent, "what is new is sent"


def test_what_is_said_otherwise_before_what_was_skipped_is_a_finding() -> None:
    """A skip explains what comes behind the event that it names, and nothing else; nor does that of another reducer."""
    steering = Gathered()
    for at, one in ((9, Skip("r", 7)), (19, Skip("q", 3)), (29, Retry(reducer="r", index=25))):
        steering.take(at, one)
    crew, told = Sayers([said(at) for at in (6, 8, 10, 24, 26, 30)]), list[Finding]()
    crew.runners = [cast("Runner", SimpleNamespace(steering=steering))]
    post = posting(Archiver(lambda some: [Refusal("conflict", "no")] * len(some)), told)
    assert post.deliver(crew)
    assert post.counts == {"conflict": 4, "superseded": 2}
    assert [(one.kind, one.at) for one in told] == [("conflict", 6)]


def test_what_waited_for_its_identity_is_explained_by_any_skip_above_it() -> None:
    """It was folded behind events that stand above it, so one of these may have been skipped."""
    steering = Gathered()
    steering.take(9, Skip("r", 7))
    crew = Sayers([said(at) for at in (6, 8, 10)])
    crew.runners = [cast("Runner", SimpleNamespace(steering=steering))]
    post = posting(Archiver(lambda some: [Refusal("conflict", "no")] * len(some)), name="provisional:00-1")
    assert post.deliver(crew)
    assert post.counts == {"conflict": 1, "superseded": 2}


# --- ticks ---------------------------------------------------------------------------------------


@reducer(ticks=60)
def minutely(state: int, event: Event) -> int:
    """Count."""
    return state + event.index


@reducer()
def timeless(state: int, event: Event) -> int:
    """Count."""
    return state + event.index


def test_ticks_are_for_reducers_that_take_them() -> None:
    """Nobody else makes a log grow, and other shards leave it to the first."""
    client = Archiver()
    post = Post(client, ORIGIN, str, ticker=Ticker())
    assert post.tick(Sayers(reducers=[timeless]), 120.0) is None
    assert Post(client, ORIGIN, str).tick(Sayers(reducers=[minutely]), 120.0) is None
    assert client.asked == []
    assert post.tick(Sayers(reducers=[minutely, timeless]), 130.5) == 49.5
    assert list(client.kept) == ["tick/120"]


def test_a_tick_that_found_no_archiver_is_sent_by_the_next_look(capsys: pytest.CaptureFixture[str]) -> None:
    """Or the one after: of those that were missed, the newest."""
    client = Archiver(lambda some: [Refusal("unavailable", "no space") for _ in some])
    post, crew = Post(client, ORIGIN, str, ticker=Ticker()), Sayers(reducers=[minutely])
    for now_s in (61.0, 62.0, 125.0):
        post.tick(crew, now_s)
    client.respond = None
    post.tick(crew, 126.0)
    post.tick(crew, 127.0)
    assert (list(client.kept), len(client.asked)) == (["tick/120"], 4)
    assert capsys.readouterr().err.count("ticks wait") == 1


# --- the loop around it --------------------------------------------------------------------------


@reducer(scope=("student",), version=1)
def telling(state: int, event: Event, emit: Emit) -> int:
    """Tell the class of each event of the test's own."""
    if event.type == "e":
        emit("telling.heard", keys={"class": "7b"}, data=event.index)
    return state + 1


class Real:
    """A client of the archiver of a world, which is away for the first `away` questions."""

    def __init__(self, world: World, away: int = 0) -> None:
        self.world, self.away = world, away

    def append(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Answer."""
        if self.away:
            self.away -= 1
            raise Unavailable("no answer")
        return self.world.archiver.step(submissions)


def talking() -> tuple[World, Crew]:
    """Return a log with three events that make a module speak, and the crew that folds it."""
    world = World(reducers=[telling])
    world.steer(Activate("all", tuple(Holding([telling]).identities)))
    world.append([event("ann") for _ in range(3)])
    crew = Crew([], world.vault())
    crew.runners = [world.runner()]
    return world, crew


def test_no_position_is_saved_before_its_messages_are_in_the_log() -> None:
    """While the archiver is away nothing more is folded, and the store stays where it was; then all goes on."""
    world, crew = talking()
    post = Post(Real(world, away=3), ORIGIN, world.vault().name)
    stood: list[tuple[int, int]] = []

    def look(waits: Waits) -> None:
        with world.states[0, 1].view() as view:
            stood.append((0 if view.get("meta", b"snapshot") is None else 1, len(crew.outbox)))
        waits.stopped = len(stood) == 12

    tail(crew, world.source, Waits(look), Duties(post))
    assert stood[:3] == [(0, 3)] * 3
    assert (stood[-1], post.counts) == ((1, 0), {"sent": 3})
    assert crew.holdings[0].position == world.size


def test_a_worker_that_must_end_saves_nothing_that_was_not_said() -> None:
    """The archiver is gone; the next start folds the same, says the same, and each message is there once."""
    world, crew = talking()
    size = world.size
    tail(crew, world.source, Waits(stop), Duties(Post(Real(world, away=10**6), ORIGIN, world.vault().name)))
    assert (world.size, crew.holdings[0].position) == (size, 0)
    for _ in range(2):
        crew.runners = [world.runner()]
        tail(crew, world.source, Waits(stop), Duties(Post(Real(world), ORIGIN, world.vault().name)))
    assert world.size == size + 3


def test_what_the_log_says_of_itself() -> None:
    """Its name is in entry 0, its time in the last."""
    world, _ = talking()
    assert origin_of(world.source) == world.archiver.origin
    assert time_of(world.source) == world.site.clock.now_us() // 1_000_000
    with pytest.raises(NotFound):
        origin_of(LogSource(world.site.log, lambda: 0))


def test_a_worker_looks_when_the_next_tick_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps no longer than until then, and no longer than it would have."""
    crew = Sayers(reducers=[minutely])
    duties = Duties(Post(Archiver(), ORIGIN, str, ticker=Ticker()))
    monkeypatch.setattr(worker, "time", SimpleNamespace(time=lambda: 59.75))
    assert duties.tick(crew) == 0.25
    monkeypatch.setattr(worker, "time", SimpleNamespace(time=lambda: 60.0))
    assert duties.tick(crew) == 60.0
    assert Duties().tick(crew) == worker.POLL_S
    assert Duties().deliver(cast("Crew", Sayers([said(1)])))


def test_what_cannot_be_sent_is_counted_where_operators_look(tmp_path: Path) -> None:
    """By kind and reducer, for all restarts together; what was erased without a word of why."""

    @reducer(name="r", version=3)
    def speaks(state: int, event: Event, emit: Emit) -> int:  # noqa: ARG001 - nobody folds it
        return state

    module = Module("m", (speaks,))

    def gone(_: int) -> str:
        raise NotFound("subject 7 is erased")

    refuses = Archiver(lambda asked: [Refusal("conflict", "said something else before")] * len(asked))
    for _ in range(2):  # the second is the next worker, which folds the same again
        crews = [Sayers([said(4), said(5)], [speaks]), Sayers([said(6, hops=HOPS_MAX + 1)], [speaks])]
        post = Post(
            refuses, ORIGIN, lambda _: "a", told=lambda _: None, unsent=Unsent(tmp_path, 0), clock=CLOCK
        )
        for crew in crews:
            assert post.deliver(crew)
        post._name_of = gone
        assert post.deliver(Sayers([said(7)], [speaks]))
        assert post.deliver(Sayers())
    found = read_unsent(tmp_path, 1, [catalogue_of(module)])
    assert {kind: (one.count, one.first, one.last, one.detail) for (_, _, kind), one in found.items()} == {
        "conflict": (2, 4, 5, "said something else before"),
        "hops": (1, 6, 6, found["m", "r", "hops"].detail),
        "erased": (1, 7, 7, ""),
    }
