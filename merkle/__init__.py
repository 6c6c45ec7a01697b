r"""Merkle trees that only grow, and proofs about them: RFC 6962 trees in C2SP formats.

Nothing here does I/O, reads a clock or draws a random number.

A log's *root* is one hash that stands for all its entries in order.  Whoever keeps an old root can demand
proof that the log only grew since (*consistency*), and whoever holds an entry, that it is in the log
(*inclusion*); both proofs have about log2(size) hashes.  The log signs origin, size and root as a
*checkpoint*.

    entries -> leaf_hash -> Frontier -> root -> Checkpoint -> sign_checkpoint
    stored hashes -> prove_inclusion -> TlogProof -> verify

>>> from merkle import Checkpoint, Ed25519Signer, Frontier, leaf_hash, open_checkpoint, sign_checkpoint
>>> tree = Frontier.of(map(leaf_hash, [b"sown", b"watered", b"grown"]))
>>> signer = Ed25519Signer("example.com/garden", bytes(32))
>>> note = sign_checkpoint(Checkpoint("example.com/garden", tree.size, tree.root()), signer)
>>> open_checkpoint(note, signer.verifier).size
3

Read `hashing`, `frontier`, `coordinates`, `proof` in this order for the mathematics, then `tile`, `note`,
`checkpoint`, `proof_text` for the formats, and `cosignature`, `witness`, `policy` for who else has looked.  The
specifications are docs/formats/checkpoint.md, cosignature.md and policy.md.
"""

from __future__ import annotations

from merkle.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from merkle.coordinates import Node, Plan, consistency_nodes, inclusion_nodes, range_nodes, root_nodes
from merkle.cosignature import (
    ED25519_COSIGNATURE,
    ML_DSA_44,
    CosignatureSigner,
    CosignatureVerifier,
    Cosigner,
    cosigned_at,
    cosigned_message,
    subtree_message,
)
from merkle.errors import FormatError, MerkleError, NoteError, ProofError, SignatureError, UnknownKeyError
from merkle.frontier import Frontier
from merkle.hashing import (
    EMPTY_ROOT,
    HASH_SIZE,
    leaf_hash,
    node_hash,
    pair_up,
    root_of,
    row_root,
)
from merkle.note import (
    ED25519,
    Ed25519Signer,
    Ed25519Verifier,
    Note,
    OpenedNote,
    Signature,
    Signer,
    Verifier,
    key_id,
    key_label,
    open_note,
    sign_note,
)
from merkle.policy import (
    Cosigned,
    Policy,
    PolicyCheck,
    PolicyGroup,
    PolicyLog,
    PolicyWitness,
    check_policy,
)
from merkle.proof import (
    ReadNodes,
    frontier_at,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)
from merkle.proof_text import TlogProof
from merkle.tile import (
    MAX_ENTRY_SIZE,
    TILE_WIDTH,
    Bundle,
    Tile,
    TileRow,
    TileSpan,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    nodes_from_tiles,
    tile_for_node,
    tile_rows,
    tile_width,
    tiles_between,
)
from merkle.vkey import LOG_TYPES, WITNESS_TYPES, AnyVerifier, decode_vkey
from merkle.witness import SIZE_TYPE, AddCheckpoint, Witness, WitnessAnswer, read_cosignatures

__all__ = [
    "ED25519",
    "ED25519_COSIGNATURE",
    "EMPTY_ROOT",
    "HASH_SIZE",
    "LOG_TYPES",
    "MAX_ENTRY_SIZE",
    "ML_DSA_44",
    "SIZE_TYPE",
    "TILE_WIDTH",
    "WITNESS_TYPES",
    "AddCheckpoint",
    "AnyVerifier",
    "Bundle",
    "Checkpoint",
    "CosignatureSigner",
    "CosignatureVerifier",
    "Cosigned",
    "Cosigner",
    "Ed25519Signer",
    "Ed25519Verifier",
    "FormatError",
    "Frontier",
    "MerkleError",
    "Node",
    "Note",
    "NoteError",
    "OpenedNote",
    "Plan",
    "Policy",
    "PolicyCheck",
    "PolicyGroup",
    "PolicyLog",
    "PolicyWitness",
    "ProofError",
    "ReadNodes",
    "Signature",
    "SignatureError",
    "Signer",
    "Tile",
    "TileRow",
    "TileSpan",
    "TlogProof",
    "UnknownKeyError",
    "Verifier",
    "Witness",
    "WitnessAnswer",
    "check_policy",
    "consistency_nodes",
    "cosigned_at",
    "cosigned_message",
    "decode_bundle",
    "decode_tile",
    "decode_vkey",
    "encode_bundle",
    "encode_tile",
    "frontier_at",
    "inclusion_nodes",
    "key_id",
    "key_label",
    "leaf_hash",
    "node_hash",
    "nodes_from_tiles",
    "open_checkpoint",
    "open_note",
    "pair_up",
    "prove_consistency",
    "prove_inclusion",
    "range_nodes",
    "read_cosignatures",
    "root_nodes",
    "root_of",
    "row_root",
    "sign_checkpoint",
    "sign_note",
    "subtree_message",
    "tile_for_node",
    "tile_rows",
    "tile_width",
    "tiles_between",
    "verify_consistency",
    "verify_inclusion",
]
