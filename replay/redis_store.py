"""A store on Redis that keeps the promises of `archive.Store`, and that can say of itself whether it is whole.

All keys of one store lie under one hash tag, hence on one node of a Cluster, and every commit and every read is one
script over them, hence atomic:

    treering:{<name>}:head              hash: commit (a random token, new with each commit), about, 1.. (rows of tables)
    treering:{<name>}:<table>           hash: key → value
    treering:{<name>}:<table>:order     sorted set of the keys: ordered by bytes
    treering:{<name>}:undo:<token>      hash: what the commit after <token> replaced; for UNDO_S seconds

`name` is a hash of what the store is about; names of people stand in fields and values only, never in a key's name.

**A view** remembers the token that it began with.  Where a read finds another one, it walks the undo records from its
own token on and puts back what was there, so that it sees the store as it was, however many commits came meanwhile.
Where the walk breaks (the server was flushed, an older copy took over, the reader took longer than UNDO_S) the view
answers no more: Unavailable.

**Whole or nothing.** Each read compares the number of rows in the head with what is there.  A key that was evicted,
deleted or that has expired on its own makes the store answer Unavailable, never "no such state".  `clear` mends it.

**Nobody's mirror goes away by itself**: everything expires EXPIRE_S after the last commit or `touch`, so that what
belonged to another number of shards, or to a version long replaced, does not stay (with students in it) for ever.

What it does not promise is durability: that is the log's business.  And where a commit is answered by Unavailable, it
may have been made all the same, as a whole: look (`RedisView.token`) before you go on, as `replay.mirror` does.

    store = RedisStore(RedisLink("redis://localhost"), "school.example/log partition 0 module writing ...", TABLES)
    with store.view() as view:
        view.get("states", key)
    store.commit([Write("states", key, value)])
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

from archive import Unavailable, Write
from replay.redis_link import RedisLink
from replay.redis_scripts import COMMIT, GET, LOOK, PAGE, TOUCH

KEY_SIZE_MAX: Final = 511
"""As for every store of the archive, so that what goes into one goes into all."""
UNDO_S: Final = 30
EXPIRE_S: Final = 86_400
PAGE_ROWS = (64, 1_024)
"""Rows of a scan's first piece, and at most of a later one."""
PAGE_BYTES: Final = 1 << 20
GET_KEYS: Final = 1_024
TRIES: Final = 5

_Field = tuple[int, bytes]


