"""Promise: what is exported for any web server is what the server itself shows the outside, and never more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from archive import DataFolder, Target, write_cosigned
from merkle import Cosigner, Policy, Signature
from tests.api.front import Front
from tests.world import event
from tools import export, serve
from tools.outside import keep_policy
from tools.settings import Settings

NORTH, SOUTH = (Cosigner(f"witness.example/{name}", name.encode() * 32) for name in "ns")
NAMED = f"witness n {NORTH.verifier.encode()}\nwitness s {SOUTH.verifier.encode()}\n"
ONE = f"{NAMED}quorum n\n"
BOTH = f"{NAMED}group both 2 n s\nquorum both\n"


class Served(NamedTuple):
    """A log that is at rest, of which a witness has cosigned a beginning, and what the server showed of it."""

    folder: DataFolder
    size: int
    """All that is published."""
    cosigned: int
    shown: dict[str, bytes]
    """What /log answered, by path, under the policy ONE."""


@pytest.fixture
def log(tmp_path: Path) -> Served:
    """Return such a log."""
    front = Front(tmp_path / "data")
    front.archiver.step([event("ann") for _ in range(300)])
    with front.source.open() as view:
        target = Target.newest(view)
    sign_as(front.folder, target, NORTH)
    front.archiver.step([event("bob")])
    front.services.policy = Policy.parse(ONE.encode())
    http, paths = front.client(), ("checkpoint", f"tile/entries/001.p/{target.size - 256}")
    shown = {path: http.get(f"/log/{path}").content for path in paths}
    front.close()
    return Served(front.folder, front.archiver.head.size, target.size, shown)


def sign_as(folder: DataFolder, target: Target, *witnesses: Cosigner) -> None:
    """Write what these witnesses have cosigned, as the server does when a policy is met that asks for them."""
    for one in witnesses:
        signer = one.at(100)
        text = target.checkpoint.encode().encode()
        target.add(signer.name[-1], [Signature(signer.name, signer.key_id, signer.sign(text))])
    assert write_cosigned(
        folder.cosigned, target, Policy.parse((ONE if len(witnesses) == 1 else BOTH).encode())
    )


def policy(path: Path, text: str) -> Path:
    """Write a policy to a file, and return its path."""
    path.write_text(text)
    return path


Tiles = Callable[..., str]


@pytest.fixture
def tiles(log: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tiles:
    """Return a function that exports into `public`, and returns what was said, having checked the exit code."""

    def command(*more: object, code: int = 0) -> str:
        capsys.readouterr()
        arguments = ["tiles", tmp_path / "public", "--data", log.folder.path, *more]
        assert export.main([*map(str, arguments)]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return command


def size_of(out: Path) -> int:
    """Return the size that the checkpoint of an exported log names."""
    return Target((out / "checkpoint").read_bytes()).size


def test_without_any_option_it_is_what_the_server_shows(log: Served, tiles: Tiles, tmp_path: Path) -> None:
    """Byte for byte, cosignatures included, under the policy that the server began with; and nothing beyond."""
    keep_policy(log.folder, policy(tmp_path / "policy", ONE))
    (tmp_path / "policy").unlink()
    tiles()
    for path, content in log.shown.items():
        assert (tmp_path / "public" / path).read_bytes() == content
    assert [path.name for path in (tmp_path / "public/tile/entries/001.p").iterdir()] == [
        str(log.cosigned - 256)
    ]


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_the_policy_is_found_where_the_server_finds_it(
    log: Served, tiles: Tiles, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag, a variable and the server's file come before what the server began with, and are honoured."""
    keep_policy(log.folder, None)
    file, more = policy(tmp_path / "policy", BOTH), list[object]()
    if how == "variable":
        monkeypatch.setenv("TREERING_POLICY", str(file))
    elif how == "flag":
        more = ["--policy", file]
    else:
        more = ["--config", policy(tmp_path / "treering.toml", f"policy = {json.dumps(str(file))}\n")]
    assert "no checkpoint was cosigned by enough witnesses yet" in tiles(*more, code=2)
    assert not (tmp_path / "public").exists()
    file.write_text(ONE)
    tiles(*more)
    assert size_of(tmp_path / "public") == log.cosigned


