"""make mutate: would the tests notice?  Each small wrong is put into a module, and its tests must fail.

    make mutate                                          all of merkle/, and archive/plan.py
    make mutate ARGS="--module merkle/proof.py"          one module (may be repeated)
    make mutate ARGS="--since main"                      only lines that changed since a revision
    make mutate ARGS="--listed"                          only those that docs/mutation.json lists

No file is written: this process has pytest and the libraries loaded but none of our rooms, and forks for each mutant
a child in which an import hook answers for that one module.  A child runs the module's own tests, then those of its
room, then the golden ones, each up to the first failure, with the same random examples every time.  What takes
several times as long as the unchanged module, or far more memory, is caught too.

Exit code 0: whatever lives is listed; 1: something else lives; 2: nothing could be tried.  What the changes are is
`tests.mutants`' business; what lives, and why that is well, docs/mutation.md tells.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from tests.mutants import Mutant, mutants
from tools.console import progress

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "docs" / "mutation.json"
GOLDEN = ("tests/test_golden.py", "tests/archive/test_formats.py")
LOADED = (
    "_hypothesis_pytestplugin",
    "_pytest.junitxml",
    "anyio.pytest_plugin",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.asymmetric.mldsa",
    "cryptography.hazmat.primitives.ciphers.aead",
    "hypothesis.internal.conjecture.engine",
    "hypothesis.strategies",
    "lmdb",
    "msgspec",
    "numpy.random",
    "pdb",
    "pytest_timeout",
)
"""What every child would import; the rooms themselves it imports with the change in them."""
OPTIONS = [
    *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-x", "-q", "--assert=plain"),
    *("-m", "not process and not long and not conformance"),
    # Nobody reads the output, time is limited from outside, and each of these costs more than most tests.
    *("-o", "timeout=0", "-o", "faulthandler_timeout=0"),
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "unraisableexception", "threadexception")),
]
MEMORY_MAX = 2 << 30
SLOWER, SLOWER_S = 3, 1
"""A mutant may take three times the processor time of the unchanged module, and a second."""
KILLED, TIMEOUT, LIVES = "killed", "timeout", "lives"


class Stage(NamedTuple):
    """Tests that run together, and how much processor time a mutant has for them."""

    tests: tuple[str, ...]
    limit_s: int


def modules(names: Sequence[str]) -> list[str]:
    """Return paths from the root of the checkout: those named, or all that must be watched."""
    if not names:
        return [
            *(f"merkle/{path.name}" for path in sorted((ROOT / "merkle").glob("*.py"))),
            "archive/plan.py",
        ]
    return [Path(name).resolve().relative_to(ROOT).as_posix() for name in names]


def stages_of(module: str) -> list[tuple[str, ...]]:
    """Return the tests that speak of a module, nearest first: its own, the rest of its room's, the golden ones.

    >>> stages_of("merkle/proof.py")[:2]
    [('tests/merkle/test_proof.py',), ('tests/merkle', '--ignore=tests/merkle/test_proof.py')]
    >>> stages_of("archive/plan.py")[0]
    ('tests/archive/test_plan.py', 'tests/archive/test_plan_entries.py')
    """
    room, name = module.removesuffix(".py").split("/")
    names = {path.stem for path in (ROOT / room).glob("*.py")} - {name}
    found = sorted((ROOT / "tests" / room).glob(f"test_{name}*.py"))
    own = tuple(f"tests/{room}/{path.name}" for path in found if path.stem.removeprefix("test_") not in names)
    rest = (f"tests/{room}", *(f"--ignore={path}" for path in own))
    return [own, rest, GOLDEN] if own else [rest, GOLDEN]


# --- a child -------------------------------------------------------------------------------------


def lives(module: str, code: CodeType | None, stage: Stage) -> tuple[str, float]:
    """Run tests with `code` in the place of a module; return what became of it, and processor time in seconds."""
    child = os.fork()
    if child == 0:
        status = 70
        with suppress(BaseException):
            status = _run(module, code, stage)
        os._exit(status)
    with _opened(os.pidfd_open(child)) as ended:
        if not select.select([ended], [], [], 20 * stage.limit_s)[0]:
            os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    spent_s = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}:
        return TIMEOUT, spent_s
    return (LIVES if status == 0 else KILLED), spent_s


def _opened(descriptor: int) -> Any:
    return os.fdopen(descriptor, closefd=True)


def _run(module: str, code: CodeType | None, stage: Stage) -> int:
    """In the child: run pytest and return its exit code."""
    import pytest

    os.setsid()
    os.chdir(ROOT)
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (stage.limit_s, stage.limit_s + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
    for name in [name for name in sys.modules if name.partition(".")[0] in ROOMS]:
        del sys.modules[name]
    if code is not None:
        sys.meta_path.insert(0, _Instead(module, code))
    return int(pytest.main([*OPTIONS, *stage.tests], plugins=[_SameExamples()]))


ROOMS = {"merkle", "archive", "reducers", "replay", "api", "tools", "tests"}


class _Instead(SourceFileLoader):
    """Finds and loads one module: its file, but other code."""

    def __init__(self, module: str, code: CodeType) -> None:
        super().__init__(module.removesuffix(".py").replace("/", "."), str(ROOT / module))
        self._code = code

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Answer for this one module."""
        del path, target
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        """Return the code instead."""
        del fullname
        return self._code


class _SameExamples:
    """Lets hypothesis draw the same examples in every run, remember none, and not look for smaller ones."""

    def pytest_configure(self) -> None:
        """Set that up, after tests/conftest.py has chosen a profile."""
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutate",
            max_examples=50,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutate")


