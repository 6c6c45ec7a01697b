"""The file in which an auditor keeps what he verified."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import FormatError, Resume
from merkle import Frontier, leaf_hash

VECTORS = Path(__file__).parent.parent / "vectors" / "archive"
VECTOR = (VECTORS / "verified.json").read_bytes()
FRONTIER = Frontier.of([leaf_hash(bytes([n])) for n in range(5)])
SAVED = Resume(
    "example.org/log", 5, FRONTIER, 2, sha256(b"block").digest(), 1_700_000_000, array("Q", [0, 3, 1])
)


def refused(data: bytes) -> bool:
    """Tell whether bytes are refused in the one documented way."""
    try:
        Resume.decode(data)
    except FormatError:
        return True
    return False


def test_the_vector() -> None:
    """The golden file says what the page says that it says."""
    assert SAVED.encode() == VECTOR
    assert Resume.decode(VECTOR) == SAVED
    body = json.loads(VECTOR)
    digest = body.pop("digest")
    assert sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == digest
    assert body["sequences"] == "AAAAAAAAAAAAAAAAAAAAAwAAAAAAAAAB"


def test_the_vector_that_knows_the_headers() -> None:
    """What an earlier version saved lacks a member, and is read; what is saved now has it."""
    newer, vector = replace(SAVED, header_version=2), (VECTORS / "verified-header.json").read_bytes()
    assert newer.encode() == vector
    assert Resume.decode(vector) == newer
    body, older = json.loads(vector), json.loads(VECTOR)
    assert body.pop("header") == 2
    assert {**body, "digest": older["digest"]} == older


@given(st.integers(0, 8 * len(VECTOR) - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    """A file that was damaged is not gone on from."""
    damaged = bytearray(VECTOR)
    damaged[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(damaged))


ANY_JSON = st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)


@given(st.binary(max_size=300) | ANY_JSON)
def test_any_bytes_are_refused(data: bytes) -> None:
    """Whatever is not a saved check raises FormatError, and nothing else."""
    assert refused(data)


CHANGES: list[dict[str, object]] = [
    {"root": "00" * 32},
    {"frontier": []},
    {"size": 7},
    {"size": -1},
    {"time": "x"},
    {"block": None},
    {"block": -2},
    {"origin": "\ud800"},
    {"header": "2"},
    {"header": None},
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """Also a file with a right digest must make sense."""
    body = {**json.loads(VECTOR), **change}
    del body["digest"]
    digest = sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert refused((json.dumps({**body, "digest": digest}, indent=0) + "\n").encode())
