"""Who is which worker: what was written down is believed only of processes that are there, and are workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay import WORKERS_FILE, Workers, alive_workers, forget_workers, read_workers, write_workers

KNOWN = Workers({"worker 0": 11, "worker 1": 12, "worker 0 essay": 13}, [14, 15], 2)


def test_what_is_written_is_read_and_can_be_forgotten(tmp_path: Path) -> None:
    """And nobody needs the file to be there, or whole."""
    assert read_workers(tmp_path) is None
    write_workers(tmp_path, KNOWN)
    assert read_workers(tmp_path) == KNOWN
    forget_workers(tmp_path)
    forget_workers(tmp_path)
    assert read_workers(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"[]", b'{"running": {"worker 0": "x"}}', b"\xff"])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, data: bytes) -> None:
    """A disk that was full, or a version that wrote something else, makes no metric fail."""
    (tmp_path / WORKERS_FILE).write_bytes(data)
    assert read_workers(tmp_path) is None


def test_a_number_that_is_somebody_elses_now_is_no_worker(tmp_path: Path) -> None:
    """After a supervisor was killed, its numbers are given to others, or to those that nobody has waited for."""
    for pid, stat in {
        11: "11 (worker-0) S 1 1",
        12: "12 (bash) S 1 1",
        13: "13 (worker-0-essay) Z 1 1",
        14: "14 (worker-spare) R 1 1",
        15: "15 (worker-1) S 1 1",
        16: "16 (worker-1) S 1 1",
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat)
    assert alive_workers(KNOWN, tmp_path) == Workers({"worker 0": 11}, [14], 2)
