"""Events in and out: POST /v1/events, GET /v1/events/{index}.

A request is answered when every event of it is durable and under a signed checkpoint.  Each event stands for
itself: one result per event, in order, a receipt or a problem that names the line.  A batch is 200 as soon as
one event was kept; a request in which nothing could be kept has the status of its first problem.  While the archiver is
away, or is there and does not answer, it is 503, and nothing is sent to it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api.cosigned import unwitnessed
from api.ingest import SHOWN_ANONYMOUS, Item, Rules, check_coding, parts, refused, split_events
from api.problems import Problem, Unwitnessed, problem, problem_response, refusal_problem, retry_headers
from api.receipts import add_many_proofs, check_number, without_receipt
from api.services import Services
from archive import (
    LEAF_CONTROL,
    ROW_BINDING,
    ROW_EVENT,
    ROW_FRAME,
    Answer,
    ArchiveError,
    InvalidEvent,
    Log,
    NotFound,
    Opened,
    Receipt,
    Refusal,
    Vault,
    control_body,
    keys_of,
    open_entry,
    parse_leaf,
    parse_row,
    read_event,
)
from replay import locked_fields

READY_WAIT_S = 5.0
GRADE = "local"
KINDS = {ROW_EVENT: "event", ROW_FRAME: "frame", ROW_BINDING: "binding"}


def router(services: Services) -> APIRouter:
    """Return the routes of events."""
    routes = APIRouter(prefix="/v1/events", tags=["events"])

    @routes.post("", summary="Send one event, a JSON array or NDJSON")
    async def post_events(request: Request) -> JSONResponse:
        proofs, parameters = without_receipt(request.query_params.multi_items())
        rules = Rules.parse(parameters)
        check_coding(request.headers.get("content-encoding", ""))
        async with services.bodies.body(request) as body:
            now_us = services.clock.now_us()
            await services.ready(READY_WAIT_S)
            try:
                events = split_events(request.headers.get("content-type", ""), body)
            except InvalidEvent as error:
                return await _unreadable(services, body, error, now_us)
            if not events:
                raise Problem(400, "Empty request", "the body holds no event")
            if proofs:
                check_number(len(events))
            found, answers = await _submitted(services, parts(events, rules, now_us))
        results = [_result(item, answer) for item, answer in zip(found, answers, strict=True)]
        if proofs:
            await add_many_proofs(services, results)
        return _response(services, results)

    @routes.get("/{index}", summary="Read one entry")
    async def get_event(index: int) -> JSONResponse:
        with services.log() as log:
            return JSONResponse(entry_json(log, services.vault, index))

    return routes


async def _submitted(
    services: Services, batch: Iterable[list[Item]]
) -> tuple[list[Item], list[Answer | ArchiveError]]:
    """Submit events in their order, part after part; return them with an answer, or an error, each.

    Where all of them met the same, it is raised.
    """
    found: list[Item] = []
    futures: list[tuple[int, asyncio.Future[list[Answer]]]] = []
    for part in batch:
        found += part
        futures.append((len(part), services.client.submit([item.submission for item in part])))
        await asyncio.sleep(0)  # others have their turn: a large body must not stop the front
    await asyncio.wait([future for _, future in futures])
    answers: list[Answer | ArchiveError] = []
    for count, future in futures:
        try:
            services.heard(some := future.result())
            answers += some
        except ArchiveError as error:
            answers += [error] * count
    errors = [_of_item(item, one) for item, one in zip(found, answers, strict=True)]
    first = errors[0]
    if first is not None and all(_same(first, one) for one in errors):
        raise first
    return found, [error or one for error, one in zip(errors, answers, strict=True)]


def _of_item(item: Item, answer: Answer | ArchiveError) -> ArchiveError | None:
    """Return the error that one event met with others, as it is for this one; None if it was answered."""
    if isinstance(answer, Unwitnessed):
        return unwitnessed(again=item.submission.id is not None)
    return answer if isinstance(answer, ArchiveError) else None


def _same(first: ArchiveError, other: ArchiveError | None) -> bool:
    return type(first) is type(other) and str(first) == str(other)


async def _unreadable(services: Services, body: bytes, error: InvalidEvent, now_us: int) -> JSONResponse:
    """Keep a body that nobody can take apart, since its bytes came in, and say so."""
    services.heard(answers := await services.client.submit([refused(body, str(error), now_us)]))
    (answer,) = answers
    services.counters.refused += 1
    if isinstance(answer, Refusal):
        return problem_response(refusal_problem(answer))
    recorded = {"index": answer.index, "size": answer.size}
    return problem_response({**problem(error), "recorded": recorded})


def _response(services: Services, results: Sequence[dict[str, Any]]) -> JSONResponse:
    problems = [result["error"] for result in results if "error" in result]
    services.counters.refused += len(problems)
    services.counters.accepted += len(results) - len(problems)
    if len(problems) == len(results) == 1:
        return problem_response(problems[0])
    size, root = services.client.checkpoint
    status = 200 if len(problems) < len(results) else problems[0]["status"]
    again = all(one.get("again", True) for one in problems)
    return JSONResponse(
        {"receipts": results, "checkpoint": {"size": size, "root": root.hex()}},
        status_code=status,
        headers=retry_headers(status) if again else None,
    )


def _result(item: Item, answer: Answer | ArchiveError) -> dict[str, Any]:
    if isinstance(answer, ArchiveError):
        return {"error": problem(answer)}
    if isinstance(answer, Refusal):
        return {"error": refusal_problem(answer)}
    if item.bad is not None:
        recorded = {"index": answer.index, "size": answer.size}
        return {"error": {**problem(item.bad.error, line=item.bad.line), "recorded": recorded}}
    return receipt_json(answer)


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt in its public form."""
    return {"index": receipt.index, "size": receipt.size, "grade": GRADE}


