"""A log with all that belongs to it, in memory, which can be started again and again.

The stores of a `Site` are the disk: they outlive the archiver that a test lets crash.

    site = Site()
    archiver = site.start()
    archiver.step([event(b"{}")])
    assert len(site.check()) == 3          # two control entries of the start, one event
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from archive import (
    ROW_EVENT,
    TABLES,
    Archiver,
    Caches,
    ManualClock,
    MemoryPublished,
    MemorySeal,
    MemoryStore,
    SealFile,
    Store,
    Submission,
    Vault,
)
from archive.vault import TABLES as VAULT_TABLES
from merkle import Checkpoint, Ed25519Signer, sign_checkpoint
from tests.checker import Entry, check_log
from tests.faults import CrashingPublished, CrashingSeal, CrashingStore, Schedule

ORIGIN = "example.org/log"
VAULT_KEY = bytes(range(32))
SIGNER = Ed25519Signer(ORIGIN, bytes(32))
PUBLIC = (
    Ed25519PrivateKey.from_private_bytes(bytes(32))
    .public_key()
    .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
)


def sign(text: str) -> bytes:
    """Return a checkpoint's text as a signed note."""
    return sign_checkpoint(Checkpoint.decode(text), SIGNER)


def event(payload: bytes, **changes: Any) -> Submission:
    """Return a submission of one event, by default about the student Ann, without id."""
    fields: dict[str, Any] = {
        "kind": ROW_EVENT,
        "subject": "student:ann",
        "payload": payload,
        "received_us": 1_700_000_000_000_000,
        "source": "test",
        "sender": "sender",
        "form": "json",
        "keys": {"student": "ann"},
    }
    return Submission(**(fields | changes))


@dataclass
class Site:
    """What a crash does not take away."""

    folder: Path | None = None
    """Of the caches; None to keep none."""
    log: Store = field(default_factory=lambda: MemoryStore(TABLES))
    vault: Store = field(default_factory=lambda: MemoryStore(VAULT_TABLES))
    seal: MemorySeal | SealFile = field(default_factory=MemorySeal)
    published: MemoryPublished = field(default_factory=MemoryPublished)
    clock: ManualClock = field(default_factory=ManualClock)
    random: Callable[[int], bytes] = field(default_factory=lambda: random.Random(1).randbytes)

    def start(self, schedule: Schedule | None = None, **start: str) -> Archiver:
        """Return an archiver that took the log up; its steps count, and may fail, by `schedule`."""
        plan = schedule or Schedule()
        archiver = Archiver(
            ORIGIN,
            CrashingStore(self.log, plan, "log"),
            Vault(CrashingStore(self.vault, plan, "vault"), VAULT_KEY, self.random),
            caches=Caches(self.folder),
            seal=CrashingSeal(self.seal, plan),
            published=CrashingPublished(self.published, plan),
            clock=self.clock,
            random=self.random,
            sign=sign,
        )
        archiver.open(dict(start))
        return archiver

    def check(self) -> list[Entry]:
        """Return all entries, having judged the whole log."""
        return check_log(self.log, self.vault, VAULT_KEY, ORIGIN, PUBLIC)

    def events(self) -> list[Entry]:
        """Return the private entries, having judged the whole log."""
        return [entry for entry in self.check() if entry.body is None]
