"""run/modules.json: how every module is, as the supervisor knows it, for the front, the doctor and the next supervisor.

    {"essay": {"level": "cell", "state": "parked", "deaths": 4, "since_s": 1764090000, "shards": {"0": {...}}, ...}}

A module is as the worst of its shards.  The file says nothing of any event but its index; it is written whole or not at
all, by the supervisor, and only when it changes.  Nobody needs it to run: without it, all modules count as running.

Who writes it: `tools.placing`.  What the words mean: docs/modules.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from archive import write_whole
from replay.escalation import LEVELS, WORKER_STOPS, Fault, Level, Record, State

STATUS_FILE = "modules.json"
_ORDER: tuple[State, ...] = ("running", "starting", "pausing", "failed", "parked")
"""From best to worst."""


class Endings(msgspec.Struct, frozen=True):
    """Ends of one worker, again and again, of which no module is to blame."""

    worker: str
    count: int
    how: str
    """How it ended last."""
    first_s: float
    last_s: float
    """Unix seconds."""
    position: int = -1
    """How far it got; -1: nobody knows."""

    def reason(self) -> str:
        """Return in one line what is to be said of them.

        >>> Endings("worker 0", 7, "signal 9", 0.0, 130.0, 12).reason()
        "worker 0 has ended 7 times in 2 minutes with signal 9, and gets no further than entry 12; see the server's log"
        """
        minutes = round((self.last_s - self.first_s) / 60)
        within = f"{minutes} minutes" if minutes > 1 else "a minute"
        far = "" if self.position < 0 else f", and gets no further than entry {self.position}"
        return f"{self.worker} has ended {self.count} times in {within} with {self.how}{far}; see the server's log"


class ShardStatus(msgspec.Struct, frozen=True):
    """How a module is in one shard."""

    record: Record
    since_s: float
    """Unix seconds since which it is in this state."""
    steered: int = 0
    """Skips and retries from this entry on, it has not seen yet: those before it are answered."""
    endings: Endings | None = None
    """Of its worker, where that ends again and again."""

    @property
    def waits(self) -> bool:
        """Whether it waits for a person."""
        return self.record.state in {"parked", "failed"}

    @property
    def badness(self) -> tuple[int, bool, int]:
        """Return how badly off it is, to compare: its state, whether it met a fault, and how far it was moved."""
        record = self.record
        met = record.last is not None or self.endings is not None
        return _ORDER.index(record.state), met, LEVELS.index(record.level)

    def reason(self) -> str:
        """Return in one line why it does not run, or last did not; empty if there is nothing to say."""
        record = self.record
        if record.state == "failed":
            return record.failure
        if (fault := record.last) is None:
            return "" if self.endings is None else self.endings.reason()
        where = "while it was imported" if fault.index is None else f"at entry {fault.index}"
        if fault.kind == "rotten":  # that is nobody's doing
            return f"rotten {where}: {fault.reason}"
        who = f"reducer {fault.reducer}" if fault.reducer else "it"
        return f"{who} {fault.what} {where}: {fault.reason}"

    def remedy(self, name: str, data: str | Path = "") -> str:
        """Return the commands that help module `name` here, or nothing where none are needed.

        Where an entry is rotten, a backup comes first; where the module is to blame, a version that is mended.  They
        name the data folder, if one is given: pasted, they must not act on another one.
        """
        record = self.record
        if not self.waits:
            return ""
        fault, on = record.last, on_folder(data)
        retry = f"treering retry {name}{on}"
        if record.state == "parked" and fault is not None and fault.kind == "rotten":
            skip = f"treering skip --all {fault.index}{on}"
            return f"docs/recovery.md, Rotten bytes: restore a backup that has the entry; only if there is none: {skip}"
        if record.state == "failed" and record.failure == WORKER_STOPS:
            # A retry is heard while events are kept.
            return f"mend what the server's log says, then start the server again; where events are kept, {retry} does"
        if record.state == "failed" and record.went_back:
            return f"treering undo {name}{on}"
        if record.state == "parked" and fault is not None and fault.reducer and fault.index is not None:
            # What was skipped stays so, in every version: its author comes first.
            return f"{retry} (once it is mended), or treering skip {fault.reducer} {fault.index}{on}"
        return retry


class ModuleStatus(msgspec.Struct, frozen=True):
    """How a module is."""

    shards: dict[str, ShardStatus]
    confined: list[str] = []
    """What its cell is kept from."""
    renewed: bool = False
    """Whether it was tried again, or its code changed, while this server ran: others do not wait for its states."""

    @property
    def worst(self) -> ShardStatus:
        """Return the status of the shard that is worst off."""
        return max(self.shards.values(), key=lambda one: one.badness)

    @property
    def state(self) -> State:
        """Return the state of the shard that is worst off."""
        return self.worst.record.state

    @property
    def level(self) -> Level:
        """Return the level of the shard that is worst off."""
        return self.worst.record.level

    @property
    def deaths(self) -> int:
        """Return how often it died or stopped, in all shards together."""
        return sum(one.record.deaths for one in self.shards.values())

    @property
    def fault(self) -> Fault | None:
        """Return its last fault without progress since, of the shard that is worst off."""
        return self.worst.record.last

    @property
    def held(self) -> bool:
        """Whether it waits for a person, or for its next try, anywhere: others need not wait for it."""
        return any(
            one.record.state in {"pausing", "parked", "failed"} or one.record.last is not None
            for one in self.shards.values()
        )

    @property
    def waits_from(self) -> int | None:
        """Return the first entry that a shard which waits for a person has not seen; None if no shard waits."""
        return min((one.steered for one in self.shards.values() if one.waits), default=None)

    @property
    def troubles(self) -> list[tuple[str, ShardStatus]]:
        """Return the shards of which there is something to say, by number, worst first."""
        found = [(shard, one) for shard, one in self.shards.items() if one.reason() or one.waits]
        return sorted(found, key=lambda pair: pair[1].badness, reverse=True)

    def reason(self) -> str:
        """Return why it does not run in the shard that is worst off, or last did not; empty if there is nothing."""
        return self.worst.reason()

    def remedies(self, name: str, data: str | Path = "") -> list[str]:
        """Return every command that helps, each once: two shards may be parked at different entries."""
        return list(dict.fromkeys(filter(None, (one.remedy(name, data) for _, one in self.troubles))))

    def remedy(self, name: str, data: str | Path = "") -> str:
        """Return the command that helps first, or nothing where none is needed."""
        return next(iter(self.remedies(name, data)), "")


def on_folder(data: str | Path) -> str:
    """Return what is put behind a command so that it acts on this data folder.

    >>> on_folder("class 7"), on_folder("")
    (" --data 'class 7'", '')
    """
    return f" --data {shlex.quote(str(data))}" if str(data) else ""


def read_status(path: Path) -> dict[str, ModuleStatus]:
    """Return how the modules are, by name; nothing if there is no file that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, ModuleStatus])
    except (OSError, msgspec.DecodeError):
        return {}


def write_status(path: Path, statuses: Mapping[str, ModuleStatus]) -> None:
    """Write the file, if it says anything else."""
    data = msgspec.json.format(msgspec.json.encode(statuses), indent=1) + b"\n"
    try:
        same = path.read_bytes() == data
    except OSError:
        same = False
    if not same:
        write_whole(path, data)
