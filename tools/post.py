"""The post: brings what modules say to the log, and the ticks by which time passes for them.

A worker folds a slice, has everything that was said appended, and only then may save its position.  So whatever is
killed, and whenever, the next worker folds the same entries, says the same, and the archiver answers with the receipts
of what it has already: each message stands in the log once.

    post = Post(client, origin, vault.name)
    if post.deliver(crew):
        crew.save(source)

While the archiver does not answer, nothing is saved and nothing more is folded, so what waits is no more than one slice
of the log had to say.  Nobody loses by that: an archiver that is away appends nothing to be folded, either.

What cannot be sent is no reason to stop, and is never passed over in silence.  It is counted where operators look
(`replay.unsent`: /metrics, `treering doctor`), and told once for each kind and reducer: *conflict* (at this event the
reducer said something else before: it is no function of the log), *invalid*, *hops* (the message would be one too many
in a chain).  Two kinds need nobody's attention: *erased* (its subject is gone, as it should be), and *superseded* (a
conflict that the log explains: the key was folded again for a skip or a retry that stands above the event, and what it
said first stands).

What a message looks like: `replay.messages`.  Which ticks are due: `tools.ticker`.  The loop around: `tools.worker`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from archive import Answer, LogSource, NotFound, Refusal, Submission, Unavailable, control_body, parse_leaf
from replay import Crew, Gathered, Outgoing, Unsent, submission_of, too_far
from tools.process import say
from tools.ticker import Ticker, periods

BATCH_ENTRIES = 512
BATCH_BYTES = 4 << 20
RETRY_S = 0.2
"""How long to wait before asking an archiver again that gave no answer."""
QUIET = frozenset({"erased", "superseded"})
"""Kinds that are counted, and need nobody's attention."""


