"""Promise: pages say what the code does: limits, names and examples are those that hold, and nothing is made up."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from api.lo import LOCK_BYTES_MAX
from reducers import is_module_name, shipped
from reducers.forbidden import INSTEAD
from reducers.message import DATA_BYTES_MAX, EMITTED_MAX
from tests.architecture.source import ROOT
from tools.new_files import files

DOCS = ROOT / "docs"


def text(path: str) -> str:
    """Return a page with single spaces for all white space, so that line ends do not matter."""
    return " ".join((ROOT / path).read_text("utf-8").split())


def rows() -> dict[str, str]:
    """Return what the glossary says of each word."""
    page = (DOCS / "glossary.md").read_text("utf-8")
    found = [line.strip("| ").split(" | ", 1) for line in page.splitlines() if line.startswith("| ")]
    return {word: meaning for word, meaning in found if word != "Word"}


def test_what_one_event_may_say_is_what_the_code_lets_it_say() -> None:
    """The limits of messages are those of `emit`; a number that nothing enforces would invite trust."""
    page = text("docs/formats/message.md")
    assert f"at most {EMITTED_MAX:,} messages" in page
    assert f"at most {DATA_BYTES_MAX:,} bytes" in page
    assert "1 MiB" not in page


@pytest.mark.parametrize(
    ("decision", "later"),
    [
        ("0007-late-identity", f"the limit is {LOCK_BYTES_MAX:,} bytes"),
        ("0009-processes", "Later: front, workers, archiver"),
        ("0054-steering", "Later: a rebuild of the active reducers says all of it again"),
        ("0057-two-stages", "Later: the loop does keep a lone writer's events itself"),
    ],
)
def test_a_decision_that_was_changed_points_at_what_changed_it(decision: str, later: str) -> None:
    """Who reads an old page is not left with a rule that no longer holds."""
    said = text(f"docs/adr/{decision}.md")
    assert later in said
    assert re.search(r"Later: [^:]{,160}\]\([^)]+\)", said), "a note has a link"


def test_each_word_stands_once_in_the_glossary() -> None:
    """One word for one thing: words in use are there, and none is there twice."""
    page = (DOCS / "glossary.md").read_text("utf-8")
    words = Counter(re.findall(r"^\| ([a-z][a-z ]*) \|", page, re.MULTILINE))
    assert [word for word, count in words.items() if count > 1] == []
    assert {"slot", "bundle", "frontier", "front", "slice", "batch", "tenant", "sender", "job"} <= set(words)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("state", "Reports use the word"),
        ("finding", "Of a reducer"),
        ("partition", "*partition key*"),
        ("level", "*tile level*"),
        ("job", "`--jobs`"),
        ("slot", "seal's"),
    ],
)
def test_a_word_with_two_meanings_is_listed_with_both(word: str, other: str) -> None:
    """Where one word came to mean two things, the glossary admits it."""
    assert other in rows()[word]


def test_what_is_not_built_is_said_to_be_not_built() -> None:
    """A name on a page makes readers look for the thing."""
    for word in ("grade", "tombstone", "module", "job"):
        assert "not built yet" in rows()[word].lower()
    assert "Treering runs no jobs of modules yet" in text("docs/reducers.md")
    assert [advice for advice in INSTEAD.values() if re.search(r"\bjobs?\b", advice)] == []


def test_the_name_of_a_module_follows_the_rule_of_the_guide() -> None:
    """Letters, digits, `_` and `-`, at most 64, and no digit or `-` first."""
    rule = "1 to 64 letters, digits, `_` and `-`, and begins with a letter or `_`"
    assert rule in text("docs/reducers.md")
    assert all(map(is_module_name, ("a", "_", "A-1", "a" * 64)))
    assert not any(map(is_module_name, ("", "1a", "-a", "a.b", "a" * 65)))


def test_reducers_of_the_audit_page_are_there() -> None:
    """An example that is typed as it stands finds its reducer: one that is shipped, or the guide's."""
    known = {one.name for one in shipped()} | set(
        re.findall(r"def (essay_stats_\w+)\(state", "".join(files("essay-stats", "essay_stats").values()))
    )
    named = set(re.findall(r"--reducer ([a-z_]+)", (DOCS / "audit.md").read_text("utf-8")))
    assert named
    assert named - known == set()


def test_every_golden_vector_is_named_on_the_page_of_its_format() -> None:
    """Who implements a format finds the bytes to try it with; and a page names no file that is not there."""
    pages = {path: path.read_text("utf-8") for path in (DOCS / "formats").glob("*.md")}
    named = {name for page in pages.values() for name in re.findall(r"`(tests/vectors/[\w/.-]+)`", page)}
    assert [name for name in named if not (ROOT / name).exists()] == []
    for page in ("policy", "vault", "backup", "entry"):
        assert "tests/vectors/" in pages[DOCS / "formats" / f"{page}.md"]
    own = {"software.json", "policy.json", "vault.json", "backup.json"}
    assert own <= {Path(name).name for name in named}
