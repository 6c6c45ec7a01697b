"""Changing the key of a log: it dies at every step, twice, and the log goes on with one key that fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from archive import (
    TABLES,
    DataFolder,
    IntegrityError,
    KeyRing,
    Log,
    MemoryStore,
    NotFound,
    current_signer,
    encode_key,
    load_size,
    ring_of,
    rotate,
    rotation,
)
from archive.files import write_whole
from merkle import ED25519, ED25519_COSIGNATURE, Ed25519Verifier, sign_note
from tests.archive.site import ORIGIN, Site, event
from tests.faults import Crash, Outcome, Schedule, every_crash


class Place:
    """A data folder with the keys of a site, which a crash does not take away."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.site = DataFolder(path), Site()
        (path / "keys").mkdir(parents=True)
        self.first = self.folder.signer(lambda size: b"\1" * size, ORIGIN).verifier
        self._patch, self._made = monkeypatch, 1

    def random(self, size: int) -> bytes:
        """Return bytes that never repeat."""
        self._made += 1
        return bytes([self._made]) * size

    def life(self, schedule: Schedule, *, rotating: bool) -> None:
        """Start, perhaps rotate, else take an event in; each step counts."""
        self._steps(schedule)
        signer = current_signer(self.folder, self.site.log, self.random)
        self._patch.setattr("tests.archive.site.sign", lambda text: sign_note(text, [signer]))
        archiver = self.site.start(schedule)
        if rotating:
            rotate(archiver, self.folder, signer, self.random)
        else:
            archiver.step([event(b"{}")])

    def _steps(self, schedule: Schedule) -> None:
        def whole(path: Path, data: bytes) -> None:
            schedule.step("new key", lambda: write_whole(path, data))

        def renamed(action: Callable[[DataFolder], None], folder: DataFolder) -> None:
            schedule.step("rename", lambda: action(folder))

        self._patch.setattr(rotation, "write_whole", whole)
        take_up = TAKE_UP
        self._patch.setattr(rotation, "take_up", lambda folder: renamed(take_up, folder))

    def ring(self) -> KeyRing:
        """Return the keys of the log, having opened every checkpoint with the one of its size."""
        with self.site.log.view() as view:
            log = Log(view, load_size(view))
            ring = ring_of(log, self.first)
            for _, note in log.checkpoints():
                ring.open(note)
        return ring

    def held(self) -> Ed25519Verifier:
        """Return the key in the key's file."""
        return self.folder.signer(self.random).verifier


TAKE_UP = rotation.take_up


def test_after_a_rotation_the_new_key_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again: each checkpoint is signed by the key of its size, and the old private key is gone."""
    place = Place(tmp_path, monkeypatch)
    for count in range(1, 4):
        place.life(Schedule(), rotating=False)
        before = place.held()
        place.life(Schedule(), rotating=True)
        assert (place.ring().current, len(place.ring().keys)) == (place.held(), count + 1)
        assert place.held() != before
        assert [one.name for one in (tmp_path / "keys").iterdir()] == ["log-0.key"]
        assert (tmp_path / "keys" / "log-0.key").stat().st_mode & 0o777 == 0o600
    place.life(Schedule(), rotating=False)
    place.ring()


def test_every_crash_of_a_rotation_leaves_a_log_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step it dies at, lost or kept, and at whatever step the next start dies: then it goes on."""
    died: set[str] = set()
    pairs, number = 0, 0
    for first in every_crash():
        for second in every_crash():
            number += 1
            place, schedule = Place(tmp_path / str(number), monkeypatch), replace(first, steps=[])
            place.life(Schedule(), rotating=False)
            with suppress(Crash):
                place.life(schedule, rotating=True)
            try:
                place.life(second, rotating=False)
            except Crash:
                pairs += 1
            place.life(Schedule(), rotating=False)
            ring = place.ring()
            assert ring.current == place.held(), "the key at hand is the one that the log expects"
            assert len(ring.keys) in {1, 2}
            died |= {schedule.steps[schedule.at - 1]} if schedule.touched else set()
            first.steps[:] = schedule.steps
    assert died == {"new key", "log", "seal", "publish", "rename"}
    assert pairs > 50


def test_a_rotation_that_was_answered_is_never_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the entry is in the log, each later start takes up the new key, though the rename was lost."""
    place = Place(tmp_path, monkeypatch)
    place.life(Schedule(), rotating=False)
    counting = Schedule()
    place.life(counting, rotating=True)
    new = place.ring().current
    again = Place(tmp_path / "again", monkeypatch)
    again.life(Schedule(), rotating=False)
    with pytest.raises(Crash):
        again.life(Schedule(counting.steps.index("rename") + 1, Outcome.LOST), rotating=True)
    assert again.folder.next_log_key.exists()
    again.life(Schedule(), rotating=False)
    assert not again.folder.next_log_key.exists()
    assert again.held() == again.ring().current == new


def test_a_key_that_is_not_the_logs_is_not_signed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong or a missing key file stops the start, and no new key is made for a log that has entries."""
    place = Place(tmp_path, monkeypatch)
    place.life(Schedule(), rotating=False)
    right = place.folder.log_key.read_bytes()
    write_whole(place.folder.log_key, encode_key(ORIGIN, ED25519, bytes(range(32))).encode())
    with pytest.raises(IntegrityError, match="bring that one back"):
        place.life(Schedule(), rotating=False)
    place.folder.log_key.unlink()
    with pytest.raises(IntegrityError, match="bring that one back"):
        place.life(Schedule(), rotating=False)
    assert not place.folder.log_key.exists()
    write_whole(place.folder.log_key, right)
    place.life(Schedule(), rotating=False)


def test_an_empty_log_gets_a_key_when_it_gets_a_name(tmp_path: Path) -> None:
    """Without an origin there is nothing that a key could be named after."""
    folder, store = DataFolder(tmp_path), MemoryStore(TABLES)
    (tmp_path / "keys").mkdir()
    with pytest.raises(NotFound):
        current_signer(folder, store, os.urandom)
    made = current_signer(folder, store, os.urandom, ORIGIN)
    assert current_signer(folder, store, os.urandom).verifier == made.verifier


def test_a_witness_key_is_no_logs_key(tmp_path: Path) -> None:
    """A key is for what its type says."""
    folder = DataFolder(tmp_path)
    (tmp_path / "keys").mkdir()
    write_whole(folder.log_key, encode_key(ORIGIN, ED25519_COSIGNATURE, bytes(32)).encode())
    with pytest.raises(IntegrityError, match="a witness's"):
        folder.signer(os.urandom)
