"""A mirror of one shard's states in Redis, for readers on other machines: always a copy, never the only one.

A worker folds and saves into its own store (LMDB), each save at a greater position than the one before.  `Mirror.step`
looks at the marker in Redis, and copies the states that were saved since.  There is one way for all cases: the local
table `changes` lists states in the order of their saves, so a copy is a walk along it, from the position after the
remote marker or, where that marker is none of ours, from the beginning of an empty store.

    remote marker                                          then
    missing, of another log, other reducers, another       everything in Redis is removed at once,
      rebuild, ahead of ours; or rows are missing            and the walk begins at 0
    older                                                  the walk begins behind its position
    the same                                               nothing to do
    (ours is being rebuilt)                                wait: what Redis says is still true at its position

What fits into one commit goes with the new marker: readers see the old moment or the new one.  What does not fit goes
in pieces; the first takes the marker away, so that nobody reads a mixture, and the last brings the new one.  A commit
holds only if nobody else committed since this step looked (`RedisStore.commit_since`), so it cannot matter what happens
between two steps, or between looking and writing: a flush, an older copy of Redis that took over, a second mirror.

Where states went without a trace in `changes`, the numbers of states differ, and Redis is searched for them; where they
differ for any other reason, the copy begins anew.  So it does where what is in Redis cannot be read.  Nothing is copied
that cannot be read here: readers of Redis go on with the moment before, until the worker has made the states anew.

    mirror = Mirror(local, RedisStore(link, about, MIRRORED), lambda size, root: log_has(size, root))
    while not stop.wait(0.2):
        while mirror.step():                 # in a thread of the worker: it may wait seconds for a Redis that hangs
            pass
    mirror.state                             # ok | waiting: … | copying: … | down: … | damaged: …
    note_trouble(folder, mirror.trouble)     # beside the local states, for those who tell operators

A reader who finds that Redis stands behind cannot see why: to read, it needs no memory, no primary and no policy.  So
the worker leaves word.  Who reads what it wrote: `replay.choosing`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from archive import IntegrityError, Store, Unavailable, View, Write
from replay.damage import Damaged, reading, stored_at
from replay.layout import AT_SIZE, SNAPSHOT, Marker, marker_in, name_of, quarantine_key, read_marker
from replay.redis_link import CONTESTED, EVICTS
from replay.redis_store import EXPIRE_S, Broken, RedisStore, RedisView

MIRRORED: Final = ("meta", "states", "changes", "quarantined")
"""The tables that readers use."""
PIECE_STATES = 1_000
PIECE_BYTES = 2 << 20
POLICY_S: Final = 60.0
"""How often the server is asked what it does when it is full."""
BEGINNINGS: Final = 4
CONTEST_S: Final = 60.0
"""Who begins anew so often within so long is not alone there, and rests for as long."""
TOUCH_S: Final = EXPIRE_S / 24
TROUBLE: Final = "redis.trouble"


@dataclass(frozen=True)
class _Walk:
    """How far a copy has come."""

    token: bytes
    """The remote commit that it stands on."""
    marker: Marker
    """The local marker at its last piece."""
    cursor: bytes
    """Where to go on in `changes`."""
    full: bool
    """Whether it began from nothing."""
    states: int = 0

    def may_go_on(self, token: bytes, marker: Marker) -> bool:
        """Tell whether neither store was exchanged since the last piece."""
        same = (self.token, _lineage(self.marker)) == (token, _lineage(marker))
        return same and self.marker.position <= marker.position


@dataclass
class _Piece:
    writes: list[Write]
    cursor: bytes
    states: int
    new: int
    """How many of the states are not in Redis yet."""
    more: bool


class Mirror:
    """Copies from a shard's own store to Redis, a bounded piece at each step.

    `is_ours(size, root)` tells whether the log had this root at this size; `module` is whose states these are.
    """

    def __init__(
        self,
        local: Store,
        remote: RedisStore,
        is_ours: Callable[[int, bytes], bool],
        *,
        module: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._module = module
        self._local, self._remote, self._is_ours, self._clock = local, remote, is_ours, clock
        self._walk: _Walk | None = None
        self._policy_at = self._touched_at = float("-inf")
        self._begun: deque[float] = deque(maxlen=BEGINNINGS)
        """When it last began anew."""
        self.state = "waiting: not begun"
        """ok, or `waiting`, `copying` or `down`, followed by a colon and why."""

    @property
    def trouble(self) -> str:
        """Why nothing can be copied just now; empty where it can, or there is nothing to copy yet."""
        word, _, why = self.state.partition(": ")
        return why if word == "down" else ""

    def step(self) -> bool:
        """Do one piece of what there is to do; return whether there may be more to do at once.

        Raises Damaged if the local store cannot be read, or contradicts itself; whatever goes wrong with Redis is said
        by `state` and mended by a later step.
        """
        try:
            with reading(self._module):
                return self._step()
        except Broken as error:
            return self._begin_anew(error.what)
        except Damaged as error:
            self.state = f"damaged: {error}"
            raise
        except Unavailable as error:
            self.state = f"down: {error}"
            return False

    def _step(self) -> bool:
        self._check_alone()
        self._check_policy()
        # The remote moment is older than the local one: what was committed to Redis in between is noticed.
        with self._remote.view() as theirs, self._local.view() as mine:
            there, here = _marker(theirs), marker_in(mine.get("meta", SNAPSHOT))
            if there is not None and not self._of_our_log(there):
                return self._begin_anew("Redis holds states of another log")
            if here is None or here.rebuilding:
                self._walk = None
                return self._wait("the local states are being rebuilt")
            if self._walk is None or not self._walk.may_go_on(theirs.token, here):
                if theirs.token and not _goes_on(there, here):
                    return self._begin_anew("Redis holds other states, or half a copy")
                if there == here and theirs.count("states") == mine.count("states"):
                    return self._rest()
                self._walk = _Walk(theirs.token, here, _after(there), full=there is None)
            return self._copy(self._walk, here, mine, theirs)

    def _copy(self, walk: _Walk, here: Marker, mine: View, theirs: RedisView) -> bool:
        piece = _piece(mine, theirs, walk.cursor)
        if not piece.more and not _remove_gone(piece, mine, theirs):
            if walk.full:
                raise IntegrityError("there are states that no change lists")
            return self._begin_anew("Redis lacks states")
        marker = None if piece.more else mine.get("meta", SNAPSHOT)
        token = self._remote.commit_since(
            theirs.token, [*piece.writes, Write("meta", SNAPSHOT, marker)], undo=not piece.more
        )
        self._walk = None
        if token is None:
            return self._wait("somebody else wrote these states to Redis")
        self._touched_at = self._clock()
        if piece.more:
            self._walk = replace(
                walk, token=token, marker=here, cursor=piece.cursor, states=walk.states + piece.states
            )
            self.state = f"copying: {self._walk.states} of {mine.count('states')} states"
        else:
            self.state = "ok"
        return True

    def _of_our_log(self, there: Marker) -> bool:
        try:
            return self._is_ours(there.position, there.root)
        except IntegrityError as error:  # that is no damage to states, and said by who reads the log
            raise Unavailable(f"the log cannot be read ({error})") from None

    def _begin_anew(self, why: str) -> bool:
        """Remove everything, so that the next step begins from nothing."""
        self._walk = None
        self._begun.append(self._clock())
        try:
            self._remote.clear()
        except Unavailable as error:
            self.state = f"down: {error}"
            return False
        self.state = f"copying: {why}, so all of them are copied anew"
        return True

    def _wait(self, why: str) -> bool:
        self.state = f"waiting: {why}"
        return False

    def _rest(self) -> bool:
        if self._clock() - self._touched_at >= TOUCH_S:
            self._remote.touch()
            self._touched_at = self._clock()
        self.state = "ok"
        return False

    def _check_alone(self) -> None:
        """Raise Unavailable, for a while, who began anew again and again: two would undo each other's work for ever."""
        often = len(self._begun) == BEGINNINGS and self._begun[-1] - self._begun[0] < CONTEST_S
        if often and self._clock() - self._begun[-1] < CONTEST_S:
            raise Unavailable(f"Redis at {self._remote.link.address}: {CONTESTED}")

    def _check_policy(self) -> None:
        if self._clock() - self._policy_at < POLICY_S:
            return
        if evicting := self._remote.link.policies() - {"noeviction"}:
            raise Unavailable(
                f"Redis at {self._remote.link.address} {EVICTS}"
                f" (maxmemory-policy {', '.join(sorted(evicting))}): set it to noeviction"
            )
        self._policy_at = self._clock()


