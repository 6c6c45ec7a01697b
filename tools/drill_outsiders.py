"""Cases of the drill that take no key: rot, and an intruder who can write to the disk."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from zlib import crc32

from archive import NO_BLOCK, Write
from merkle import Ed25519Signer, Note, sign_note
from tools.drill_case import Case, case, flip, flipped, last, middle, private
from tools.drill_copy import Copy

OUTSIDERS: list[Case] = []


# --- rot -----------------------------------------------------------------------------------------


@case(OUTSIDERS, "rot", "one bit of a public entry flips", "root")
def bit_in_an_entry(copy: Copy) -> None:
    """Flip a bit in the commitment of a recent entry."""
    key, at = copy.place("leaves", last(copy))
    flip(copy, "leaves", key, at + 30)


@case(OUTSIDERS, "rot", "one bit of an old public entry flips", "root", "nodes")
def bit_in_an_old_entry(copy: Copy) -> None:
    """Flip a bit in the tag of an entry under a stored node."""
    key, at = copy.place("leaves", private(copy.book(), 5))
    flip(copy, "leaves", key, at + 12)


@case(OUTSIDERS, "rot", "one bit of an encrypted private row flips", "row")
def bit_in_a_private_row(copy: Copy) -> None:
    """Flip a bit in the ciphertext."""
    key, at = copy.place("rows", middle(copy))
    flip(copy, "rows", key, at + 70)


@case(OUTSIDERS, "rot", "one bit of a stored hash of the tree flips", "nodes")
def bit_in_a_node(copy: Copy) -> None:
    """Flip a bit in the first node."""
    flip(copy, "nodes", min(copy.tables["nodes"]), 9)


@case(OUTSIDERS, "rot", "one bit of a commit's record flips", "chain")
def bit_in_a_block(copy: Copy) -> None:
    """Flip a bit in the hash of the block before."""
    flip(copy, "blocks", sorted(copy.tables["blocks"])[len(copy.tables["blocks"]) // 2], 30)


@case(OUTSIDERS, "rot", "one bit of a signed checkpoint flips", "checkpoint")
def bit_in_a_checkpoint(copy: Copy) -> None:
    """Flip a bit in the size, which the signature covers."""
    keys = sorted(copy.tables["checkpoints"])
    note = copy.tables["checkpoints"][keys[len(keys) // 2]]
    flip(copy, "checkpoints", keys[len(keys) // 2], note.index(b"\n") + 1)


@case(OUTSIDERS, "rot", "the seal is overwritten with noise", "seal")
def noise_in_the_seal(copy: Copy) -> None:
    """Break both slots."""
    copy.seal = b"\xff" * 1_024


@case(OUTSIDERS, "rot", "a quarter of the database file is gone", "storage")
def file_cut_short(copy: Copy) -> None:
    """Cut the file after it was written."""
    copy.after.append("cut")


@case(OUTSIDERS, "rot", "a page of the database file claims to be another page", "structure")
def page_out_of_place(copy: Copy) -> None:
    """Alter the number that a page says of itself, which reading does not look at."""
    copy.after.append("page")


# --- an intruder, who can write to the disk ------------------------------------------------------


@case(OUTSIDERS, "intruder", "an entry is cut out, with its private row", "leaves")
def entry_dropped(copy: Copy) -> None:
    """Take leaf and row out of their bundles."""
    index = middle(copy)
    for table, width in (("leaves", 2), ("rows", 4)):
        key, at = copy.place(table, index)
        value = copy.tables[table][key]
        size = int.from_bytes(value[at - width : at])
        copy.tables[table][key] = value[: at - width] + value[at + size :]
        if not copy.tables[table][key]:
            del copy.tables[table][key]


@case(OUTSIDERS, "intruder", "public entries are deleted, their private rows are not", "leaves")
def leaves_dropped(copy: Copy) -> None:
    """Delete a bundle of leaves."""
    del copy.tables["leaves"][copy.place("leaves", middle(copy))[0]]


@case(OUTSIDERS, "intruder", "the private row of an entry is deleted", "rows")
def row_dropped(copy: Copy) -> None:
    """Delete a bundle of rows."""
    del copy.tables["rows"][copy.place("rows", middle(copy))[0]]


@case(OUTSIDERS, "intruder", "a stored hash of the tree is deleted", "nodes")
def node_dropped(copy: Copy) -> None:
    """Delete the first node."""
    del copy.tables["nodes"][min(copy.tables["nodes"])]


@case(OUTSIDERS, "intruder", "a commit's record is deleted, with its checkpoint", "blocks")
def block_dropped(copy: Copy) -> None:
    """Delete a block and its checkpoint."""
    block = copy.blocks[len(copy.blocks) // 2]
    del copy.tables["blocks"][block.number.to_bytes(8)], copy.tables["checkpoints"][block.size.to_bytes(8)]


@case(OUTSIDERS, "intruder", "a signed checkpoint is deleted", "checkpoint")
def checkpoint_dropped(copy: Copy) -> None:
    """Delete one of the checkpoints."""
    del copy.tables["checkpoints"][sorted(copy.tables["checkpoints"])[1]]


@case(OUTSIDERS, "intruder", "an entry is repeated behind itself", "leaves")
def entry_duplicated(copy: Copy) -> None:
    """Put leaf and row into their bundles twice."""
    index = middle(copy)
    for table, width in (("leaves", 2), ("rows", 4)):
        key, at = copy.place(table, index)
        value = copy.tables[table][key]
        end = at + int.from_bytes(value[at - width : at])
        copy.tables[table][key] = value[:end] + value[at - width :]


@case(OUTSIDERS, "intruder", "two entries change places, with their private rows", "root")
def entries_swapped(copy: Copy) -> None:
    """Let two entries stand in each other's place."""
    book = copy.book()
    one = private(book, len(book.leaves) - 6)
    sizes, checkpoints, seal = copy.tables["blocks"], copy.tables["checkpoints"], copy.seal
    for parts in (book.leaves, book.rows):
        parts[one], parts[one + 1] = parts[one + 1], parts[one]
    nodes = copy.tables["nodes"]
    copy.rewrite(book)
    copy.tables |= {"blocks": sizes, "checkpoints": checkpoints, "nodes": nodes}
    copy.seal = seal


