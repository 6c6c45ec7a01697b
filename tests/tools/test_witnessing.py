"""Asking witnesses: the newest checkpoint is published once enough have cosigned, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from archive import LogSource, read_cosigned
from merkle import SIZE_TYPE, Cosigner, FormatError, Policy, PolicyCheck, Witness, check_policy
from tests.archive.site import ORIGIN, SIGNER, Site, event
from tools import witnessing
from tools.witness import Application, Memory
from tools.witnessing import Asking, Rounds, load_policy

NAMES = "abc"
COSIGNERS = {name: Cosigner(f"witness.example/{name}", name.encode() * 32) for name in NAMES}


def policy(quorum: str = "group two 2 a b c\nquorum two\n") -> Policy:
    """Return a policy of three witnesses with addresses."""
    lines = [f"log {SIGNER.verifier.encode()}\n"]
    lines += [f"witness {name} {COSIGNERS[name].verifier.encode()} http://{name}\n" for name in NAMES]
    return Policy.parse("".join([*lines, quorum]).encode())


Behaviour = Callable[[httpx2.Request], httpx2.Response]


def response(status: int, kind: str, body: bytes) -> httpx2.Response:
    """Return a response that comes in pieces, as over a network."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1_000):
            yield body[at : at + 1_000]

    return httpx2.Response(status, headers={"content-type": kind}, content=pieces())


class Town(httpx2.AsyncBaseTransport):
    """Three witnesses behind their addresses; a `behaviour` stands in for one."""

    def __init__(self, folder: Path) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.gates = {name: asyncio.Event() for name in NAMES}
        self.asked: list[tuple[str, int]] = []
        self._folder = folder
        for gate in self.gates.values():
            gate.set()

    def witness(self, name: str) -> Application:
        """Return a witness as it starts anew; it has its memory on disk."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return Application(Witness([SIGNER.verifier], [COSIGNERS[name]]), Memory(folder), lambda: 100)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Let the witness of that name answer, once its gate is open."""
        name = request.url.host
        assert request.url.path == "/add-checkpoint"
        await self.gates[name].wait()
        body = await request.aread()
        self.asked.append((name, int(body.split(b"\n")[0][4:])))
        if name in self.behaviours:
            return self.behaviours[name](request)
        answer = self.witness(name).add(body)
        return response(answer.status, answer.content_type, answer.body)


class Scene:
    """A log, its witnesses, and rounds between them."""

    def __init__(self, path: Path, made: Policy) -> None:
        self.site, self.policy, self.path = Site(), made, path / "cosigned"
        self.archiver = self.site.start()
        self.source = LogSource(self.site.log, self.site.published.get)
        self.town = Town(path)
        self.client = httpx2.AsyncClient(transport=self.town)
        asked = [Asking(one, self.client) for one in made.witnesses if one.url is not None]
        self.rounds = Rounds(made, asked, self.source, self.path)
        self.running: asyncio.Task[None] | None = None

    def grow(self, entries: int = 1) -> int:
        """Append, wake the rounds, and return the new size."""
        self.archiver.step([event(b"{}") for _ in range(entries)])
        self.rounds.news.set()
        return self.archiver.head.size

    def published(self) -> PolicyCheck | None:
        """Return what the outside sees, checked against the policy."""
        found = read_cosigned(self.path, ORIGIN)
        if found is None:
            return None
        check = check_policy(found[1], self.policy)
        assert check.met, "only what meets the policy is published"
        return check

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; the test's own time limit ends what never comes."""
        while not condition():
            assert self.running is not None
            if self.running.done():
                self.running.result()
            await asyncio.wait([self.running], timeout=0.005)

    async def publishes(self, size: int, witnesses: int = 2) -> None:
        """Wait until a size is published with at least so many witnesses."""

        def there() -> bool:
            check = self.published()
            return check is not None and check.checkpoint.size == size and len(check.cosigned) >= witnesses

        await self.until(there)


@asynccontextmanager
async def playing(scene: Scene) -> AsyncIterator[None]:
    """Run the rounds for the length of a scene."""
    scene.running = running = asyncio.create_task(scene.rounds.run())
    try:
        yield
        assert not running.done(), running
    finally:
        scene.rounds.stopping.set()
        await running
        await scene.client.aclose()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses be short; nothing here depends on their length."""
    monkeypatch.setattr(witnessing, "PERIOD_S", 0.001)
    monkeypatch.setattr(witnessing, "RETRY_S_MIN", 0.001)
    monkeypatch.setattr(witnessing, "RETRY_S_MAX", 0.01)


def down(request: httpx2.Request) -> httpx2.Response:
    """Be unreachable."""
    raise httpx2.ConnectError("connection refused", request=request)


def liar(_: httpx2.Request) -> httpx2.Response:
    """Claim to remember a size that is long past, whatever is asked."""
    return response(409, SIZE_TYPE, b"1\n")


def test_a_log_that_grows_is_published_as_it_grows(tmp_path: Path) -> None:
    """Three willing witnesses: each size that is waited for is published, in the end with all three."""

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        async with playing(scene):
            for entries in (1, 5, 300, 1):
                await scene.publishes(scene.grow(entries), witnesses=3)

    asyncio.run(play())


def test_one_down_and_one_restarted_do_not_stop_two_of_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The quorum decides; who is down is named on standard error once, not at each try."""

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        scene.town.behaviours["b"] = down
        async with playing(scene):
            for _ in range(4):
                await scene.publishes(scene.grow())
        assert scene.published() is not None

    asyncio.run(play())
    assert capsys.readouterr().err == "witnessing: b: ConnectError: connection refused\n"


