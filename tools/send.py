"""treering send: play captured files at a running server, over its real protocols.

    $ treering send conn-*.jsonl.gz
    $ treering send --param 'student=$.actor.account.name' --param 'id=$.id' statements.ndjson.gz

A file whose first line has a string "event" holds the frames of one Learning Observer connection, and is
played over a WebSocket of its own; any other is NDJSON and goes by POST /v1/events, a few requests at a time,
whose order is not kept (`--requests 1` keeps it).  All files are played at once; .gz is read as it is.

When the server goes away, sending waits and goes on: what was not acknowledged is sent again.  An event may
thus be kept twice, unless it has an id (`--param 'id=...'`).

Exit codes: 0 every event was acknowledged, 1 some were not, 2 usage.

What is sent again is decided by `tools.playback`; `--ledger` is described in `tools.ledger`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import uvloop

from tools.console import Advance, duration, exit_codes, fail, number, print_json, progress, rate
from tools.ledger import FileWitness, Tally, Write
from tools.playback import Line, Playback, batches, due_s, is_frame
from tools.player import GaveUp, LoPlayer, Patience, Poster, Rate, Wait, is_loopback, socket_url
from tools.process import EXIT_FINDING, EXIT_GOOD

GZIP_MAGIC = b"\x1f\x8b"


class Source(NamedTuple):
    """One file to send: where it is, how it is to be sent ("lo" or "ndjson"), and how many events it has."""

    path: Path
    form: str
    events: int

    @staticmethod
    def of(path: Path, form: str | None) -> Source:
        """Look at a file; raise OSError or EOFError if it cannot be read."""
        first = next(lines_of(path), None)
        found = form or ("lo" if first is not None and is_frame(first.data) else "ndjson")
        return Source(path, found, sum(1 for _ in lines_of(path)))


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a file that are not empty, as they are but for the line feed; gzip is unpacked."""
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == GZIP_MAGIC
        with gzip.open(file) if packed else file as lines:
            for at, data in enumerate(lines, 1):
                if data.strip():
                    yield Line(at, data.removesuffix(b"\n"))


