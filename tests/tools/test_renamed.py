"""Promise: a module may be renamed: what lies under its old name stops nobody, and answers nobody under the new one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from archive import Activate
from reducers import Module, available
from replay import Catalogue, Gathered, catalogue_of, module_folder, write_catalogue
from tests.tools.left import Installed
from tests.world import event, pages, seen
from tools.loading import activation, identities, load_modules, taken_by
from tools.past import module_of
from tools.warden import owners_of

WORDS, LEXIS = Module("words", (pages,)), Module("lexis", (pages,))
LEFT = [catalogue_of(one) for one in (WORDS, LEXIS)]


def steered(*modules: Module) -> Gathered:
    """Return the steering of a log in which these were activated, one after the other."""
    steering = Gathered()
    for at, one in enumerate(modules, 1):
        steering.take(at, Activate(one.name, identities(one.reducers)))
    return steering


@pytest.mark.parametrize(
    ("there", "name", "installed", "active", "owner"),
    [
        (LEFT[:1], "lexis", ["lexis"], [WORDS], None),
        (LEFT[:1], "lexis", ["lexis", "words"], [WORDS], "words"),
        (LEFT[:1], "lexis", ["lexis", "words"], [], "words"),
        (LEFT, "lexis", ["lexis", "words"], [WORDS, LEXIS], None),
        (LEFT, "words", ["lexis", "words"], [WORDS, LEXIS], "lexis"),
        (LEFT, "words", ["words"], [WORDS, LEXIS], None),
        (LEFT[1:], "zeta", ["lexis", "zeta"], [WORDS], "lexis"),
        (LEFT[1:], "zeta", ["lexis", "zeta"], [LEXIS, WORDS], "lexis"),
    ],
    ids=["gone", "there, too", "just begun", "taken over", "came back", "is back alone", "third", "and back"],
)
def test_whose_a_reducer_is(
    there: list[Catalogue], name: str, installed: Collection[str], active: list[Module], owner: str | None
) -> None:
    """Of modules that are installed, the one has it that was activated last; who is not installed has nothing."""
    taken = taken_by(there, [name], installed, steered(*active))
    assert taken.get("pages") == owner


def test_two_that_are_installed_are_told_what_to_do() -> None:
    """To try it again, as it is, changes nothing: one of the two has to go, or to get another name."""
    assert load_modules(["activity"], {}, lambda _: Module("activity", (seen,))).errors == []
    (error,) = load_modules(["activity"], {"seen": "words"}, lambda _: Module("activity", (seen,))).errors
    assert "named like one of module words, which is installed, too; uninstall one of the two" in str(error)


def test_who_has_the_old_name_again_says_so_in_the_log() -> None:
    """Else the log would say that the reducers are another's still; said once, it need not be said again."""
    steering = steered(WORDS, LEXIS)
    entry = activation(WORDS, steering)
    assert entry is not None
    assert activation(LEXIS, steering) is None
    steering.take(9, entry)
    assert (steering.holder("pages"), activation(WORDS, steering)) == ("words", None)


def test_a_module_that_was_switched_off_holds_nothing() -> None:
    """Nor does one whose newer version lacks the reducer."""
    steering = steered(WORDS)
    steering.take(5, Activate("words", identities([seen])))
    assert (steering.holder("pages"), steering.holder("seen")) == (None, "words")
    steering.take(6, Activate("words", ()))
    assert steering.holder("seen") is None


def test_a_skip_of_a_reducer_is_for_the_module_that_waits() -> None:
    """Whatever lies under another name: nobody waits there."""
    assert owners_of(LEFT, {"lexis": 4}) == {"pages": "lexis"}
    assert owners_of(LEFT[::-1], {"lexis": 4}) == {"pages": "lexis"}


@pytest.mark.parametrize("last", ["activity", "writing"])
def test_a_state_as_it_was_is_made_by_the_module_that_has_the_reducer(tmp_path: Path, last: str) -> None:
    """Of two that are installed the log says whose it is; one that is not installed is asked only if nobody else is."""
    left = Installed(tmp_path / "data")
    left.append(event("ann"))
    for name in ("activity", "writing", last):
        left.steer(Activate(name, identities([pages])))
    left.close()
    folder = left.front.folder
    for name in ("a_gone", "zeta_gone"):
        write_catalogue(module_folder(folder.state, 0, name), catalogue_of(Module(name, (pages,))))
    assert module_of(folder, "pages") == "a_gone"
    assert "a_gone" not in available()
    for name in ("activity", "writing"):
        write_catalogue(module_folder(folder.state, 0, name), catalogue_of(Module(name, (pages,))))
    assert module_of(folder, "pages") == last
