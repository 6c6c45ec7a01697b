"""Leaves from anywhere are believed only if they lead to the root that was signed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from archive import FolderDisk, IntegrityError, NotFound, Unavailable, export_tiles, rotation_body
from merkle import Bundle, Ed25519Signer, FormatError, SignatureError, sign_note
from tests.archive.published_log import SignedLog
from tests.archive.site import SIGNER
from tools.fetching import Fetcher
from tools.leaves import (
    FolderSource,
    HttpSource,
    open_leaves,
    open_signed,
    ring_of_leaves,
    signer_of,
    verified_leaves,
)

LOG = SignedLog.of([100, 300, 600])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an exported log of 600 entries."""
    with closing(FolderDisk(tmp_path / "log")) as disk:
        export_tiles(LOG.source, 600, disk)
    return tmp_path / "log"


def roots(*sizes: int) -> dict[int, bytes]:
    """Return the roots at some sizes."""
    with LOG.open(600) as log:
        return {size: log.root(size) for size in sizes}


def test_all_leaves_come_in_order(folder: Path) -> None:
    """With roots checked at several sizes, also within a bundle and at its end."""
    found = list(verified_leaves(FolderSource(folder), 600, roots(0, 1, 100, 255, 256, 300, 512, 600)))
    assert found == LOG.leaves()
    assert list(verified_leaves(FolderSource(folder), 0, roots(0))) == []


@pytest.mark.parametrize("size", [0, 1, 100, 256, 300, 600])
def test_a_root_that_was_signed_for_other_leaves_is_noticed(folder: Path, size: int) -> None:
    """Wherever it stands: at the end, within a bundle, at size 0."""
    wrong = {**roots(600), size: bytes(32)}
    with pytest.raises(IntegrityError, match=f"the first {size} leaves have the root"):
        list(verified_leaves(FolderSource(folder), 600, wrong))


def test_a_full_bundle_stands_in_for_a_partial_one(folder: Path) -> None:
    """A log that has grown need not keep the parts of what is full (C2SP tlog-tiles)."""
    assert not (folder / Bundle(1, 44).path()).exists()
    assert list(verified_leaves(FolderSource(folder), 300, roots(300))) == LOG.leaves()[:300]


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    """A bundle that is not there, a folder without a log, a server that does not answer."""
    (folder / Bundle(1).path()).unlink()
    with pytest.raises(NotFound, match="tile/entries/001"):
        list(verified_leaves(FolderSource(folder), 600, roots(600)))
    with pytest.raises(NotFound, match="there is no log"):
        open_leaves(str(tmp_path / "elsewhere"))
    with pytest.raises(Unavailable):
        open_leaves("http://127.0.0.1:1/")


@pytest.mark.parametrize("place", ["http://[::1", "http://", "http://\x00", "http://a b:c", "http://a..b/"])
def test_what_is_no_address_is_said_to_be_none(place: str) -> None:
    """A slip in an address is no traceback, nor trouble of the server's."""
    with pytest.raises(NotFound, match="not an address"):
        open_leaves(place)


def test_a_log_is_found_below_the_address_of_its_server(folder: Path) -> None:
    """The address of a whole server or the parent folder will do."""
    assert open_leaves(str(folder.parent)).read("checkpoint") == (folder / "checkpoint").read_bytes()


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (500, Unavailable), (304, Unavailable)])
def test_statuses_are_told_apart(status: int, error: type[Exception]) -> None:
    """Not there is final; trouble is not."""
    answers = httpx2.MockTransport(lambda _: httpx2.Response(status, stream=httpx2.ByteStream(b"x")))
    with (
        closing(HttpSource("http://log.example/", Fetcher(transport=answers))) as source,
        pytest.raises(error, match=r"http://log\.example/checkpoint"),
    ):
        source.read("checkpoint")


def test_a_checkpoint_is_opened_with_any_of_a_logs_keys(folder: Path) -> None:
    """One that signed is enough; none that signed is refused; without keys it is taken as it is, if it is one."""
    note = (folder / "checkpoint").read_bytes()
    other = Ed25519Signer("example.org/log", b"o" * 32).verifier
    for keys in ([], [SIGNER.verifier], [other, SIGNER.verifier], [SIGNER.verifier, other]):
        assert open_signed(note, keys).size == 600
    with pytest.raises(SignatureError):
        open_signed(note, [other])
    with pytest.raises(FormatError):
        open_signed(b"\xff\xfe", [])


def test_of_several_keys_that_signed_the_last_counts() -> None:
    """Where the old and the new key have both signed, it is the present one that is followed."""
    other = Ed25519Signer("example.org/log", b"o" * 32)
    note = sign_note(f"example.org/log\n0\n{'A' * 43}=\n", [SIGNER, other])
    for keys in ([SIGNER.verifier, other.verifier], [other.verifier, SIGNER.verifier]):
        assert signer_of(note, keys) == keys[-1]


def test_the_keys_of_a_log_are_those_that_its_leaves_lead_to() -> None:
    """Without a rotation the one that signed, with rotations those that they name; a key beyond them is refused."""
    first, second, third = (Ed25519Signer("example.org/log", bytes([n]) * 32) for n in (1, 2, 3))
    rotations = [(4, rotation_body(4, first, second))]
    assert ring_of_leaves([], [first.verifier], first.verifier).keys == [(0, first.verifier)]
    both = [(0, first.verifier), (6, second.verifier)]
    for one in (first, second):
        assert ring_of_leaves(rotations, [one.verifier], one.verifier).keys == both
    for found, known in (([], [first, second]), (rotations, [first, third]), (rotations, [third])):
        with pytest.raises(IntegrityError, match="do not lead to the key"):
            ring_of_leaves(found, [key.verifier for key in known], first.verifier)
    with pytest.raises(IntegrityError, match="rotates away from a key that is not the log's"):
        ring_of_leaves([*rotations, (9, rotation_body(9, first, third))], [first.verifier], first.verifier)
