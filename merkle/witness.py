r"""What a witness is asked, and what it answers (C2SP tlog-witness, add-checkpoint).

A witness remembers one checkpoint of each log, the newest it has cosigned.  Whoever asks for another cosignature
must show that the new checkpoint continues that one; so no log can be set back, and no log can fork, under a
witness's eyes.

    old 20852014                       the size that the witness is believed to remember
    PlRNCrwHpqhGrupue0L7gxbjbMiK...    proof that the new tree continues that one, up to 63 hashes
                                       an empty line; then the new checkpoint, as its log signed it
    example.com/log
    ...

Here everything is a function: `decide(request, remembered)` is the answer and what to remember from now on.

>>> from merkle.note import Ed25519Signer
>>> from merkle.checkpoint import sign_checkpoint
>>> from merkle.hashing import EMPTY_ROOT
>>> log, cosigner = Ed25519Signer("example.com/log", bytes(32)), Cosigner("witness.example/w", bytes(32))
>>> witness = Witness([log.verifier], [cosigner])
>>> request = AddCheckpoint(0, (), sign_checkpoint(Checkpoint("example.com/log", 0, EMPTY_ROOT), log)).encode()
>>> witness.decide(request, lambda origin: None, now_s=5).status
200

Making the memory durable before the answer leaves, and no two answers at once for one log, is up to the program:
`tools.witness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from merkle.checkpoint import Checkpoint
from merkle.cosignature import TIME_LIMIT, Cosigner, cosigned_at
from merkle.errors import FormatError, MerkleError, NoteError, ProofError, SignatureError
from merkle.hashing import EMPTY_ROOT, HASH_SIZE
from merkle.note import Note, OpenedNote, Signature, Verifier, open_note, sign_note
from merkle.proof import verify_consistency
from merkle.text import MAX_SIZE, decode_base64, encode_base64, parse_decimal

PROOF_LINES_MAX = 63
SIZE_TYPE = "text/x.tlog.size"
"""Content type of an answer that says what size the witness remembers."""
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request for a cosignature.  Raises FormatError for more than 63 hashes, or of another size than 32."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old < MAX_SIZE:
            raise FormatError(f"{self.old} cannot be the size of a log")
        if len(self.proof) > PROOF_LINES_MAX or any(len(one) != HASH_SIZE for one in self.proof):
            raise FormatError(f"a proof is at most {PROOF_LINES_MAX} hashes of {HASH_SIZE} bytes")

    def encode(self) -> bytes:
        """Return the request's body."""
        return (
            "\n".join([f"old {self.old}", *map(encode_base64, self.proof), "\n"]).encode() + self.checkpoint
        )

    @staticmethod
    def decode(body: bytes) -> AddCheckpoint:
        """Return what `encode` wrote; FormatError for any other bytes."""
        head, blank, checkpoint = body.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise FormatError(
                "a request is a line old <size>, proof lines, an empty line, a checkpoint"
            ) from None
        old = parse_decimal(first[4:], limit=MAX_SIZE) if first.startswith("old ") else None
        if old is None or not blank:
            raise FormatError(
                f"expected a line old <size>, not {first[:100]!r}, and an empty line after the proof"
            )
        hashes = [decode_base64(line) for line in lines]
        if None in hashes:
            raise FormatError("a proof line must be a hash in base64")
        return AddCheckpoint(old, tuple(one for one in hashes if one is not None), checkpoint)


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What to answer over HTTP; with status 200, also what to remember, durably, before it is sent."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE
    origin: str = ""
    remember: bytes | None = None