def note_trouble(folder: Path, trouble: str) -> None:
    """Leave word, beside the states that lie in `folder`, why there is no copy of them; none removes it.

    Whoever may not write there goes on all the same: it is for people, and nothing depends on it.
    """
    note = folder / TROUBLE
    with suppress(OSError):
        if not trouble:
            note.unlink(missing_ok=True)
            return
        new = note.with_suffix(".new")
        new.write_text(trouble, "utf-8")
        new.chmod(0o600)
        new.replace(note)


def trouble_in(folder: Path) -> str:
    """Return what the worker of the states in a folder last said was wrong with their copy; empty if nothing is."""
    try:
        return (folder / TROUBLE).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _marker(view: View) -> Marker | None:
    return read_marker(view.get("meta", SNAPSHOT))


def _lineage(marker: Marker) -> tuple[object, ...]:
    """Return what two stores must share for the same position to mean the same states, saved before or after it."""
    return marker.layout, marker.reducers, marker.rebuilt_to


def _goes_on(there: Marker | None, here: Marker) -> bool:
    return there is not None and _lineage(there) == _lineage(here) and there.position <= here.position


def _after(marker: Marker | None) -> bytes:
    return b"" if marker is None else (marker.position + 1).to_bytes(AT_SIZE)


def _piece(mine: View, theirs: RedisView, cursor: bytes) -> _Piece:
    """Return the writes that bring the next states along `changes` to Redis."""
    rows: list[tuple[bytes, bytes]] = []
    size, more = 0, False
    for change, _ in mine.scan("changes", cursor):
        if len(rows) >= PIECE_STATES or size >= PIECE_BYTES:
            more = True
            break
        value = mine.get("states", change[AT_SIZE:])
        if value is None:
            raise IntegrityError("a change is listed of a state that is not there")
        rows.append((change, value))
        size, cursor = size + len(value), change + b"\0"
    keys = [change[AT_SIZE:] for change, _ in rows]
    olds = theirs.get_many("states", keys)
    writes = list(_without(mine, keys, olds))
    for key, (change, value) in zip(keys, rows, strict=True):
        writes += [Write("states", key, value), Write("changes", change, b"")]
    writes += _quarantined(mine, [(key, value) for key, (_, value) in zip(keys, rows, strict=True)])
    return _Piece(writes, cursor, len(rows), sum(old is None for old in olds), more)