class RedisView:
    """A RedisStore as it stood at one moment, and beyond what a View promises: `token`, `get_many`, `keys`."""

    def __init__(self, store: RedisStore, token: bytes, counts: Sequence[int]) -> None:
        self.token = token
        """Which commit this view sees the store after; b"" where there is nothing."""
        self._store, self._counts, self._seen = store, counts, token
        self._before: dict[_Field, bytes | None] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        return self.get_many(table, [key])[0]

    def get_many(self, table: str, keys: Sequence[bytes], size: int = -1) -> list[bytes | None]:
        """Return the values of keys, or the first `size` bytes of each, in their order."""
        number, found = self._store.number(table), list[bytes | None]()
        for start in range(0, len(keys), GET_KEYS):
            piece = keys[start : start + GET_KEYS]
            token, values = self._store.ask(table, GET, [size, *piece])
            self._catch_up(token)
            for key, value in zip(piece, values, strict=True):
                found.append(self._as_it_was((number, key), value, size))
        return found

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) with start <= key < stop, in key order; pieces come as they are needed."""
        return self._rows(table, start, stop)

    def keys(self, table: str) -> Iterator[bytes]:
        """Yield every key of a table in order, without fetching values."""
        return (key for key, _ in self._rows(table, b"", None, size=0))

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the greatest key of a table with its value, or None."""
        return next(self._rows(table, b"", None, reverse=True), None)

    def count(self, table: str) -> int:
        """Return how many keys a table has."""
        return self._counts[self._store.number(table) - 1]

    def _rows(
        self, table: str, start: bytes, stop: bytes | None, *, size: int = -1, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if stop is not None and stop <= start:
            return
        number = self._store.number(table)
        low, high = b"[" + start, b"+" if stop is None else b"(" + stop
        rows, more = PAGE_ROWS[0], True
        while more:
            arguments: list[bytes | str | int] = [size, low, high, rows, PAGE_BYTES, int(reverse)]
            token, (more, keys, values) = self._store.ask(table, PAGE, arguments)
            self._catch_up(token)
            # What this piece speaks for: up to its last key where there is more, else up to the end.
            if more and reverse:
                piece, high = (b"[" + keys[-1], high), b"(" + keys[-1]
            elif more:
                piece, low = (low, b"[" + keys[-1]), b"(" + keys[-1]
            else:
                piece = (low, high)
            found: dict[bytes, bytes | None] = dict(zip(keys, values, strict=True))
            found.update(
                (key, old if old is None or size < 0 else old[:size])
                for (table_number, key), old in self._before.items()
                if table_number == number and _within(key, *piece)
            )
            for key in sorted(found, reverse=reverse):
                if (value := found[key]) is not None:
                    yield key, value
            rows = min(2 * rows, PAGE_ROWS[1])

    def _as_it_was(self, field: _Field, value: bytes | None, size: int) -> bytes | None:
        if field not in self._before:
            return value
        old = self._before[field]
        return old if old is None or size < 0 else old[:size]

    def _catch_up(self, token: bytes) -> None:
        """Learn what the commits up to `token` replaced; what an earlier one replaced is what we saw."""
        while self._seen != token:
            record = self._store.undo(self._seen)
            if b"next" not in record:
                raise Unavailable("Redis was emptied or overtook this answer while it was read; ask again")
            self._seen = record.pop(b"next")
            for name, old in record.items():
                number, _, key = name.partition(b":")
                self._before.setdefault((int(number), key), old[1:] if old[:1] == b"+" else None)


class RedisStore:
    """A Store under one name in Redis.

    `about` says in words whose states these are (no personal data: it is readable in Redis); equal words, equal store.
    Every method raises Unavailable, with a sentence for whoever runs the servers, where Redis cannot do it.
    """

    def __init__(self, link: RedisLink, about: str, tables: Sequence[str]) -> None:
        self.link, self.about = link, about
        self._tables = {table: number for number, table in enumerate(tables, 1)}
        self._prefix = f"treering:{{{sha256(about.encode()).hexdigest()[:24]}}}:".encode()
        self._keys = [self._prefix + b"head"]
        for table in tables:
            self._keys += [self._prefix + table.encode(), self._prefix + table.encode() + b":order"]

    @contextmanager
    def view(self) -> Iterator[RedisView]:
        """Return a consistent view, which costs Redis nothing while it is open."""
        token, whole, counts = self.link.run(LOOK, self._keys, [])
        self._check(whole)
        yield RedisView(self, token, counts)

    def commit(self, writes: Sequence[Write]) -> None:
        """Apply all of `writes`, or none; where another writer was quicker, on top of what he wrote."""
        self._check_writes(writes)
        if not writes:
            return
        for _ in range(TRIES):
            with self.view() as view:
                since = view.token
            if self.commit_since(since, writes) is not None:
                return
        raise Unavailable("others write to the same states in Redis all the time; stop all but one of them")

    def commit_since(self, since: bytes, writes: Sequence[Write], *, undo: bool = True) -> bytes | None:
        """Apply all of `writes` if nothing was committed after the token `since`; return the new token, else None.

        Without `undo`, views that are open end: for what no reader may look at yet.
        """
        self._check_writes(writes)
        token = secrets.token_hex(8).encode()
        arguments: list[bytes | str | int] = [since, token, UNDO_S if undo else 0, EXPIRE_S, self.about]
        for table, key, value in writes:
            arguments += [self._tables[table], key, int(value is not None), value or b""]
        done = self.link.run(COMMIT, [*self._keys, self._undo_key(since)], arguments)
        self._check(done != -1)
        return token if done else None

    def clear(self) -> None:
        """Remove everything, at once, also where it is not whole."""
        # UNLINK frees memory beside other commands; a DEL of a million states would stop the server for a second.
        self.link.run("return redis.call('UNLINK', unpack(KEYS))", self._keys, [])

    def touch(self) -> None:
        """Put off the day on which all of this expires, as a commit does."""
        self.link.run(TOUCH, self._keys, [EXPIRE_S])

    def close(self) -> None:
        """Do nothing: the link belongs to whoever made it."""

    def number(self, table: str) -> int:
        """Return the number of a table, from 1; raise KeyError if there is none of that name."""
        return self._tables[table]

    def ask(self, table: str, script: str, arguments: Sequence[bytes | str | int]) -> tuple[bytes, Any]:
        """Run a reading script on one table; return (token, answer), or raise Unavailable if rows are missing."""
        number = self._tables[table]
        keys = [self._keys[0], *self._keys[2 * number - 1 : 2 * number + 1]]
        token, whole, answer = self.link.run(script, keys, [number, *arguments])
        self._check(whole)
        return token, answer

    def undo(self, token: bytes) -> dict[bytes, bytes]:
        """Return what the commit after `token` replaced, and that commit's token under b"next"."""
        flat = self.link.run("return redis.call('HGETALL', KEYS[1])", [self._undo_key(token)], [])
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _undo_key(self, token: bytes) -> bytes:
        return self._prefix + b"undo:" + token

    def _check(self, whole: object) -> None:
        if not whole:
            raise Broken(
                f"Redis at {self.link.address} has lost some of these states; they are copied to it again"
            )

    def _check_writes(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if not 0 < len(write.key) <= KEY_SIZE_MAX or write.table not in self._tables:
                raise ValueError(f"key of {len(write.key)} bytes in table {write.table!r}")


class Broken(Unavailable):
    """Some of a store's keys are gone, or cannot be read: nothing in it is an answer until it was cleared."""

    def __init__(self, message: str, what: str = "states are missing in Redis") -> None:
        super().__init__(message)
        self.what = what
        """The same in few words, for those who clear it."""


def _within(key: bytes, low: bytes, high: bytes) -> bool:
    """Tell whether a key lies in a range as Redis writes it: `[` with its end, `(` without, `+` no end."""
    above = key > low[1:] if low[:1] == b"(" else key >= low[1:]
    below = high == b"+" or (key < high[1:] if high[:1] == b"(" else key <= high[1:])
    return above and below
