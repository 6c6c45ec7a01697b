"""Cases of the drill that take keys: an insider with the log's key, and the owner of every key.

An insider can make everything follow from whatever he likes.  What still finds him is what he cannot reach: somebody's
memory, a witness, another disk, and the order that a log must have in itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archive import (
    PROMISED,
    ROW_EVENT,
    ROW_REFUSED,
    Attest,
    NotFound,
    Row,
    Vault,
    control_body,
    encode_control,
    header_version,
    parse_leaf,
    parse_row,
    steering_body,
    tag_of,
)
from merkle import Checkpoint, sign_checkpoint
from tools.drill_case import Case, case, flipped, middle
from tools.drill_copy import Copy, closed, filed, opened, with_payload

INSIDERS: list[Case] = []


# --- an insider, who holds the log's key ---------------------------------------------------------


@case(
    INSIDERS,
    "insider",
    "history is rewritten from the middle on, and signed; the auditor kept a checkpoint",
    "kept",
    kept=True,
)
def history_rewritten(copy: Copy) -> None:
    """Change what a student said, and make everything follow."""
    book = copy.book()
    index = middle(copy)
    if copy.vault is None:
        book.leaves[index] = flipped(book.leaves[index], 40)
    else:
        book.leaves[index], book.rows[index] = with_payload(
            copy.vault, book.leaves[index], book.rows[index], b'{"answer":"forged"}'
        )
    copy.rewrite(book)


@case(
    INSIDERS,
    "insider",
    "history is rewritten and signed; the auditor goes on from an earlier check",
    "since",
    since=True,
)
def history_rewritten_since(copy: Copy) -> None:
    """Rewrite history."""
    history_rewritten(copy)


@case(INSIDERS, "insider", "history is rewritten and signed; the seal lies on another disk", "seal")
def history_rewritten_sealed(copy: Copy) -> None:
    """Rewrite history, but for the seal."""
    seal = copy.seal
    history_rewritten(copy)
    copy.seal = seal


@case(
    INSIDERS, "insider", "history is rewritten and signed; nothing was kept anywhere, not by a witness either"
)
def history_rewritten_unseen(copy: Copy) -> None:
    """Rewrite history; whoever has only this copy has only the forger's word."""
    history_rewritten(copy)


@case(
    INSIDERS, "insider", "the outside is shown a checkpoint that no witness has signed", "quorum", policy=True
)
def witness_left_out(copy: Copy) -> None:
    """Show the newest checkpoint to the outside with the log's signature alone."""
    copy.cosigned = copy.tables["checkpoints"][max(copy.tables["checkpoints"])]


@case(
    INSIDERS,
    "insider",
    "history is rewritten and signed; a witness had signed the old one",
    "kept",
    policy=True,
)
def history_rewritten_witnessed(copy: Copy) -> None:
    """Rewrite history, but for the checkpoint that a witness has signed."""
    history_rewritten(copy)


@case(
    INSIDERS,
    "insider",
    "a checkpoint that is shown to some people only is signed, and kept with the others",
    "root",
)
def second_history_signed(copy: Copy) -> None:
    """Let one commit, its checkpoint and all later links speak of a root that the log never had."""
    blocks = copy.blocks
    at = len(blocks) // 2
    blocks[at] = replace(blocks[at], root=flipped(blocks[at].root, 3))
    for number in range(at + 1, len(blocks)):
        blocks[number] = replace(blocks[number], previous=blocks[number - 1].hash())
    copy.tables["blocks"] = {block.number.to_bytes(8): block.encode() for block in blocks}
    forged = Checkpoint(copy.signer.name, blocks[at].size, blocks[at].root)
    copy.tables["checkpoints"][blocks[at].size.to_bytes(8)] = sign_checkpoint(forged, copy.signer)


@case(INSIDERS, "insider", "an entry is dated back, and everything signed again", "time")
def dated_back_and_signed(copy: Copy) -> None:
    """Lower the time of one entry, and make everything follow."""
    book = copy.book()
    index = middle(copy)
    time_s = int.from_bytes(book.leaves[index][2:10]) - 3_600
    book.leaves[index] = book.leaves[index][:2] + time_s.to_bytes(8) + book.leaves[index][10:]
    copy.rewrite(book)


@case(INSIDERS, "insider", "an event is accepted a second time, and everything signed again", "ids")
def event_repeated(copy: Copy) -> None:
    """Append a copy of an entry that has an id, at the time of the last one."""
    book = copy.book()
    for index in range(len(book.rows) - 1, -1, -1):
        if book.rows[index] and any(parse_row(book.rows[index]).identifier):
            leaf = book.leaves[index][:2] + book.leaves[-1][2:10] + book.leaves[index][10:]
            book.insert(len(book.leaves), leaf, book.rows[index])
            copy.rewrite(book)
            return
    raise NotFound("no event of this copy has an id")


@case(INSIDERS, "insider", "an entry of an unknown form is put in, and everything signed again", "entry")
def unknown_entry(copy: Copy) -> None:
    """Turn an entry into one of kind 9."""
    book = copy.book()
    index = middle(copy)
    book.leaves[index] = book.leaves[index][:1] + b"\x09" + book.leaves[index][2:]
    copy.rewrite(book)


