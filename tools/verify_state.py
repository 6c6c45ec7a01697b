"""treering verify-state: is the state that a server answered what the log says?

    $ curl -s 'http://127.0.0.1:8400/v1/states/event_count?student=ada' | treering verify-state - --data data
    verified: event_count at size 25,537: state, digest, root and code agree
    $ treering verify-state answer.json --data data --json

The answer is what GET /v1/states/REDUCER gave for one key, now or with at_size.  Its key is folded again, alone, up to
its position, from the log in the data folder (or a copy of it, with the vault; no server need run).  What must agree:
the root at the size of its checkpoint, which must cover the position, the state and whether it stands still, the state
digest, the version and the code digest.

An answer of another version, or of other code, than is installed can be checked no further than that its root is that
of this log: it is said what to install.

A server may have known a skip that stands behind the position of its answer.  If that is what makes the difference, it
is said, and the answer holds.

Exit codes: 0 all agrees, 1 something differs (each thing is named), 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec

from archive import ArchiveError, DataFolder, InvalidEvent, LogSource, NotFound, Unavailable, Vault
from reducers import Key, Reducer, ReducerError, available, entry_digest, pair_of
from replay import At, Gathered, Holding, Only, Runner, differing, run_to, shown_of
from tools.console import PARTITION_HELP, exit_codes, number, print_json
from tools.data_flag import add_data
from tools.loading import gathered, load_owned
from tools.offline import log_of
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, one_line, say

ANSWER_BYTES_MAX = 64 << 20


Count = Annotated[int, msgspec.Meta(ge=0)]


class _Checkpoint(msgspec.Struct):
    size: Count
    root: str


class _Quarantined(msgspec.Struct):
    index: Count
    error: str | None = None


class Answer(msgspec.Struct):
    """What a server said of one key; other fields are not looked at."""

    reducer: str
    key: dict[str, str]
    state: Any
    position: Count
    checkpoint: _Checkpoint
    version: int
    code_digest: str
    state_digest: str
    quarantined: _Quarantined | None = None


@dataclass
class Verdict:
    """What came of it."""

    answer: Answer
    differences: list[At] = field(default_factory=list)
    """By the paths of the answer; `ours` is what the log gives, `theirs` what the answer says."""
    other_code: str = ""
    """What to install, if the answer was made by something else than is installed: then no state was checked."""
    notes: list[str] = field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering verify-state`."""
    made = argparse.ArgumentParser(
        prog="treering verify-state",
        epilog=exit_codes("all agrees", "something differs", "it could not be checked"),
        description="Check one answer against the log.",
    )
    made.add_argument("answer", metavar="FILE|-", help="what GET /v1/states/REDUCER?… gave for one key")
    add_data(made, "the data folder, or a copy of it")
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering verify-state`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        answer = read_answer(arguments.answer)
        with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
            reducer, module = installed(answer.reducer, folder, gathered(source))
            verdict = verify(answer, source, vault, reducer, module)
    except (ArchiveError, ReducerError) as error:
        say(f"treering verify-state: {one_line(str(error))}")
        return EXIT_USAGE
    except RecursionError:
        say(f"treering verify-state: {arguments.answer}: it is nested too deeply to be compared")
        return EXIT_USAGE
    if arguments.json:
        print_json(report(verdict))
    else:
        show(verdict)
    if verdict.differences:
        return EXIT_FINDING
    return EXIT_USAGE if verdict.other_code else EXIT_GOOD


def read_answer(name: str) -> Answer:
    """Return the answer in a file, or on standard input; raise InvalidEvent if it is none, and say why."""
    try:
        data = sys.stdin.buffer.read(ANSWER_BYTES_MAX) if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidEvent(f"{name}: {error.strerror}") from None
    try:
        answer = msgspec.json.decode(data, type=Answer)
        json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        page = b'"states"' in data[:1_000_000] and isinstance(error, msgspec.ValidationError)
        deep = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        why = "it is a page of states; ask for one key, with all its fields" if page else deep
        raise InvalidEvent(f"{name}: not the answer of GET /v1/states/REDUCER for one key: {why}") from None
    return answer


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Take an object apart, unless readers could differ about what it says."""
    found = dict(members)
    if len(found) != len(members):
        (twice, times), *_ = Counter(name for name, _ in members).most_common(1)
        raise ValueError(
            f"member {twice[:40]!r} stands {times} times in one object, and may be read as any of them"
        )
    return found


def installed(name: str, folder: DataFolder, steering: Gathered) -> tuple[Reducer[Any], str]:
    """Return a reducer as it is installed, and its module; raise NotFound if there is none of that name.

    Of two modules that have one of that name it is the one's that this log activated last.
    """
    loaded = load_owned(folder, None, available(), steering)
    for module in loaded.modules:
        for one in module.reducers:
            if one.name == name:
                return one, module.name
    failed = "".join(f"; {error}" for error in loaded.errors)
    raise NotFound(f"no reducer {name!r} is installed here{failed}")


def verify(answer: Answer, source: LogSource, vault: Vault, reducer: Reducer[Any], module: str) -> Verdict:
    """Return what differs between an answer and the log; raise NotFound if the log does not reach so far."""
    if set(answer.key) != set(reducer.scope):
        wanted = ", ".join(reducer.scope)
        raise InvalidEvent(
            f"the key of the answer is not one of {reducer.name}, which has the fields {wanted}"
        )
    head, end = Gathered(), max(answer.position, answer.checkpoint.size)
    with source.open() as log:
        if end > log.size:
            raise NotFound(
                f"the log has only {number(log.size)} entries here, the answer speaks of {number(end)}"
            )
        root = log.root(answer.checkpoint.size).hex()
        head.extend(log)
    ours = {"checkpoint": {"size": max(answer.checkpoint.size, answer.position), "root": root}}
    if (answer.version, answer.code_digest) != (reducer.version, reducer.code_digest):
        said = {"checkpoint": told(answer)["checkpoint"]}
        return Verdict(answer, differing(ours, said), _to_install(answer, reducer), _uncovered(answer))
    fold = partial(folded, source, vault, reducer, module, answer)
    verdict = Verdict(answer, differing(ours | fold(Gathered()), told(answer)), notes=_uncovered(answer))
    changes = [one for one in head.changes(answer.position) if one.reducer == reducer.name]
    if verdict.differences and changes:
        with_changes = differing(ours | fold(head), told(answer))
        if len(with_changes) < len(verdict.differences):
            verdict.differences = with_changes
            verdict.notes.append(f"the server had read entry {changes[-1].at}, a skip or retry, already")
    return verdict


def _uncovered(answer: Answer) -> list[str]:
    covered = answer.checkpoint.size >= answer.position
    return [] if covered else ["its checkpoint ends before its position: it vouches for no such log"]


def _to_install(answer: Answer, reducer: Reducer[Any]) -> str:
    return (
        f"made by version {answer.version}, code {answer.code_digest[:12]}…; installed is version "
        f"{reducer.version}, code {reducer.code_digest[:12]}…: install that of the answer"
    )


def told(answer: Answer) -> dict[str, Any]:
    """Return what an answer says, as far as the log can tell."""
    said: dict[str, Any] = msgspec.to_builtins(answer)
    checked = ("checkpoint", "state", "state_digest")
    if answer.quarantined is None:
        return {name: said[name] for name in checked}
    return {**{name: said[name] for name in checked}, "quarantined": {"index": answer.quarantined.index}}


def folded(
    source: LogSource, vault: Vault, reducer: Reducer[Any], module: str, answer: Answer, steering: Gathered
) -> dict[str, Any]:
    """Return what the log says of an answer's key at its position; nothing, where it has no state there.

    The text of an error is left out: it may differ between machines that agree.
    """
    key: Key = tuple(answer.key[name] for name in reducer.scope)
    holding = Holding([reducer], module=module)
    run_to(Runner([holding], vault, only=Only(reducer, key), steering=steering), source, answer.position)
    if holding.stopped is not None:
        why = holding.stopped
        raise Unavailable(f"reducer {reducer.name} stopped at entry {why.at}: {why.reason}")
    slot = holding.get(reducer, key)
    if slot is None:
        return {}
    digest = entry_digest(pair_of(reducer, key, slot)).hex()  # before a view may change its state
    found = {"state": msgspec.json.decode(shown_of(reducer, slot.state)), "state_digest": digest}
    return found if slot.error_index is None else {**found, "quarantined": {"index": slot.error_index}}


def report(verdict: Verdict) -> dict[str, Any]:
    """Return the result as JSON; `ours` is what the log gives, `theirs` what the answer says."""
    return {
        "verified": None if verdict.other_code and not verdict.differences else not verdict.differences,
        "other_code": verdict.other_code or None,
        "reducer": verdict.answer.reducer,
        "position": verdict.answer.position,
        "differences": [one.as_json() for one in verdict.differences],
        "notes": verdict.notes,
    }


def show(verdict: Verdict) -> None:
    """Print the result for people."""
    for one in verdict.differences:
        what = f"{one.path}: the log gives {one.shown(one.ours)}, the answer says {one.shown(one.theirs)}"
        print(one_line(what))
    for note in verdict.notes:
        print(f"note: {note}")
    about = f"{verdict.answer.reducer} at size {number(verdict.answer.position)}"
    if verdict.other_code:
        root = (
            ""
            if verdict.differences
            else "; its root is that of this log at its size, its state was not checked"
        )
        print(f"NOT CHECKED: {about}: {one_line(verdict.other_code)}{root}")
    elif verdict.differences:
        count = len(verdict.differences)
        print(f"NOT VERIFIED: {about}: {number(count)} {'thing differs' if count == 1 else 'things differ'}")
    else:
        print(f"verified: {about}: state, digest, root and code agree")
