"""Does a server answer?  What the doctor finds out by asking: the archiver at its socket, the front at its address.

    good     server        the archiver answers; 25,537 entries are published
    FINDING  server        the archiver (process 4711) takes connections and gives no answer: it was stopped by a signal
                           kill -CONT 4711

To connect proves nothing: the kernel takes connections for a process that was stopped, or hangs.  So each is asked
something that it answers at once when it runs at all, and given five seconds.  An archiver that is down because a
person must look has left word why (`archive.stopped`); that is what is shown then, with what docs/recovery.md says.

Where the front answers is written down by the server (run/address); `--server` names another address, of a proxy say.

The rest of what is looked at: `tools.doctor`.
"""

from __future__ import annotations

import shlex
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2

from api import COSIGNING_S_MAX, store_is_well, store_remedy
from archive import DataFolder, DirectClient, LogSource, PublishedSize, Unavailable, read_stopped
from tools.post import origin_of

SERVER: Final = "http://127.0.0.1:8400"
ASK_S: Final = 5.0
_PEER: Final = struct.Struct("3i")


@dataclass(frozen=True)
class Note:
    """One thing that was looked at: good, or a finding with what helps."""

    about: str
    text: str
    good: bool = True
    remedy: str = ""
    more: tuple[str, ...] = ()
    """Further commands that help, where there is more than one thing to do."""

    @property
    def remedies(self) -> list[str]:
        """Return every command that helps."""
        return [one for one in (self.remedy, *self.more) if one]


# --- the archiver --------------------------------------------------------------------------------


def check_server(folder: DataFolder, wait_s: float = ASK_S) -> Iterator[Note]:
    """Say whether the archiver answers and, if it does not, why and what helps."""
    try:
        pid = _listener(folder.socket, wait_s)
    except OSError as error:
        yield _down(folder, str(error))
        return
    try:
        size = DirectClient(folder.socket, wait_s).published()
    except Unavailable:
        text = f"the archiver (process {pid}) takes connections and gives no answer within {wait_s:.0f} s"
        if _is_stopped(pid):
            yield Note("server", f"{text}: it was stopped by a signal", False, f"kill -CONT {pid}")
        else:
            remedy = f"kill -KILL {pid}; treering serve starts it again, and what was acknowledged is kept"
            yield Note("server", text, False, remedy)
    else:
        yield Note("server", f"the archiver answers; {size:,} entries are published")


def _down(folder: DataFolder, error: str) -> Note:
    stopped = read_stopped(folder.stopped)
    if stopped is None:
        remedy = f"treering serve --data {shlex.quote(str(folder.path))}"
        return Note("server", f"the archiver does not answer ({error})", False, remedy)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stopped.since_s))
    text = f"the archiver is down until a person looks, since {since}: {stopped.reason}"
    return Note("server", text, False, stopped.remedy(folder.path))


def _listener(path: Path, wait_s: float) -> int:
    """Return the id of the process that listens at a socket; raise OSError if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wait_s)
        connection.connect(str(path))
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(peer)[0])


def _is_stopped(pid: int) -> bool:
    """Return whether a process was stopped by a signal, and goes on at another."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


# --- the front -----------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What was heard at an address: the name of a log, what /readyz says, or why neither."""

    origin: str = ""
    """Empty where the server shows no checkpoint."""
    ready: dict[str, Any] | None = None
    trouble: str = ""
    listens: bool = True


def check_front(folder: DataFolder, server: str | None = None, wait_s: float = ASK_S) -> Iterator[Note]:
    """Say whether the front answers, and whether states are answered from where they should be.

    `server` is an address that somebody named: that it cannot be asked, or is another log's, is a finding then.  Else
    it is the one that the server wrote down, or the usual one, where others may answer: only a front of the same log is
    believed.
    """
    told = _told(folder)
    address = server or told or SERVER
    asked = _ask(address, wait_s)
    if asked.trouble:
        yield _silent(folder, address, asked, named=server is not None, ours=address == told)
        return
    origin = _origin(folder)
    if asked.origin != origin and (asked.origin or not (server or address == told)):
        text = f"not asked: at {address} there is no server of this log ({asked.origin or 'no checkpoint'})"
        yield Note("front", text, server is None, "" if server is None else "name its address with --server")
        return
    yield Note("front", f"answers at {address}")
    status = (asked.ready or {}).get("states")
    if isinstance(status, dict):
        yield _store(status)
    yield from _room_and_witnesses(asked.ready or {}, shlex.quote(str(folder.path)))


def _told(folder: DataFolder) -> str:
    try:
        return folder.address.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _origin(folder: DataFolder) -> str:
    store = folder.open_log()
    try:
        return origin_of(LogSource(store, PublishedSize(folder.published).get))
    finally:
        store.close()


def _ask(address: str, wait_s: float) -> _Asked:
    try:
        with httpx2.Client(base_url=address, trust_env=False, timeout=wait_s) as client:
            checkpoint, ready = client.get("/log/checkpoint"), client.get("/readyz").json()
    except (httpx2.ConnectError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        return _Asked(trouble=type(error).__name__, listens=False)
    except (httpx2.HTTPError, ValueError) as error:
        return _Asked(trouble=type(error).__name__)
    origin = checkpoint.text.partition("\n")[0] if checkpoint.status_code == 200 else ""
    return _Asked(origin, ready if isinstance(ready, dict) else None)


def _silent(folder: DataFolder, address: str, asked: _Asked, *, named: bool, ours: bool) -> Note:
    """Return what it means that an address gives no answer."""
    serve = f"treering serve --data {shlex.quote(str(folder.path))}"
    if asked.listens and (named or ours):
        text = f"what listens at {address} gives no answer ({asked.trouble})"
        return Note("front", text, False, f"stop treering serve, and start it again: {serve}")
    if named:
        text = f"nobody answers at {address} ({asked.trouble})"
        return Note("front", text, False, f"name the right address with --server, or start it: {serve}")
    return Note("front", f"not asked: nobody answers at {address} ({asked.trouble}); name it with --server")


def _store(status: dict[str, Any]) -> Note:
    state = str(status.get("state"))
    return Note("state store", f"{status.get('store')}: {state}", store_is_well(state), store_remedy(state))


def _room_and_witnesses(ready: dict[str, Any], data: str) -> Iterator[Note]:
    """Say what the front knows and no file tells: that nothing was kept lately, and how far witnesses are."""
    if isinstance(full := ready.get("full"), dict):
        text = f"nothing that is sent is kept since {full.get('since')}: {full.get('reason')}"
        yield Note("room", text, False, str(full.get("remedy")))
    if isinstance(cosigned := ready.get("cosigned"), dict):
        size, waits_s = int(cosigned.get("size", 0)), int(cosigned.get("waiting_s", 0))
        text = f"{size:,} entries are cosigned by enough of them; the next one has waited {waits_s:,} s"
        good = waits_s <= COSIGNING_S_MAX
        remedy = f"see what treering serve --data {data} says of each (witnessing: NAME: …): who is down, or refuses"
        yield Note("witnesses", text, good, "" if good else remedy)


def is_address(text: str) -> bool:
    """Return whether a text is the address of a server.

    >>> [is_address(one) for one in ("http://127.0.0.1:8400", "notaurl", "http://[::1", "http://")]
    [True, False, False, False]
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host) and (url.port or 80) < 65_536