@case(INSIDERS, "insider", "the log is passed off as another one, and everything signed again", "origin")
def origin_changed(copy: Copy) -> None:
    """Let entry 0 name another log than the checkpoints do."""
    book = copy.book()
    name = copy.signer.name.encode()
    book.leaves[0] = book.leaves[0].replace(name, name[:-1] + bytes((name[-1] ^ 1,)))
    copy.rewrite(book)


@case(
    INSIDERS, "insider", "an entry claims that the log has a new key, without the old one's signature", "keys"
)
def key_change_forged(copy: Copy) -> None:
    """Insert a control entry that rotates to nowhere."""
    book = copy.book()
    index = middle(copy)
    body = b'{"control":"rotate","new":"","new_signature":"","old":"","old_signature":""}'
    book.insert(index, b"\x01\x02" + book.leaves[index][2:10] + body, b"")
    copy.rewrite(book)


@case(
    INSIDERS, "insider", "states are said to be two different things, and everything signed again", "steering"
)
def states_attested_twice(copy: Copy) -> None:
    """Append two attestations of the same states that contradict each other."""
    book = copy.book()
    for digest in ("0" * 64, "1" * 64):
        attest = Attest(1, "event_count", 1, "0" * 64, 1, digest)
        time_s = int.from_bytes(book.leaves[-1][2:10])
        book.insert(len(book.leaves), encode_control(time_s, steering_body(attest)), b"")
    copy.rewrite(book)


# --- the owner of every key, the vault's included ------------------------------------------------


def _vault(copy: Copy) -> Vault:
    assert copy.vault is not None, "the case says that it needs the vault"
    return copy.vault


@case(
    INSIDERS,
    "owner",
    "a student's event is taken out, the ranks closed, everything signed again",
    "sequence",
    vault=True,
)
def event_taken_out(copy: Copy) -> None:
    """Drop an entry whose subject has later ones, and make everything follow."""
    book = copy.book()
    subjects = [parse_row(row).subjects[0] if row else None for row in book.rows]
    order = sorted(range(len(subjects)), key=lambda index: abs(index - len(subjects) // 2))
    book.drop(
        next(
            index
            for index in order
            if subjects[index] is not None and subjects[index] in subjects[index + 1 :]
        )
    )
    copy.rewrite(book)


@case(INSIDERS, "owner", "an entry is given the mark of somebody else", "tag", vault=True)
def mark_changed(copy: Copy) -> None:
    """Give an entry the tag of another place, and make everything follow."""
    book = copy.book()
    index = middle(copy)
    row, _ = opened(_vault(copy), book.rows[index])
    tag = tag_of(_vault(copy).keys(row.subjects[0]).tag_key, 1 << 40)
    book.leaves[index] = book.leaves[index][:10] + tag + book.leaves[index][26:]
    copy.rewrite(book)


@case(INSIDERS, "owner", "a private row says openly what it does not say inside", "header", vault=True)
def open_part_changed(copy: Copy) -> None:
    """Change a routing hash at the head of a row, encrypt it anew; the leaf does not commit to the head."""
    index = middle(copy)
    row, opening = opened(_vault(copy), copy.book().rows[index])
    copy.edit("rows", index, 0, closed(_vault(copy), row, flipped(row.head, len(row.head) - 1), opening))


def _promised(copy: Copy) -> list[tuple[int, Row]]:
    """Return index and row of the private entries whose headers promise as what they are filed, from the middle on."""
    book, version, found = copy.book(), 1, []
    for index, (leaf, row) in enumerate(zip(book.leaves, book.rows, strict=True)):
        if row and version >= PROMISED:
            found.append((index, parse_row(row)))
        elif not row:
            version = header_version(control_body(parse_leaf(leaf))) or version
    return found[len(found) // 2 :]


def _file(copy: Copy, index: int, kind: int, subjects: Sequence[int]) -> None:
    """File an entry anew; its leaf, and all that is signed, stays as it was."""
    book = copy.book()
    book.rows[index] = filed(_vault(copy), book.rows[index], kind, subjects)
    copy.rewrite(book)


@case(INSIDERS, "owner", "an event is filed as refused, so that it counts in no figure", "header", vault=True)
def event_filed_as_refused(copy: Copy) -> None:
    """Call an event a refused one, and encrypt its row anew; the leaf does not commit to what a row says openly."""
    for index, row in _promised(copy):
        if row.kind == ROW_EVENT:
            _file(copy, index, ROW_REFUSED, row.subjects)
            return
    raise NotFound("no event of this copy says in its header what it is")


@case(
    INSIDERS,
    "owner",
    "a record about two students is filed as one about the first alone",
    "header",
    vault=True,
)
def second_subject_dropped(copy: Copy) -> None:
    """Take the further subjects out of a row, and encrypt it under the key of the first one."""
    for index, row in _promised(copy):
        if len(row.subjects) > 1:
            _file(copy, index, row.kind, row.subjects[:1])
            return
    raise NotFound("no record of this copy says in its header whom it is about besides")
