"""Where a reducer raised: file, line and function, for its author, who sees it on standard error and nowhere else.

    $ treering replay --reducer words --key student=ann
    treering replay: entry 52: raised in essay/words.py:17, words

What a state keeps of an exception is its name and text: it is digested, and must be the same whatever moved a line.  So
the place is told while the exception is there, by whoever folds a key for a person: `tools.replay_hands`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from reducers import Reducer, Word, tell_errors
from replay import index_of
from tools.process import say


def raised_at(error: BaseException, package: str) -> str:
    """Return the innermost place in a package at which an exception was raised, or nothing if it was elsewhere."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f"{Path(frame.f_code.co_filename)}:{line}, {frame.f_code.co_name}"
    return place


def tell(reducer: Reducer[object], word: Word) -> None:
    """Say from now on, in this process, where a reducer raises; `word` tells the entry that is folded."""
    package = reducer.function.__module__.partition(".")[0]
    tell_errors(_sayer(package, word))


def _sayer(package: str, word: Word) -> Callable[[Exception], None]:
    def told(error: Exception) -> None:
        if place := raised_at(error, package):
            say(f"treering replay: entry {index_of(word[0])}: raised in {place}")

    return told
