"""What is being run just now, in a word of shared memory, so that a death can be laid at somebody's door.

A process that ends by a signal, or that is killed because it does not get on, cannot say any more what it was doing.
So each module of a worker has a word in a small file that is mapped into memory, and the fold stores into it which
event it is about to run; a store costs some 50 ns, and whoever reads the file afterwards sees the last one.

    0                       nothing of this module runs
    index + 1, beat << 53   event `index` is folded (or a state that it changed is written down); `beat` counts the keys
                            that one tick goes to, so that many keys do not look like one that hangs
    2**64 - 1               the module is being imported

File: number of modules, a word for each, their names joined by line feeds; whole numbers of 8 bytes, as the machine has
them.  It is read by the machine that wrote it.

>>> word_of(7), index_of(word_of(7)), index_of(word_of(7, beat=3)), index_of(IDLE), index_of(IMPORTING)
(8, 7, 7, None, None)

Who writes: the fold (`reducers.Word`), the worker.  Who reads: the supervisor.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from archive import naming

IDLE = 0
IMPORTING = (1 << 64) - 1
_BEATS = 1 << 10
_INDEX = (1 << 53) - 1
_WORD = 8
_ORDER = sys.byteorder


def word_of(index: int, beat: int = 0) -> int:
    """Return the word that says that event `index` is folded."""
    return index + 1 + ((beat % _BEATS) << 53)


def index_of(word: int) -> int | None:
    """Return the index of the event that is folded, or None if none is."""
    return None if word in {IDLE, IMPORTING} else (word & _INDEX) - 1


def attempts_file(path: Path, modules: Sequence[str]) -> list[memoryview]:
    """Make the file anew, all idle, and return a word for each module, in order."""
    path.unlink(missing_ok=True)  # a process that still maps the old one must not write into this one
    names = "\n".join(modules).encode()
    words = [len(modules), *[IDLE] * len(modules)]
    data = b"".join(word.to_bytes(_WORD, _ORDER) for word in words)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with naming(path):
            os.write(descriptor, data + names)
        shared = memoryview(mmap.mmap(descriptor, len(data) + len(names)))
    finally:
        os.close(descriptor)
    cells = shared[_WORD : len(data)].cast("Q")
    return [cells[at : at + 1] for at in range(len(modules))]


def read_attempts(path: Path) -> dict[str, int]:
    """Return the word of each module; nothing if there is no such file, or if it is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    count = int.from_bytes(data[:_WORD], _ORDER)
    end = _WORD * (count + 1)
    names = data[end:].decode(errors="replace").split("\n")
    if len(data) < end or len(names) != count:
        return {}
    return {
        name: int.from_bytes(data[_WORD * at : _WORD * (at + 1)], _ORDER) for at, name in enumerate(names, 1)
    }
