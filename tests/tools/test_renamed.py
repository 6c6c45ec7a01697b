"""Promise: a module may be renamed: what lies under its old name stops nobody, and answers nobody under the new one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from archive import Activate
from reducers import Module, available, load
from replay import Catalogue, Gathered, catalogue_of, module_folder, write_catalogue
from tests.tools.left import Installed, package
from tests.world import event, pages, seen
from tools import replay, upgrade
from tools.loading import activation, gathered, identities, load_modules, owned, taken_by
from tools.offline import log_of
from tools.past import module_of
from tools.verify_state import installed
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


@pytest.mark.parametrize(
    ("there", "names", "installed", "active", "owner"),
    [
        ([], ["lexis", "words"], ["lexis", "words"], [], None),
        (LEFT[:1], ["lexis", "words"], ["lexis", "words"], [], "words"),
        (LEFT[:1], ["lexis", "words"], ["lexis", "words"], [LEXIS, WORDS], "words"),
        (LEFT, ["lexis", "words"], ["lexis", "words"], [WORDS, LEXIS], "lexis"),
        (LEFT, ["lexis", "words"], ["words"], [WORDS, LEXIS], "words"),
        (LEFT, ["lexis"], ["lexis", "words"], [WORDS], None),
    ],
    ids=["nobody", "left states", "active last", "and back", "gone", "not looked at"],
)
def test_whose_a_reducer_is_among_all_that_are_looked_at(
    there: list[Catalogue],
    names: Collection[str],
    installed: Collection[str],
    active: list[Module],
    owner: str | None,
) -> None:
    """The log says it, whatever comes first by name; without a word of it, states that lie there do."""
    assert owned(there, names, installed, steered(*active)).get("pages") == owner


COUNT = '''
    """Counts."""
    from reducers import Event, reducer

    @reducer(scope=("student",))
    def shared_name(state: int, event: Event) -> int:
        """Count."""
        return state + 1

    REDUCERS = [shared_name]
'''


def test_a_check_replays_the_module_that_has_a_name_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another one that is only installed has the same name for a reducer, and comes first in the alphabet."""
    with package(tmp_path / "lib", "zold", COUNT, monkeypatch):
        left = Installed(tmp_path / "data")
        left.steer(Activate("zold", identities(load(available()["zold"]).reducers)))
        left.append(event("ann"))
        left.close()
        with package(tmp_path / "lib2", "anew", COUNT.replace("+ 1", "+ 2"), monkeypatch):
            assert replay.main(["--data", str(left.data), "--check"]) == 0
            said = capsys.readouterr()
            assert "equal: " in said.out
            assert "zold: it cannot be loaded" not in said.out
            assert "module 'anew': its reducer 'shared_name' is named like one of module zold" in said.err
            assert replay.main(["--data", str(left.data), "--module", "anew", "--check"]) == 2
            assert "module anew: it never ran on this server" in capsys.readouterr().out
            assert upgrade.main(["--data", str(left.data)]) == 0
            rows = capsys.readouterr().out
            assert "zold: as installed" in rows
            assert (
                "anew: cannot be loaded: its reducer 'shared_name' is named like one of module zold" in rows
            )
            with log_of(left.front.folder) as source:
                _, module = installed("shared_name", left.front.folder, gathered(source))
            assert module == "zold", "whose states an answer of a server is about"


def test_what_lies_under_an_old_name_that_is_still_installed_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new name has the reducers by the log: the old module is left out, and its states answer nobody."""
    with (
        package(tmp_path / "lib", "zold", COUNT, monkeypatch),
        package(tmp_path / "lib2", "anew", COUNT, monkeypatch),
    ):
        left = Installed(tmp_path / "data")
        for name in ("zold", "anew"):
            left.steer(Activate(name, identities(load(available()[name]).reducers)))
        left.append(event("ann"))
        left.close()
        assert {"anew", "zold"} <= {one.name for one in (left.data / "state" / "0").iterdir()}
        code = replay.main(["--data", str(left.data), "--check"])
        said = capsys.readouterr().out
        assert (code, "zold: it cannot be loaded" in said) == (0, False)
        assert "module zold is not replayed: its reducers are those of anew now" in said
