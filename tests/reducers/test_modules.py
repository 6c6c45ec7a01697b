"""Modules: known without being run, loaded one by one, and each mistake is one error of one module."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive import Event
from reducers import (
    Module,
    ModuleError,
    ModuleRef,
    available,
    compose,
    is_module_name,
    load,
    reducer,
    shipped,
)

GOOD = """
from reducers import Event, reducer

@reducer(name={name!r})
def count(state: int, event: Event) -> int:
    return state + 1

REDUCERS = [count]
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a package: its files, and its entry points as (group, name, value)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(package: str, code: str, *points: tuple[str, str, str], version: str = "1.2") -> None:
        (tmp_path / f"{package}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        groups = {group for group, _, _ in points}
        lines = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for of, name, value in points if of == group)
            for group in sorted(groups)
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_listing_what_is_installed_imports_none_of_it() -> None:
    """A module that would crash the process is still only a name, built-in ones included."""
    code = (
        "import sys; from reducers import available; print(sorted(available()));"
        "print([n for n in sys.modules if n in ('reducers.event_count', 'reducers.reconstruct')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names, imported = ran.stdout.splitlines()
    assert "'activity'" in names
    assert "'writing'" in names
    assert imported == "[]"


def test_the_built_in_modules_are_what_comes_with_the_package() -> None:
    """Four modules, and together the reducers that `shipped` gives; each reducer knows its module."""
    refs = available()
    modules = [load(refs[name]) for name in ("activity", "writing", "progress", "classes")]
    assert [[each.name for each in module.reducers] for module in modules] == [
        ["event_count", "last_activity", "time_on_task"],
        ["reconstruct"],
        ["student_progress"],
        ["class_progress"],
    ]
    registry, errors = compose(modules)
    assert errors == []
    assert registry.fingerprint() == shipped().fingerprint()
    assert {each.name: each.module for each in registry} == {
        each.name: module.name for module in modules for each in module.reducers
    }


@pytest.mark.parametrize(
    ("value", "more"),
    [
        ("essay_stats", ""),
        ("essay_stats:REDUCERS", ""),
        ("essay_stats:MODULE", "from reducers import Module\nMODULE = Module('essay', tuple(REDUCERS))"),
        ("essay_stats:Inner.holder", "class Inner:\n  class holder:\n    REDUCERS = (count,)"),
    ],
)
def test_a_module_is_found_by_its_entry_point(install: Install, value: str, more: str) -> None:
    """A Python module with REDUCERS, the list itself, a Module, or anything that has REDUCERS."""
    install("essay_stats", GOOD.format(name="n") + more, ("treering.modules", "essay", value))
    ref = available()["essay"]
    assert ref == ModuleRef("essay", "treering", value, "1.2")
    assert "essay_stats" not in sys.modules
    module = load(ref)
    assert (module.name, module.version) == ("essay", "1.2")
    assert [(each.name, each.module) for each in module.reducers] == [("n", "essay")]


BROKEN = {
    "raises": ("raise ValueError('no dictionary')", "bad", "failed with ValueError: no dictionary"),
    "exits": ("import sys; sys.exit('bye')", "bad", "failed with SystemExit: bye"),
    "interrupts": ("raise KeyboardInterrupt", "bad", "failed with KeyboardInterrupt"),
    "runs out of memory": ("raise MemoryError", "bad", "failed with MemoryError"),
    "is no Python": ("def", "bad", "failed with SyntaxError: invalid syntax"),
    "needs what is not there": (
        "import no_such_package",
        "bad",
        "failed with ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "is not there": (
        "",
        "no_such_module",
        "failed with ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "lacks the attribute": ("", "bad:MODULE", "failed with AttributeError: module 'bad' has no attribute"),
    "is no module": ("x = 1", "bad", "'bad' is no module: it has no REDUCERS = "),
    "is another thing": ("x = 1", "bad:x", "'bad:x' is no module"),
    "lists no reducers": ("REDUCERS = [1]", "bad", "1 in REDUCERS is not a reducer; decorate it with"),
    "lists a function": ("def f(): ...\nREDUCERS = [f]", "bad", "is not a reducer; decorate it with"),
    "lists nothing": ("REDUCERS = None", "bad", "it has no REDUCERS"),
    "lists a dict": ("REDUCERS = {}", "bad", "REDUCERS must be a list of reducers, not {}"),
    "has two of one name": (
        GOOD.format(name="n") + "\nREDUCERS = [count, count]",
        "bad",
        "two of its reducers are named 'n'; pass another name= to one",
    ),
    "has another name": (
        "from reducers import Module\nMODULE = Module('other', ())",
        "bad:MODULE",
        "its entry point names a Module called 'other'; give both one name",
    ),
    "has a wrong definition": (
        GOOD.format(name="n").replace("name=", "version=0, name="),
        "bad",
        "reducer 'n': version must be a whole number from 1, not 0",
    ),
    "reaches for the clock": (
        GOOD.format(name="n").replace("return state + 1", "return state + int(age())")
        + "\nimport time\ndef age():\n    return time.time()",
        "bad",
        r"reducer 'n' reaches for the clock \(time.time\) at .*bad.py:12; use event.time_ms",
    ),
    "has words that cannot be said": (
        "class E(Exception):\n  def __str__(self): raise ValueError\nraise E",
        "bad",
        "importing 'bad' failed with E$",
    ),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_module_that_is_broken_is_one_error_and_harms_no_other(install: Install, why: str) -> None:
    """Whatever its code does at import, the message names module and fault, and the next module loads."""
    code, value, says = BROKEN[why]
    install("bad", code, ("treering.modules", "broken", value))
    install("essay_stats", GOOD.format(name="n"), ("treering.modules", "essay", "essay_stats"))
    refs = available()
    with pytest.raises(ModuleError, match=says) as caught:
        load(refs["broken"])
    assert caught.value.name == "broken"
    assert str(caught.value) == f"module 'broken': {caught.value.reason}"
    assert "\n" not in str(caught.value)
    assert load(refs["essay"]).name == "essay"


@pytest.mark.parametrize("name", ["two words", "7up", "a/b", "..", "ü", "a" * 65, "a.b"])
def test_a_name_that_is_none_is_listed_with_its_fault(install: Install, name: str) -> None:
    """It could be no folder and no element of the log; it stays visible, so that somebody can mend it."""
    install("essay_stats", GOOD.format(name="n"), ("treering.modules", name, "essay_stats"))
    assert not is_module_name(name)
    with pytest.raises(ModuleError, match="a module's name is 1 to 64 letters"):
        load(available()[name])
    assert "essay_stats" not in sys.modules
    with pytest.raises(ModuleError, match="a module's name is 1 to 64 letters"):
        Module(name, ())


def test_two_entry_points_with_one_name_are_neither(install: Install) -> None:
    """Nobody can say which one was meant; both packages are named, and other modules load."""
    install("one", GOOD.format(name="n"), ("treering.modules", "essay", "one"))
    install("two", GOOD.format(name="m"), ("treering.modules", "essay", "two"))
    refs = available()
    with pytest.raises(
        ModuleError, match="two entry points have this name: 'one' of package 'one', 'two' of"
    ):
        load(refs["essay"])
    assert load(refs["activity"]).name == "activity"


def test_a_package_may_serve_both_systems_by_one_name(install: Install) -> None:
    """Of a module that registers itself for the Learning Observer, too, ours is the one that counts."""
    install(
        "one", GOOD.format(name="n"), ("treering.modules", "essay", "one"), ("lo_modules", "essay", "one.lo")
    )
    assert available()["essay"].kind == "treering"


def test_a_module_named_like_a_built_in_one_does_not_replace_it(install: Install) -> None:
    """The built-in one stays, and the other is listed under its package's name, with its fault."""
    install("one", GOOD.format(name="n"), ("treering.modules", "writing", "one"))
    refs = available()
    assert refs["writing"].kind == "builtin"
    with pytest.raises(
        ModuleError, match="package 'one' names a module like the built-in 'writing'; rename it"
    ):
        load(refs["one:writing"])


@pytest.mark.parametrize(
    ("text", "listed"),
    [("[treering.modules]\nfoo\n", True), ("[console_scripts]\nfoo\n", False), ("\udcff\udcfe", False)],
)
def test_a_package_whose_entry_points_are_damaged_hides_no_other(
    install: Install, tmp_path: Path, text: str, listed: bool
) -> None:
    """It is named if it was to bring a module, and is none of our business if not."""
    install("damaged", "", version="0.9")
    (tmp_path / "damaged-0.9.dist-info" / "entry_points.txt").write_text(text, errors="surrogateescape")
    install("essay_stats", GOOD.format(name="n"), ("treering.modules", "essay", "essay_stats"))
    refs = available()
    assert load(refs["essay"]).name == "essay"
    assert ("damaged" in refs) == listed
    if listed:
        with pytest.raises(ModuleError, match="the entry points of package 'damaged' cannot be read"):
            load(refs["damaged"])


@pytest.mark.parametrize("value", ["", ":", "a b", "essay_stats [extra", "..x"])
def test_an_address_that_is_none_is_an_error_of_its_module(install: Install, value: str) -> None:
    """Whatever stands behind the name, nothing else than a ModuleError comes of it."""
    install("essay_stats", "", ("treering.modules", "essay", value))
    with pytest.raises(ModuleError, match="module 'essay': "):
        load(available()["essay"])


def test_extras_in_an_address_are_passed_over(install: Install) -> None:
    """`package [extra]` names the same object as without, as in any entry point."""
    install(
        "essay_stats", GOOD.format(name="n"), ("treering.modules", "essay", "essay_stats:REDUCERS [more]")
    )
    assert [each.name for each in load(available()["essay"]).reducers] == ["n"]


def test_of_two_installations_of_one_package_the_first_counts(install: Install, tmp_path: Path) -> None:
    """A checkout before an installed copy on the path is one module, not two of one name."""
    install("essay_stats", GOOD.format(name="n"), ("treering.modules", "essay", "essay_stats"), version="2")
    other = tmp_path / "other" / "essay_stats-1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: Essay-Stats\nVersion: 1\n")
    (other / "entry_points.txt").write_text("[treering.modules]\nessay = essay_stats\n")
    sys.path.append(str(other.parent))
    try:
        assert available()["essay"].version == "2"
        assert load(available()["essay"]).version == "2"
    finally:
        sys.path.remove(str(other.parent))


def test_modules_of_the_learning_observer_are_listed_as_such(install: Install) -> None:
    """Their kind says who loads them; one that cannot be loaded is an error like any other."""
    install("lo_one", "raise ValueError('no')", ("lo_modules", "writing_observer", "lo_one.module"))
    ref = available()["writing_observer"]
    assert (ref.kind, ref.value) == ("lo", "lo_one.module")
    with pytest.raises(ModuleError) as caught:
        load(ref)
    assert caught.value.name == "writing_observer"


def _named(name: str) -> Any:
    @reducer(name=name)
    def count(state: int, _event: Event) -> int:
        return state + 1

    return count


def test_names_of_reducers_are_global() -> None:
    """The second module that uses a name is left out as a whole, and told whose name it is."""
    one, two, three = (
        Module("one", (_named("a"), _named("b"))),
        Module("two", (_named("c"), _named("b"))),
        Module("three", (_named("c"),)),
    )
    registry, errors = compose([one, two, three])
    assert [each.name for each in registry] == ["a", "b", "c"]
    assert registry.get("c").module == "three"
    assert [(error.name, error.reason) for error in errors] == [
        ("two", "its reducer 'b' is named like one of module 'one'; pass another name=")
    ]


def test_names_of_modules_are_given_once() -> None:
    """A second module of one name is left out."""
    registry, errors = compose([Module("one", (_named("a"),)), Module("one", (_named("b"),))])
    assert [each.name for each in registry] == ["a"]
    assert [error.name for error in errors] == ["one"]


def test_a_module_may_have_no_reducers() -> None:
    """One that brings pages only is a module all the same."""
    assert compose([Module("pages", ())])[1] == []


def test_what_a_module_takes_from_time_is_guarded(install: Install) -> None:
    """The guard stands before the module is imported, so `from time import time` is no way around it."""
    code = "from time import time\nREDUCERS = []\n"
    install("taker", code, ("treering.modules", "taker", "taker"))
    load(available()["taker"])
    assert sys.modules["taker"].time is time.time
    assert hasattr(time.time, "__guarded__")
