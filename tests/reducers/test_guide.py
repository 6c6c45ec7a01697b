"""The author's guide is true: its code runs as it stands, and what it calls wrong is refused as it says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import structs

from reducers import ContractError, DefinitionError, Reducer, ReducerError, fold
from tools.cli import COMMANDS
from tools.new_files import files

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "reducers.md"
Run = Callable[..., ModuleType]


def blocks(info: str) -> list[str]:
    """Return the code blocks of the guide whose fence says exactly this."""
    return re.findall(rf"^```{info}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Give a function that writes blocks to one file, as an author would, and imports it."""

    def imported(*parts: str) -> ModuleType:
        file = tmp_path / "guide_blocks.py"
        file.write_text("\n".join(parts), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("guide_blocks", file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["guide_blocks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield imported
    sys.modules.pop("guide_blocks", None)


def test_the_code_of_the_guide_runs(run: Run) -> None:
    """Block after block, as if it were typed into one file; its assertions hold."""
    module = run(*blocks("python"))
    names = {value.name for value in vars(module).values() if isinstance(value, Reducer)}
    assert {"pauses", "desk", "seen", "pauses_shown", "held", "idle", "finished", "finishers"} <= names
    assert module.shown.view(module.Pauses(1_500)) == {"longest_s": 1.5}
    late = [structs.replace(module.typed, index=at, time_ms=ms) for at, ms in enumerate((0, 60, 10, 80))]
    assert fold(module.pauses, late)[("ada",)].state.longest_ms == 60


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (0, DefinitionError, "reducer 'late' reaches for the clock (time.time) at "),
        (
            1,
            ContractError,
            "breaks the law of no mutation: event 0 changed the state it was given; build a new one",
        ),
    ],
)
def test_what_the_guide_calls_wrong_is_refused_as_it_says(
    run: Run, number: int, error: type[ReducerError], says: str
) -> None:
    """The message shown is the message that comes."""
    with pytest.raises(error) as caught:
        run(*blocks("python"), blocks("python wrong")[number])
    assert says in str(caught.value)
    assert says in re.sub(r"\s+", " ", GUIDE.read_text("utf-8"))


def test_the_guide_and_the_command_speak_of_the_same_files() -> None:
    """What `treering new module` makes is what the guide goes on to talk about."""
    text = GUIDE.read_text("utf-8")
    made = files("essay-stats", "essay_stats")
    assert "essay_stats/keystrokes.py" in made
    assert "`essay_stats/keystrokes.py`" in text
    assert "def essay_stats_typing(" in made["essay_stats/keystrokes.py"]
    assert "/v1/states/essay_stats_typing?" in text
    said = {
        command for block in blocks("sh") for command in re.findall(r"^treering (\w+)", block, re.MULTILINE)
    }
    assert said - {"new"} <= set(COMMANDS)
