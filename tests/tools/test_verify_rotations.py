"""verify-log with the log's key: an entry that claims to change the key, and does not, never passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, rotation_body
from archive.entry import encode_control
from merkle import Ed25519Signer, Note, sign_note
from tests.tools.little_log import KEY, honest
from tools import verify_log
from tools.drill_copy import Copy

__all__ = ["honest"]

NEXT = Ed25519Signer("example.org/drill", b"n" * 32)
STRANGER = Ed25519Signer("example.org/stranger", b"s" * 32)
NONSENSE = {"control": "rotate", "old": "", "new": "", "old_signature": "", "new_signature": ""}


def with_entry(honest: Copy, at: int, body: dict[str, Any], *, hidden: bool) -> Copy:
    """Return the log with a control entry put in, whole in all else; if hidden, a stranger signs first as well."""
    copy, book = honest.copy(), honest.book()
    time_s = int.from_bytes(book.leaves[at - 1][2:10])
    book.insert(at, encode_control(time_s, body), b"")
    copy.rewrite(book)
    if hidden:
        first = min(copy.tables["checkpoints"])
        text = Note.decode(copy.tables["checkpoints"][first]).text
        copy.tables["checkpoints"][first] = sign_note(text, [STRANGER, KEY])
    return copy


@pytest.mark.parametrize(
    ("at", "body", "hidden"),
    [
        (626, NONSENSE, False),
        (313, NONSENSE, False),
        (313, NONSENSE, True),
        (313, rotation_body(313, KEY, NEXT), False),
        (313, rotation_body(313, KEY, NEXT), True),
        (313, rotation_body(313, STRANGER, KEY), True),
    ],
    ids=["last", "middle", "hidden", "unfollowed", "unfollowed and hidden", "of a stranger"],
)
def test_a_rotation_that_the_log_does_not_follow_is_found(
    honest: Copy,
    at: int,
    body: dict[str, Any],
    hidden: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nonsense, or sound and not followed: found at its entry, also where the checkpoints name a stranger first."""
    with_entry(honest, at, body, hidden=hidden).write(DataFolder(tmp_path / "data"))
    assert verify_log.main([str(tmp_path / "data"), "--vkey", KEY.verifier.encode(), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {one["check"] for one in findings} == ({"keys", "checkpoint"} if hidden else {"keys"})
    assert at in {one["index"] for one in findings if one["check"] == "keys"}
