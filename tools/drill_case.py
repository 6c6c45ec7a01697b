"""A case of the drill: one way to tamper with a copy of a log, and what must find it.

Each case is a function that alters a copy; its decorator says, for people, what was done, and names the checks of which
at least one must find it.  A case with no check expected is the other half of the truth: it cannot be seen, from this
copy and with these means alone, and the case next to it says what does see it.

Cases stand in `tools.drill_outsiders` and `tools.drill_insiders`; `tools.drill` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archive import LEAF_PRIVATE
from tools.drill_copy import Book, Copy

Tamper = Callable[[Copy], None]


@dataclass(frozen=True)
class Case:
    """One way to tamper, and what must find it."""

    name: str
    who: str
    """A key of WHO."""
    story: str
    tamper: Tamper
    expected: tuple[str, ...] = ()
    """The check that must find it; nothing where nothing can."""
    vault: bool = False
    """Whether verify-log is given the vault."""
    kept: bool = False
    """Whether the auditor had kept an older checkpoint."""
    since: bool = False
    """Whether the auditor goes on from an earlier check."""
    policy: bool = False
    """Whether the auditor asks for a witness's signature on what the outside is shown."""
    needs_vault: bool = False
    """Whether the forger needs the vault."""


WHO = {
    "rot": "By nobody: disks and memory fail",
    "intruder": "By somebody who can write to the disk, and has no key",
    "insider": "By somebody who holds the key that signs the log",
    "owner": "By somebody who holds every key, the vault's included",
}


def case(
    cases: list[Case],
    who: str,
    story: str,
    *expected: str,
    vault: bool = False,
    kept: bool = False,
    since: bool = False,
    policy: bool = False,
    needs_vault: bool = False,
) -> Callable[[Tamper], Tamper]:
    """Return a decorator that adds a function to the cases; its name is the case's."""

    def add(tamper: Tamper) -> Tamper:
        name = tamper.__name__.replace("_", " ")
        cases.append(
            Case(
                name,
                who,
                story,
                tamper,
                expected,
                vault,
                kept,
                since,
                policy,
                needs_vault or vault,
            )
        )
        return tamper

    return add


def private(book: Book, near: int) -> int:
    """Return the index of a private entry at or after `near`, or before it."""
    order = [*range(near, len(book.leaves)), *range(near - 1, -1, -1)]
    return int(next(index for index in order if book.leaves[index][1] == LEAF_PRIVATE))


def middle(copy: Copy) -> int:
    """Return the index of a private entry in the middle of the log."""
    book = copy.book()
    return private(book, len(book.leaves) // 2)


def last(copy: Copy) -> int:
    """Return the index of the last private entry."""
    book = copy.book()
    return private(book, len(book.leaves) - 1)


def flipped(value: bytes, at: int) -> bytes:
    """Return bytes with one bit changed."""
    return value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]


def flip(copy: Copy, table: str, key: bytes, at: int) -> None:
    """Change one bit of a stored value."""
    copy.tables[table][key] = flipped(copy.tables[table][key], at)
