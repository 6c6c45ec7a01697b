"""A restore that died, met by a server: nothing begins in its place, and the same command ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from archive import DataFolder, read_stopped
from tests.process.served import PYTHON, serving
from tools.process import EXIT_STOP

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

BODY = b'{"type":"hello","keys":{"student":"ann"},"data":{}}'
DYING = """
import os, sys
from tools import restore, restoring_parts
setattr(restoring_parts, sys.argv[1], lambda *_, **__: os.kill(os.getpid(), 9))
sys.exit(restore.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("step", ["move_away", "begin"])
def test_no_log_is_begun_where_a_restore_was_killed(tmp_path: Path, step: str) -> None:
    """The archiver ends with the code of what a person must look at, and says which command helps; then it serves."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    with serving(data, "--shards", "1") as server:
        server.post(BODY)
    assert (
        subprocess.run(
            [*PYTHON, "tools.cli", "backup", str(saved), "--data", str(data)], check=False
        ).returncode
        == 0
    )
    with serving(data, "--shards", "1") as server:
        server.post(BODY)
    (data / "log/0/data.mdb").unlink()
    restore = [str(saved), "--data", str(data), "--new-origin", "example.org/log-2"]
    assert subprocess.run([sys.executable, "-P", "-c", DYING, step, *restore], check=False).returncode == -9
    for _ in range(2):
        ended = subprocess.run(
            [*PYTHON, "tools.archiver", "--data", str(data)], capture_output=True, text=True, check=False
        )
        assert ended.returncode == EXIT_STOP
        assert "run the same `treering restore` command again" in ended.stderr
    assert subprocess.run([*PYTHON, "tools.cli", "restore", *restore], check=False).returncode == 0
    with serving(data, "--shards", "1") as server:
        server.wait_ready()
        assert server.post(BODY).status_code == 200
    assert read_stopped(DataFolder(data).stopped) is None
    assert (data / "before/1/log/0/data.mdb").exists()
