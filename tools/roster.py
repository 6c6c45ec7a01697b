"""Who works in a worker: modules are hired at the start, each with its store and its lock, and let go when they stop.

What a module may do to its worker differs by level (docs/modules.md):

    shared, own   it is imported here; its memory, its time and its hands on other people's files are watched
    cell          it is imported in a process of its own, which this one asks (`tools.cell_link`)

Letting go closes the module's store and lock, so that another process can take the module over while the others here go
on.  What is hired and who stopped is told to the supervisor (`tools.reporting`).

Once a second a worker says that it goes on, and looks whether the files of its states are still there.  A reader who
met damaged states complains (`replay.damage`): if a look at them says the same, their module stops, and its next start
begins with an empty store.

    roster = Roster(folder, source, arguments, reporter)
    crew = roster.crew(vault)
    while not roster.settle(crew):          # after each step: lets go whom the crew stopped
        crew.step(source)
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from archive import (
    Activate,
    DataFolder,
    DirectClient,
    FormatError,
    IntegrityError,
    InvalidEvent,
    LogSource,
    StorageFailed,
    Vault,
    identity_of,
    make_folder,
    parse_steering,
    steering_body,
    take_lock,
)
from reducers import Module, ModuleError, ModuleRef, Word, available, load
from replay import (
    IDLE,
    IMPORTING,
    CellDied,
    CellHolding,
    Crew,
    Done,
    Gathered,
    Holding,
    Piece,
    Stopped,
    attempts_file,
    catalogues,
    damage_of,
    drop_complaint,
    emptied,
    generation_of,
    info_of,
    is_complained_of,
    remote,
)
from tools.cell_link import CellLink
from tools.confine import keep_to_itself, limit_memory, readable_folders
from tools.loading import (
    WentBack,
    activation,
    gathered,
    holding_at,
    load_modules,
    spoken_to,
    states_place,
    taken_by,
)
from tools.metering import HEADROOM_BYTES, Meter, files_below
from tools.process import say
from tools.reporting import Report, Reporter, info_of_stop
from tools.spare import COLD, Warm

Ask = Callable[[Piece], Done]
LOOK_EVERY_S = 1.0
"""How often a worker looks whether somebody complained of its states."""


class Roster:
    """The modules of one worker; `arguments` are those of `tools.worker`."""

    def __init__(
        self,
        folder: DataFolder,
        source: LogSource,
        arguments: argparse.Namespace,
        reporter: Reporter,
        warm: Warm = COLD,
    ) -> None:
        self._folder, self._source, self._arguments, self._reporter = folder, source, arguments, reporter
        attempts = folder.run / "attempts"
        make_folder(attempts)
        words = attempts_file(attempts / arguments.name, arguments.module)
        self._words: dict[str, Word] = dict(zip(arguments.module, words, strict=True))
        self._hired: dict[str, ExitStack] = {}
        """By module: what is closed when it is let go."""
        self._places: dict[str, Path] = {}
        """By module: where its states lie."""
        self._files: dict[str, tuple[int, int] | None] = {}
        """By module: which file its states are kept in, as long as it has a name."""
        self._warm = warm
        self._looked_at = 0.0
        self._links: dict[str, CellLink] = {}
        self._gone: set[str] = set()
        self._meter: Meter | None = None

    def crew(self, vault: Vault) -> Crew:
        """Return the crew of a shard: every module that can run, gone on from where it stood."""
        names = self._arguments.module
        if self._arguments.level != "cell":
            keep_to_itself()
        refs = available() if self._warm.refs is None else self._warm.refs
        steering, holdings = gathered(self._source), list[Holding]()
        taken = taken_by(catalogues(self._folder.state, self._folder.partition), names, refs, steering)
        loaded = load_modules(names, taken, self._load, refs)
        for module in loaded.modules:
            try:
                holdings.append(self._hire(module, steering))
            except ModuleError as error:
                loaded.errors.append(error)
            except (IntegrityError, StorageFailed) as error:  # derived states, of this module alone
                reason = f"its states cannot be opened ({error}); move them away, they are made anew"
                loaded.errors.append(ModuleError(module.name, reason))
        for fault in loaded.errors:
            say(f"worker {self._arguments.shard}: {fault}")
        self._watch(holdings)
        self._reporter.tell(
            Report(
                size=steering.size,
                hired={one.module: one.position for one in holdings},
                generations={one.module: generation_of(map(info_of, one.reducers)) for one in holdings},
                failed={one.name: one.reason for one in loaded.errors},
                went_back=[one.name for one in loaded.errors if isinstance(one, WentBack)],
            )
        )
        return Crew(holdings, vault, shard=self._arguments.shard, shards=self._arguments.shards)

    def settle(self, crew: Crew) -> bool:
        """Let go whom the crew stopped, and tell how far the others are; return whether this worker should end.

        It ends when nobody is left, when somebody took memory that no one can give back, and when somebody's states are
        damaged: that is no fault of the module, so it begins anew where it was.
        """
        if (now := time.monotonic()) - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._reporter.alive()
            self.look(crew)
        gone = {name: one for name, one in crew.stopped.items() if name not in self._gone}
        self._gone |= set(gone)
        for name in gone:
            self._hired.pop(name).close()
        if gone:
            self._watch(crew.holdings)
            self._reporter.stopped(gone)
        self._reporter.positions({one.module: one.position for one in crew.holdings})
        too_large = self._meter is not None and any(one.kind == "memory" for one in gone.values())
        # Whose states are damaged starts again beside the others: so all of them do.
        damaged = any(one.kind == "killed" for one in gone.values())
        return too_large or damaged or not self._hired

    def look(self, crew: Crew) -> None:
        """Look at the states that are gone, or that somebody complained of; where that is so a module goes no further.

        It begins anew: what it saves into a file without a name, nobody can read.
        """
        for holding in crew.holdings:
            place = self._places[holding.module]
            if identity_of(place / "data.mdb") != self._files.get(holding.module):
                reason = "Lost: its stored states were removed, and are made anew from the log"
                holding.stopped = Stopped("", holding.position, reason, "killed", ours=True)
                continue
            if holding.store is None or not is_complained_of(place):
                continue
            if found := damage_of(holding.store):
                reason = f"Damaged: its stored states were damaged ({found}), and are made anew from the log"
                # The next step lets it go; nothing is removed before, so that a save in between does no harm.
                holding.stopped = Stopped("", holding.position, reason, "killed", ours=True)
            else:
                drop_complaint(place)

    def close(self) -> None:
        """End the cells."""
        for link in self._links.values():
            link.close()

    def died(self, error: CellDied) -> None:
        """Tell that the only module here died while it was imported."""
        (name,) = self._arguments.module
        stopped = Stopped("", 0, error.reason, error.kind, error.ours)
        self._reporter.tell(Report(stopped={name: info_of_stop(stopped, imported=False)}))

    # --- hiring ----------------------------------------------------------------------------------

    def _load(self, ref: ModuleRef) -> Module:
        self._words[ref.name][0] = IMPORTING
        try:
            if self._arguments.level == "cell":
                return self._load_in_cell(ref)
            known = self._warm.loaded.get(ref.name) if ref.kind == "builtin" and not ref.fault else None
            return load(ref) if known is None else known
        finally:  # of what ends this process, the word stays
            self._words[ref.name][0] = IDLE

    def _load_in_cell(self, ref: ModuleRef) -> Module:
        name = ref.name
        link = CellLink(
            name,
            memory_mb=self._arguments.memory_mb,
            seconds=self._arguments.seconds,
            readable=readable_folders(self._folder.path, ref.value),
        )
        self._links[name] = link
        hello = link.start()
        self._reporter.tell(Report(confined={name: hello.confined}))
        try:
            reducers = [
                remote(info, name, viewed=viewed)
                for info, viewed in zip(hello.reducers, hello.viewed, strict=True)
            ]
        except (FormatError, ValueError) as error:
            raise ModuleError(name, f"what its cell says of it cannot be used: {error}") from None
        return Module(name, tuple(reducers), hello.version)

    def _hire(self, module: Module, steering: Gathered) -> Holding:
        """Return what a shard holds of a module; raise ModuleError if it may not run."""
        folder, shard, link = self._folder, self._arguments.shard, self._links.get(module.name)
        since = spoken_to(folder.state, folder.partition, module.name, steering)
        entry = activation(module, steering, since)
        if entry is not None:
            self._activate(module.name, entry)
        place = states_place(folder.state, folder.partition, module, shard, self._arguments.shards)
        make_folder(place)
        with ExitStack() as own:
            # Two workers on one store would each save a position that the other's states do not stand at.
            own.callback(os.close, take_lock(place / "lock", "worker keeps these states"))
            if emptied(place):
                say(f"worker {shard}: the states of module {module.name} were damaged, and are made anew")
            holding = holding_at(place, module, self._source, None if link is None else link.ask)
            assert holding.store is not None
            own.callback(holding.store.close)
            if link is not None:
                own.callback(link.close)
            self._hired[module.name] = own.pop_all()
        self._places[module.name], self._files[module.name] = place, identity_of(place / "data.mdb")
        holding.attempt = self._words[module.name]
        if isinstance(holding, CellHolding) and self._arguments.careful:
            holding.tasks_max = 1
        return holding

    def _activate(self, name: str, entry: Activate) -> None:
        """Append the entry that lets a module speak, once for all shards; raise ModuleError if it can be no entry."""
        try:
            parse_steering(steering_body(entry))  # in every shard, so that all of them come to the same end
            if self._arguments.shard == 0:
                with DirectClient(self._folder.socket) as client:
                    client.steer(entry)
        except (InvalidEvent, FormatError, ValueError) as error:
            raise ModuleError(name, f"the log refuses its reducers ({error}); change what is named") from None

    def _watch(self, holdings: list[Holding]) -> None:
        if self._arguments.level == "cell":
            return  # no module's code runs here
        limit_bytes = self._arguments.memory_mb << 20
        if self._meter is None:
            limit_memory(limit_bytes + HEADROOM_BYTES)
            self._meter = Meter(limit_bytes)
        self._meter.watch(holdings, files_below(self._folder.path, self._folder.state))
