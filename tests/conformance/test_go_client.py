"""Go's own transparency-log client, which we did not write, verifies what we export, and refuses what was altered.

golang.org/x/mod/sumdb (packages `note` and `tlog`) is what every `go get` relies on.  `logcheck.go` beside this file
lets it read our static log through three short adapters.  Nothing is fetched: Debian ships the library, and
`.ci/run` installs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archive import FolderDisk, Prover, export_tiles
from merkle import Bundle, Tile, encode_tile
from tests.archive.published_log import SignedLog
from tests.archive.site import SIGNER

pytestmark = pytest.mark.conformance

LIBRARY = Path("/usr/share/gocode")
MISSING = (
    "this test needs Go and its transparency-log library: apt-get install golang-go golang-golang-x-mod-dev "
    "(on other systems: Go, and golang.org/x/mod below a GOPATH named in CONFORMANCE_GOPATH)"
)
SIZES = (1, 2, 255, 256, 257, 1_000, 65_535, 65_536, 65_537, 66_000)
VKEY = SIGNER.verifier.encode()


@pytest.fixture(scope="session")
def logcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the client's program, built from Debian's sources in GOPATH mode, without any network."""
    library = Path(os.environ.get("CONFORMANCE_GOPATH", LIBRARY))
    go = shutil.which("go")
    if go is None or not (library / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.fail(MISSING)
    folder = tmp_path_factory.mktemp("logcheck")
    program = folder / "logcheck"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(library),
        "GOFLAGS": "",
        "GOPROXY": "off",
        "GOCACHE": str(folder / "cache"),
    }
    source = Path(__file__).with_name("logcheck.go")
    subprocess.run([go, "build", "-o", program, source.name], cwd=source.parent, env=environment, check=True)
    return program


@pytest.fixture(scope="session")
def log() -> SignedLog:
    """Return a log of 66,000 entries, signed at each size where a tile begins or ends."""
    return SignedLog.of(SIZES)


def export(log: SignedLog, size: int, out: Path) -> Path:
    """Export the log at a size."""
    with closing(FolderDisk(out)) as disk:
        export_tiles(log.source, size, disk)
    return out


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the client."""
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def accepted(program: Path, *arguments: object) -> Any:
    """Return what the client reports, which must find nothing wrong."""
    done = run(program, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("size", SIZES)
def test_every_record_and_every_older_checkpoint_verifies(
    logcheck: Path, log: SignedLog, size: int, tmp_path: Path
) -> None:
    """Signature, every leaf hash, inclusion proofs, consistency with each older signed size, at every boundary."""
    out = export(log, size, tmp_path / "log")
    older = []
    with log.open(size) as view:
        for old, note in view.checkpoints():
            older.append(tmp_path / f"checkpoint-{old}")
            older[-1].write_bytes(note)
        root = view.root()
    report = accepted(logcheck, out, VKEY, *older)
    assert (report["Size"], report["Records"], report["Consistency"]) == (size, size, len(older))
    assert report["Origin"] == SIGNER.name
    assert (out / "checkpoint").read_text().split("\n")[2] == report["Root"]
    assert root == b64decode(report["Root"])
    tiles = [path for path in out.glob("tile/[0-9]*/**/*") if path.is_file()]
    assert report["Tiles"] == len(tiles), "the client has read every tile, and there is none beside"


def test_our_receipts_hold_for_it(logcheck: Path, log: SignedLog, tmp_path: Path) -> None:
    """A receipt is a C2SP proof with the entry in its extra line; the client believes those, and no altered one."""
    out = export(log, 66_000, tmp_path / "log")
    paths = []
    with log.open(66_000) as view:
        prover = Prover(view)
        for index in (0, 1, 254, 255, 256, 999, 65_535, 65_536, 65_999):
            for size in (None, 66_000):
                paths.append(tmp_path / f"{index}-{size}.tlog-proof")
                paths[-1].write_bytes(prover.receipt(index, size).encode())
    assert accepted(logcheck, out, VKEY, *paths)["Receipts"] == 18
    text = paths[6].read_text()
    paths[6].write_text(text.replace("\nindex 255\n", "\nindex 254\n"))
    assert run(logcheck, out, VKEY, *paths).returncode == 1


@pytest.mark.parametrize(
    "name",
    [
        Bundle(0).path(),
        Bundle(3, 232).path(),
        Tile(0, 1).path(),
        Tile(0, 3, 232).path(),
        Tile(1, 0, 3).path(),
        "checkpoint",
    ],
)
def test_it_refuses_an_altered_log(logcheck: Path, log: SignedLog, tmp_path: Path, name: str) -> None:
    """One flipped bit in any file is found: the client does look at what it accepts."""
    out = export(log, 1_000, tmp_path / "log")
    accepted(logcheck, out, VKEY)
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    assert run(logcheck, out, VKEY).returncode == 1


def test_it_refuses_another_history_under_the_same_key(
    logcheck: Path, log: SignedLog, tmp_path: Path
) -> None:
    """A well-made log that is not the one an older checkpoint speaks of is a fork, and is found."""
    other = export(SignedLog.of([257, 1_000], name="m"), 1_000, tmp_path / "other")
    accepted(logcheck, other, VKEY)
    with log.open(257) as view:
        (tmp_path / "old").write_bytes(view.checkpoint()[1])
    assert run(logcheck, other, VKEY, tmp_path / "old").returncode == 1


def test_it_refuses_a_tile_of_the_right_hashes_in_the_wrong_number(
    logcheck: Path, log: SignedLog, tmp_path: Path
) -> None:
    """A full tile cut to one hash, as mirrors have been seen to serve at 65,537 entries, is found."""
    out = export(log, 65_537, tmp_path / "log")
    full = out / Tile(0, 0).path()
    full.write_bytes(encode_tile([full.read_bytes()[:32]]))
    assert run(logcheck, out, VKEY).returncode == 1
