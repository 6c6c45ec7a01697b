"""States as a file for those who go on with other tools: newline-delimited JSON, or Parquet.

    {"reducer":"event_count","key":{"student":"ann"},"state":{"events":3},"version":1,"position":1000,"changed_at":77,
     "quarantined":null}

A Parquet file has the columns reducer, key_FIELD for each key field that a reducer has, state (JSON text), version,
position, changed_at, quarantined (the index of the event at which the key stands still) and error; its metadata name
the log's root at that size, so that a figure drawn from it can be led back.

States are about people: a file is readable by its owner only.  It appears whole, or not at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from archive import InvalidEvent
from reducers import Registry
from replay import FoldedState
from tools.private_file import private_file

GROUP = 50_000
"""States in one row group of a Parquet file."""

Write = Callable[[Iterable[FoldedState]], int]


@contextmanager
def writer(target: str, registry: Registry, position: int, about: Mapping[str, str]) -> Iterator[Write]:
    """Return what writes states to a file, or "-" for standard output, and returns how many they were.

    The name's ending tells the form.  Raises InvalidEvent for a form that is unknown or cannot be written here.
    """
    scopes = {one.name: one.scope for one in registry}
    if target == "-":
        yield lambda states: _to_pipe(states, scopes, position)
        return
    path = Path(target)
    if path.suffix not in {".jsonl", ".parquet"}:
        raise InvalidEvent(
            f"--out {target}: its name must end in .jsonl or .parquet, or be - for lines on standard output"
        )
    make = _parquet if path.suffix == ".parquet" else None
    if make is not None:
        _pyarrow()
    with private_file(path) as file:
        if make is None:
            yield lambda states: _lines(file, states, scopes, position)
        else:
            yield lambda states: make(file, states, scopes, position, about)


def line(state: FoldedState, scope: tuple[str, ...], position: int) -> bytes:
    """Return one state as a line of JSON, without its end."""
    quarantined = None if state.error_index is None else {"index": state.error_index, "error": state.error}
    return _encode(
        {
            "reducer": state.reducer,
            "key": dict(zip(scope, state.key, strict=True)),
            "state": msgspec.Raw(state.encoding),
            "version": state.version,
            "position": position,
            "changed_at": state.changed_at,
            "quarantined": quarantined,
        }
    )


_encode = msgspec.json.Encoder().encode


def _lines(
    file: IO[bytes], states: Iterable[FoldedState], scopes: Mapping[str, tuple[str, ...]], position: int
) -> int:
    count = 0
    for count, state in enumerate(states, 1):  # noqa: B007 - the last one is how many there were
        file.write(line(state, scopes[state.reducer], position) + b"\n")
    return count


def _to_pipe(states: Iterable[FoldedState], scopes: Mapping[str, tuple[str, ...]], position: int) -> int:
    """Write lines to standard output as long as somebody reads them; `| head` has read enough."""
    try:
        count = _lines(sys.stdout.buffer, states, scopes, position)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What is buffered would be written, and fail, once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return 0
    return count


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra: only who wants Parquet needs it
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise InvalidEvent(
            "Parquet takes pyarrow, which is not installed: pip install 'treering[parquet]', or choose .jsonl"
        ) from None
    return pa


def _parquet(
    file: IO[bytes],
    states: Iterable[FoldedState],
    scopes: Mapping[str, tuple[str, ...]],
    position: int,
    about: Mapping[str, str],
) -> int:
    arrow, count = _pyarrow(), 0
    fields = sorted({name for scope in scopes.values() for name in scope})
    schema = _schema(arrow, fields).with_metadata({f"treering.{name}": text for name, text in about.items()})
    remaining = iter(states)
    with arrow.parquet.ParquetWriter(file, schema, compression="zstd") as out:
        while group := list(islice(remaining, GROUP)):
            out.write_table(arrow.table(_columns(group, scopes, fields, position), schema=schema))
            count += len(group)
    return count


def _schema(arrow: Any, fields: list[str]) -> Any:
    text, whole = arrow.string(), arrow.int64()
    names = [("reducer", text), *((f"key_{name}", text) for name in fields), ("state", text)]
    numbers = [(name, whole) for name in ("version", "position", "changed_at", "quarantined")]
    return arrow.schema([*names, *numbers, ("error", text)])


def _columns(
    group: list[FoldedState], scopes: Mapping[str, tuple[str, ...]], fields: list[str], position: int
) -> dict[str, list[Any]]:
    keys = [dict(zip(scopes[one.reducer], one.key, strict=True)) for one in group]
    return {
        "reducer": [one.reducer for one in group],
        **{f"key_{name}": [key.get(name) for key in keys] for name in fields},
        "state": [one.encoding.decode() for one in group],
        "version": [one.version for one in group],
        "position": [position] * len(group),
        "changed_at": [one.changed_at for one in group],
        "quarantined": [one.error_index for one in group],
        "error": [one.error for one in group],
    }
