"""A log of every format version that ever was is read, verified and replayed to the states of its time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from archive import Tally, check_log
from merkle import Ed25519Verifier
from reducers import digest_of_entries
from replay import replay_digests
from tests.golden import GOLDEN, VAULT_KEY, golden_copy, make, open_golden, reducers

EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def test_the_golden_log_verifies(tmp_path: Path) -> None:
    """Its leaves, tree, blocks, signatures and private rows are what its key and its vault say."""
    with golden_copy(tmp_path / "golden") as folder:
        source, size = open_golden(folder)
        vault, tally = folder.open_vault(os.urandom), Tally()
        verifier = Ed25519Verifier.decode(EXPECTED["vkey"])
        findings = list(check_log(source, size, verifier=verifier, vault=vault, tally=tally))
        vault.close()
    assert findings == []
    assert (size, tally.root.hex()) == (EXPECTED["size"], EXPECTED["root"])
    assert tally.opened == size - tally.control


def test_the_golden_log_replays_to_its_states(tmp_path: Path) -> None:
    """The shipped reducers, at their versions, give the states that they gave when it was written."""
    with golden_copy(tmp_path / "golden") as folder:
        source, size = open_golden(folder)
        vault = folder.open_vault(os.urandom)
        digests = replay_digests(source, reducers(), vault, size=size)
        vault.close()
    assert len(digests) == EXPECTED["states"]
    assert digest_of_entries(digests).hex() == EXPECTED["state_digest"]


def test_the_golden_log_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's archiver writes the very same entries: same size, same root, same signature key."""
    monkeypatch.setenv("TREERING_VAULT_KEY", VAULT_KEY)
    make(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "expected.json").read_text()) == EXPECTED
