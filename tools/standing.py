"""Which states stand still, and at which entries, as the states of the server that ran last tell.

    shelf = shelf_of(DataFolder("data"))
    [quarantined(shelf, one) for one in shelf.modules()]        [{"words": [1207, 1207]}, {}]

A server need not be running: what it has folded lies in its files, and every key in quarantine stands in them with the
entry at which its reducer raised.  One entry may stop many keys, and is named for each.

Who tells a person: `tools.doctor`.  Who decides what becomes of such a state: `tools.steer`.  How one store is read:
`replay.reader`.
"""

from __future__ import annotations

from contextlib import suppress

from api import SHARDS_FILE, Shelf, open_states
from archive import DataFolder, NotFound, Unavailable
from replay import STATUS_FILE, Catalogue, read_status

QUARANTINED_MAX = 10_000
"""So many of a module are counted in a shard; beyond that nobody knows."""


def shelf_of(folder: DataFolder) -> Shelf:
    """Return the states of the server that ran last; raise NotFound if none ever did, or PermissionError."""
    try:
        shards = int((folder.state / SHARDS_FILE).read_text())
    except PermissionError:
        raise  # there may well be states
    except (OSError, ValueError):
        raise NotFound(f"{folder.state}: there are no states yet; start the server once") from None
    names = list(read_status(folder.run / STATUS_FILE))
    return Shelf(folder.state, shards, open_states, names, folder.partition)


def quarantined(shelf: Shelf, catalogue: Catalogue) -> dict[str, list[int]]:
    """Return at which entries states of a module stand still, by reducer."""
    found: dict[str, list[int]] = {}
    for shard in range(shelf.shards):
        reader = shelf.reader(catalogue, shard)
        with suppress(Unavailable):  # damaged or being rebuilt: that is said elsewhere
            for name, index in () if reader is None else reader.quarantined(QUARANTINED_MAX):
                found.setdefault(name, []).append(index)
    return found
