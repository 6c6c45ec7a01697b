"""treering bisect: the first event, key and field at which two folds of one reducer part.

    $ treering bisect --data data --reducer essay_stats --other essay-2.0       two versions: a folder with the other
    both come to the same at size 2,000, and not at size 3,000
    they part at entry 2,117, in the state of {"student":"ann"}:
      $['words'][3]['count']: 7 here, 8 there

    $ treering bisect --data data --reducer essay_stats --save-trace trace      two machines: on the one,
    $ treering bisect --data data --reducer essay_stats --against trace         and on the other

First both folds are compared at the sizes at which states are attested; then only the stretch from the last size at
which they agree to the first at which they do not is traced, event by event, and compared in lockstep up to the first
difference.  A trace that is saved begins after the last attestation of the log that this machine agrees with, and ends
with the first that it contradicts; if it contradicts none, it is of everything.  What differed for a while and was the
same again at the next such size is found with --from-start, and whenever nothing else is.

A trace holds keys, hence names: its file is for its owner only.  It holds digests; states as well with --with-states,
and without them the other machine can tell event and key, but not the field.

Exit codes: 0 nothing differs (or a trace was written), 1 they part, 2 it could not be done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from archive import ArchiveError, DataFolder, InvalidEvent
from reducers import ReducerError
from replay import START, Gathered, Line, Parted, encode_line, first_difference, is_attested
from tools.console import PARTITION_HELP, exit_codes, number, print_json, progress
from tools.data_flag import add_data
from tools.offline import log_of, size_at
from tools.private_file import private_file
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say
from tools.telling import Teller, fold, saved
from tools.tracing import AtSize, End, Head, Job


class Stretch(NamedTuple):
    """What is to be traced: the entries start…stop-1, and what is known of both ends."""

    start: int
    stop: int
    agreed: int = 0
    """The last size at which both were seen to agree."""
    parted: int | None = None
    """The first size at which both were seen to differ."""


@dataclass
class Found:
    """What came of it."""

    ours: Head
    theirs: Head
    stretch: Stretch
    parted: Parted | None


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering bisect`."""
    made = argparse.ArgumentParser(
        prog="treering bisect",
        epilog=exit_codes("nothing differs, or a trace was written", "they part", "it could not be done"),
        description="Find where two folds of one reducer part.",
    )
    add = made.add_argument
    add_data(made, "the data folder, or a copy of it")
    add("--partition", type=int, default=0, help=PARTITION_HELP)
    add("--reducer", required=True, help="which reducer")
    ways = made.add_mutually_exclusive_group(required=True)
    ways.add_argument(
        "--other", type=Path, metavar="DIR", help="a folder with another version of its package"
    )
    ways.add_argument("--save-trace", type=Path, metavar="FILE", help="write what this machine makes of it")
    ways.add_argument("--against", type=Path, metavar="FILE", help="compare with what another machine wrote")
    add(
        "--until",
        metavar="SIZE|TIME",
        help="look at so many entries only, or those taken in by a time (RFC 3339)",
    )
    add("--from-start", action="store_true", help="trace from entry 0, whatever is attested")
    add("--with-states", action="store_true", help="with --save-trace: states as well, to name the field")
    add("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering bisect`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        if arguments.save_trace is not None:
            return _save(folder, arguments)
        found = (_versions if arguments.other is not None else _machines)(folder, arguments)
    except (ArchiveError, ReducerError) as error:
        say(f"treering bisect: {error}")
        return EXIT_USAGE
    if arguments.json:
        print_json(report(found))
    else:
        show(found)
    return EXIT_GOOD if found.parted is None and found.stretch.parted is None else EXIT_FINDING


# --- two versions --------------------------------------------------------------------------------


def _versions(folder: DataFolder, arguments: argparse.Namespace) -> Found:
    if not arguments.other.is_dir():
        raise InvalidEvent(f"--other {arguments.other}: name a folder with another version of the package")
    size = _size(folder, arguments.until)
    stretch = Stretch(0, size)
    if not arguments.from_start:
        with ExitStack() as stack:
            ours, theirs = _both(stack, _job(folder, arguments, 0, size, stops=True), arguments.other)
            _check_other(theirs.head, arguments.other)
            stretch = _between(ours.sizes(), theirs.sizes(), size)
    with ExitStack() as stack:
        job = _job(folder, arguments, stretch.start, stretch.stop, states=True)
        ours, theirs = _both(stack, job, arguments.other)
        _check_other(theirs.head, arguments.other)
        parted = first_difference(_counted(ours.lines(), stack), theirs.lines())
        return Found(ours.head, theirs.head, stretch, parted)


def _both(stack: ExitStack, job: Job, other: Path) -> tuple[Teller, Teller]:
    """Return two tellers at work side by side."""
    return stack.enter_context(fold(job)), stack.enter_context(fold(job, other))


def _check_other(head: Head, other: Path) -> None:
    """Raise InvalidEvent unless what was folded as the other version came from the folder that was named.

    Python passes over a folder that lacks what it looks for; then the installed version would be held against itself.
    """
    folder = other.resolve()
    if not any(Path(file).resolve().is_relative_to(folder) for file in head.files):
        found = ", ".join(head.files) or "no file"
        raise InvalidEvent(
            f"--other {other}: reducer {head.reducer} was not found there, but in {found}; name the folder "
            "from which its package is imported: the one that holds the package, not the package itself"
        )


def _between(ours: Iterable[AtSize], theirs: Iterable[AtSize], size: int) -> Stretch:
    """Return the stretch between the last size at which both agree and the first at which they do not."""
    agreed = 0
    for one, other in zip(ours, theirs, strict=True):
        if one.comparable != other.comparable:
            return Stretch(agreed, one.size, agreed, one.size)
        agreed = one.size
    return Stretch(0, size, agreed)


# --- two machines --------------------------------------------------------------------------------


def _save(folder: DataFolder, arguments: argparse.Namespace) -> int:
    """Write the trace that another machine is to compare its own with."""
    size = _size(folder, arguments.until)
    with fold(_job(folder, arguments, 0, size, stops=True)) as teller:
        sizes, head = list(teller.sizes()), teller.head
    stretch = Stretch(0, size)
    if not arguments.from_start:
        stretch = _against_log(sizes, _attested(folder, head, size), size)
    job = _job(folder, arguments, stretch.start, stretch.stop, states=arguments.with_states)
    with ExitStack() as stack, fold(job) as teller:
        lines = _counted(teller.lines(), stack)
        told = [one for one in sizes if stretch.start <= one.size <= stretch.stop]
        count = _write(arguments.save_trace, teller.head, told, lines)
    if arguments.json:
        print_json({"file": str(arguments.save_trace), **stretch._asdict(), "lines": count})
        return EXIT_GOOD
    if stretch.parted is not None:
        print(f"this machine contradicts what the log attests at size {number(stretch.parted)}")
    print(f"wrote {arguments.save_trace}: {number(count)} changes in {_span(stretch)}")
    return EXIT_GOOD


def _attested(folder: DataFolder, head: Head, size: int) -> dict[int, str]:
    """Return the digests that the log attests for this reducer, version and code, by size."""
    steering = Gathered()
    with log_of(folder) as source, source.open(size) as log:
        steering.extend(log)
    ours = (head.reducer, head.version, head.code_digest)
    return {
        one.size: one.digest
        for _, one in steering.attestations()
        if (one.reducer, one.version, one.code_digest) == ours
    }


def _against_log(sizes: Iterable[AtSize], attested: dict[int, str], size: int) -> Stretch:
    """Return the stretch after the last attestation that holds here, up to the first that does not."""
    agreed = 0
    for one in sizes:
        said = attested.get(one.size)
        if said is not None and said != one.digest:
            return Stretch(agreed, one.size, agreed, one.size)
        if said is not None:
            agreed = one.size
    return Stretch(0, size, agreed)


def _write(path: Path, head: Head, sizes: Sequence[AtSize], lines: Iterable[Line]) -> int:
    """Write a trace; return how many changes it has."""
    encode, count = msgspec.json.Encoder().encode, 0
    with private_file(path) as file:
        # Whoever reads it has nothing of where things lie here.
        file.writelines(encode(one) + b"\n" for one in (msgspec.structs.replace(head, files=()), *sizes))
        for count, line in enumerate(lines, 1):  # noqa: B007 - the last one is how many there were
            file.write(encode_line(line) + b"\n")
        file.write(encode(End(len(sizes) + count)) + b"\n")
    return count


def _machines(folder: DataFolder, arguments: argparse.Namespace) -> Found:
    """Compare what another machine wrote with what this one makes of the same stretch."""
    with ExitStack() as stack:
        theirs = stack.enter_context(saved(arguments.against))
        head = theirs.head
        if head.reducer != arguments.reducer:
            raise InvalidEvent(
                f"{arguments.against}: a trace of reducer {head.reducer}, not {arguments.reducer}"
            )
        _check_log(folder, head, arguments.against)
        job = _job(folder, arguments, head.start, head.size, states=True)
        ours = stack.enter_context(fold(job))
        for _ in theirs.sizes():
            pass  # the trace is compared anyway
        parted = first_difference(_counted(ours.lines(), stack), theirs.lines())
        return Found(ours.head, head, Stretch(head.start, head.size, head.start), parted)


def _check_log(folder: DataFolder, head: Head, path: Path) -> None:
    with log_of(folder) as source, source.open() as log:
        if head.size > log.size:
            raise InvalidEvent(
                f"{path}: of {number(head.size)} entries; the log here has only {number(log.size)}"
            )
        if log.root(head.size).hex() != head.root:
            raise InvalidEvent(
                f"{path}: of another log; at size {number(head.size)} that had the root {head.root}"
            )


# --- both ----------------------------------------------------------------------------------------


def _size(folder: DataFolder, until: str | None) -> int:
    with log_of(folder) as source:
        return source.published() if until is None else size_at(source, until)


def _job(
    folder: DataFolder,
    arguments: argparse.Namespace,
    start: int,
    stop: int,
    *,
    stops: bool = False,
    states: bool = False,
) -> Job:
    sizes = [size for size in range(1_000, stop, 1_000) if is_attested(size)] if stops else []
    return Job(
        str(folder.path),
        folder.partition,
        arguments.reducer,
        start,
        stop,
        states,
        (*sizes, stop) if stops else (),
    )


def _counted(lines: Iterator[Line], stack: ExitStack) -> Iterator[Line]:
    """Yield lines, and show how many."""
    advance: Callable[[int], None] = stack.enter_context(progress("tracing", None))
    for line in lines:
        yield line
        advance(1)


def report(found: Found) -> dict[str, Any]:
    """Return the result as JSON; `ours` is this machine, or what is installed."""
    parted, stretch = found.parted, found.stretch
    sides = {
        name: {"version": head.version, "code_digest": head.code_digest}
        for name, head in (("ours", found.ours), ("theirs", found.theirs))
    }
    answer = {"parted": parted is not None, "from": stretch.start, "to": stretch.stop, **sides}
    answer |= {"agreed_at": stretch.agreed, "differ_at": stretch.parted}
    if parted is None:
        return answer
    return answer | {
        "entry": None if parted.at == START else parted.at,
        "folded_at": None if parted.at == START else parted.due,
        "key": dict(zip(found.ours.scope, parted.key, strict=False)),
        "places": [one.as_json() for one in parted.places],
    }


def show(found: Found) -> None:
    """Print the result for people."""
    parted, stretch = found.parted, found.stretch
    if stretch.parted is not None:
        print(
            f"both come to the same at size {number(stretch.agreed)}, and not at size {number(stretch.parted)}"
        )
    if parted is None and stretch.parted is None:
        same = f"after each of {_span(stretch)} both hold the same states"
        print(
            f"nothing differs: {same if stretch.start < stretch.stop else 'there are no entries to look at'}"
        )
        return
    if parted is None:
        print("but traced event by event they do not part: one of the two gives another result each time")
        return
    key = msgspec.json.encode(dict(zip(found.ours.scope, parted.key, strict=False))).decode()
    where = f"they differ before entry {number(stretch.start)}" if parted.at == START else _where(parted)
    print(f"{where}, in the state of {key}:")
    for one in parted.places:
        print(f"  {one}")
    if not parted.places:
        print(f"  {_sides(parted)}")


def _span(stretch: Stretch) -> str:
    if stretch.start >= stretch.stop:
        return "no entries"
    return f"entries {number(stretch.start)} to {number(stretch.stop - 1)}"


def _where(parted: Parted) -> str:
    late = f", folded at entry {number(parted.due)}" if parted.due != parted.at else ""
    return f"they part at entry {number(parted.at)}{late}"


def _sides(parted: Parted) -> str:
    if parted.ours is None or parted.theirs is None:
        return f"there is none {'here' if parted.ours is None else 'there'}"
    return "the trace tells no states; let it be made with --with-states"
