"""What is said of an error that an author's code raised, though the error itself is the author's code, too.

Its text may be computed by a method that raises, its name by another one; whoever asks for them naively is stopped by
what it wanted to report.

>>> reason_of(KeyError("ann")), name_of_error(KeyError("ann"))
("KeyError: 'ann'", 'KeyError')

Who may be told which of both: `replay.folded`.
"""

from __future__ import annotations

REASON_LENGTH_MAX, NAME_LENGTH_MAX = 200, 64


def reason_of(error: BaseException) -> str:
    """Return what is said of an error, its name and its text, of bounded length; this raises nothing."""
    try:
        text = f"{name_of_error(error)}: {error}"[:REASON_LENGTH_MAX]
    except BaseException:  # noqa: BLE001 - it is the author's: it may raise anything when it is asked for its text
        text = f"{name_of_error(error)}: (its text cannot be read)"
    return text.encode("utf-8", "replace").decode()  # half a character could not be sent


def name_of_error(error: BaseException) -> str:
    """Return the name of an error's class, or "Error" where that is none; this raises nothing."""
    try:
        name = str(type(error).__name__)[:NAME_LENGTH_MAX]
        return name if name.isidentifier() else "Error"
    except BaseException:  # noqa: BLE001 - even the name may be computed by the author's code
        return "Error"
