"""What a replay is held against: the live states, and every attestation of a state in the log.

    check = Check(plan, taken, route_key)
    team.sweep(check, advance)             # it is called at each stop
    check.outcome                          # 0 equal, 1 something differs, 2 not all could be compared

Attestations are judged by `replay.judged`, live states by `replay.compare_live`, both at the sizes at which they stand,
in the one pass that the replay makes anyway.  What cannot be compared is said, and never passed over as equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from archive import Attest, LogSource
from reducers import Identity, digest_of_entries
from replay import Difference, Entries, Judged, Live, Stop, Stopped, compare_live, judged
from tools.console import number
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE
from tools.replay_live import Taken
from tools.replay_plan import Plan

SHOWN = 20
COMPARED = frozenset({"equal", "different"})
"""Verdicts on an attestation that was compared; of others nobody can tell."""


class Check:
    """Looks at a replay at each of its stops; without `taken`, only to say what it came to."""

    def __init__(self, plan: Plan, taken: Taken | None, route_key: bytes, *, attestations: bool) -> None:
        self.plan, self.taken = plan, taken
        self.states = 0
        self.digest = digest_of_entries({}).hex()
        self.held: set[str] = set()
        """Reducers of which something was held against the replay: live states, or an attestation."""
        self.counted: list[str] = []
        """Reducers whose states are counted: of a check only those of which something was compared."""
        self.compared: Counter[str] = Counter()
        """How many live states were compared, by module."""
        self.differences: list[Difference] = []
        self.judged: list[Judged] = []
        self.stopped: dict[str, Stopped] = {}
        self.incomplete: list[str] = []
        """What should have been compared and could not be."""
        self.notes: list[str] = []
        self._asked = attestations
        self._route_key = route_key
        self._attested: dict[int, list[tuple[int, Attest]]] = {}
        for at, one in plan.attestations if attestations else ():
            self._attested.setdefault(one.size, []).append((at, one))
        self._made_otherwise: set[str] = set()
        """Reducers whose live states were made by other code of the same version."""
        self._lives: dict[int, list[Live]] = {}
        for live in taken.lives if taken is not None else ():
            self._lives.setdefault(live.position, []).append(live)
        self._prepare()

    @property
    def stops(self) -> list[int]:
        """Sizes at which it has to look."""
        return sorted({*self._attested, *self._lives})

    @property
    def outcome(self) -> int:
        """Return the exit code."""
        if self.differences or any(one.verdict == "different" for one in self.judged):
            return EXIT_FINDING
        return EXIT_USAGE if self.incomplete or (self._asked and self.nothing) else EXIT_GOOD

    @property
    def nothing(self) -> bool:
        """Whether nothing was held against the replay: then it is not equal to anything."""
        return not self.compared and all(one.verdict not in COMPARED for one in self.judged)

    def __call__(self, stop: Stop, entries: Mapping[str, Entries]) -> None:
        """Look at what the replay holds at one stop."""
        self.stopped |= stop.stopped
        gone = {
            one.name for module in self.plan.modules if module.name in stop.stopped for one in module.reducers
        }
        for at, one in self._attested.get(stop.size, ()):
            if one.reducer not in gone:
                digests = _digests(entries, [one.reducer])
                found = judged(self.plan.steering, at, one, digests, erased=stop.erased)
                self.judged.append(found)
                self.held |= {one.reducer} if found.verdict in COMPARED else set()
        lives = sorted(self._lives.get(stop.size, ()), key=lambda live: live.catalogue.module)
        for module, group in groupby(lives, key=lambda live: live.catalogue.module):
            if module not in stop.stopped:
                self._compare(module, list(group), entries)
        if stop.size == self.plan.size:
            self._conclude(entries, gone)

    def _compare(self, module: str, lives: Sequence[Live], entries: Mapping[str, Entries]) -> None:
        names = self._comparable(lives[0])
        self.held |= names
        self.differences += compare_live(lives, entries, self._route_key, names, self._made_otherwise)
        self.compared[module] += sum(identity[0] in names for live in lives for identity in live.entries)

    def _conclude(self, entries: Mapping[str, Entries], gone: set[str]) -> None:
        # What nothing was held against is equal to nothing, and is not counted among what is.
        chosen = self.held if self._asked and not self.nothing else set(self.plan.names)
        self.counted = [name for name in self.plan.names if name in chosen]
        digests = _digests(entries, [name for name in self.counted if name not in gone])
        self.states, self.digest = len(digests), digest_of_entries(digests).hex()
        for module, why in sorted(self.stopped.items()):
            said = f"module {module}: reducer {why.reducer} stopped at entry {why.at}: {why.reason}"
            self.incomplete.append(f"{said}; skip the event, or give the reducer more room")

    # --- what can be compared --------------------------------------------------------------------

    def _prepare(self) -> None:
        """Say beforehand what cannot be compared, and leave it out."""
        if self._asked:
            self._note_unjudged()
        if self.taken is None:
            return
        self.incomplete += [f"module {name}: {why}" for name, why in sorted(self.taken.missing.items())]
        for lives in self._lives.values():
            for live in list(lives):
                if (fault := unsettled(self.plan, live)) is not None:
                    self.incomplete.append(f"module {live.catalogue.module}, shard {live.shard}: {fault}")
                    lives.remove(live)
        for live in {
            live.catalogue.module: live for lives in self._lives.values() for live in lives
        }.values():
            self._note_versions(live)

    def _comparable(self, live: Live) -> set[str]:
        """Return the reducers whose installed version is that of the live states."""
        installed = {(one.name, one.version) for one in self.plan.registry}
        return {info.name for info in live.catalogue.reducers if (info.name, info.version) in installed}

    def _note_versions(self, live: Live) -> None:
        installed = {one.name: one for one in self.plan.registry}
        for info in live.catalogue.reducers:
            one = installed.get(info.name)
            if one is None:
                self._note_lacking(live.catalogue.module, info.name)
            elif one.version != info.version:
                self.incomplete.append(
                    f"reducer {info.name}: version {one.version} is installed, the live states are of version "
                    f"{info.version}; see treering upgrade --diff"
                )
            elif one.code_digest != info.code_digest:
                self._made_otherwise.add(info.name)
                self.notes.append(
                    f"reducer {info.name}: the live states were made by other code of the same version "
                    f"({info.code_digest[:12]}…, installed is {one.code_digest[:12]}…)"
                )

    def _note_lacking(self, module: str, reducer: str) -> None:
        """Say of a reducer that has live states, and that its module as installed lacks; not of one not asked for."""
        if self.plan.only_reducers:
            return
        count = sum(
            identity[0] == reducer
            for lives in self._lives.values()
            for live in lives
            if live.catalogue.module == module
            for identity in live.entries
        )
        self.incomplete.append(
            f"reducer {reducer}: it has {number(count)} live states, and module {module} as installed has no such "
            "reducer; install the module that made them, or start the server with this one (treering upgrade says more)"
        )

    def _note_unjudged(self) -> None:
        """Say of which reducers nobody can judge what is attested, since no module that is installed has them."""
        active: dict[str, list[str]] = {}
        old = 0
        for name, count in sorted(self.plan.unjudged.items()):
            if (module := self.plan.steering.holder(name)) is None:
                old += count
            else:
                active.setdefault(module, []).append(f"{number(count)} of {name}")
        self.incomplete += [
            f"module {module}: it is active, and not installed as it is; these attestations were not judged: "
            f"{', '.join(found)}; install it, or name the others with --module"
            for module, found in sorted(active.items())
        ]
        if old:
            self.notes.append(f"{number(old)} attestations are of reducers that no module has any more")


def unsettled(plan: Plan, live: Live) -> str | None:
    """Return why live states cannot be held against a replay that stops where they stand, if they cannot."""
    names = {info.name for info in live.catalogue.reducers}
    if live.position > plan.size:
        return f"its states stand at size {number(live.position)}, the replay ends at {number(plan.size)}"
    for change in plan.steering.changes(live.position):
        if change.at < live.steered and change.reducer in names:
            return (
                f"its states stand at size {number(live.position)}, and entry {change.at}, which was read ahead, "
                "is in them; let it go on first"
            )
    return None


def stands_on(source: LogSource, lives: Sequence[Live]) -> list[str]:
    """Return what is wrong with the roots that live states name: they must be those of this log."""
    with source.open() as log:
        strange = [
            live for live in lives if live.position <= log.size and log.root(live.position) != live.root
        ]
    return [
        f"module {live.catalogue.module}, shard {live.shard}: its states are of another log: "
        f"at size {number(live.position)} that had the root {live.root.hex()}"
        for live in strange
    ]


def report(check: Check) -> dict[str, Any]:
    """Return what came of it as JSON."""
    verdicts = Counter(one.verdict for one in check.judged)
    plan, compared = check.plan, check.taken is not None
    outcome = check.outcome == EXIT_GOOD
    return {
        "size": plan.size,
        "root": plan.root.hex(),
        "shards": plan.shards,
        "jobs": plan.jobs,
        "states": check.states,
        "state_digest": check.digest,
        "equal": None if check.nothing and not check.incomplete else outcome,
        "compared": dict(check.compared) if compared else None,
        "differences": [one._asdict() for one in check.differences],
        "attestations": {
            **{name: verdicts.get(name, 0) for name in ("equal", "superseded", "erased", "different")},
            "other_code": plan.other_attestations,
            "not_judged": plan.unjudged,
            "not_equal": [_judged_json(one) for one in check.judged if one.verdict != "equal"],
        },
        "left_out": [{"module": error.name, "reason": error.reason} for error in plan.left_out],
        "incomplete": check.incomplete,
        "notes": check.notes,
    }


def show(check: Check) -> list[str]:
    """Return what came of it as lines for people, without the verdict."""
    lines = [
        f"{one.name} {'/'.join(one.key)}: {one.what} in the live states" for one in check.differences[:SHOWN]
    ]
    if len(check.differences) > SHOWN:
        lines.append(f"… and {number(len(check.differences) - SHOWN)} more; --json lists all")
    for one in check.judged:
        if one.verdict == "equal":
            continue
        what = f"superseded by entry {one.by}" if one.verdict == "superseded" else one.verdict.upper()
        said = f"entry {one.at}: {number(one.attested.states)} states of {one.attested.reducer}"
        lines.append(f"{said} at size {number(one.attested.size)}: {what}")
    equal = sum(one.verdict == "equal" for one in check.judged)
    if check.judged:
        lines.append(f"attestations: {number(equal)} of {number(len(check.judged))} equal")
    if check.plan.other_attestations:
        lines.append(
            f"note: {number(check.plan.other_attestations)} attestations are of other versions or code"
        )
    lines += [f"note: {note}" for note in check.notes]
    return [*lines, *(f"NOT COMPARED: {one}" for one in check.incomplete)]


def _judged_json(one: Judged) -> dict[str, Any]:
    return {
        "entry": one.at,
        "reducer": one.attested.reducer,
        "size": one.attested.size,
        "verdict": one.verdict,
        "by": one.by,
        "attested": one.attested.digest,
        "replayed": one.found.digest,
    }


def _digests(entries: Mapping[str, Entries], names: Sequence[str]) -> dict[Identity, bytes]:
    return {identity: entry.digest for name in names for identity, entry in entries.get(name, {}).items()}