@case(OUTSIDERS, "intruder", "the private rows of two entries change places", "opening", vault=True)
def rows_swapped(copy: Copy) -> None:
    """Swap two rows, each of them whole."""
    book = copy.book()
    one = middle(copy)
    other = private(book, one + 1)
    book.rows[one], book.rows[other] = book.rows[other], book.rows[one]
    copy.rewrite(book)


@case(OUTSIDERS, "intruder", "the private rows of two entries change places, and the auditor has no vault")
def rows_swapped_unseen(copy: Copy) -> None:
    """Swap two rows; without the vault nobody can tell whose they are."""
    rows_swapped(copy)


@case(OUTSIDERS, "intruder", "a private row is altered and its checksum made to fit", "opening", vault=True)
def row_altered(copy: Copy) -> None:
    """Flip a bit of the ciphertext and compute the checksum anew."""
    index = middle(copy)
    row = copy.book().rows[index]
    body = flipped(row[:-4], len(row) - 30)
    copy.edit("rows", index, 0, body + crc32(body).to_bytes(4))


@case(OUTSIDERS, "intruder", "two commits change places", "blocks")
def blocks_reordered(copy: Copy) -> None:
    """Swap the records of two commits."""
    keys, blocks = sorted(copy.tables["blocks"]), copy.tables["blocks"]
    one, other = keys[len(keys) // 2], keys[len(keys) // 2 + 1]
    blocks[one], blocks[other] = blocks[other], blocks[one]


@case(OUTSIDERS, "intruder", "an entry is dated back by a day", "root")
def entry_dated_back(copy: Copy) -> None:
    """Lower the archive time in a leaf."""
    index = last(copy)
    time_s = int.from_bytes(copy.book().leaves[index][2:10]) - 86_400
    copy.edit("leaves", index, 2, time_s.to_bytes(8))


@case(OUTSIDERS, "intruder", "the last commits are cut off without a trace", "seal")
def tail_truncated(copy: Copy) -> None:
    """Take the last two commits away everywhere but in the seal."""
    copy.keep(len(copy.blocks) - 2)


@case(OUTSIDERS, "intruder", "an old backup is put in the database's place", "seal")
def old_backup_restored(copy: Copy) -> None:
    """Set the database back to half of its commits."""
    copy.keep(len(copy.blocks) // 2)


@case(OUTSIDERS, "intruder", "the whole disk is set back, seal and all; the auditor has nothing to compare")
def disk_set_back_unseen(copy: Copy) -> None:
    """Set everything back; it was all true once."""
    copy.keep(len(copy.blocks) // 2)
    copy.reseal()


@case(OUTSIDERS, "intruder", "the whole disk is set back; the auditor kept a checkpoint", "kept", kept=True)
def disk_set_back(copy: Copy) -> None:
    """Set everything back."""
    disk_set_back_unseen(copy)


@case(OUTSIDERS, "intruder", "an entry is put behind the last commit", "stray")
def entry_beyond_the_end(copy: Copy) -> None:
    """Write a leaf and a row that no block covers."""
    book = copy.book()
    size, index = len(book.leaves), last(copy)
    copy.tables["leaves"][size.to_bytes(8)] = len(book.leaves[index]).to_bytes(2) + book.leaves[index]
    copy.tables["rows"][size.to_bytes(8)] = len(book.rows[index]).to_bytes(4) + book.rows[index]


@case(OUTSIDERS, "intruder", "two commits are joined, and a signed checkpoint is taken away", "seal")
def commits_joined(copy: Copy) -> None:
    """Let a commit cover the next one, too, and number and chain those that follow anew: nobody signs that."""
    blocks = copy.blocks
    at = len(blocks) // 2
    first, second = blocks[at : at + 2]
    del copy.tables["checkpoints"][first.size.to_bytes(8)]
    joined = [
        *blocks[:at],
        replace(second, first=first.first, count=first.count + second.count),
        *blocks[at + 2 :],
    ]
    copy.tables["blocks"], previous = {}, NO_BLOCK
    for number, block in enumerate(joined):
        made = replace(block, number=number, previous=previous)
        copy.tables["blocks"][number.to_bytes(8)], previous = made.encode(), made.hash()


@case(OUTSIDERS, "intruder", "a signed checkpoint is given a second signature", "checkpoint")
def checkpoint_signed_twice(copy: Copy) -> None:
    """Add a stranger's signature to the newest checkpoint; the log's own stays good."""
    size, note = max(copy.tables["checkpoints"].items())
    stranger = Ed25519Signer("example.org/stranger", bytes(32))
    copy.tables["checkpoints"][size] = (
        note + sign_note(Note.decode(note).text, [stranger]).partition(b"\n\n")[2]
    )


@case(
    OUTSIDERS,
    "intruder",
    "a name is taken out of the vault, so that its bearer begins anew",
    "names",
    vault=True,
)
def name_dropped(copy: Copy) -> None:
    """Delete one row of the table of names: the next event of this person would not find the earlier ones."""
    copy.vault_harm = lambda view: [Write("names", key, None) for key, _ in islice(view.scan("names"), 1)]


@case(
    OUTSIDERS,
    "intruder",
    "somebody's last entry is replaced by noise, and said to be about an erased person",
    "sequence",
    vault=True,
)
def entry_passed_off_as_erased(copy: Copy) -> None:
    """Say that the vault has admitted one person more, who is not there, and that the newest entry is hers."""
    assert copy.vault is not None
    number = copy.vault.admitted
    copy.vault_harm = lambda _: [Write("meta", b"next", (number + 1).to_bytes(8))]
    book, index = copy.book(), last(copy)
    row = bytes((1, 1, 1, 0)) + number.to_bytes(8) + bytes(len(book.rows[index]) - 16)
    book.rows[index] = row + crc32(row).to_bytes(4)
    copy.rewrite(book)


@case(
    OUTSIDERS,
    "intruder",
    "the log is forked: a late entry is changed, everything signed with another key",
    "checkpoint",
)
def forked_with_another_key(copy: Copy) -> None:
    """Rewrite the end of the log under the same name, with a key of one's own."""
    book = copy.book()
    index = private(book, len(book.leaves) - 20)
    book.leaves[index] = flipped(book.leaves[index], 40)
    copy.rewrite(book, signer=Ed25519Signer(copy.signer.name, bytes(32)))
