"""The process of a cell: imports one module, folds what it is given, and can reach nothing else.

    python -P -m tools.cell --module NAME --read 5 --write 6 --word 7 --memory-mb 1024 --readable /usr/lib/python3 …

It is started by a worker (`tools.cell_link`), with pipes for questions and answers, and shared memory for what it is
doing.  Before the module is imported it gives up every right that a fold does not need (`tools.confine`); its
environment holds no secret and its standard output leads nowhere.

What is said: `replay.cell_wire`.  What is folded: `replay.tenant`.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from reducers import Module, ModuleError, available, load
from replay import Hello, Refused, Tenant, decode_piece, encode_frame, info_of
from tools.confine import ADDRESSES, confine, die_with_parent, limit_addresses, limit_memory
from tools.process import EXIT_GOOD, EXIT_USAGE, quiet_collector

NICE = 10
SPARE_BYTES = 1 << 30
"""What importing may take beyond the limit.  What is left of it afterwards does not count; so a module that means harm
may hold this much more."""
WORD_BYTES = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one worker until it closes its pipe."""
    parser = argparse.ArgumentParser(
        prog="tools.cell", description="Fold the events of one module, confined."
    )
    parser.add_argument("--module", required=True)
    parser.add_argument("--read", type=int, required=True, help="pipe of questions")
    parser.add_argument("--write", type=int, required=True, help="pipe of answers")
    parser.add_argument("--word", type=int, required=True, help="shared memory of what runs")
    parser.add_argument("--memory-mb", type=int, required=True)
    parser.add_argument("--readable", action="append", default=[], help="a folder that may be read")
    arguments = parser.parse_args(argv)
    die_with_parent()
    os.nice(NICE)
    word = memoryview(mmap.mmap(arguments.word, WORD_BYTES)).cast("Q")
    refs = available()
    memory_bytes = arguments.memory_mb << 20
    confined = confine(arguments.readable, memory_bytes + SPARE_BYTES)
    try:
        if arguments.module not in refs:
            raise ModuleError(arguments.module, "is not installed")
        module = load(refs[arguments.module])
    except ModuleError as error:
        _say(arguments.write, encode_frame(Refused(error.reason[:10_000])))
        return EXIT_USAGE
    quiet_collector()
    limit_memory(memory_bytes)
    limit_addresses(memory_bytes + ADDRESSES)
    _say(arguments.write, encode_frame(_hello(module, confined)))
    _serve(Tenant(module.reducers, word), arguments.read, arguments.write)
    return EXIT_GOOD


def _hello(module: Module, confined: list[str]) -> Hello:
    viewed = [one.viewer is not None for one in module.reducers]
    return Hello(module.version[:200], [info_of(one) for one in module.reducers], viewed, confined)


def _serve(tenant: Tenant, read: int, write: int) -> None:
    while data := _frame(read):
        _say(write, tenant.framed(decode_piece(data)))


def _frame(descriptor: int) -> bytes:
    """Return the next question, or nothing when there will be none."""
    head = _exactly(descriptor, 4)
    return _exactly(descriptor, int.from_bytes(head)) if len(head) == 4 else b""


def _exactly(descriptor: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _say(descriptor: int, frame: bytes) -> None:
    left = memoryview(frame)
    with suppress(BrokenPipeError):
        while left:
            left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    sys.exit(main())
