"""The text of a document, rebuilt from the editing commands that LO's extension records.

A `google_docs_save` event carries bundles of commands: `is` inserts the string `s` before the 1-based
index `ibi`, `ds` deletes from `si` to `ei` inclusive, `mlti` holds further commands in `mts`.  Indices
count UTF-16 code units, since Google Docs is JavaScript: an emoji is two.  As long as a text has no such
character, Python's own indices are the same, and an edit is two slices; else the edit is made on UTF-16
bytes.  An edit can cut an emoji in half; each half left alone becomes U+FFFD, one unit for one, so every
later index still means the same place (docs/adr/0005-text-indices.md).

>>> from archive import Event
>>> def save(*commands: object) -> Event:
...     data = {"bundles": [{"commands": commands}]}
...     keys = {"student": "ann", "doc_id": "essay"}
...     return Event(index=0, type=TYPE, source="s", keys=keys, data=data, received_ms=0, time_ms=0)
>>> state = reconstruct.apply(reconstruct.initial(), save({"ty": "is", "s": "Hi 🙂 all", "ibi": 1}))
>>> state = reconstruct.apply(state, save({"ty": "ds", "si": 4, "ei": 6}, {"ty": "is", "s": "!", "ibi": 7}))
>>> reconstruct.view(state)
{'text': 'Hi all!', 'unknown': 0, 'malformed': 0}

The beginning of a document may be missing from the log.  An insertion past the end therefore pads with
U+0000, which readers are not shown; a deletion past the end is clipped.  Commands come from clients, so
nothing in them is fatal: what is not understood is counted.  How long the writing took:
`reducers.time_on_task`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from archive import Event
from reducers.definition import reducer

TYPE = "google_docs_save"
DEPTH_MAX = 100
POSITION_MAX = 2_000_000  # twice the longest Google document; bounds the padding a small command asks for
PADDING = "\0"

_NOT_ONE_UNIT = re.compile(r"[\ud800-\udfff\U00010000-\U0010ffff]")


class Document(msgspec.Struct, frozen=True):
    """A document's text, padding included, and what could not be used."""

    text: str = ""
    wide: bool = False
    """Whether `text` has characters of two UTF-16 units."""
    unknown: int = 0
    """Commands of a type that does not change the text, or that we do not know."""
    malformed: int = 0
    """Commands, bundles and payloads that are not of the form expected."""


def view(state: Document) -> dict[str, Any]:
    """Return the text without padding, and the two counts."""
    text = state.text.replace(PADDING, "")
    return {"text": text, "unknown": state.unknown, "malformed": state.malformed}


@reducer(scope=("student", "doc_id"), version=1, view=view)
def reconstruct(state: Document, event: Event) -> Document:
    """Carry out the commands of a google_docs_save event; leave the text as it is at any other."""
    if event.type != TYPE:
        return state
    draft = _Draft(state)
    draft.run_bundles(event.data)
    after = Document(draft.text, draft.wide, draft.unknown, draft.malformed)
    return state if after == state else after


def splice(text: str, wide: bool, start: int, end: int, insert: str) -> tuple[str, bool]:
    """Return `text` with the UTF-16 units from `start` up to `end` (0-based) replaced by `insert`, and
    whether it is wide.

    Where `insert` begins past the end, the gap is padded.  `text` has no lone halves, and neither has the
    result.
    """
    if not wide and _is_plain(insert):
        if insert and start > len(text):
            text += PADDING * (start - len(text))
        return text[:start] + insert + text[end:], False
    units = text.encode("utf-16-le")
    if insert and 2 * start > len(units):
        units += b"\0" * (2 * start - len(units))
    units = units[: 2 * start] + insert.encode("utf-16-le", "surrogatepass") + units[2 * end :]
    text = units.decode("utf-16-le", "replace")  # one U+FFFD for each lone half: the length in units is kept
    return text, 2 * len(text) != len(units)


def _is_plain(text: str) -> bool:
    """Whether each code point is one UTF-16 unit, and none is a lone half."""
    return text.isascii() or _NOT_ONE_UNIT.search(text) is None


def _is_position(value: Any) -> bool:
    return type(value) is int and value >= 1  # a bool is an int to isinstance


class _Draft:
    """A document while one event is carried out; never seen outside of it."""

    __slots__ = ("malformed", "text", "unknown", "wide")

    def __init__(self, state: Document) -> None:
        self.text = state.text
        self.wide = state.wide
        self.unknown = state.unknown
        self.malformed = state.malformed

    def run_bundles(self, data: Any) -> None:
        bundles = data.get("bundles") if isinstance(data, dict) else None
        if not isinstance(bundles, list | tuple):
            self.malformed += 1
            return
        for bundle in bundles:
            self.run_all(bundle.get("commands") if isinstance(bundle, dict) else None, 0)

    def run_all(self, commands: Any, depth: int) -> None:
        if not isinstance(commands, list | tuple) or depth > DEPTH_MAX:
            self.malformed += 1
            return
        for command in commands:
            self.run(command, depth)

    def run(self, command: Any, depth: int) -> None:
        kind = command.get("ty") if isinstance(command, dict) else None
        if not isinstance(kind, str):
            self.malformed += 1
        elif kind == "is":
            self.insert(command.get("s"), command.get("ibi"))
        elif kind == "ds":
            self.delete(command.get("si"), command.get("ei"))
        elif kind == "mlti":
            self.run_all(command.get("mts"), depth + 1)
        else:
            self.unknown += 1

    def insert(self, s: Any, ibi: Any) -> None:
        if isinstance(s, str) and _is_position(ibi) and ibi <= POSITION_MAX:
            self.text, self.wide = splice(self.text, self.wide, ibi - 1, ibi - 1, s)
        else:
            self.malformed += 1

    def delete(self, si: Any, ei: Any) -> None:
        if _is_position(si) and _is_position(ei) and si <= ei:
            self.text, self.wide = splice(self.text, self.wide, si - 1, ei, "")
        else:
            self.malformed += 1
