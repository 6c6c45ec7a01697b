"""After an archiver died, the log tells which frames of a connection it kept."""

from __future__ import annotations

import os

from archive import ROW_BINDING, ROW_EVENT, Log, Receipt, Submission, Vault, settle
from tests.archive.site import VAULT_KEY, Site, event


def framed(connection: bytes, number: int, kind: int = ROW_EVENT) -> Submission:
    """Return the submission of one frame of a connection."""
    also = ["provisional:x"] if kind == ROW_BINDING else []
    return event(b"{}", kind=kind, also=also, extra={"conn": connection, "frame": number})


def settled(site: Site, size: int, submissions: list[Submission]) -> list[Receipt | None]:
    """Settle submissions against a site's log."""
    archiver = site.start()
    with site.log.view() as view:
        return settle(
            Log(view, archiver.head.size), Vault(site.vault, VAULT_KEY, site.random), size, submissions
        )


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    """Connection, frame and kind together name an entry; its receipt is the one it had."""
    site, one, other = Site(), os.urandom(8), os.urandom(8)
    kept = [framed(one, 0), framed(one, 1), framed(one, 1, ROW_BINDING), framed(other, 0)]
    receipts = site.start().step(kept)
    asked = [*kept, framed(one, 2), framed(other, 1), framed(other, 0, ROW_BINDING), event(b"{}")]
    assert settled(site, 0, asked) == [*receipts, None, None, None, None]


def test_only_entries_since_the_known_size_are_looked_at() -> None:
    """What stands before the size that was heard of is known already, and costs nothing."""
    site, one = Site(), os.urandom(8)
    archiver = site.start()
    archiver.step([framed(one, 0)])
    size = archiver.head.size
    archiver.step([framed(one, 1)])
    assert [found is not None for found in settled(site, size, [framed(one, 0), framed(one, 1)])] == [
        False,
        True,
    ]