class Sending:
    """All files of one command, on their way."""

    def __init__(
        self, options: argparse.Namespace, tally: Tally, write: Write | None, advance: Advance
    ) -> None:
        self._options, self._tally, self._write, self._advance = options, tally, write, advance
        self._http_url = options.url.rstrip("/") + "/v1/events"
        self._ws_url = socket_url(options.url)

    async def run(self, sources: Iterable[Source]) -> None:
        """Send all files at once; what becomes of them is in the tally."""
        options = self._options
        now = asyncio.get_running_loop().time
        shared = Rate(options.rate, now) if options.rate else None
        limits = httpx2.Limits(max_connections=None)
        trust = not is_loopback(options.url)
        async with httpx2.AsyncClient(timeout=options.give_up, limits=limits, trust_env=trust) as client:
            await asyncio.gather(*(self._file(client, source, shared) for source in sources))

    async def _file(self, client: httpx2.AsyncClient, source: Source, shared: Rate | None) -> None:
        name = str(source.path)
        witness = FileWitness(self._tally, name, write=self._write, advance=self._advance)
        connections = 0
        try:
            for _ in range(self._options.repeat):
                if source.form == "lo":
                    connections = await self._play(source, witness, shared, connections)
                else:
                    await self._post(client, source, witness, shared)
        except GaveUp as error:
            self._tally.failures.append(f"{name}: {error}")

    def _patience(self) -> Patience:
        now = asyncio.get_running_loop().time
        return Patience(self._options.give_up, retry=self._options.retry, now=now)

    async def _play(self, source: Source, witness: FileWitness, shared: Rate | None, connections: int) -> int:
        lines = list(lines_of(source.path))
        playback = Playback(lines, self._options.in_flight, connections)
        await LoPlayer(self._ws_url, playback, witness, self._patience(), self._wait(lines, shared)).run()
        return playback.connections

    def _wait(self, lines: Sequence[Line], shared: Rate | None) -> Wait:
        if self._options.paced:
            now, due = asyncio.get_running_loop().time, list(due_s(lines, "lo"))
            start = now()
            return lambda at: start + due[at] - now()
        return (lambda _: shared.reserve(1)) if shared else (lambda _: 0.0)

    async def _post(
        self, client: httpx2.AsyncClient, source: Source, witness: FileWitness, shared: Rate | None
    ) -> None:
        now = asyncio.get_running_loop().time
        start = now()
        due = due_s(lines_of(source.path), "json") if self._options.paced else None

        def wait(batch: list[Line]) -> float:
            """A batch leaves when its last event is due; batches come in the order of their lines."""
            if due is not None:
                *_, last = (next(due) for _ in batch)
                return max(0.0, start + last - now())
            return shared.reserve(len(batch)) if shared else 0.0

        events = min(self._options.batch, max(1, int(self._options.rate or self._options.batch)))
        parts = batches(lines_of(source.path), events)
        parameters, requests = self._options.param, self._options.requests
        await Poster(client, self._http_url, parameters, parts, witness, self._patience, wait, requests).run()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        prog="treering send",
        epilog=exit_codes("every event was acknowledged", "some were not", "usage"),
        description=(__doc__ or "").partition("\n\nExit codes")[0],
        formatter_class=form,
    )
    add = made.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="LO frames or NDJSON, plain or gzip")
    add("--url", type=_url, default="http://127.0.0.1:8400", help="where the server is (%(default)s)")
    speed = made.add_mutually_exclusive_group()
    speed.add_argument("--rate", type=_positive, metavar="N", help="events a second, over all files")
    speed.add_argument("--paced", action="store_true", help="as fast as it happened, by the client's times")
    add("--param", type=_parameter, action="append", default=[], metavar="FIELD=$.PATH",
        help="where a key field, or the id, stands in NDJSON events; may be repeated")  # fmt: skip
    add("--as", choices=("lo", "ndjson"), dest="form", help="what the files are (seen by the first line)")
    add("--batch", type=_count, default=500, metavar="N", help="events in a request (%(default)s)")
    add("--requests", type=_count, default=2, metavar="N", help="requests at a time, a file (%(default)s)")
    add("--in-flight", type=_count, default=256, metavar="N", help="unanswered frames, a file (%(default)s)")
    add("--repeat", type=_count, default=1, metavar="N", help="send each file so many times (%(default)s)")
    add("--ledger", type=Path, metavar="FILE", help="record each sending and each answer, as NDJSON")
    add("--retry", action=argparse.BooleanOptionalAction, default=True, help="go on when the server was away")
    add(
        "--give-up",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="stop after so long without an answer, or of refusals",
    )
    add("--json", action="store_true", help="print the result as JSON")
    return made


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"{text!r}: expected http://HOST:PORT")
    return text


def _parameter(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path.startswith("$")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected FIELD=$.json.path, as student=$.actor.id")
    return name, path


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Send files; return 0 if every event was acknowledged, 1 if not."""
    made = parser()
    options = made.parse_args(argv)
    try:
        sources = [Source.of(path, options.form) for path in options.files]
    except (OSError, EOFError) as error:
        made.error(f"a file cannot be read: {error}")
    tally = Tally(options.repeat * sum(source.events for source in sources))
    begun = time.monotonic()
    with ExitStack() as stack:
        try:
            write = stack.enter_context(options.ledger.open("ab", 0)).write if options.ledger else None
        except OSError as error:
            made.error(f"--ledger: {error}")
        advance = stack.enter_context(progress("sending", tally.events))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        try:
            runner.run(Sending(options, tally, write, advance).run(sources))
        except KeyboardInterrupt:
            tally.failures.append("interrupted")
    _report(tally, time.monotonic() - begun, options.json)
    return EXIT_GOOD if tally.acknowledged == tally.events else EXIT_FINDING


def _report(tally: Tally, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(tally.result(seconds))
        return
    for trouble in (*tally.reasons, *tally.failures):
        fail(trouble)
    more = tally.refused - len(tally.reasons)
    if more > 0:
        fail(f"… and {number(more)} more were refused")
    counts = [
        f"{number(tally.acknowledged)} of {number(tally.events)} acknowledged",
        f"{number(tally.refused)} refused",
        f"{number(tally.sent)} sent",
        f"{number(tally.reconnects)} times tried again",
    ]
    print(f"{', '.join(counts)}; {duration(seconds)}, {rate(tally.acknowledged, seconds)}")


if __name__ == "__main__":
    sys.exit(main())
