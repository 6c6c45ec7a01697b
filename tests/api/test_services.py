"""What the routes work with is opened when it is first needed, from what other processes wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from api import Services
from archive import ManualClock, NotFound, Unavailable
from reducers import Registry, shipped
from tests.api.front import DirectClient, Front, not_started
from tests.world import event, touchy


def left_behind(path: Path, shards: int = 2) -> Front:
    """Return a front that kept one event, reduced it, and stopped."""
    front = Front(path, shards)
    front.archiver.step([event("ann")])
    front.reduce()
    front.close()
    return front


def opened(front: Front, registry: Registry | None = None, shards: int = 2) -> Services:
    """Return services as a new process makes them."""
    registry = registry or front.registry
    return Services(front.folder, DirectClient(None), registry, shards, ManualClock())


def test_everything_is_read_from_files(tmp_path: Path) -> None:
    """Log, published size, vault and states, without the processes that wrote them."""
    services = opened(left_behind(tmp_path / "data"))
    assert services.published() == 3
    with services.log() as log:
        assert log.size == 3
    reducer = services.registry.get("event_count")
    shard = services.shard_of_key(reducer, ("ann",))
    position, slot = services.reader(shard).get("event_count", ("ann",))
    assert (position, slot and slot.encoding) == (3, b'{"events":1}')
    assert [services.position(one) for one in (0, 1)] == [3, 3]
    assert services.reader(shard) is services.reader(shard)


def test_states_of_other_reducers_are_being_rebuilt(tmp_path: Path) -> None:
    """A front that was upgraded before its workers have no answer rather than one of the old code."""
    front = left_behind(tmp_path / "data")
    registry = shipped()  # without `touchy`, hence another set
    assert touchy.name not in registry
    services = opened(front, registry)
    assert services.position(0) is None
    with pytest.raises(NotFound, match="rebuilt"):
        services.reader(0).scan("event_count")


def test_another_number_of_shards_meets_no_old_states(tmp_path: Path) -> None:
    """States of two shards are not those of three: until its workers have run, there are none."""
    services = opened(left_behind(tmp_path / "data"), shards=3)
    assert [services.position(shard) for shard in range(3)] == [None] * 3
    with pytest.raises(Unavailable, match="rebuilt"):
        services.reader(0)


def test_before_the_first_start_nothing_is_there(tmp_path: Path) -> None:
    """Each part says that it is not there yet, and is there as soon as it is."""
    services = not_started(tmp_path / "data")
    for ask in (services.published, services.log, lambda: services.vault, lambda: services.reader(0)):
        with pytest.raises(Unavailable):
            ask()
    left_behind(tmp_path / "data")
    assert services.published() == 3
    with services.log() as log:
        assert log.size == 3
