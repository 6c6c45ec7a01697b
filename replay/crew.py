"""A crew: all modules that one worker process runs, each at its own position.

Modules that stand at one position share a runner; who is behind catches up in steps that end where the next one
stands, and joins it there.  So a module that was added, upgraded or away for a while delays no other for longer than a
slice, and from then on every entry is opened once for all.

    crew = Crew(holdings, vault, shard=0, shards=2)
    while crew.step(source): ...
    crew.save(source)

What one step does is the business of `replay.runner`; the loop around it, of `tools.worker`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from archive import LogSource, Vault
from replay.attesting import is_attested, next_attested
from replay.folded import Outgoing, Stopped
from replay.holding import Holding
from replay.runner import Runner
from replay.steering import Gathered


class Crew:
    """The runners of one worker, the one that is furthest behind first."""

    def __init__(self, holdings: Iterable[Holding], vault: Vault, *, shard: int = 0, shards: int = 1) -> None:
        ordered = sorted(holdings, key=lambda holding: holding.position)
        self.runners = [
            Runner(list(group), vault, shard=shard, shards=shards)
            for _, group in groupby(ordered, key=lambda holding: holding.position)
        ]
        self.stopped: dict[str, Stopped] = {}
        """Modules that cannot go on, and why."""

    @property
    def holdings(self) -> list[Holding]:
        """Return the modules that are running."""
        return [holding for runner in self.runners for holding in runner.holdings]

    @property
    def steering(self) -> Gathered | None:
        """Return what steers the log, as far as the runner that is ahead has read it."""
        return self.runners[-1].steering if self.runners else None

    @property
    def unsaved(self) -> bool:
        """Whether a position moved since the last save."""
        return any(runner.unsaved for runner in self.runners)

    @property
    def to_attest(self) -> bool:
        """Whether somebody has come to a size at which states are attested, and is not saved there yet."""
        return any(runner.unsaved and is_attested(runner.position) for runner in self.runners)

    @property
    def outbox(self) -> list[Outgoing]:
        """Messages that must be in the log before the positions may be saved."""
        return [message for runner in self.runners for message in runner.outbox]

    def sent(self) -> None:
        """Take note that all messages of the outbox are in the log."""
        for runner in self.runners:
            runner.sent()

    def step(self, source: LogSource) -> int:
        """Let everybody take one slice, up to where the next one stands, and return how many entries that were.

        No slice goes beyond a size at which states are attested.  0 means that all have caught up.
        """
        taken = 0
        if not self.runners:
            return taken
        # Who is ahead goes first: who is within a slice of it meets it now, however fast the log grows.
        for runner, ahead in reversed([*zip(self.runners, [*self.runners[1:], None], strict=True)]):
            until = next_attested(runner.position)
            stop = until if ahead is None else min(until, ahead.position)
            taken += runner.step(source, stop, ahead=True)
        self._let_go()
        return taken

    def save(self, source: LogSource) -> None:
        """Save every module, and join those that have met."""
        for runner in self.runners:
            runner.save(source)
        self._let_go()
        met: list[Runner] = []
        for runner in self.runners:
            if met and met[-1].position == runner.position:
                met[-1].join(runner)
            else:
                met.append(runner)
        self.runners = met

    def _let_go(self) -> None:
        for runner in self.runners:
            self.stopped |= runner.stopped
            runner.stopped = {}
        self.runners = [runner for runner in self.runners if runner.holdings]