class Client(Protocol):
    """What the post asks of `archive.DirectClient`."""

    def append(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Return one answer for each submission; raise Unavailable."""


class Finding(NamedTuple):
    """A message that is not in the log, and why."""

    kind: str
    """conflict, invalid or hops; those that are `QUIET` are no findings."""
    module: str
    reducer: str
    at: int
    """Index of the event at which the reducer said it."""
    detail: str


class _Ready(NamedTuple):
    """A message with the entry that it becomes, or with what keeps it from becoming one."""

    outgoing: Outgoing
    submission: Submission | None
    kind: str = ""
    detail: str = ""
    late: bool = False
    """Whether its input waited for its identity, and was folded later than it came."""


def tell(finding: Finding) -> None:
    """Tell the operator; the line names no key."""
    say(
        f"worker: module {finding.module}: what reducer {finding.reducer} said at entry {finding.at} is not in the "
        f"log ({finding.kind}): {finding.detail}"
    )


def origin_of(source: LogSource) -> str:
    """Return the name of a log, as its first entry says it; raise NotFound if it has none yet."""
    with source.open() as log:
        return str(control_body(parse_leaf(log.leaf(0)))["origin"])


def time_of(source: LogSource) -> int:
    """Return the archive time of a log's last entry, Unix seconds; raise NotFound if it has none yet."""
    with source.open() as log:
        return parse_leaf(log.leaf(log.size - 1)).time_s


class Post:
    """Delivers for one worker.  `name_of` gives the name of a subject number, or raises NotFound if it is erased."""

    def __init__(
        self,
        client: Client,
        origin: str,
        name_of: Callable[[int], str],
        *,
        ticker: Ticker | None = None,
        told: Callable[[Finding], None] = tell,
        unsent: Unsent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Messages in the log ("sent"), and those that are not, by kind."""
        self._client, self._origin, self._name_of = client, origin, name_of
        self._ticker, self._tell = ticker, told
        self._unsent, self._clock = unsent, clock
        self._versions: dict[tuple[str, str], int] = {}
        self._told: set[tuple[str, str]] = set()
        self._done: set[tuple[object, ...]] = set()
        """Which of the outbox need no sending any more; modules may leave, and their messages with them."""
        self._away = False

    def deliver(self, crew: Crew) -> bool:
        """Append all that the crew's modules said; return whether nothing is left, so that positions may be saved.

        False: the archiver gives no answer just now.  Fold nothing more, and call again shortly.
        """
        outbox = crew.outbox
        if self._unsent is not None:
            self._unsent.save(self._clock())
        if outbox:
            self._versions |= versions_of(crew)
        try:
            for batch in self._batches(one for one in outbox if _of(one) not in self._done):
                self._send(batch, crew.steering)
        except Unavailable as error:
            self._stays(f"{len(outbox) - len(self._done):,} messages wait, and so do positions: {error}")
            return False
        if outbox:
            self._away = False
            crew.sent()
        self._done.clear()
        return True

    def tick(self, crew: Crew, now_s: float) -> float | None:
        """Append the ticks that are due; return in how many seconds the next one is (None: no need of any)."""
        wanted = periods(reducer for holding in crew.holdings for reducer in holding.reducers)
        if self._ticker is None or not wanted:
            return None
        try:
            if ticks := self._ticker.due(wanted, int(now_s)):
                _checked(self._client.append(ticks))
                self._ticker.logged()
                self._away = False
        except Unavailable as error:
            self._stays(f"ticks wait: {error}")
        return self._ticker.wait_s(wanted, now_s)

    def _batches(self, outbox: Iterable[Outgoing]) -> Iterator[list[_Ready]]:
        batch: list[_Ready] = []
        size = 0
        for outgoing in outbox:
            batch.append(ready := self._ready(outgoing))
            size += 0 if ready.submission is None else len(ready.submission.payload)
            if len(batch) == BATCH_ENTRIES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _ready(self, outgoing: Outgoing) -> _Ready:
        if too_far(outgoing):
            return _Ready(
                outgoing, None, "hops", "modules that answer each other go round; this chain ends here"
            )
        try:
            names = [self._name_of(number) for number in outgoing.subjects]
        except NotFound as error:
            return _Ready(outgoing, None, "erased", str(error))
        late = any(name.startswith("provisional:") for name in names)
        return _Ready(outgoing, submission_of(self._origin, outgoing, names), late=late)

    def _send(self, batch: Sequence[_Ready], steering: Gathered | None) -> None:
        """Append a batch; raise Unavailable if it must be sent again, all of it."""
        asked = [one.submission for one in batch if one.submission is not None]
        answers = iter(_checked(self._client.append(asked)) if asked else [])
        for one in batch:
            answer = None if one.submission is None else next(answers)
            if isinstance(answer, Refusal):
                self._note(_kind_of(answer, one, steering), one.outgoing, answer.detail)
            elif answer is None:
                self._note(one.kind, one.outgoing, one.detail)
            else:
                self.counts["sent"] += 1
        self._done.update(_of(one.outgoing) for one in batch)

    def _note(self, kind: str, outgoing: Outgoing, detail: str) -> None:
        self.counts[kind] += 1
        self._count(kind, outgoing, "" if kind in QUIET else detail)
        if kind not in QUIET and (kind, outgoing.reducer) not in self._told:
            self._told.add((kind, outgoing.reducer))
            self._tell(Finding(kind, outgoing.module, outgoing.reducer, outgoing.at, detail))

    def _count(self, kind: str, outgoing: Outgoing, detail: str) -> None:
        if self._unsent is not None:
            version = self._versions.get((outgoing.module, outgoing.reducer), 0)
            self._unsent.add(outgoing.module, outgoing.reducer, version, kind, at=outgoing.at, detail=detail)

    def _stays(self, message: str) -> None:
        """Say once, until something is answered again, that the archiver is away."""
        if not self._away:
            say(f"worker: {message}")
        self._away = True


def versions_of(crew: Crew) -> dict[tuple[str, str], int]:
    """Return the version of each reducer that speaks in a crew, by module and name."""
    return {
        (holding.module, one.name): one.version
        for holding in crew.holdings
        for one in holding.reducers
        if one.emits
    }


def _of(outgoing: Outgoing) -> tuple[object, ...]:
    """Return what a message came of: what its id is made of."""
    return outgoing.module, outgoing.reducer, outgoing.key, outgoing.at, outgoing.ordinal


def _kind_of(answer: Refusal, one: _Ready, steering: Gathered | None) -> str:
    """Return the kind of what was refused."""
    said = one.outgoing
    if answer.reason == "conflict" and steering is not None:
        return "superseded" if steering.superseded(said.reducer, said.at, late=one.late) else "conflict"
    return answer.reason


def _checked(answers: list[Answer]) -> list[Answer]:
    """Return the answers; raise Unavailable if one of them says to try again."""
    for answer in answers:
        if isinstance(answer, Refusal) and answer.reason == "unavailable":
            raise Unavailable(answer.detail)
    return answers
