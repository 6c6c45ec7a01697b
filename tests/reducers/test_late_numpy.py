"""Promise: numpy's chance is out of reach also where numpy is loaded late: by a function, in the middle of an event."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy.random
import pytest

from reducers import DefinitionError, reducer
from reducers.purity import faults

CHANCE = {
    "a package": "import numpy as np\nreturn state + np.random.rand()",
    "a part of it": "import numpy.random as chance\nreturn state + chance.rand()",
    "a part of it, from it": "from numpy import random as chance\nreturn state + chance.rand()",
    "a name": "from numpy.random import rand\nreturn state + rand()",
    "a name that is passed on": "from numpy.random import rand as draw\nreturn state + sum(map(draw, [1]))",
}
NO_CHANCE = {
    "arithmetic": "import numpy as np\nreturn state + float(np.mean([1, 2]))",
    "a seed": "import numpy as np\nreturn state + np.random.default_rng(event.index).random()",
    "a seed, by name": "from numpy.random import default_rng\nreturn state + default_rng(event.index).random()",
    "a type": "from numpy.random import Generator\nreturn state + isinstance(event.data, Generator)",
}
FOLDS = """
import sys
from reducers import Event, fold_one, reducer

scope = {"Event": Event}
exec('''
def folded(state: float, event: Event) -> float:
    import numpy
    return state + float(%s)
''', scope)
made = reducer()(scope["folded"])  # without source, so that nobody reads it
event = Event(index=7, type="t", source="s", keys={"student": "a"}, data=0, received_ms=0, time_ms=0)
print("numpy" in sys.modules, fold_one(made, None, event))
"""


def body_of(tmp_path: Path, body: str) -> Any:
    """Return a function of (state, event) with this body, which has a file."""
    file = tmp_path / "late.py"
    source = "from reducers import Event\ndef late(state: float, event: Event) -> float:\n"
    file.write_text(source + textwrap.indent(body, "    "))
    scope: dict[str, Any] = {"__name__": "late", "__package__": ""}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    return scope["late"]


def folded(value: str, **environment: str) -> str:
    """Return whether numpy was there, and the slot that a fresh process folds, which loads numpy in the event."""
    command = [sys.executable, "-P", "-c", FOLDS % value]
    found = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    return found.stdout


def forget_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it look as if nothing had loaded numpy yet."""
    for module in (numpy, numpy.random):
        monkeypatch.delitem(sys.modules, module.__name__)


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("name", CHANCE)
def test_what_a_function_imports_is_judged_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, loaded: bool
) -> None:
    """Whether a process happens to have loaded numpy yet makes no difference to a definition."""
    if not loaded:
        forget_numpy(monkeypatch)
    with pytest.raises(DefinitionError, match=r"reaches for chance \(numpy\.random\.rand\) at .*late\.py:4"):
        reducer()(body_of(tmp_path, CHANCE[name]))
    assert loaded == ("numpy" in sys.modules), "it is not loaded to find out"


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("name", NO_CHANCE)
def test_what_is_not_loaded_and_has_no_chance_in_it_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, loaded: bool
) -> None:
    """Generators with a seed, and all else of numpy."""
    if not loaded:
        forget_numpy(monkeypatch)
    assert faults(body_of(tmp_path, NO_CHANCE[name])) == []


def test_chance_is_refused_by_the_guard_though_numpy_comes_late() -> None:
    """It stands before numpy is there, and quarantines the key at the event that loads it."""
    said = folded("numpy.random.rand()")
    assert said.startswith("False Slot(state=0.0, changed_at=7, error=")
    assert "reaches for chance (numpy.random.rand)" in said


def test_a_seeded_generator_answers_though_numpy_comes_late() -> None:
    """What numpy asks the system for while it is loaded is no doing of the reducer's."""
    assert "error=None" in folded("numpy.random.default_rng(7).random()")


def test_a_product_is_the_same_however_many_processors_there_are() -> None:
    """Each thread of a linear algebra library adds up a part: in a fold there is one."""
    product = "(lambda a: numpy.linalg.slogdet(a @ a)[1])(numpy.random.default_rng(1).random((400, 400)))"
    one, two = (folded(product, OPENBLAS_NUM_THREADS=count) for count in "12")
    assert one == two
    assert "error=None" in one
