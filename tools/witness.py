"""treering witness: remember other people's logs, and cosign what continues them (C2SP tlog-witness).

    $ treering witness --state DIR --log example.com/log+4d1c8a7b+AYk… --listen 127.0.0.1:8402
    Witness is ready: http://127.0.0.1:8402/ witness.example/w1+9e07b2c1+BOv…

    POST /add-checkpoint                    a proof and a signed checkpoint in, a cosignature out
    GET  /<sha256 of the origin>/checkpoint the newest one, for monitors

What it remembers of a log lies in DIR/<sha256 of the origin>, and is on disk before an answer leaves.  Requests are
decided one after the other, and a lock keeps a second witness out of DIR: a memory that two could write would cosign
a fork.  Nothing of it is held in the process, so that killing it is harmless.

What is decided, and why, is `merkle.witness`; the one who asks is `tools.witnessing`; how long a connection may take,
and how many there may be, is `tools.witness_door`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn

from archive import (
    ArchiveError,
    IntegrityError,
    InvalidEvent,
    encode_key,
    make_folder,
    read_key,
    take_lock,
    write_new_key,
    write_whole,
)
from merkle import (
    ED25519_COSIGNATURE,
    LOG_TYPES,
    Cosigner,
    MerkleError,
    Witness,
    WitnessAnswer,
    decode_vkey,
)
from tools.console import exit_codes
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, raise_files, say, with_times
from tools.witness_door import BACKLOG, Calm, Connection, connections_allowed

BODY_BYTES_MAX = 256 << 10
DRAIN_S = 10

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Memory:
    """The newest cosigned checkpoint of each log, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, origin: str) -> Path:
        """Return where the checkpoint of a log lies."""
        return self._folder / sha256(origin.encode()).hexdigest()

    def recall(self, origin: str) -> bytes | None:
        """Return the checkpoint of a log, or None."""
        return self.read(self.path(origin).name)

    def read(self, name: str) -> bytes | None:
        """Return the checkpoint of the log whose origin has this SHA-256, or None."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def remember(self, origin: str, note: bytes) -> None:
        """Keep a checkpoint, durably."""
        write_whole(self.path(origin), note)


class Application:
    """The witness as an ASGI application."""

    def __init__(self, witness: Witness, memory: Memory, now_s: Callable[[], int]) -> None:
        self._witness, self._memory, self._now_s = witness, memory, now_s
        self._names = {memory.path(origin).name for origin in witness.origins}
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "there are no WebSockets here"
        method, place = scope["method"], scope["path"]
        if place == "/add-checkpoint" and method == "POST":
            answer = await self._add(receive)
        elif place == "/add-checkpoint":
            answer = WitnessAnswer(405, b"this address takes POST\n")
        elif method in {"GET", "HEAD"}:
            answer = await asyncio.to_thread(self._monitor, place)
        else:
            answer = WitnessAnswer(405, b"this address takes GET\n")
        await _send(send, answer)

    async def _add(self, receive: Receive) -> WitnessAnswer:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":  # half a request is none
                return WitnessAnswer(400, b"the request ended early\n")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > BODY_BYTES_MAX:
                return WitnessAnswer(413, b"a request has at most %d bytes\n" % BODY_BYTES_MAX)
        async with self._one_at_a_time:
            return await asyncio.to_thread(self.add, body)

    def add(self, body: bytes) -> WitnessAnswer:
        """Decide a request, and remember what was cosigned before the cosignature is given away."""
        try:
            answer = self._witness.decide(body, self._memory.recall, self._now_s())
            if answer.remember is not None:
                self._memory.remember(answer.origin, answer.remember)
        except MerkleError as error:
            say(f"witness: what it remembers is damaged, and that log is cosigned no more: {error}")
            return WitnessAnswer(500, b"what is remembered of this log is damaged\n")
        except OSError as error:
            say(f"witness: {error}")
            return WitnessAnswer(503, b"this cannot be remembered just now, so it is not cosigned\n")
        return answer

    def _monitor(self, place: str) -> WitnessAnswer:
        name, slash, rest = place.removeprefix("/").partition("/")
        note = self._memory.read(name) if name in self._names and slash + rest == "/checkpoint" else None
        return (
            WitnessAnswer(404, b"nothing was cosigned here\n") if note is None else WitnessAnswer(200, note)
        )


async def _send(send: Send, answer: WitnessAnswer) -> None:
    headers = {"content-type": answer.content_type, "content-length": str(len(answer.body))}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.body})


class _Server(uvicorn.Server):
    """Drains at SIGTERM or Ctrl-C, and then ends with exit code 0."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(Calm())
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        yield

    def _drain(self) -> None:
        self.should_exit = True