# --- a module ------------------------------------------------------------------------------------


def prepared(module: str, arguments: argparse.Namespace) -> list[Stage]:
    """Return the stages of a module with their limits, having seen all tests pass without a change."""
    stages = []
    asked_for = [tuple(arguments.tests)] if arguments.tests else stages_of(module)
    for tests in asked_for[: 1 if arguments.own else None]:
        outcome, spent_s = lives(module, None, Stage(tests, 600))
        if outcome != LIVES:
            raise RuntimeError(f"{' '.join(tests)} fails without any change; mend that before")
        stages.append(Stage(tests, int(spent_s * SLOWER) + SLOWER_S))
    return stages


def fate(module: str, code: CodeType, stages: Sequence[Stage]) -> str:
    """Return what becomes of one mutant."""
    for stage in stages:
        outcome, _ = lives(module, code, stage)
        if outcome != LIVES:
            return outcome
    return LIVES


def chosen(
    module: str, arguments: argparse.Namespace, listed: set[Mutant]
) -> Iterator[tuple[Mutant, CodeType]]:
    """Yield the mutants of a module that were asked for, compiled."""
    changed = lines_since(arguments.since, module) if arguments.since else None
    for mutant, tree in mutants((ROOT / module).read_text("utf-8")):
        wanted = arguments.where in {None, mutant.where} and (not arguments.listed or mutant in listed)
        if wanted and (changed is None or mutant.line in changed):
            yield mutant, compile(tree, str(ROOT / module), "exec", dont_inherit=True)


def lines_since(revision: str, module: str) -> set[int]:
    """Return the numbers of a file's lines that are new since a revision of git."""
    command = ["git", "-C", str(ROOT), "diff", "--unified=0", revision, "--", module]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    hunks = re.findall(r"^@@ [^+]*\+(\d+)(?:,(\d+))? @@", found, re.MULTILINE)
    return {line for start, count in hunks for line in range(int(start), int(start) + int(count or 1))}


# --- the list ------------------------------------------------------------------------------------


def listed() -> dict[str, set[Mutant]]:
    """Return what docs/mutation.json says about each module."""
    known = json.loads(LIST.read_text()) if LIST.exists() else {"modules": {}}
    return {
        module: {
            Mutant(one["where"], one["before"], one["after"], one["number"], 0) for one in entry["lives"]
        }
        for module, entry in known["modules"].items()
    }


def as_json(module: str, mutant: Mutant) -> dict[str, object]:
    """Return a mutant as the list has it; the reason is a person's to add."""
    line = (ROOT / module).read_text("utf-8").splitlines()[mutant.line - 1].strip()
    names = ("where", "before", "after", "number")
    return {**{name: getattr(mutant, name) for name in names}, "line": line}


# --- the command ---------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(prog="make mutate", description="Would the tests notice?")
    made.add_argument(
        "--module", action="append", default=[], metavar="PATH", help="this file only; again for more"
    )
    made.add_argument("--where", metavar="NAME", help="only in this function, such as Policy.parse")
    made.add_argument("--since", metavar="REVISION", help="only lines that changed since then (git)")
    made.add_argument("--listed", action="store_true", help="only those that docs/mutation.json lists")
    made.add_argument("--own", action="store_true", help="run a module's own tests only: quicker, more lives")
    made.add_argument("--tests", nargs="+", metavar="PATH", help="run these tests, and no others")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Try all mutants that were asked for; return 0 if only listed ones live, 1 if not, 2 if none was tried."""
    arguments = parser().parse_args(argv)
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    known, results = listed(), {}
    try:
        for module in modules(arguments.module):
            results[module] = tried(module, arguments, known.get(module, set()))
    except (OSError, RuntimeError, ValueError, SyntaxError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"mutate: {error}\n")
        return 2
    sys.stdout.write((json.dumps(results, indent=1) if arguments.json else told(results)) + "\n")
    return int(any(not one["listed"] for result in results.values() for one in result["lives"]))


def tried(module: str, arguments: argparse.Namespace, known: set[Mutant]) -> dict[str, Any]:
    """Return counts and survivors of one module."""
    work = list(chosen(module, arguments, known))
    counts: dict[str, Any] = {"mutants": len(work), KILLED: 0, TIMEOUT: 0, LIVES: []}
    stages = prepared(module, arguments) if work else []
    with progress(module, len(work)) as advance:
        for mutant, code in work:
            outcome = fate(module, code, stages)
            if outcome == LIVES:
                counts[LIVES].append({**as_json(module, mutant), "listed": mutant in known})
            else:
                counts[outcome] += 1
            advance(1)
    return counts


def told(results: dict[str, dict[str, Any]]) -> str:
    """Return the results for people: a table, then what lives and is not listed."""
    width = max(map(len, results))
    lines = [f"{'':<{width}}  mutants  killed  timeouts  live  of these listed"]
    for module, one in results.items():
        of_these = sum(each["listed"] for each in one[LIVES])
        numbers = (
            f"{one['mutants']:>7}  {one[KILLED]:>6}  {one[TIMEOUT]:>8}  {len(one[LIVES]):>4}  {of_these:>15}"
        )
        lines.append(f"{module:<{width}}  {numbers}")
    for module, one in results.items():
        fresh = [each for each in one[LIVES] if not each["listed"]]
        lines += [
            f"{module} {each['where']}: {each['before']} → {each['after']}\n    {each['line']}"
            for each in fresh
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
