"""The archiver's client: answers in order, and nothing claimed of what is unknown when the archiver dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from archive import (
    FRONT,
    Append,
    Appended,
    ArchiverClient,
    IntegrityError,
    Published,
    Receipt,
    Submission,
    Subscribe,
    Unknown,
    decode_frames,
    encode_frame,
)
from archive.client import BEAT_S, BEATS_MISSED_MAX, READY_WAIT_S
from tests.archive.site import event

WAIT_S = 10


class Fake:
    """An archiver that keeps requests and answers when it is told to; `die` ends it, `live` starts another."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.requests, self.size = socket, [], 0
        self.taken: list[Submission] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.hangs, self.unanswered = False, 0

    requests: list[Append]

    async def live(self, process: bytes) -> None:
        """Listen as the process of this name."""
        self.requests = []
        self._process = process
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        buffer = bytearray()
        while data := await reader.read(65_536):
            buffer += data
            for message in decode_frames(buffer, FRONT)[0]:
                if self.hangs:
                    self.unanswered += 1
                elif isinstance(message, Subscribe):
                    writer.write(encode_frame(Published(self.size, self._process)))
                else:
                    self.requests.append(message)

    def answer(self) -> None:
        """Keep, answer and publish the oldest request."""
        self.commit(1, answered=1)
        self.publish()

    def publish(self) -> None:
        """Say how far the log is."""
        self._writers[-1].write(encode_frame(Published(self.size, self._process)))

    def commit(self, count: int, answered: int) -> None:
        """Keep the oldest requests in one commit, and answer the first of them; nothing is published yet."""
        group, self.requests = self.requests[:count], self.requests[count:]
        first, self.size = self.size, self.size + sum(len(request.submissions) for request in group)
        for request in group:
            self.taken += request.submissions
        for request in group[:answered]:
            answers = [Receipt(first + at, self.size) for at in range(len(request.submissions))]
            self._writers[-1].write(
                encode_frame(Appended(request.ticket, list(answers), self.size, bytes(32)))
            )
            first += len(answers)

    async def die(self) -> None:
        """End every connection and stop listening."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self.socket.unlink()


def framed(number: int) -> Submission:
    """Return the submission of a frame."""
    return event(b"%d" % number, extra={"conn": b"12345678", "frame": number})


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - what is waited for is a value, not an event
            await asyncio.sleep(0.005)


def run(
    tmp_path: Path, story: Callable[[Fake, ArchiverClient], Awaitable[None]], beat_s: float = BEAT_S
) -> None:
    """Tell a story of an archiver and its client."""

    async def told() -> None:
        fake = Fake(tmp_path / "a.sock")
        client = ArchiverClient(fake.socket)
        client.beat_s = beat_s
        await fake.live(b"first")
        await client.start()
        await client.ready(WAIT_S)
        await story(fake, client)
        await client.stop()
        await fake.die()

    asyncio.run(told())


def test_answers_come_to_whom_they_belong(tmp_path: Path) -> None:
    """What is submitted in one turn travels together; each caller gets the answers of his own."""

    async def story(fake: Fake, client: ArchiverClient) -> None:
        futures = [client.submit([framed(1)]), client.submit([framed(2), framed(3)])]
        await until(lambda: bool(fake.requests))
        assert len(fake.requests) == 1
        fake.answer()
        assert [await one for one in futures] == [[Receipt(0, 3)], [Receipt(1, 3), Receipt(2, 3)]]
        assert client.checkpoint == (3, bytes(32))

    run(tmp_path, story)


def test_frames_are_kept_once_by_one_archiver_or_the_next(tmp_path: Path) -> None:
    """What the log holds is answered from it; what it does not hold is sent again, before anything new."""

    async def story(fake: Fake, client: ArchiverClient) -> None:
        asked: list[int] = []

        def settle(size: int, submissions: Sequence[Submission]) -> list[Receipt | None]:
            asked.append(size)
            return [Receipt(1, 2) if one.payload == b"2" else None for one in submissions]

        client.settle = settle
        known = client.submit([framed(1)])
        await until(lambda: bool(fake.requests))
        fake.answer()
        await known
        kept, lost = client.submit([framed(2)]), client.submit([framed(3)])
        await until(lambda: bool(fake.requests))
        await fake.die()
        await until(lambda: not client.connected)
        fake.size = 2
        await fake.live(b"second")
        await client.ready(WAIT_S)
        new = client.submit([framed(4)])
        for _ in range(2):
            await until(lambda: bool(fake.requests))
            fake.answer()
        assert (await kept, await lost, await new) == ([Receipt(1, 2)], [Receipt(2, 3)], [Receipt(3, 4)])
        assert asked == [1], "the size last heard of, not that of the new archiver"
        assert [one.payload for one in fake.taken] == [b"1", b"3", b"4"]

    run(tmp_path, story)


def test_an_answer_does_not_speak_for_what_else_was_in_its_commit(tmp_path: Path) -> None:
    """An archiver that dies between two answers of one commit: the size in the first covers what it did not answer."""

    async def story(fake: Fake, client: ArchiverClient) -> None:
        def settle(size: int, submissions: Sequence[Submission]) -> list[Receipt | None]:
            kept = {one.payload: index for index, one in enumerate(fake.taken) if index >= size}
            return [Receipt(kept[one.payload], 3) if one.payload in kept else None for one in submissions]

        client.settle = settle
        futures = []
        for number in (1, 2, 3):
            futures.append(client.submit([framed(number)]))
            await asyncio.sleep(0)  # a turn, so that each is a request of its own
        await until(lambda: len(fake.requests) == 3)
        fake.commit(3, answered=1)
        assert await futures[0] == [Receipt(0, 3)]
        await fake.die()
        await until(lambda: not client.connected)
        await fake.live(b"second")
        await client.ready(WAIT_S)
        assert [await one for one in futures[1:]] == [[Receipt(1, 3)], [Receipt(2, 3)]]
        assert [one.payload for one in fake.taken] == [b"1", b"2", b"3"], "nothing is sent again"

    run(tmp_path, story)


@pytest.mark.parametrize("why", ["same process", "no frame", "damaged log", "nobody can settle"])
def test_what_cannot_be_told_is_unknown(tmp_path: Path, why: str) -> None:
    """Where the log cannot tell, the caller is told that nobody knows; nothing is sent again."""

    def settle(size: int, submissions: Sequence[Submission]) -> list[Receipt | None]:
        del size
        if why == "damaged log":
            raise IntegrityError("entry 1 is missing")
        return [None] * len(submissions)

    async def story(fake: Fake, client: ArchiverClient) -> None:
        client.settle = None if why == "nobody can settle" else settle
        future = client.submit([event(b"x") if why == "no frame" else framed(1)])
        await until(lambda: bool(fake.requests))
        await fake.die()
        await until(lambda: not client.connected)
        await fake.live(b"first" if why == "same process" else b"second")
        await client.ready(WAIT_S)
        with pytest.raises(Unknown):
            await future
        assert fake.requests == []

    run(tmp_path, story)


def test_what_was_not_sent_waits_for_the_next_archiver(tmp_path: Path) -> None:
    """A submission that was never sent is not unknown: it goes to the archiver that comes."""

    async def story(fake: Fake, client: ArchiverClient) -> None:
        future = client.submit([event(b"x")])
        client.lost()  # before the turn of the loop ends, so nothing has left
        await fake.die()
        await fake.live(b"second")
        await client.ready(WAIT_S)
        await until(lambda: bool(fake.requests))
        fake.answer()
        assert await future == [Receipt(0, 1)]

    run(tmp_path, story)


def test_a_crowd_never_makes_a_message_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits together is cut into messages far below the largest frame, in order."""
    monkeypatch.setattr("archive.client.MESSAGE_BYTES_MAX", 250)

    async def story(fake: Fake, client: ArchiverClient) -> None:
        futures = [client.submit([event(b"%d" % number * 100)]) for number in range(5)]
        await until(lambda: len(fake.requests) == 3)
        assert [len(one.submissions) for one in fake.requests] == [2, 2, 1]
        for _ in range(3):
            fake.answer()
        assert [(await one)[0] for one in futures] == [
            Receipt(0, 2),
            Receipt(1, 2),
            Receipt(2, 4),
            Receipt(3, 4),
            Receipt(4, 5),
        ]

    run(tmp_path, story)