def entry_json(log: Log, vault: Vault, index: int) -> dict[str, Any]:
    """Return all that is known of an entry, for those who may read it; raise NotFound beyond the size."""
    leaf = log.leaf(index)
    parsed = parse_leaf(leaf)
    size, note = log.covering(index)
    answer: dict[str, Any] = {
        "index": index,
        "archived_s": parsed.time_s,
        "leaf": leaf.hex(),
        "checkpoint": {"size": size, "note": note.decode()},
    }
    if parsed.kind == LEAF_CONTROL:
        return {**answer, "kind": "control", "body": control_body(parsed)}
    row = parse_row(log.row(index))
    try:
        opened = open_entry(leaf, row, vault.data_key(row.subjects))
    except NotFound:
        return {**answer, "kind": "erased"}
    header = opened.header
    return {
        **answer,
        "kind": KINDS.get(row.kind, "refused"),
        "subject": header.subject,
        "sequence": header.sequence,
        "received_us": header.received_us,
        "source": header.source,
        "sender": header.sender or SHOWN_ANONYMOUS,
        "form": header.form,
        **(_understood(index, opened) if row.kind == ROW_EVENT else {}),
        "keys": keys_of(header),
        "extra": {name: _extra(name, value) for name, value in header.extra.items()},
        "payload": _shown(opened.payload),
    }


def _understood(index: int, opened: Opened) -> dict[str, Any]:
    """Return type and time of an event as reducers get them: so its sender sees what a spelling came to.

    Nothing of what no reducer gets, because nobody can read it.
    """
    header, keys = opened.header, keys_of(opened.header)
    try:
        received_ms, lock = header.received_us // 1_000, locked_fields(opened)
        event = read_event(index, header.form, header.source, keys, received_ms, opened.payload, lock)
    except InvalidEvent:
        return {}
    return {"type": event.type, "time_ms": event.time_ms}


def _extra(name: str, value: Any) -> Any:
    return value.hex() if name == "conn" and isinstance(value, bytes) else _shown(value)


def _shown(value: Any) -> Any:
    """Return bytes as text where they are text, else as {"base64": ...}."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
