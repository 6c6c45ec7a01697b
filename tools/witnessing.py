"""Asking witnesses, as a process: newest checkpoint first, never in the archiver's way.

    python -m tools.witnessing --data DIR --policy FILE

It reads the published log like any other reader, so that no witness, however slow, can hold up a commit.  A round
takes the newest checkpoint to every witness of the policy that has an address and is not still busy with the round
before; as soon as the policy is met, the checkpoint is written to DIR/log/<partition>/cosigned, and the next round may
begin.  Witnesses that are late add their cosignatures to it, as long as it is the newest.

A witness that is down, lies or remembers another size costs its own vote, and a line on standard error.  What counts
as published is `archive.witnessing`; the other end of the wire, `tools.witness`.

Exit codes: 0 drained, 3 the policy cannot be used, 4 try again shortly.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx2

from archive import (
    ArchiveError,
    ArchiverClient,
    DataFolder,
    IntegrityError,
    LogSource,
    NotFound,
    PublishedLog,
    PublishedSize,
    Target,
    read_cosigned,
    write_cosigned,
)
from merkle import (
    SIZE_TYPE,
    FormatError,
    MerkleError,
    Policy,
    PolicyWitness,
    Signature,
    read_cosignatures,
)
from tools.process import EXIT_AGAIN, EXIT_STOP, say, watch_parent, with_times

ANSWER_BYTES_MAX = 64 << 10
ANSWER_S_MAX = 10.0
TRIES = 3
PERIOD_S = 0.2
"""Rounds begin at least this far apart: a witness syncs its disk for each."""
RETRY_S_MIN, RETRY_S_MAX = 0.5, 30.0
REFRESH_S = 600.0
"""A checkpoint that stays the newest is cosigned again, so that readers see that the witnesses still look."""
POLL_S = 1.0
"""News may be lost."""
START_WAIT_S, START_POLL_S = 30.0, 0.05


class Unhelpful(Exception):
    """A witness did not cosign; the message says why."""


def load_policy(path: Path) -> Policy:
    """Return the policy in a file; raise FormatError if it is malformed or can never be met by its addresses."""
    try:
        policy = Policy.parse(path.read_bytes())
    except (OSError, FormatError) as error:
        raise FormatError(f"{path}: {error}") from None
    for one in policy.witnesses:
        if one.url is not None and not _is_address(one.url):
            raise FormatError(f"{path}: {one.name}: {one.url!r} is no http or https address")
    if not policy.met({one.name for one in policy.witnesses if one.url is not None}):
        raise FormatError(f"{path}: the quorum needs witnesses of which no address is given; add their URLs")
    return policy


def _is_address(url: str) -> bool:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host)


class Asking:
    """What is known of one witness: the size that it remembers, and what it last said when it did not help."""

    def __init__(self, witness: PolicyWitness, client: httpx2.AsyncClient) -> None:
        assert witness.url is not None
        self.name, self._verifier, self._client = witness.name, witness.verifier, client
        self._url = witness.url.rstrip("/") + "/add-checkpoint"
        self._old = 0
        self._said = ""

    async def ask(self, target: Target, source: LogSource) -> None:
        """Get the witness's cosignature for a target, or say why it gave none."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                target.add(self.name, await self._cosignatures(target, source))
            said = ""
        except TimeoutError:
            said = f"no answer within {ANSWER_S_MAX:.0f} s"
        except (Unhelpful, MerkleError, httpx2.HTTPError) as error:
            said = f"{type(error).__name__}: {error}" if isinstance(error, httpx2.HTTPError) else str(error)
        if said != self._said:
            say(f"witnessing: {self.name}: {said or 'it cosigns again'}")
        self._said = said

    async def _cosignatures(self, target: Target, source: LogSource) -> Sequence[Signature]:
        for _ in range(TRIES):
            # It cosigned a larger one already, in a round that was not waited for; that shows it is no smaller.
            old = min(self._old, target.size)
            with source.open(target.size) as log:
                body = target.request(log, old)
            status, kind, answer = await self._post(body)
            if status == 200:
                signatures = read_cosignatures(answer, target.checkpoint, [self._verifier])
                self._old = target.size
                return signatures
            if status != 409 or kind != SIZE_TYPE:
                raise Unhelpful(f"it answered {status}: {answer[:200].decode(errors='replace').strip()}")
            self._old = _size(answer)
            if self._old > target.size:
                raise Unhelpful(f"it remembers {self._old} entries; this checkpoint has {target.size}")
        raise Unhelpful(f"it says that it remembers {self._old} entries, and then that it does not")

    async def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and the first bytes of the answer: no witness may fill our memory."""
        answer = b""
        headers = {"Accept-Encoding": "identity"}  # nor our time, by unpacking
        async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            async for piece in response.aiter_raw():
                answer += piece
                if len(answer) > ANSWER_BYTES_MAX:
                    raise Unhelpful(f"its answer is longer than {ANSWER_BYTES_MAX} bytes")
        return response.status_code, response.headers.get("content-type", ""), answer


def _size(answer: bytes) -> int:
    digits = answer.removesuffix(b"\n")
    if not digits.isdigit() or len(digits) > 19 or not answer.endswith(b"\n"):
        raise Unhelpful(f"it answered 409 without a size: {answer[:40]!r}")
    return int(digits)


class Rounds:
    """Takes the newest checkpoint to the witnesses, round after round."""

    def __init__(self, policy: Policy, asked: Sequence[Asking], source: LogSource, cosigned: Path) -> None:
        self._policy, self._asked, self._source, self._cosigned = policy, asked, source, cosigned
        self._target: Target | None = None
        self._written: int | None = None
        """How many witnesses' cosignatures of the target are published; None while it does not meet the policy."""
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._waiting: set[str] = set()
        """Witnesses that were not yet asked about the target."""
        self._size = self._published_before()
        self._begun_at = self._due_at = 0.0
        self._pause_s = RETRY_S_MIN
        self.news, self.stopping = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Go on until `stopping` is set; `news` says that the log has grown."""
        while not self.stopping.is_set():
            self.news.clear()
            now = asyncio.get_running_loop().time()
            self._collect()
            self._publish(now)
            self._give_up(now)
            self._begin(now)
            self._ask()
            await self._something(now)
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _published_before(self) -> int:
        """Return the size that the outside sees by what is cosigned already, 0 for none."""
        if self._source.published() == 0:
            return 0
        with self._source.open() as log:
            last = read_cosigned(self._cosigned, Target.newest(log).checkpoint.origin, self._policy)
        return 0 if last is None else last[0]

    def _collect(self) -> None:
        """Forget the tasks that are done; what they found is in their target."""
        for name in [name for name, task in self._busy.items() if task.done()]:
            self._busy.pop(name).result()

    def _publish(self, now: float) -> None:
        """Write the target if it meets the policy, and again for each witness that adds to it later."""
        target = self._target
        if target is None or self._written == len(target.signatures) or target.note(self._policy) is None:
            return
        try:
            write_cosigned(self._cosigned, target, self._policy)
        except OSError as error:
            say(f"witnessing: {self._cosigned}: {error.strerror}; it is tried again")
            self._due_at = now + RETRY_S_MAX
            return
        self._size, self._written, self._pause_s = target.size, len(target.signatures), RETRY_S_MIN

    def _give_up(self, now: float) -> None:
        """End a round in which everybody was asked and too few cosigned; the next one may be better."""
        if self._target is not None and self._written is None and not self._waiting and not self._busy:
            self._target = None
            self._due_at = max(self._due_at, now + self._pause_s)
            self._pause_s = min(2 * self._pause_s, RETRY_S_MAX)

    def _begin(self, now: float) -> None:
        """Begin a round if none is open and there is something to cosign."""
        is_open = self._target is not None and self._written is None
        size = self._source.published()
        grown = size > self._size or (size > 0 and now >= self._begun_at + REFRESH_S)
        if is_open or now < self._due_at or not grown:
            return
        with self._source.open(size) as log:
            self._target = Target.newest(log)
        self._written, self._waiting = None, {one.name for one in self._asked}
        self._begun_at, self._due_at = now, now + PERIOD_S
        self._publish(now)  # a policy may need nobody

    def _ask(self) -> None:
        """Ask every witness that is free about the target, once."""
        for asking in self._asked:
            if self._target is not None and asking.name in self._waiting and asking.name not in self._busy:
                self._waiting.discard(asking.name)
                task = asyncio.create_task(asking.ask(self._target, self._source))
                self._busy[asking.name] = task

    async def _something(self, now: float) -> None:
        """Wait until a witness answers, the log grows, a round is due, or it is time to stop."""
        pausing = now < self._due_at
        seconds = min(POLL_S, self._due_at - now) if pausing else POLL_S
        # What has arrived during a pause is seen at its end: waking for each commit would help nobody.
        events = [self.stopping] if pausing else [self.stopping, self.news]
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(
            [*waits, *self._busy.values()], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in waits:
            wait.cancel()


async def serve(folder: DataFolder, policy: Policy) -> None:
    """Have the log cosigned until SIGTERM or the end of the parent."""
    source = await _source(folder)
    async with httpx2.AsyncClient(timeout=ANSWER_S_MAX) as http:
        asked = [Asking(one, http) for one in policy.witnesses if one.url is not None]
        rounds = Rounds(policy, asked, source, folder.cosigned)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, rounds.stopping.set)
        watch_parent(rounds.stopping.set)
        client = ArchiverClient(folder.socket, lambda _: rounds.news.set())
        await client.start()
        print("ready", flush=True)
        await rounds.run()
        await client.stop()


async def _source(folder: DataFolder) -> LogSource:
    """Return the log to read, waiting for the archiver to make it; raise NotFound if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_WAIT_S
    while True:
        try:
            return PublishedLog(folder.open_log(), PublishedSize(folder.published).get)
        except NotFound:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(START_POLL_S)


@with_times()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the service that asks witnesses."""
    parser = argparse.ArgumentParser(prog="tools.witnessing", description="Have a log cosigned.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--policy", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        policy = load_policy(arguments.policy)
        asyncio.run(serve(DataFolder(arguments.data, arguments.partition), policy))
    except (FormatError, IntegrityError) as error:
        say(f"witnessing stopped: {error}")
        return EXIT_STOP
    except ArchiveError as error:
        say(f"witnessing: {error}")
        return EXIT_AGAIN
    return 0


if __name__ == "__main__":
    sys.exit(main())
