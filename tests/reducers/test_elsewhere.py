"""The law of processes: what one interpreter cannot see of itself, two others can."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from archive import Event
from reducers import ContractError, Reducer, check, reducer, shipped
from reducers.elsewhere import place_of
from reducers.errors import ContractNote

pytestmark = pytest.mark.process

WORDS = ["alder", "beech", "cedar", "elder", "larch", "maple", "rowan", "willow"]


def events(size: int) -> list[Event]:
    """This many events of two students, an hour apart."""
    return [
        Event(
            index=number,
            type="t",
            source="s",
            keys={"student": f"s{number % 2}"},
            data={"words": WORDS[: 1 + number % 8]},
            received_ms=3_600_000 * number,
            time_ms=3_600_000 * number,
        )
        for number in range(size)
    ]


@reducer()
def seeded(_state: list[str], event: Event) -> list[str]:
    """Keep words in the order of a set: the hash seed's."""
    return list(set(event.data["words"]))


@reducer()
def zoned(_state: int, event: Event) -> int:
    """Keep the hour of the day, by the local time of the machine."""
    return datetime.fromtimestamp(event.time_ms / 1_000).hour  # noqa: DTZ006 - the mistake that is to be found


SEEN: dict[str, int] = {}


@reducer()
def cached(state: int, event: Event) -> int:
    """Keep in a global what was in the first event: a process that begins later never sees it."""
    if event.index == 0:
        SEEN["first"] = 7
    return state + SEEN.get("first", 0)


def joined(state: set[str]) -> str:
    """Show words in the order in which a set yields them."""
    return " ".join(state)


@reducer(view=joined)
def shown_seeded(state: set[str], event: Event) -> set[str]:
    """Have states that are lawful, and a view that is not."""
    return state | set(event.data["words"])


@reducer(view=lambda state: {"seen": state})
def shown_sorted(state: set[str], event: Event) -> set[str]:
    """Show a set as it is: it is sorted for readers."""
    return state | set(event.data["words"])


@reducer()
def printing(state: int, event: Event) -> int:
    """Print what an author wants to see."""
    print("event", event.index)  # noqa: T201
    return state + 1


@pytest.mark.parametrize("unlawful", [seeded, zoned, cached, shown_seeded], ids=lambda each: each.name)
def test_what_depends_on_the_process_is_found(unlawful: Reducer[Any]) -> None:
    """The order of a set, the local time zone and a global agree with themselves, and with nobody else."""
    with pytest.raises(ContractError, match="breaks the law of processes: another process") as caught:
        check(unlawful, events(12))
    assert caught.value.prefix_size <= 12


def test_a_lawful_reducer_passes() -> None:
    """Other processes agree on a reducer of a package, by its name."""
    check(shipped().get("event_count"), events(12))


def test_a_set_may_be_shown() -> None:
    """Other processes show the same of it, for what readers see is sorted."""
    check(shown_sorted, events(12))


def test_a_view_is_named_where_only_it_differs() -> None:
    """The author need not look for the fault in the states."""
    with pytest.raises(ContractError, match="comes to the same states, and its view shows them otherwise"):
        check(shown_seeded, events(12))


def test_a_reducer_may_print(capfd: pytest.CaptureFixture[str]) -> None:
    """What it prints in another process is not taken for that process's answer."""
    check(printing, events(2))
    assert capfd.readouterr().out.startswith("event 0\n")


def test_a_reducer_that_has_no_name_is_checked_without() -> None:
    """A warning says which law was not tried and what to change, or to pass."""

    @reducer()
    def local(state: int, _event: Event) -> int:
        return state + 1

    assert place_of(local) is None
    with pytest.warns(ContractNote, match="'local' cannot be imported by name.*define it at the top level"):
        check(local, events(3))
    check(local, events(3), processes=False)


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit('no such word')",
        "print('x'); raise ValueError('no such word')",
        "os._exit(3)",
        "os._exit(0)",
    ],
)
def test_a_child_that_cannot_fold_is_a_failure_that_says_why(tmp_path: Path, end: str) -> None:
    """A module that works only where it was first imported does not pass."""
    file = tmp_path / "fragile_words.py"
    file.write_text(
        textwrap.dedent(f"""
            import os, sys
            from reducers import Event, reducer
            if os.environ.get("TZ") == "Asia/Kathmandu":
                {end}
            @reducer()
            def fragile(state: int, event: Event) -> int:
                return state + 1
            """)
    )
    script = f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        from fragile_words import fragile
        from reducers import ContractError, Event, check
        event = Event(index=0, type="t", source="s", keys={{"student": "a"}}, data=1, received_ms=0, time_ms=0)
        try:
            check(fragile, [event])
        except ContractError as error:
            print(error)
        """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "breaks the law of processes: another process could not fold the events" in ran.stdout
    if "no such word" in end:
        assert "no such word" in ran.stdout


def test_a_reducer_in_a_script_is_found_by_its_file(tmp_path: Path) -> None:
    """Whoever tries a reducer in one file, and checks it there, has it checked wholly."""
    file = tmp_path / "try_out.py"
    file.write_text(
        textwrap.dedent("""
            from reducers import Event, check, reducer
            @reducer()
            def count(state: int, event: Event) -> int:
                return state + 1
            if __name__ == "__main__":
                at = dict(type="t", source="s", keys={"student": "a"}, data=1, received_ms=0, time_ms=0)
                print(check(count, [Event(index=n, **at) for n in range(4)])[("a",)].state)
            """)
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    assert (ran.stdout, ran.stderr) == ("4\n", "")
