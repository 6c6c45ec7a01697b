"""Waiting for the log to grow: a worker sleeps here, and nowhere else.

The archiver sends a word to whoever subscribed when it has published; words may be merged or lost, so a sleeper wakes
after a while all the same.  Here, too, a worker notices that it is to end: by a signal, or because its supervisor is
gone.

    wakeups = Wakeups(folder.socket)
    while not wakeups.stopped:
        wakeups.wait(1.0)

What is waited for: `archive.wire.Published`.  Who waits: `tools.worker`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from pathlib import Path
from types import FrameType

from archive import Subscribe, encode_frame
from tools.process import parent_is_watched

RECONNECT_S = 0.2


class Wakeups:
    """Waits until the log has grown, or until a time is over; also notices SIGTERM and the parent's end."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self.stopped = False
        self.heard = False
        """Whether the archiver has spoken."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        # A signal during `select` must end it: Python would restart it with the time that is left.
        self._signal_read, self._signal_write = os.pipe()
        os.set_blocking(self._signal_write, False)
        signal.set_wakeup_fd(self._signal_write, warn_on_full_buffer=False)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopped = True

    def wait(self, seconds: float) -> None:
        """Return when woken, stopped, or after `seconds`."""
        self._connect()
        watched: list[int | socket.socket] = [self._signal_read]
        if self._socket is not None:
            watched.append(self._socket)
        else:
            seconds = min(seconds, RECONNECT_S)
        if parent_is_watched():
            watched.append(0)
        ready, _, _ = select.select(watched, [], [], max(seconds, 0))
        if 0 in ready and not os.read(0, 4096):
            self.stopped = True
        if self._socket is not None and self._socket in ready:
            self._drain(self._socket)

    def _connect(self) -> None:
        if self._socket is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RECONNECT_S
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
            connection.sendall(encode_frame(Subscribe()))
        except OSError:
            connection.close()
            return
        connection.setblocking(False)
        self._socket = connection

    def _drain(self, connection: socket.socket) -> None:
        """Wake-ups say only "look"; what they hold does not matter."""
        try:
            while data := connection.recv(65_536):
                self.heard = True
                if len(data) < 65_536:
                    return
        except BlockingIOError:
            return
        except OSError:
            pass
        connection.close()
        self._socket = None
