"""The runner: take the next slice of the log, fold it, and keep states and position together.

A live worker calls `step` for ever; a replay calls it up to a size.  There is no second code path, which is
why what a replay gives is what the dashboard showed, or one of the two is broken.

    load    copy the rows of a slice out of the database, and end the view        replay.feed
    fold    module after module, apply the reducers (pure)                        replay.holding
    save    write changed states and the position in one commit, for each module

Modules that stand at one position are run together, so that an entry is opened once.  A module that cannot go on is let
go: it is in `stopped`, and the others do not notice.

**Rotten rows.**  Where a row cannot be read, the fold cannot honestly go on.  So whoever needs it stops there, whole,
and its position with it; the others do not notice.  A skip of that entry lets a reducer go on without it, as a skip of
any other does.  What a skipped rotten entry had gone into, nobody knows any more: all keys are folded again.

**Folding again.**  A skip or a retry in the log names an event.  What it changes is folded again, from the beginning
and without what is to be skipped: the key that stands still there, or whose event it is, by a runner of its own that
reads nothing else; where only the whole tells whose it is (a tick, a late identity), all keys of the reducer.  It emits
nothing, and the result replaces the state.  `Holding.steered` says up to where this is done.

**Rebuilding.**  States that begin from nothing have to see what the log held at that moment before they are an
answer; until then every save says so (`replay.layout.Marker.rebuilt_to`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from archive import LogSource, Vault
from reducers import Key, Reducer, StateError, StatePair
from replay.feed import Bound, Feed, Rotten
from replay.folded import Outgoing, Stopped
from replay.holding import Holding
from replay.portion import Item
from replay.routing import Only, Routing, counted_fields
from replay.steering import Change, Gathered


class Runner:
    """Holdings of one shard that stand at one position, and the feed they share."""

    def __init__(
        self,
        holdings: Sequence[Holding],
        vault: Vault,
        *,
        shard: int = 0,
        shards: int = 1,
        only: Only | None = None,
        steering: Gathered | None = None,
    ) -> None:
        assert len({holding.position for holding in holdings}) == 1, (
            "these modules stand at different positions"
        )
        self.holdings = list(holdings)
        self.stopped: dict[str, Stopped] = {}
        """Modules that were let go, and why."""
        self.steering = Gathered() if steering is None else steering
        self._vault, self._shard, self._shards, self._only = vault, shard, shards, only
        self._routing = self._routed()
        first = holdings[0]
        self._feed = Feed(vault, self._routing, first.position, first.backlog)
        self._saved = first.position
        self._steer()

    @property
    def position(self) -> int:
        """How much of the log the states have seen."""
        return self._feed.position

    @property
    def erased(self) -> int:
        """How many entries could not be read because their subject was erased."""
        return self._feed.erased

    @property
    def backlog(self) -> dict[int, list[int]]:
        """Indices that wait until somebody says whose they are, by provisional subject."""
        return self._feed.backlog

    @property
    def unsaved(self) -> bool:
        """Whether the position moved since the last save."""
        return self.position != self._saved

    @property
    def outbox(self) -> list[Outgoing]:
        """Messages that must be in the log before the position may be saved."""
        return [message for holding in self.holdings for message in holding.outbox]

    def sent(self) -> None:
        """Take note that all messages of the outbox are in the log."""
        for holding in self.holdings:
            holding.outbox.clear()

    def step(self, source: LogSource, until: int | None = None, *, ahead: bool = False) -> int:
        """Take the next slice of the log (up to `until`, if given) and return how many entries it had.

        What steers the fold is read up to `until`, or with `ahead` up to the head: a worker must learn that the event
        it cannot get over is to be skipped.  0 means caught up, or that no module is left.  Raises IntegrityError where
        an entry is missing; after that, or any other error, this runner is of no more use.
        """
        # The view ends before the folding begins: an open one pins pages for as long as reducers take.
        with source.open() as log:
            fresh = self.steering.extend(log, None if ahead else until)
            work, end = self._feed.load(log, until)
        if fresh:
            self._steer()
        self._fold_again(source)
        for portion in self._feed.portions(work, source):
            for holding in self.holdings:
                if holding.stopped is not None:
                    continue
                if isinstance(portion, Rotten):
                    self._stop_at(portion, holding)
                else:
                    holding.fold(portion, self._routing)
        self._count()
        taken, self._feed.position = end - self.position, end
        self._let_go()
        return taken if self.holdings else 0

    def save(self, source: LogSource) -> None:
        """Write what changed since the last save, and the position, in one commit for each module.

        A module with a state that cannot be encoded is let go.
        """
        if not self.unsaved:
            return
        assert not self.outbox, "a message could be lost: send the outbox first"
        with source.open() as log:
            root = log.root(self.position)
        backlog = self._feed.waiting()
        for holding in self.holdings:
            try:
                holding.save(self.position, root, backlog)
            except StateError:
                assert holding.stopped is not None
        self._feed.kept()
        self._saved = self.position
        self._let_go()

    def join(self, other: Runner) -> None:
        """Take over the modules of another runner that stands at the same position; both must be saved."""
        assert other.position == self.position, "these runners stand at different positions"
        assert not self.unsaved, "save first: what the store holds of a backlog must be the same for all"
        assert not other.unsaved, "save first: what the store holds of a backlog must be the same for all"
        # Whoever knows more of the steering goes on with it, so that nothing is folded by a rule that is over.
        self.steering = max(self.steering, other.steering, key=lambda one: one.size)
        self.holdings += other.holdings
        self._routing = self._feed.routing = self._routed()
        self._steer()

    def pairs(self) -> Iterator[StatePair]:
        """Yield every state with what its digest commits to."""
        for holding in self.holdings:
            yield from holding.pairs()

    # --- steering --------------------------------------------------------------------------------

    def _steer(self) -> None:
        for holding in self.holdings:
            holding.steer(self.steering)

    def _fold_again(self, source: LogSource) -> None:
        """Fold those keys again whose states a skip or a retry changes that they have not seen yet."""
        for holding in self.holdings:
            for change in self.steering.changes(holding.steered):
                reducer = next((one for one in holding.reducers if one.name == change.reducer), None)
                if reducer is not None and change.event < self.position and holding.stopped is None:
                    try:
                        self._apply(holding, reducer, change, source)
                    except StateError as error:  # what it has stored is its own business, too
                        holding.unreadable(error)
            holding.steered = max(holding.steered, self.steering.size)

    def _apply(self, holding: Holding, reducer: Reducer[Any], change: Change, source: LogSource) -> None:
        keys: list[Key] | None = holding.quarantined_at(reducer, change.event)
        if change.skip and (not keys or reducer.ticks is not None):
            keys = self._folded(holding, reducer, change.event, source)
        if keys is None or len(keys) > 1:  # one pass for all of them
            self._anew(holding, reducer, None, source)
        elif keys:
            self._anew(holding, reducer, Only(reducer, keys[0]), source)

    def _stop_at(self, rotten: Rotten, holding: Holding) -> None:
        """Stop a module that needs an entry which cannot be read."""
        for reducer in holding.reducers:
            if reducer in rotten.reducers and rotten.at not in self.steering.skipped(reducer.name):
                reason = f"Rotten: {rotten.reason}; see docs/recovery.md, Rotten bytes"
                holding.stopped = Stopped(reducer.name, rotten.at, reason, "rotten", ours=True)
                return

    def _folded(
        self, holding: Holding, reducer: Reducer[Any], index: int, source: LogSource
    ) -> list[Key] | None:
        """Return whose state entry `index` went into.

        None: anybody's (a tick, a binding), only a binding can tell, or nobody can.
        """
        if any(index in waiting for waiting in self.backlog.values()):
            return []
        feed = Feed(self._vault, self._routing, index)
        with source.open() as log:
            work, _ = feed.load(log, index + 1)
        if any(isinstance(one, Bound) for one in work):
            return None
        items: list[Item] = []
        for portion in feed.portions(work, source):
            if isinstance(portion, Rotten):
                return None if reducer in portion.reducers else []
            items += portion
        if feed.backlog or any(item.tick for item in items):
            return None
        keys = holding.keys_of(reducer, items)
        return [key for key in keys if key is not None and holding.get(reducer, key) is not None]

    def _anew(self, holding: Holding, reducer: Reducer[Any], only: Only | None, source: LogSource) -> None:
        """Fold one key from the beginning, or all that are here, and put in what comes of it."""
        alone = holding.apart(reducer)
        runner = Runner(
            [alone],
            self._vault,
            shard=self._shard,
            shards=self._shards,
            only=self._only if only is None else only,
            steering=self.steering,
        )
        run_to(runner, source, self.position)
        if alone.stopped is not None:
            holding.stopped = alone.stopped
            return
        holding.outbox += alone.outbox
        for key in holding.keys(reducer) if only is None else [only.key]:  # a skip makes no new ones
            holding.put(reducer, key, alone.get(reducer, key))

    def _count(self) -> None:
        """Tell the modules which events there were, so that they count what lacks a field of theirs."""
        tally: Counter[frozenset[bytes]] = Counter()
        for outlined, times in self._feed.tally.items():
            if self._only is None and (codes := counted_fields(outlined, self._shard)) is not None:
                tally[codes] += times
        for holding in self.holdings:
            holding.count(tally)
        self._feed.tally.clear()

    # --- holdings --------------------------------------------------------------------------------

    def _routed(self) -> Routing:
        reducers: list[Reducer[Any]] = [one for holding in self.holdings for one in holding.reducers]
        return Routing(reducers, self._vault.route_key, self._shard, self._shards, self._only)

    def _let_go(self) -> None:
        gone = [holding for holding in self.holdings if holding.stopped is not None]
        if gone:
            self.stopped |= {
                holding.module: holding.stopped for holding in gone if holding.stopped is not None
            }
            self.holdings = [holding for holding in self.holdings if holding.stopped is None]
            self._routing = self._feed.routing = self._routed()


def run_to(runner: Runner, source: LogSource, size: int) -> None:
    """Let a runner fold the log up to `size`, or as far as it goes."""
    while runner.position < size and runner.step(source, size):
        pass


def replay_key(
    source: LogSource, vault: Vault, reducer: Reducer[Any], key: Key, size: int, module: str = ""
) -> Holding:
    """Return the holding of one key alone, folded up to `size`: quicker than a whole replay, the same result."""
    holding = Holding([reducer], module=module)
    run_to(Runner([holding], vault, only=Only(reducer, key)), source, size)
    return holding
