"""Mutants: each kind of small wrong is made, the runner tells what the tests make of it, and the list is true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import Mutant, mutants
from tests.mutate import LIST, ROOT, lines_since, listed, modules, stages_of

PAGE = LIST.with_suffix(".md")
KNOWN = json.loads(LIST.read_text())["modules"]
TINY = '''
"""One test of one function."""
from merkle import leaf_hash, root_of

def test_a_leaf_and_a_root() -> None:
    """The hash of no bytes as a leaf, and the root over three."""
    assert leaf_hash(b"")[:4].hex() == "6e340b9c"
    assert len(root_of([bytes(32)] * 3)) == 32
'''


def made_of(source: str) -> set[tuple[str, str]]:
    """Return before and after of all mutants of a source."""
    return {(mutant.before, mutant.after) for mutant, _ in mutants(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", [("a < b", "a <= b"), ("a < b", "a >= b")]),
        ("x = 0 <= a < b", [("0 <= a < b", "0 <= a"), ("0 <= a < b", "a < b"), ("0 <= a < b", "0 < a < b")]),
        ("x = a == b", [("a == b", "a != b")]),
        ("x = a + b", [("a + b", "a - b"), ("a + b", "a"), ("a + b", "b"), ("a + b", "b + a")]),
        ("x = a << 2", [("a << 2", "a >> 2"), ("2", "3"), ("2", "1")]),
        ("x = a and b", [("a and b", "a or b"), ("a and b", "a"), ("a and b", "b")]),
        ("x = not a", [("not a", "a")]),
        ("x = b'ab'", [("b'ab'", "b'`b'"), ("b'ab'", "b'a'")]),
        ("x = '[0-9]{1,3}'", [("'[0-9]{1,3}'", "''"), ("'[0-9]{1,3}'", "'[0-9]{1,4}'")]),
        ("x = f(a, b)", [("f(a, b)", "f(b, a)")]),
        ("x = f(*a, k=1)", [("f(*a, k=1)", "f(k=1)"), ("f(*a, k=1)", "f(*a)")]),
        ("x = max(a)", [("max(a)", "min(a)")]),
        ("x = reversed(a)", [("reversed(a)", "a")]),
        ("x = a[1:]", [("a[1:]", "a[:]")]),
        ("x = (a, b)", [("(a, b)", "(b,)"), ("(a, b)", "(a,)")]),
        ("x = {a: 1, **b}", [("{a: 1, **b}", "{**b}"), ("{a: 1, **b}", "{a: 1}")]),
        ("x = [a for a in b if c]", [(" for a in b if c", " for a in b")]),
        (
            "x = a if b else c",
            [("a if b else c", "a if True else c"), ("a if b else c", "a if False else c")],
        ),
        ("if a:\n    b()", [("if a:", "if True:"), ("if a:", "if False:"), ("b()", "pass")]),
        ("if a:\n    raise b", [("if a:", "if False:")]),
        ("try:\n    a\nexcept (b, c):\n    raise", [("(b, c)", "(c,)"), ("raise", "pass")]),
        ("while a:\n    b += 1", [("while a:", "while False:"), ("b += 1", "b -= 1"), ("b += 1", "pass")]),
        ("for a in b:\n    continue", [("for a in b:", "for a in ():"), ("continue", "break")]),
        ("a.b = c", [("a.b = c", "pass")]),
        ("def f():\n    return a", [("return a", "return None")]),
    ],
)
def test_each_kind_of_small_wrong_is_made(source: str, expected: list[tuple[str, str]]) -> None:
    """What the tests are tried with is at least this."""
    assert made_of(source) >= set(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "from a import b",
        "__all__ = ['a', 'b']",
        "Alias = list[tuple[int, str]]",
        "@cache(1)\nclass A(B):\n    x: Literal[1, 2]",
        "raise A(f'{b} is not {c}')",
        "raise A('text')",
    ],
)
def test_what_no_test_should_depend_on_is_left_alone(source: str) -> None:
    """Documentation, types and the wording of errors may change freely."""
    assert made_of(source) <= {("raise A(f'{b} is not {c}')", "pass"), ("raise A('text')", "pass")}


def test_a_mutant_is_lent_and_the_source_is_whole_again_after_it() -> None:
    """Each tree holds one change; none is left behind in the next."""
    source = "def f(a, b):\n    return a < b\n"
    before = made_of(source)
    seen = [(mutant, compile(tree, "f", "exec")) for mutant, tree in mutants(source)]
    results = {}
    for mutant, code in seen:
        names: dict[str, object] = {}
        exec(code, names)
        f = names["f"]
        assert callable(f)
        results[mutant.after] = [f(1, 2), f(2, 2), f(3, 2)]
    assert results["a <= b"] == [True, True, False]
    assert results["a >= b"] == [False, True, True]
    assert results["return None"] == [None, None, None]
    assert made_of(source) == before


def test_changes_that_read_alike_are_numbered() -> None:
    """A listed mutant means one place, and keeps its name when lines move."""
    found = [mutant for mutant, _ in mutants("def f():\n    g(1)\n    h(1)\n") if mutant.before == "1"]
    assert [(one.after, one.number) for one in found] == [("2", 1), ("0", 1), ("2", 2), ("0", 2)]
    moved = [mutant for mutant, _ in mutants("\n\ndef f():\n    g(1)\n    h(1)\n") if mutant.before == "1"]
    assert moved == found
    assert [one.line for one in moved] == [4, 4, 5, 5]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make mutate` on the hashes, as a process, to its end."""
    command = [sys.executable, "-m", "tests.mutate", "--module", str(ROOT / "merkle/hashing.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.process
def test_the_runner_tells_what_becomes_of_each_mutant(tmp_path: Path) -> None:
    """A wrong that the tests notice is killed, one without end too; one that they do not notice lives and is told."""
    tests = tmp_path / "test_tiny.py"
    tests.write_text(TINY)
    results = {}
    for where in ("leaf_hash", "root_of"):
        ended = run("--where", where, "--tests", str(tests), "--json")
        assert ended.returncode == 1, ended.stderr
        results[where] = json.loads(ended.stdout)["merkle/hashing.py"]
    leaf, root = results["leaf_hash"], results["root_of"]
    assert {one["after"] for one in leaf["lives"]} == {"b'\\x00'", "entry + b'\\x00'"}
    assert leaf["killed"] == leaf["mutants"] - 2
    assert root["timeout"] >= 1  # `len(level) >= 1` is always so
    assert root["killed"] + root["timeout"] + len(root["lives"]) == root["mutants"]


@pytest.mark.process
def test_tests_that_fail_anyway_try_nothing(tmp_path: Path) -> None:
    """If the unchanged module fails, nothing can be said about a changed one, and that is said."""
    tests = tmp_path / "test_tiny.py"
    tests.write_text(TINY.replace("6e340b9c", "00000000"))
    ended = run("--where", "leaf_hash", "--tests", str(tests))
    assert (ended.returncode, "fails without any change" in ended.stderr) == (2, True)


def test_every_module_that_is_watched_has_tests() -> None:
    """All of merkle/ and the plan of a commit; each with the tests of its room at least."""
    assert {"merkle/proof.py", "archive/plan.py"} <= set(modules([]))
    for module in modules([]):
        assert all((ROOT / stage[0]).exists() for stage in stages_of(module))
    assert set(KNOWN) <= set(modules([]))


def test_lines_since_a_revision_are_those_of_its_difference() -> None:
    """Without a change since then there is nothing to try."""
    assert lines_since("HEAD", "no/such/file.py") == set()


@pytest.mark.parametrize("module", KNOWN)
def test_what_is_listed_is_still_in_the_source(module: str) -> None:
    """A listed mutant that can no longer be made has had its line changed: try again, and look again."""
    source = (ROOT / module).read_text("utf-8")
    lines, possible = source.splitlines(), {mutant: mutant.line for mutant, _ in mutants(source)}
    gone = [str(one) for one in listed()[module] if one not in possible]
    assert gone == []
    for one in KNOWN[module]["lives"]:
        mutant = Mutant(one["where"], one["before"], one["after"], one["number"], 0)
        assert lines[possible[mutant] - 1].strip() == one["line"]


def test_whatever_lives_has_its_reason_on_the_page() -> None:
    """The page has a heading for each reason, every survivor below one, and the counts of the list."""
    page = PAGE.read_text("utf-8")
    for module, entry in KNOWN.items():
        counts = [entry["mutants"], entry["killed"], entry["timeout"], len(entry["lives"])]
        assert counts[0] == sum(counts[1:])
        assert f"| `{module}` | " + " | ".join(f"{count:,}" for count in counts) + " |" in page
        for one in entry["lives"]:
            assert f"## {one['reason']}\n" in page
            where = f" `{one['where']}`" if one["where"] else ""
            assert f"- {module}{where}: `{one['before']}` → `{one['after']}`\n" in page
