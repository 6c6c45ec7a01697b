"""The public log over HTTP: C2SP tlog-tiles to the letter, made for caches, and nothing that was never published."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.log import accepts_gzip
from archive import LogSource, read_bundle
from merkle import Bundle, decode_bundle, decode_tile, leaf_hash
from tests.api.front import Front, http_client, not_started, problem_of
from tests.archive.published_log import BOUNDARIES, SignedLog, reference_levels

IMMUTABLE = "public, max-age=31536000, immutable"
LINES = {"content-type": "application/x-ndjson"}
PLAIN = {"accept-encoding": "identity"}


def grow(http: TestClient, events: int) -> None:
    """Append events in one commit."""
    lines = b"\n".join(b'{"keys":{"student":"s%d"}}' % number for number in range(events))
    assert http.post("/v1/events", content=lines, headers=LINES).status_code == 200


def test_the_checkpoint_is_text_and_never_cached(http: TestClient) -> None:
    """Clients must see it move, so every answer is asked for anew."""
    response = http.get("/log/checkpoint")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"


def test_tiles_and_bundles_are_bytes_to_be_kept_for_ever(http: TestClient) -> None:
    """Full and partial alike: they are made of published entries, and those never change."""
    grow(http, 300)
    for path in (
        "tile/0/000",
        "tile/0/001.p/46",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/46",
    ):
        response = http.get(f"/log/{path}")
        assert response.status_code == 200, path
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["cache-control"] == IMMUTABLE
        assert response.headers["etag"].startswith('"')


def test_hashes_are_those_of_the_leaves(http: TestClient) -> None:
    """The level-0 tile is the leaf hashes of the bundle beside it."""
    grow(http, 300)
    leaves = decode_bundle(http.get("/log/tile/entries/000").content)
    assert decode_tile(http.get("/log/tile/0/000").content) == [leaf_hash(leaf) for leaf in leaves]
    assert decode_tile(http.get("/log/tile/1/000.p/1").content) == reference_levels(leaves)[1]


def test_a_bundle_is_compressed_for_those_who_take_it(http: TestClient) -> None:
    """Packed if the client accepts it, the same leaves, and a tag of its own; caches are told what it depends on."""
    grow(http, 300)
    plain = http.get("/log/tile/entries/000", headers=PLAIN)
    assert "content-encoding" not in plain.headers
    packed = http.get("/log/tile/entries/000", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < len(plain.content)
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


def test_a_tile_is_never_compressed(http: TestClient) -> None:
    """Hashes cannot be made shorter."""
    response = http.get("/log/tile/0/000.p/2", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
    assert len(response.content) == 64


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_who_has_it_already_is_told_so(http: TestClient, encoding: str) -> None:
    """304 for the tag that was given out, alone or in a list, weak or not; else the whole."""
    path, accept = "/log/tile/entries/000.p/2", {"accept-encoding": encoding}
    tag = http.get(path, headers=accept).headers["etag"]
    for given in (tag, f'"x", W/{tag}', "*"):
        response = http.get(path, headers={**accept, "if-none-match": given})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert http.get(path, headers={**accept, "if-none-match": '"other"'}).status_code == 200


def test_the_compressed_form_is_the_same_bytes_each_time(front: Front) -> None:
    """A strong tag promises equal bytes; gzip must not write the hour into them."""
    with http_client(front.services) as http:
        answers = {
            http.get("/log/tile/entries/000.p/2", headers={"accept-encoding": "gzip"}).headers["etag"]
            for _ in "ab"
        }
    assert len(answers) == 1
    assert gzip.compress(b"x" * 99, 6, mtime=0) == gzip.compress(b"x" * 99, 6, mtime=0)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("GZIP;q=0.5", True),
        ("br, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("deflate", False),
        ("", False),
    ],
)
def test_accepting_is_read_as_the_standard_says(header: str, taken: bool) -> None:
    """A weight of zero forbids, a star stands for what is not named, nothing means no encoding (RFC 9110)."""
    assert accepts_gzip(header) is taken


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000",  # not full
        "tile/0/000.p/1",  # the first commit had two entries
        "tile/0/000.p/3",  # not there yet
        "tile/1/000.p/1",
        "tile/0/001.p/1",
        "tile/entries/000.p/1",
        "tile/entries/000",
        "tile/63/000.p/1",
        "tile/0/x018/x446/x744/x073/x709/x551/614",
    ],
)
def test_what_was_never_published_is_not_there(http: TestClient, path: str) -> None:
    """404, as a problem, whatever the future will bring."""
    assert "not published" in problem_of(http.get(f"/log/{path}"), 404)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/000.p/02",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/entries/000.p/2/",
        "tile/entries/0x0",
        "tile/entries/٠٠٠",
        "tile/data/000",
        "tile/0/000.p/2%0a",
        "tile/",
    ],
)
def test_a_path_has_one_spelling(http: TestClient, path: str) -> None:
    """Any other is 404, never a redirection or an error of ours."""
    problem_of(http.get(f"/log/{path}", follow_redirects=False), 404)


def test_only_reading_is_possible(http: TestClient) -> None:
    """HEAD answers as GET without the body; anything that writes is refused."""
    head = http.head("/log/tile/entries/000.p/2", headers=PLAIN)
    assert (head.status_code, head.headers["etag"]) == (
        200,
        http.get("/log/tile/entries/000.p/2", headers=PLAIN).headers["etag"],
    )
    assert http.head("/log/checkpoint").status_code == 200
    assert http.put("/log/tile/0/000").status_code == 405


def test_before_the_first_start_there_is_no_log(tmp_path: Path) -> None:
    """503: ask again, the archiver has not made it yet."""
    with http_client(not_started(tmp_path)) as http:
        for path in ("checkpoint", "tile/0/000", "tile/entries/000"):
            problem_of(http.get(f"/log/{path}"), 503)


@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_edges_of_large_logs_are_served(front: Front, size: int) -> None:
    """At each size where a tile begins or ends, the last bundle comes out as the leaves, compressed or not."""
    log = _large()
    front.services._source = LogSource(log.store, lambda: size)
    index, width = divmod(size - 1, 256)
    bundle = Bundle(index, width + 1)
    with http_client(front.services) as http, log.open(size) as view:
        for headers in (PLAIN, {"accept-encoding": "gzip"}):
            assert http.get(f"/log/{bundle.path()}", headers=headers).content == read_bundle(view, bundle)
        beyond = Bundle(index, width + 2) if width < 255 else Bundle(index + 1, 1)
        assert http.get(f"/log/{beyond.path()}").status_code == 404


_made: list[SignedLog] = []


def _large() -> SignedLog:
    if not _made:
        _made.append(SignedLog.of(BOUNDARIES))
    return _made[0]
