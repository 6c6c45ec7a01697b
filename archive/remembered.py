"""What somebody remembers of a log: a seal, a checkpoint kept elsewhere, an earlier check.

A log that is consistent with itself may still not be the log that it was: it may be an old copy, a fork, or rewritten
by somebody who holds its key.  Nothing inside it can show that.  So each memory is a size and a root, and the log must
be at least so long and have that root there.  Where entries are not read again, since an earlier check read them, a
consistency proof shows whether the root leads to the one that was verified then.

>>> from merkle import EMPTY_ROOT
>>> memory = Remembered(kept=[Checkpoint("example.org/log", 5, EMPTY_ROOT)])
>>> [str(finding) for finding in memory.beyond(3)]
['log: kept: 5 entries are in a kept checkpoint, but the log has 3: an older copy']
>>> [finding.check for finding in memory.against({5: bytes(32)})]
['kept']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from archive.findings import Finding
from archive.resume import Resume
from archive.seal import Seal
from merkle import Checkpoint, Frontier, Node, ProofError, prove_consistency, verify_consistency

_NAMED = {"seal": "sealed", "kept": "in a kept checkpoint", "since": "verified before"}


@dataclass(frozen=True)
class Remembered:
    """Sizes and roots that the log must have."""

    seals: Sequence[Seal] = ()
    kept: Sequence[Checkpoint] = ()
    resume: Resume | None = None

    def _all(self) -> Iterator[tuple[str, int, bytes]]:
        yield from (("seal", one.size, one.root) for one in self.seals)
        yield from (("kept", one.size, one.root) for one in self.kept)
        if self.resume is not None and self.resume.size:
            yield "since", self.resume.size, self.resume.frontier.root()

    def sizes(self, start: int, stop: int) -> list[int]:
        """Return the sizes with start < size <= stop at which a root is remembered."""
        return sorted({size for _, size, _ in self._all() if start < size <= stop})

    def beyond(self, size: int) -> Iterator[Finding]:
        """Yield a finding for each memory of more entries than there are."""
        for check, remembered, _ in self._all():
            if remembered > size:
                detail = f"{remembered} entries are {_NAMED[check]}, but the log has {size}: an older copy"
                yield Finding(check, None, detail, "rolled back")

    def behind(
        self, verified: Frontier, read_nodes: Callable[[Sequence[Node]], list[bytes]]
    ) -> Iterator[Finding]:
        """Yield a finding for each memory within `verified`, which is not read again, that does not lead to its root.

        What `read_nodes` returns need not be right: no hashes let a wrong root pass.
        Raises IntegrityError where hashes are missing.
        """
        for check, size, root in self._all():
            if not 0 < size <= verified.size:
                continue
            proof = prove_consistency(size, verified.size, read_nodes)
            try:
                verify_consistency(size, root, verified.size, verified.root(), proof)
            except ProofError:
                detail = f"the root at size {size} is not the one {_NAMED[check]}: history was rewritten, or forked"
                if size < verified.size:
                    detail += f", or hashes that lead from there to size {verified.size} were altered"
                yield Finding(check, size - 1, detail)

    def against(self, roots: Mapping[int, bytes]) -> Iterator[Finding]:
        """Yield a finding for each memory of another root than the one computed at its size."""
        for check, size, root in self._all():
            if roots.get(size, root) != root:
                detail = f"the root at size {size} is not the one {_NAMED[check]}: history was rewritten, or forked"
                yield Finding(check, size - 1, detail)

    def of_another(self, origin: str | None) -> Iterator[Finding]:
        """Yield a finding for each memory of a log with another name."""
        named = [("kept", one.origin) for one in self.kept]
        if self.resume is not None and self.resume.origin:
            named.append(("since", self.resume.origin))
        for check, name in named:
            if origin not in {None, name}:
                yield Finding(
                    check, None, f"what is {_NAMED[check]} is of the log {name!r}, this is {origin!r}"
                )
