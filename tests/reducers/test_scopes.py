"""Promise: a name that an author binds is his own, however he binds it, and only as far as Python says."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from reducers import DefinitionError, reducer
from reducers.purity import faults

OWN = {
    "a capture in a mapping": """
        match event.data:
            case {"n": open}:
                return state + open
        """,
    "the rest of a mapping": """
        match event.data:
            case {"n": _, **open}:
                return state + len(open) + open.get("m", 0)
        """,
    "a star": """
        match event.data["list"]:
            case [_, *open]:
                return state + sum(open)
        """,
    "a capture of all": """
        match event.data:
            case dict() as open:
                return state + open["n"]
        """,
    "a bare capture": """
        match event.data:
            case input:
                return state + input["n"]
        """,
    "an exception": """
        try:
            return state + event.data["n"]
        except KeyError as open:
            return state + len(open.args)
        """,
    "a function": """
        def open(number):
            return number + 1
        return open(state)
        """,
    "an async function": """
        async def open(number):
            return number + 1
        return open(state)
        """,
    "a class": """
        class input:
            number = 1
        return state + input.number
        """,
    "a loop": """
        for open in event.data["list"]:
            state += open
        return state
        """,
    "a loop that unpacks": """
        for name, (open, *input) in event.data["list"]:
            state += open + len(input)
        return state
        """,
    "a with": """
        with event.data["lock"] as open:
            return state + open
        """,
    "a walrus": """
        if any((open := each) for each in event.data["list"]):
            return state + open
        return state
        """,
    "a comprehension": "return state + sum(open for open in event.data['list'] if open)",
    "a comprehension in another": "return sum(open + input for open in event.data['a'] for input in open)",
    "a parameter of a lambda": "return sorted(event.data['list'], key=lambda open, *input, **time: open)[0]",
    "an import": """
        from json import loads as open
        return state + open("1")
        """,
    "a relative import": """
        from .elsewhere import open
        return state + open(1)
        """,
    "a name of the function around": """
        open = len
        def inner():
            return open(event.data["list"])
        return state + inner()
        """,
    "a deletion": """
        open = 1
        del open
        return state
        """,
}
PYTHONS = {
    "in a method, though another has its name": """
        class Store:
            def open(self):
                return open("words")
        return Store().open()
        """,
    "in a function beside the one that binds it": """
        def one(open):
            return open
        def other():
            return open("words")
        return one(other)
        """,
    "behind a comprehension that binds it": """
        some = [open for open in event.data["list"]]
        return open(some[0])
        """,
    "what a comprehension goes through": "return [open for open in open('words')]",
    "a default, whatever the parameter": """
        def inner(open=open("words")):
            return open
        return inner()
        """,
    "in a branch of a match": """
        match event.data:
            case {"n": number} if open("words"):
                return number
        """,
    "in a base of a class": """
        class Words(open("words")):
            pass
        return Words
        """,
}


def body_of(tmp_path: Path, body: str) -> Any:
    """Return a function of (state, event) with this body, which has a file."""
    file = tmp_path / "scoped.py"
    source = "from reducers import Event\ndef scoped(state: int, event: Event) -> int:\n"
    file.write_text(source + textwrap.indent(textwrap.dedent(body), "    "))
    scope: dict[str, Any] = {"__name__": "scoped", "__package__": "a_package"}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    return scope["scoped"]


@pytest.mark.parametrize("name", OWN)
def test_what_an_author_binds_is_his_own(tmp_path: Path, name: str) -> None:
    """A reducer with a name like one of Python's is defined, and so its module is loaded."""
    function = body_of(tmp_path, OWN[name])
    assert faults(function) == []
    assert reducer()(function).name == "scoped"


@pytest.mark.parametrize("name", PYTHONS)
def test_what_is_bound_elsewhere_hides_nothing(tmp_path: Path, name: str) -> None:
    """Where Python looks further out, so does the check."""
    with pytest.raises(DefinitionError, match=r"reducer 'scoped' reaches for files \(io.open\)"):
        reducer()(body_of(tmp_path, PYTHONS[name]))


DEEP = {
    "branches": "if event.type == 'a':\n    return 1\n"
    + "".join(f"elif event.type == 'a{n}':\n    return {n}\n" for n in range(800))
    + "return state\n",
    "a sum": f"return {' + '.join(['len(event.type)'] * 900)}\n",
    "calls of calls": f"return len(event.type{'.strip()' * 400})\n",
    "keys of keys": f"return event.data{'[state]' * 400}\n",
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_long_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    """Generated code has hundreds of branches; what is behind them is found as well."""
    assert reducer()(body_of(tmp_path, DEEP[name])).name == "scoped"
    with pytest.raises(DefinitionError, match=r"reducer 'scoped' reaches for files \(io.open\)"):
        reducer()(body_of(tmp_path, DEEP[name].replace("return ", "return open('words') + ")))