def test_an_archiver_that_keeps_its_socket_and_says_nothing_does_not_answer(tmp_path: Path) -> None:
    """It was stopped, or hangs: the connection stays open, and only asking shows it.  It is asked once, not ever again,
    for questions would pile up; as soon as it says anything, all is well.
    """

    async def story(fake: Fake, client: ArchiverClient) -> None:
        assert client.answers
        woken: list[int] = []
        client.woken = woken.append
        fake.hangs = True
        await until(lambda: not client.answers)
        assert client.connected
        await asyncio.sleep(5 * client.beat_s)
        assert fake.unanswered == 1
        fake.hangs = False
        fake.publish()
        await until(lambda: client.answers)
        await asyncio.sleep(3 * BEATS_MISSED_MAX * client.beat_s)
        assert client.answers, "an archiver that answers every question counts as away"
        assert woken == [], "who is woken would look for what is new, every second"
        fake.size += 1
        fake.publish()
        await until(lambda: woken == [fake.size])

    run(tmp_path, story, beat_s=0.02)


@pytest.mark.parametrize("is_away", [False, True])
def test_who_waits_is_told_at_once_when_the_client_stops(tmp_path: Path, is_away: bool) -> None:
    """There will be no next archiver to ask, so nothing is waited for; no timer is left behind either."""

    async def story(fake: Fake, client: ArchiverClient) -> None:
        client.settle = lambda _, submissions: [None] * len(submissions)
        future = client.submit([framed(1)])
        await until(lambda: bool(fake.requests))
        if is_away:
            await fake.die()
            await until(lambda: not client.connected)
        await client.stop()
        with pytest.raises(Unknown):
            await asyncio.wait_for(future, READY_WAIT_S / 3)
        await asyncio.sleep(0)
        assert client._giving_up is None or client._giving_up.cancelled()
        if is_away:
            await fake.live(b"second")

    run(tmp_path, story)