class _Refused(Exception):
    def __init__(self, status: int, reason: str, size: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.size = status, reason, size


class Witness:
    """The keys of a witness, and those of the logs that it knows; the name of a log's key is its origin.

    A log may have several keys (while it rotates, say); a witness, too.  Raises ValueError for none.
    """

    def __init__(self, logs: Iterable[Verifier], cosigners: Sequence[Cosigner]) -> None:
        self._logs: dict[str, list[Verifier]] = {}
        for log in {(one.name, one.key_id): one for one in logs}.values():
            self._logs.setdefault(log.name, []).append(log)
        self._cosigners = cosigners
        if not cosigners:
            raise ValueError("a witness needs a key")

    @property
    def origins(self) -> list[str]:
        """The logs that it knows."""
        return list(self._logs)

    def decide(self, body: bytes, recall: Callable[[str], bytes | None], now_s: int) -> WitnessAnswer:
        """Return the answer to an add-checkpoint request.

        `recall` gives what was remembered of an origin last (`WitnessAnswer.remember`), or None; `now_s` is in
        seconds since 1970.  Raises FormatError or NoteError if what `recall` gives is damaged: then nothing at
        all may be cosigned for this log.
        """
        try:
            request, origin = _parse(body)
            checkpoint, log_signatures = self._signed(request.checkpoint, origin)
            last = recall(origin)
            size, root, time_s = self.remembered(origin, last) if last is not None else (0, EMPTY_ROOT, 0)
            _check(request, checkpoint, size, root)
        except _Refused as refused:
            if refused.size is not None:
                return WitnessAnswer(refused.status, b"%d\n" % refused.size, SIZE_TYPE)
            return WitnessAnswer(refused.status, refused.reason.encode(errors="replace") + b"\n")
        return self._cosign(checkpoint, log_signatures, max(now_s, time_s))

    def remembered(self, origin: str, note: bytes) -> tuple[int, bytes, int]:
        """Return size, root and time of what was remembered; NoteError or FormatError if it is damaged.

        Log and witness have both signed it.  One of the two keys may have been changed since, not both at once.
        """
        own = [cosigner.verifier for cosigner in self._cosigners]
        opened = open_note(note, [*self._logs.get(origin, []), *own])
        checkpoint = Checkpoint.decode(opened.text)
        if checkpoint.origin != origin:
            raise SignatureError(f"the remembered checkpoint of {origin!r} is of {checkpoint.origin!r}")
        mine = {(key.name, key.key_id) for key in own}
        times = [cosigned_at(one) for one in opened.verified if (one.name, one.key_id) in mine]
        return checkpoint.size, checkpoint.root, max(times, default=0)

    def _signed(self, note: bytes, origin: str) -> tuple[Checkpoint, tuple[Signature, ...]]:
        if origin not in self._logs:
            raise _Refused(404, f"unknown log: {origin[:200]}")
        try:
            opened: OpenedNote = open_note(note, self._logs[origin])
        except SignatureError as error:
            raise _Refused(403, str(error)) from None
        return Checkpoint.decode(opened.text), opened.verified

    def _cosign(
        self, checkpoint: Checkpoint, log_signatures: tuple[Signature, ...], time_s: int
    ) -> WitnessAnswer:
        # A clock that was set back must not say of a later tree that it was the largest at an earlier time.
        signers = [one.at(min(time_s, TIME_LIMIT - 1)) for one in self._cosigners]
        try:
            own = Note.decode(sign_note(checkpoint.encode(), signers)).signatures
        except FormatError as error:  # extension lines, which not every kind of key covers
            return WitnessAnswer(400, f"{error}\n".encode(errors="replace"))
        lines = "".join(one.encode() + "\n" for one in own).encode()
        remember = Note(checkpoint.encode(), (*log_signatures, *own)).encode()
        return WitnessAnswer(200, lines, TEXT_TYPE, checkpoint.origin, remember)


def _parse(body: bytes) -> tuple[AddCheckpoint, str]:
    """Return the request and the origin of its checkpoint, of which only the form is known to be right."""
    try:
        request = AddCheckpoint.decode(body)
        return request, Checkpoint.decode(Note.decode(request.checkpoint).text).origin
    except MerkleError as error:
        raise _Refused(400, str(error)) from None


def _check(request: AddCheckpoint, new: Checkpoint, size: int, root: bytes) -> None:
    """Return if the new checkpoint continues the remembered one, in the order of the specification."""
    if request.old > new.size:
        raise _Refused(400, f"old size {request.old} is above the checkpoint's, {new.size}")
    if request.old != size:
        raise _Refused(409, "another size is remembered", size)
    try:
        verify_consistency(size, root, new.size, new.root, request.proof)
    except ProofError as error:
        raise _Refused(422, str(error)) from None


def read_cosignatures(
    answer: bytes, checkpoint: Checkpoint, verifiers: Sequence[Verifier]
) -> tuple[Signature, ...]:
    """Return the cosignatures by known keys in a witness's answer to a checkpoint; others are passed over.

    Raises NoteError if the answer is malformed, if a known key's signature does not fit, or if none is there;
    a cosignature without a time counts as none.
    """
    try:
        opened = open_note(checkpoint.encode().encode() + b"\n" + answer, verifiers)
    except UnicodeDecodeError as error:
        raise NoteError(f"a witness's answer must be UTF-8: {error}") from None
    timed = tuple(one for one in opened.verified if cosigned_at(one))
    if not timed:
        raise SignatureError("the witness's cosignature says no time")
    return timed