def _without(mine: View, keys: list[bytes], olds: Iterable[bytes | None]) -> Iterator[Write]:
    """Yield the writes that remove what goes with the old values of these states; raise Broken if one is damaged."""
    there = [(key, old) for key, old in zip(keys, olds, strict=True) if old is not None]
    for key, old in there:
        yield Write("changes", old[:AT_SIZE] + key, None)
    try:
        yield from _quarantined(mine, there)
    except msgspec.DecodeError:
        raise Broken("states in Redis cannot be read", "states in Redis cannot be read") from None


def _quarantined(mine: View, states: Iterable[tuple[bytes, bytes]]) -> Iterator[Write]:
    """Yield the writes that make the rows of keys that stand still, or stood still, what they are here.

    Raises DecodeError where one of the states cannot be read.
    """
    for key, value in states:
        stored = stored_at(key, value)
        if stored is not None and stored.error_index is not None:
            row = quarantine_key(name_of(key), stored.error_index, key)
            yield Write("quarantined", row, mine.get("quarantined", row))


def _remove_gone(piece: _Piece, mine: View, theirs: RedisView) -> bool:
    """Add to a last piece the removal of states that are here no more; return whether the numbers agree then.

    Where there are more of them than one piece holds, it is no last piece.
    """
    surplus = theirs.count("states") + piece.new - mine.count("states")
    if surplus <= 0:
        return surplus == 0
    gone = [key for key in theirs.keys("states") if mine.get("states", key) is None]
    if len(gone) != surplus:
        return False
    part = gone[:PIECE_STATES]
    piece.writes += _without(mine, part, theirs.get_many("states", part))
    piece.writes += [Write("states", key, None) for key in part]
    piece.more = len(part) < len(gone)
    return True
