"""Receipts and openings over HTTP: GET /v1/events/{index}/proof and /opening, and proofs in acknowledgements.

    POST /v1/events?receipt=1          each receipt has a "proof" as well: the text of a .tlog-proof
    /wsapi/in/?ack=1&receipt=1         and so has each ack

A proof shows that an entry is in the log and tells nothing else: anyone may have it.  An opening makes an entry
readable, so whoever may read the event (`GET /v1/events/{index}`) may have it, and nobody else.

How both are made and checked is `archive.receipt`; the format, docs/formats/receipt.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from api.cosigned import witnessed_receipt
from api.problems import Problem
from api.services import Services
from archive import Prover, open_entry_of

PARAMETER: Final = "receipt"
RECEIPTS_MAX: Final = 1_000
"""Events in one request that asks for proofs: they take much longer to make, and to send, than receipts."""

PROOFS_AT_ONCE: Final = 64


def router(services: Services) -> APIRouter:
    """Return the routes of receipts."""
    routes = APIRouter(prefix="/v1/events", tags=["receipts"])

    @routes.get("/{index}/proof", summary="The receipt of one entry (C2SP tlog-proof)")
    async def get_proof(index: int, size: int | None = None) -> PlainTextResponse:
        proof = witnessed_receipt(services, index) if size is None else None
        if proof is None:
            with services.log() as log:
                proof = Prover(log).receipt(index, size)
        text = proof.encode()
        name = f'inline; filename="{index}.tlog-proof"'
        return PlainTextResponse(text, headers={"Content-Disposition": name, "Cache-Control": "no-cache"})

    @routes.get("/{index}/opening", summary="What one entry commits to, for those who may read it")
    async def get_opening(index: int) -> JSONResponse:
        with services.log() as log:
            opening = open_entry_of(log, services.vault, index)
        name = f'inline; filename="{index}.opening.json"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
        return JSONResponse({"index": index, **opening.to_json()}, headers=headers)

    return routes


def asked(value: str | None) -> bool:
    """Tell whether a `receipt` parameter asks for proofs; raise Problem for anything but 0, 1 or nothing."""
    if value is not None and value not in {"0", "1"}:
        raise Problem(
            400, "Malformed parameter", f"parameter {PARAMETER!r}: expected 1 or 0, not {value[:40]!r}"
        )
    return value == "1"


def without_receipt(parameters: Iterable[tuple[str, str]]) -> tuple[bool, list[tuple[str, str]]]:
    """Return whether a query asks for proofs, and its other parameters.

    A key field may have that name, too: receipt=$.path is a rule of `api.ingest`.
    """
    wanted, others = False, []
    for name, value in parameters:
        if name == PARAMETER and not value.startswith("$"):
            wanted = asked(value)
        else:
            others.append((name, value))
    return wanted, others


def check_number(events: int) -> None:
    """Raise Problem if one request asks for more proofs than we make at once."""
    if events > RECEIPTS_MAX:
        detail = f"{events} events; at most {RECEIPTS_MAX} in one request with receipt=1"
        raise Problem(413, "Too many events", detail)


async def add_many_proofs(services: Services, results: Sequence[dict[str, Any]]) -> None:
    """Do what `add_proofs` does, and let others have their turn in between: a thousand proofs take 0.2 s."""
    for at in range(0, len(results), PROOFS_AT_ONCE):
        add_proofs(services, results[at : at + PROOFS_AT_ONCE])
        await asyncio.sleep(0)


def add_proofs(services: Services, results: Sequence[dict[str, Any]]) -> None:
    """Give each result that has an index the text of its proof, as "proof"; problems stay as they are."""
    with services.log() as log:
        prover = Prover(log)
        for result in results:
            if "index" in result:
                result["proof"] = prover.receipt(result["index"]).encode().decode()