def open_witness(state: Path, logs: Sequence[str], keys: Sequence[Path]) -> tuple[Witness, list[Cosigner]]:
    """Return the witness of a state folder that the caller has locked; without keys, it has one of its own there.

    Raises ArchiveError or MerkleError if a key cannot be used, or what is remembered is damaged.
    """
    own = state / "witness.key"
    if not keys and not own.exists():
        name = f"treering.local/witness/{secrets.token_hex(8)}"
        write_new_key(own, encode_key(name, ED25519_COSIGNATURE, os.urandom(32)))
    cosigners = []
    for path in keys or [own]:
        key = read_key(path)
        if not isinstance(key, Cosigner):
            raise IntegrityError(
                f"{path}: a log's key; a witness needs one of its own (treering keys generate)"
            )
        cosigners.append(key)
    witness, memory = Witness([decode_vkey(one, LOG_TYPES) for one in logs], cosigners), Memory(state)
    for origin in witness.origins:
        if (note := memory.recall(origin)) is not None:
            witness.remembered(origin, note)
    return witness, cosigners


def listen(address: str) -> socket.socket:
    """Return a socket that listens on HOST:PORT; raise InvalidEvent if it cannot."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise InvalidEvent(f"--listen {address}: expected HOST:PORT, such as 127.0.0.1:8402")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise InvalidEvent(f"--listen {address}: {error.strerror}") from None
    return listener


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering witness`."""
    made = argparse.ArgumentParser(
        prog="treering witness",
        epilog=exit_codes("it was stopped", "what it remembers is damaged", "it could not start"),
        description="Cosign what continues a log.",
    )
    made.add_argument(
        "--state", type=Path, required=True, help="folder of what is remembered; made if missing"
    )
    made.add_argument(
        "--log", action="append", required=True, metavar="VKEY", help="a log's key; may be given again"
    )
    made.add_argument("--listen", default="127.0.0.1:8402", metavar="HOST:PORT", help="default: %(default)s")
    made.add_argument(
        "--key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a witness's key (treering keys generate --type witness); may be given again; "
        "by default one is made in the state folder",
    )
    made.add_argument("--json", action="store_true", help="say address and keys as one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering witness`."""
    arguments = parser().parse_args(argv)
    if not __debug__:
        say("treering: refuses to run under -O: its assertions are part of its safety")
        return EXIT_USAGE
    Connection.most = connections_allowed(raise_files())
    try:
        make_folder(arguments.state)
        take_lock(arguments.state / "lock", "witness remembers here")
        witness, cosigners = open_witness(arguments.state, arguments.log, arguments.key)
        listener = listen(arguments.listen)
    except (ArchiveError, MerkleError, OSError) as error:
        say(f"treering witness: {error}")
        return EXIT_FINDING if isinstance(error, IntegrityError) else EXIT_USAGE
    _announce(listener, [one.verifier.encode() for one in cosigners], as_json=arguments.json)
    application = Application(witness, Memory(arguments.state), lambda: int(time.time()))
    with with_times():
        asyncio.run(server_of(application).serve(sockets=[listener]))
    return EXIT_GOOD


def server_of(application: Application) -> uvicorn.Server:
    """Return a server that answers with a witness until it is told to end."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        http=Connection,
        ws="none",
        access_log=False,
        log_level="error",  # a warning is what anybody can cause, as often as he likes
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return _Server(config)


def _announce(listener: socket.socket, vkeys: Sequence[str], *, as_json: bool) -> None:
    listener.listen()  # whoever reads the line may connect at once
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    said = (
        json.dumps({"url": url, "vkeys": list(vkeys)})
        if as_json
        else " ".join([f"Witness is ready: {url}", *vkeys])
    )
    print(said, flush=True)
