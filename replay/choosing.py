"""Which store answers: Redis where it is whole and up to date, else this machine's own states, else nobody.

Workers always fold into a store of their own: LMDB on disk, or LMDB in memory (`memory_folder`).  Redis is a copy of it
(`replay.mirror`).  So a reader may have two places to look, and the rule has to keep three promises:

- *never a wrong answer*: only a store with a marker answers, in Redis one whose root is in our log's history, and
  marker and states are read in one view; a copy in which something cannot be read is removed (`distrust`);
- *never an empty one*: where neither has a marker, the answer is Unavailable or "being rebuilt", not "no such student";
- *never back in time*: after an answer at position n, Redis is not asked again before it has reached n, unless nobody
  else can answer at all.

    state_store   local states lie        readers look                          if Redis is down
    lmdb          DATA/state              there
    memory        in memory               there
    redis         DATA/state              in Redis, else there                  "down: why"; answers come from there
    auto          DATA/state              in Redis if it answers, else there    "local: why"; tried now and then

`auto` without `redis_url` is `lmdb`: nobody's states are written to a server that happens to listen.

    stores = Stores("redis", "redis://localhost")                  # once for each process
    store = stores.reading(open_local, about, is_ours)             # once for each shard that is read
    reader = StateReader(store, identities)                        # as with any other store
    stores.status()                                                # for /readyz, /metrics and the page

A view may wait up to about 2.5 s for a Redis that hangs (then not again for some seconds): read in a thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Final, Literal, NamedTuple, cast, get_args

from archive import NotFound, Store, Unavailable, View, Write
from replay.layout import SNAPSHOT, read_marker
from replay.mirror import MIRRORED
from replay.redis_link import REST_S, RedisLink
from replay.redis_store import RedisStore

IsOurs = Callable[[int, bytes], bool]
Mode = Literal["lmdb", "memory", "redis", "auto"]
MODES: Final = get_args(Mode)
LATE_S = 5.0
"""How long Redis may stand still behind the local states before these are read instead."""
AUTO_REST_S_MAX: Final = 30.0


class Status(NamedTuple):
    """What a store says of itself.

    `state` is "ok", "catching up", "local", or "down" or "local" with a colon and why.  Redis is down, too, where it is
    behind and takes no states.
    """

    store: str
    state: str


class ReadStore:
    """The store that readers of one shard are given: at each view, the local one or the one in Redis.

    `open_local` opens the local store, and raises NotFound while there is none; it is called until it succeeds.
    `is_ours(size, root)` tells whether the log had this root at this size, `trouble` why the worker cannot bring Redis
    up to date, if so.  Safe for use by several threads.
    """

    def __init__(
        self,
        mode: Mode,
        open_local: Callable[[], Store],
        remote: RedisStore | None,
        is_ours: IsOurs,
        *,
        trouble: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trouble = trouble
        self._mode, self._open_local, self._remote, self._clock = mode, open_local, remote, clock
        self._is_ours, self._known = is_ours, (-1, b"")
        self._local: Store | None = None
        self._opening = Lock()
        self._floor = -1
        self._from_remote = False
        self._stood: tuple[int, float] | None = None
        """Where Redis stands behind the local states, and since when it does."""
        self._state = "local" if remote is None else "catching up"

    @contextmanager
    def view(self) -> Iterator[View]:
        """Return a view of the store that answers best just now.

        Raises Unavailable where neither can answer.  It has no marker where the local states are being made.
        """
        with ExitStack() as stack:
            mine = self._local_view(stack)
            here = -1 if mine is None else _position(mine)
            theirs, there = self._remote_view(stack)
            if theirs is not None and self._prefers_remote(here, there):
                chosen, position = theirs, there
            elif mine is not None:
                chosen, position = mine, here
            else:
                why = self._remote.link.down if self._remote is not None else ""
                raise Unavailable(f"states are being rebuilt; ask again shortly{why and f' ({why})'}")
            self._floor = max(self._floor, position)
            self._from_remote = chosen is theirs
            yield chosen

    def commit(self, writes: Sequence[Write]) -> None:
        """Refuse: readers do not write."""
        raise TypeError(f"{len(writes)} writes to a store that is for reading")

    def close(self) -> None:
        """Close the local store; the link to Redis belongs to whoever made it."""
        local, self._local = self._local, None
        if local is not None:
            local.close()

    def renew(self) -> None:
        """Open the local store anew at the next view: its file was removed, or replaced."""
        with self._opening:
            self._local = None

    def distrust(self) -> bool:
        """Remove the copy in Redis if it gave the last answer, which could not be read: it is copied again.

        Return whether it did; else it was the local states.  A copy that cannot be removed just now is met again.
        """
        if self._remote is None or not self._from_remote:
            return False
        with suppress(Unavailable):
            self._remote.clear()
        return True

    def status(self) -> Status:
        """Return what the last view found."""
        return Status(self._mode, self._state)

    def look(self) -> Status:
        """Return what a view finds now; this is what to call where nobody else reads."""
        try:
            with self.view():
                pass
        except Unavailable:
            pass
        return self.status()

    def _local_view(self, stack: ExitStack) -> View | None:
        try:
            with self._opening:  # an LMDB environment must not be opened twice in a process
                self._local = self._local or self._open_local()
            return stack.enter_context(self._local.view())
        except NotFound:
            return None

    def _remote_view(self, stack: ExitStack) -> tuple[View | None, int]:
        if self._remote is None:
            return None, -1
        try:
            view = stack.enter_context(self._remote.view())
            return view, self._position_in_our_log(view)
        except Unavailable as error:
            self._state = self._without_redis(str(error))
            return None, -1

    def _without_redis(self, why: str) -> str:
        return f"{'local' if self._mode == 'auto' else 'down'}: {why}"

    def _position_in_our_log(self, view: View) -> int:
        """Return the position of states in Redis; -1 if they are of a log that this one does not continue."""
        marker = read_marker(view.get("meta", SNAPSHOT))
        if marker is None or marker.rebuilding:
            return -1
        if (stands_for := (marker.position, marker.root)) != self._known:
            if not self._is_ours(*stands_for):
                return -1
            self._known = stands_for
        return marker.position

    def _prefers_remote(self, here: int, there: int) -> bool:
        """Tell whether Redis is to answer, from the positions of both (-1: no answer there), and note how it is."""
        late = self._is_late(here, there)
        chosen = there >= 0 and (here < 0 or (there >= self._floor and not late))
        if chosen or there >= max(here, 0):
            self._state = "ok"
        else:  # why it stays so, if it does, only who writes to it can tell
            why = self._trouble()
            self._state = self._without_redis(why) if why else "catching up"
        return chosen

    def _is_late(self, here: int, there: int) -> bool:
        """Tell whether Redis has stood still behind the local states for too long."""
        if there >= here:
            self._stood = None
        elif self._stood is None or self._stood[0] != there:
            self._stood = (there, self._clock())
        return self._stood is not None and self._clock() - self._stood[1] >= LATE_S


class Stores:
    """What the settings `state_store` and `redis_url` come to, once for each process.

    Raises ValueError where they do not fit together, naming the setting.
    """

    def __init__(
        self, mode: str, redis_url: str | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"state_store: one of {', '.join(MODES)}, not {mode!r}")
        self.mode: Mode = cast("Mode", mode)
        if mode == "redis" and not redis_url:
            raise ValueError("redis_url: state_store is redis, so it must say where Redis is")
        self._clock = clock
        self.link: RedisLink | None = None
        if redis_url and mode in {"redis", "auto"}:
            most = AUTO_REST_S_MAX if mode == "auto" else REST_S[1]
            self.link = RedisLink(redis_url, clock=clock, rest_s_max=most)
        self._reading: list[ReadStore] = []

    def remote(self, about: str) -> RedisStore | None:
        """Return the copy in Redis of the states that `about` names (`states_name`); None: there is to be none."""
        return None if self.link is None else RedisStore(self.link, about, MIRRORED)

    def reading(
        self,
        open_local: Callable[[], Store],
        about: str,
        is_ours: IsOurs,
        trouble: Callable[[], str] = str,
    ) -> ReadStore:
        """Return the store to read the states that `about` names from; `trouble` is as in ReadStore."""
        store = ReadStore(
            self.mode, open_local, self.remote(about), is_ours, trouble=trouble, clock=self._clock
        )
        self._reading.append(store)
        return store

    def forget(self, store: ReadStore) -> None:
        """Close a store that is read no more."""
        store.close()
        self._reading.remove(store)

    def status(self) -> Status:
        """Return the worst of what the stores found at their last view: down before catching up before ok."""
        found = [store.status() for store in self._reading]
        return max(found, key=_badness, default=Status(self.mode, "local" if self.link is None else "ok"))


def states_name(origin: str, partition: int, module: str, generation: str, shard: int, shards: int) -> str:
    """Return by what name a shard's states are known in Redis; workers and readers must agree on it.

    >>> states_name("school.example/log", 0, "writing", "4f53cda18c2baa0c", 1, 4)
    'school.example/log partition 0 module writing generation 4f53cda18c2baa0c shard 1 of 4'
    """
    return f"{origin} partition {partition} module {module} generation {generation} shard {shard} of {shards}"


def memory_folder(data: Path, shm: Path = Path("/dev/shm")) -> Path:  # noqa: S108 - its rights are checked
    """Return the folder in memory that holds the states of a data folder, made if need be with mode 0700.

    Raises Unavailable if there is no such memory, or if the folder is somebody else's or open to others: anyone may
    make names there.
    """
    name = sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    folder = shm / f"treering-{os.getuid()}-{name}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Unavailable(f"{folder}: {error.strerror}; set state_store to lmdb") from None
    found = folder.lstat()  # a link made by somebody else is not followed
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unavailable(f"{folder}: not a folder of yours alone; remove it, or set state_store to lmdb")
    return folder


def is_memory_folder(path: Path, shm: Path = Path("/dev/shm")) -> bool:  # noqa: S108 - a name, no more
    """Return whether a path is such a folder as `memory_folder` makes for somebody of this user's data."""
    return path.parent == shm and path.name.startswith(f"treering-{os.getuid()}-")


def _position(view: View) -> int:
    """Return the position that a view's states stand for; -1 where they are no answer."""
    marker = read_marker(view.get("meta", SNAPSHOT))
    return -1 if marker is None or marker.rebuilding else marker.position


def _badness(status: Status) -> int:
    return ("local", "ok", "catching up", "down").index(status.state.partition(":")[0])