def test_before_the_policy_is_met_nothing_is_written(log: Served, tiles: Tiles, tmp_path: Path) -> None:
    """Neither by a witness who does not count any more, nor where nobody has signed: 2, a reason, no folder."""
    keep_policy(log.folder, policy(tmp_path / "policy", BOTH))
    for _ in range(2):
        for more in ((), ("--dry-run",)):
            assert "no checkpoint was cosigned by enough witnesses yet; ask again later" in tiles(
                *more, code=2
            )
            assert not (tmp_path / "public").exists()
        log.folder.cosigned.unlink(missing_ok=True)


def test_a_stricter_policy_takes_nothing_back(log: Served, tiles: Tiles, tmp_path: Path) -> None:
    """What is there stays, byte for byte, until so much is cosigned; then the export goes on."""
    keep_policy(log.folder, None)
    tiles()
    out = tmp_path / "public"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    keep_policy(log.folder, policy(tmp_path / "policy", ONE))
    said = tiles(code=2)
    assert f"holds {log.size} entries already, and enough witnesses have cosigned {log.cosigned}" in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    newest = Target((out / "checkpoint").read_bytes())
    sign_as(log.folder, newest, NORTH, SOUTH)
    keep_policy(log.folder, policy(tmp_path / "policy", BOTH))
    tiles()
    assert size_of(out) == log.size
    assert (out / "checkpoint").read_bytes() == log.folder.cosigned.read_bytes()


def test_that_nobody_is_asked_must_have_been_said(log: Served, tiles: Tiles, tmp_path: Path) -> None:
    """Witnesses have signed this log; which policy is in force is not guessed. A server without one says so."""
    assert "name it with --policy, or start the server once" in tiles(code=2)
    assert not (tmp_path / "public").exists()
    keep_policy(log.folder, None)
    tiles()
    assert size_of(tmp_path / "public") == log.size


def test_all_is_asked_for_by_name(log: Served, tiles: Tiles, tmp_path: Path) -> None:
    """`--all` goes beyond the policy, and cannot be given beside one."""
    keep_policy(log.folder, policy(tmp_path / "policy", ONE))
    tiles("--all")
    assert size_of(tmp_path / "public") == log.size
    with pytest.raises(SystemExit) as stopped:
        export.main(["tiles", "public", "--all", "--policy", "policy"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("text", [None, "", "quorum nobody\n"])
def test_a_policy_that_cannot_be_read_lets_nothing_out(
    log: Served, tiles: Tiles, text: str | None, tmp_path: Path
) -> None:
    """A file that is missing, empty or malformed is named; only the server's own copy may be empty."""
    keep_policy(log.folder, None)
    if text is not None:
        policy(tmp_path / "policy", text)
    assert str(tmp_path / "policy") in tiles("--policy", tmp_path / "policy", code=2)
    if text:
        log.folder.policy.write_text(text)
        assert str(log.folder.policy) in tiles(code=2)
    assert not (tmp_path / "public").exists()


def test_a_log_that_was_set_back_behind_its_witnesses_is_a_finding(
    log: Served, tiles: Tiles, tmp_path: Path
) -> None:
    """What they have cosigned is gone from it: that is for verify-log, and nothing is exported."""
    keep_policy(log.folder, policy(tmp_path / "policy", ONE))
    log.folder.published.write_bytes((2).to_bytes(8, "little"))
    assert "it was set back; run verify-log" in tiles(code=1)
    assert not (tmp_path / "public").exists()


# --- who says which policy is in force ------------------------------------------------------------


def test_a_server_keeps_the_policy_it_begins_with(tmp_path: Path) -> None:
    """Its processes and whoever exports read one copy; a start without a policy empties it."""
    folder, file = DataFolder(tmp_path / "data"), policy(tmp_path / "policy", ONE)
    for settings, kept in (
        (Settings(data=folder.path, port=0, policy=file), ONE),
        (Settings(data=folder.path, port=0), ""),
    ):
        lock, listener = serve.prepare(settings)
        listener.close()
        os.close(lock)
        assert folder.policy.read_text() == kept
    commands = [one.command() for one in serve.children(Settings(data=folder.path, policy=file), 0, [])]
    named = [command[command.index("--policy") + 1] for command in commands if "--policy" in command]
    assert named == [str(folder.policy)] * 2