def test_a_liar_costs_its_own_vote_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A witness that always remembers an old size is asked a few times, and then passed over."""

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        scene.town.behaviours["a"] = liar
        async with playing(scene):
            await scene.publishes(scene.grow(3))
            await scene.until(lambda: len(scene.town.asked) >= 5)
        assert [old for name, old in scene.town.asked if name == "a"][:3] == [0, 1, 1]

    asyncio.run(play())
    assert "a: it says that it remembers 1 entries, and then that it does not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, "", b"nonsense\n"), "not a signature line"),
        ((200, "", "— stranger AAAAAAAA\n".encode()), "no known key"),
        ((200, "", b"x" * 70_000), "longer than"),
        ((404, "", b"unknown log\n"), "it answered 404: unknown log"),
        ((500, "", b"\xff"), "it answered 500"),
        ((301, "", b""), "it answered 301"),
        ((409, "text/plain", b"1\n"), "it answered 409"),
        ((409, SIZE_TYPE, b"-1\n"), "without a size"),
        ((409, SIZE_TYPE, b"1"), "without a size"),
        ((409, SIZE_TYPE, b"9" * 5_000 + b"\n"), "without a size"),
        ((409, SIZE_TYPE, b"1000000\n"), "remembers 1000000 entries; this checkpoint has"),
        ((422, "", b"fork\n"), "it answered 422: fork"),
    ],
)
def test_whatever_a_witness_answers_the_others_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: tuple[int, str, bytes], complaint: str
) -> None:
    """Nonsense of every kind is a vote less and a line on standard error, never more."""
    status, kind, body = answer

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        scene.town.behaviours["a"] = lambda _: response(status, kind, body)
        async with playing(scene):
            await scene.publishes(scene.grow())
            await scene.publishes(scene.grow())

    asyncio.run(play())
    said = capsys.readouterr().err
    assert said.startswith("witnessing: a: ")
    assert complaint in said


def test_nothing_is_published_without_enough(tmp_path: Path) -> None:
    """With two of three down the outside stands still, round after round, and goes on when one comes back."""

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        scene.town.behaviours |= {"a": down, "b": down}
        async with playing(scene):
            scene.grow()
            await scene.until(lambda: len([1 for name, _ in scene.town.asked if name == "a"]) > 3)
            assert scene.published() is None
            size = scene.grow()
            del scene.town.behaviours["a"]
            await scene.publishes(size)

    asyncio.run(play())


def test_a_hanging_witness_holds_up_nobody_and_may_come_late(tmp_path: Path) -> None:
    """While one does not answer, sizes are published by the others; what it says at last is added to the newest."""

    async def play() -> None:
        scene = Scene(tmp_path, policy())
        scene.town.gates["c"].clear()
        async with playing(scene):
            for _ in range(3):
                await scene.publishes(scene.grow())
            scene.town.gates["c"].set()
            await scene.publishes(scene.archiver.head.size, witnesses=3)

    asyncio.run(play())


def test_a_new_start_goes_on_where_witnesses_remember(tmp_path: Path) -> None:
    """The service keeps no sizes: it asks, is told, and proves consistency from there."""

    async def play(entries: int) -> None:
        scene.client = httpx2.AsyncClient(transport=scene.town)
        asked = [Asking(one, scene.client) for one in scene.policy.witnesses]
        scene.rounds = Rounds(scene.policy, asked, scene.source, scene.path)
        async with playing(scene):
            await scene.publishes(scene.grow(entries), witnesses=3)

    async def prepare() -> Scene:
        return Scene(tmp_path, policy())

    scene = asyncio.run(prepare())
    asyncio.run(play(3))
    before = len(scene.town.asked)
    asyncio.run(play(4))
    assert {old for _, old in scene.town.asked[before:]} == {0, 5}


def test_a_policy_that_needs_nobody_is_met_at_once(tmp_path: Path) -> None:
    """With `quorum none` the outside sees what the log signed, and witnesses add to it when they can."""

    async def play() -> None:
        scene = Scene(tmp_path, policy("quorum none\n"))
        for gate in scene.town.gates.values():
            gate.clear()
        async with playing(scene):
            size = scene.grow()
            await scene.publishes(size, witnesses=0)
            for gate in scene.town.gates.values():
                gate.set()
            await scene.publishes(size, witnesses=3)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("quorum nobody\n", "line 1: 'nobody' is no witness"),
        (f"witness a {COSIGNERS['a'].verifier.encode()}\nquorum a\n", "of which no address is given"),
        (f"witness a {COSIGNERS['a'].verifier.encode()} ftp://a\nquorum a\n", "no http or https address"),
        (f"witness a {COSIGNERS['a'].verifier.encode()} http://\nquorum a\n", "no http or https address"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_at_the_start(tmp_path: Path, text: str, complaint: str) -> None:
    """Before anything is served: with the file's name, and what to do."""
    path = tmp_path / "policy"
    path.write_text(text)
    with pytest.raises(FormatError, match=complaint) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    with pytest.raises(FormatError, match="No such file"):
        load_policy(tmp_path / "missing")
