"""As what an entry was filed, and about whom besides: what its header promises of the open part of its row.

A leaf commits to the header and the payload, and to nothing that stands openly in the row.  So whoever holds every key
could file a record anew: an event as refused, which no reducer reads, or without the second person whom it is about.
That the check notices it, a header says in `extra` where its entry is not an event about one subject:

    kind     "frame", "refused" or "binding"
    also     names of the further subjects, in the row's order

Nearly all entries are events about one subject; they are not a byte longer for it.  But an old entry's header says
nothing, either, whatever it is.  What a missing member means is therefore said before: a start entry with `"header":2`
tells that from it on every header that has something to say does say it.

>>> one = Submission(ROW_REFUSED, "refused:1", b"{", 5, "", "", "json", {}, {"reason": "torn"})
>>> told(one).extra
{'reason': 'torn', 'kind': 'refused'}
>>> list(misfiled(ROW_EVENT, [], told(one).extra))
[('kind', 'its row files it as an event, but it was received as refused')]
>>> [header_version(body) for body in ({"control": "start", "header": 2}, {"control": "start"}, {"control": "skip"})]
[2, 1, None]

Who writes headers: `archive.drafting`; who judges rows by them: `archive.openings` and, across stretches,
`archive.fsck`.  Byte by byte: docs/formats/entry.md.  Why: docs/adr/0072-kinds-are-promised.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from archive.entry import ROW_BINDING, ROW_EVENT, ROW_FRAME, ROW_REFUSED
from archive.wire import Submission

PROMISED: Final = 2
"""From this header version on a member that is not there says something, too."""
HEADER_VERSION: Final = PROMISED
"""Of the headers that this archiver writes."""
MEMBERS: Final = frozenset({"kind", "also"})
OWN: Final = MEMBERS | {"id"}
"""Members of `extra` that the archiver alone says; a submission that brings one along is refused."""

_NAMES: Final = {ROW_EVENT: "event", ROW_FRAME: "frame", ROW_REFUSED: "refused", ROW_BINDING: "binding"}
_WORDS: Final = {"event": "an event", "frame": "a protocol frame", "binding": "a binding"}


def told(one: Submission) -> Submission:
    """Return a submission in whose `extra` stands as what it is filed, and about whom besides."""
    kind = {} if one.kind == ROW_EVENT else {"kind": _NAMES[one.kind]}
    also = {"also": one.also} if one.also else {}
    return replace(one, extra={**one.extra, **kind, **also})


def misfiled(kind: int, also: Sequence[str], extra: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (member, what differs) where a row of this kind, about these further subjects, is not what `extra` says.

    A member that is not there is taken for "an event", "nobody else".  In entries of header version 1 that proves
    nothing, so it is for the caller to decide.
    """
    if (said := extra.get("kind", "event")) != _NAMES[kind]:
        yield "kind", f"its row files it as {_words(_NAMES[kind])}, but it was received as {_words(said)}"
    if extra.get("also", []) != also:
        yield "also", "the further subjects of its row are not those whom its header names"


def header_version(body: Mapping[str, Any]) -> int | None:
    """Return the version of the headers that follow a start entry; None for any other control entry."""
    if body.get("control") != "start":
        return None
    version = body.get("header")
    return version if isinstance(version, int) and version > 0 else 1


def header_version_at(versions: Sequence[tuple[int, int]], index: int) -> int | None:
    """Return the version of an entry's header, given (index, version) of start entries in order; None if all are later.

    >>> [header_version_at([(1, 1), (7, 2)], index) for index in (0, 2, 8)]
    [None, 1, 2]
    """
    before = bisect_right(versions, (index,))
    return versions[before - 1][1] if before else None


def _words(name: object) -> str:
    return _WORDS.get(str(name), str(name)[:40])
