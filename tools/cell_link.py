"""A worker's end of a cell: starts the process, asks it, and kills it when it does not get on.

    link = CellLink("essay", memory_mb=512, seconds=5.0, readable=readable_folders(data))
    hello = link.start()                 # ModuleError: it cannot be imported; CellDied: it died of it
    done = link.ask(piece)               # CellDied: it died, stood still, or said what is no answer
    link.close()

The cell says what it does in shared memory (`replay.tenant`); as long as that number grows, it is slow at most.  It may
not fall: a cell that set it back would never stand still.

What the cell gives up before it runs the module: `tools.confine`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from archive import FormatError
from reducers import ONE_THREAD, ModuleError
from replay import (
    FRAME_BYTES_MAX,
    CellDied,
    Done,
    Hello,
    Keyed,
    Kind,
    Piece,
    Question,
    Refused,
    decode_back,
    encode_frame,
)

IMPORT_S = 60.0
LOOK_S = 0.05
END_S = 10.0
"""How long a process may take to end whose pipe is closed; then it is ended."""
WORD_BYTES = 8
_PIECE = 1 << 20


class CellLink:
    """One cell, from its start to its end; it is not started again."""

    def __init__(self, module: str, *, memory_mb: int, seconds: float, readable: Sequence[str]) -> None:
        self._module, self._seconds = module, seconds
        self._command = [
            *(sys.executable, "-P", "-m", "tools.cell", "--module", module, "--memory-mb", str(memory_mb)),
            *(part for path in readable for part in ("--readable", path)),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._write = self._read = -1
        self._word = memoryview(bytearray(WORD_BYTES)).cast("Q")
        self._buffer = bytearray()

    def start(self) -> Hello:
        """Start the process and return what it says of its module; raise ModuleError or CellDied."""
        theirs_read, self._write = os.pipe()
        self._read, theirs_write = os.pipe()
        shared = _word_file()
        self._word = memoryview(mmap.mmap(shared, WORD_BYTES)).cast("Q")
        ends = ("--read", str(theirs_read), "--write", str(theirs_write), "--word", str(shared))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*self._command, *ends],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs_read, theirs_write, shared),
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        finally:
            for descriptor in (theirs_read, theirs_write, shared):
                os.close(descriptor)
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        back = self._answer(b"", max(IMPORT_S, self._seconds))
        if isinstance(back, Refused):
            raise ModuleError(self._module, back.reason)
        if not isinstance(back, Hello):
            raise self._died("Breach: it did not say what it is")
        return back

    def ask(self, message: Piece | Question) -> Done | Keyed:
        """Return the answer; raise CellDied if there is none, ValueError if the message is too large."""
        back = self._answer(encode_frame(message), self._seconds)
        if not isinstance(back, Done if isinstance(message, Piece) else Keyed):
            raise self._died("Breach: it answered something else")
        return back

    def close(self) -> None:
        """End the process; closing twice is allowed.

        It can have started none (`tools.cell_calls`).  Where the kernel does not see to that, what it started and left
        in its process group ends, too.
        """
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for descriptor in (self._write, self._read):
            if descriptor >= 0:
                os.close(descriptor)
        self._write = self._read = -1

    # --- one question ----------------------------------------------------------------------------

    def _answer(self, frame: bytes, limit_s: float) -> Hello | Refused | Done | Keyed:
        """Send a frame and return the next answer, as long as the cell gets on."""
        left, seen, since = memoryview(frame), 0, time.monotonic()
        while (size := self._complete()) is None:
            word, now = self._word[0], time.monotonic()
            if word < seen and word:
                raise self._died("Breach: it set back what it does")
            if word > seen:
                seen, since = word, now
            if now - since > limit_s:
                raise self._died(f"Stalled: more than {limit_s:g} s for one event", "stalled")
            left = self._exchange(left)
        data = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        try:
            return decode_back(data)
        except FormatError as error:
            raise self._died(f"Breach: {error}", ours=False) from None

    def _complete(self) -> int | None:
        """Return the size of the answer that is there, or None while there is none."""
        if len(self._buffer) < 4:
            return None
        size = int.from_bytes(self._buffer[:4])
        if size > FRAME_BYTES_MAX:
            raise self._died(f"Breach: an answer of {size:,} bytes")
        return size if len(self._buffer) >= 4 + size else None

    def _exchange(self, left: memoryview) -> memoryview:
        """Write what can be written, read what is there, wait a moment for either; return what is left."""
        ready, free, _ = select.select([self._read], [self._write] if left else [], [], LOOK_S)
        if free:
            try:
                left = left[os.write(self._write, left[:_PIECE]) :]
            except BrokenPipeError:
                raise self._died() from None
        if ready:
            part = os.read(self._read, _PIECE)
            if not part:
                raise self._died()
            self._buffer += part
        return left

    def _died(self, reason: str = "", kind: Kind = "died", *, ours: bool = True) -> CellDied:
        """End the process and return why there will be no answer."""
        word, process = self._word[0], self._process
        assert process is not None
        if not reason:
            with suppress(
                subprocess.TimeoutExpired
            ):  # its pipe is closed: it ends, or it closed the pipe itself
                process.wait(END_S)
            reason = (
                f"Died: {how(process.returncode)}" if process.poll() is not None else "Died: closed its pipe"
            )
        self.close()
        return CellDied(reason, word - 1 if word else None, kind, ours=ours)


def _word_file() -> int:
    """Return a descriptor of a word of shared memory whose size is fixed.

    A cell could make it larger, and hold what counts for nobody; or cut it, so that reading it kills its worker.
    """
    shared = os.memfd_create("treering-cell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(shared, WORD_BYTES)
    fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return shared


def how(code: int) -> str:
    """Return how a process ended.

    >>> how(-11), how(3)
    ('SIGSEGV', 'exit code 3')
    """
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _environment() -> dict[str, str]:
    """Return what a cell may know of where it is: where packages lie, and no secret."""
    fixed = {"LANG": "C.UTF-8", "TZ": "UTC", **ONE_THREAD}
    parts = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    path = os.pathsep.join(str(Path(part).resolve()) for part in parts)  # it runs in another folder
    return {**fixed, "PYTHONPATH": path} if path else fixed
