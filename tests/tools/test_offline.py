"""A size, given as people give it: exact at every boundary."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import DataFolder, InvalidEvent, NotFound, parse_leaf
from tests.tools.left import Left
from tests.world import World, event
from tools.offline import log_of, seconds_of, shards_of, size_at, size_by


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(-2, 40), st.sampled_from([0.0, 0.5]))
def test_a_time_means_all_that_was_taken_in_by_then(steps: list[int], second: int, part: float) -> None:
    """Whatever the pauses between entries, the size is what counting the entries one by one gives."""
    world = World()
    for step in steps:
        world.site.clock.time_us += step * 1_000_000
        world.append([event("ann")])
    with world.source.open() as log:
        times = [parse_leaf(leaf).time_s for _, leaf in log.leaves(0, log.size)]
        at = times[0] + second + part
        assert size_by(log, at) == sum(time <= at for time in times)


def test_a_size_is_a_number_or_a_time_with_its_offset() -> None:
    """Both are understood; a number beyond the log and a time without an offset are errors that say what to write."""
    world = World()
    world.append([event("ann")] * 3)
    assert [size_at(world.source, text) for text in ("0", "4", "5")] == [0, 4, 5]
    assert size_at(world.source, "1999-12-31T23:59:59Z") == 0
    assert size_at(world.source, "2999-12-31T23:59:59+02:00") == 5
    with pytest.raises(NotFound, match="only 5 entries, not 6"):
        size_at(world.source, "6")
    for text in ("", "-1", "2026-01-15", "2026-01-15T09:00:00", "yesterday", "٣"):
        with pytest.raises(InvalidEvent, match="neither a size nor a time"):
            size_at(world.source, text)
    assert seconds_of("1970-01-01T01:00:01+01:00") == 1.0


@pytest.mark.parametrize("part", [".05", ",5", ".000000001"])
def test_a_part_of_a_second_is_refused(part: str) -> None:
    """Entries tell whole seconds: one taken in at 29.68 would count as taken in by 29.05."""
    with pytest.raises(InvalidEvent, match="whole seconds; leave the part of a second out"):
        seconds_of(f"2026-01-15T09:00:29{part}Z")
    assert seconds_of("2026-01-15T09:00:29.000Z") == seconds_of("2026-01-15T09:00:29Z")


def test_a_number_that_no_log_can_reach_is_an_error_of_usage() -> None:
    """However many digits it has; leading zeros change nothing."""
    world = World()
    with pytest.raises(
        InvalidEvent, match=r"^111111111111111111… \(5,000 digits\): no log has so many entries$"
    ):
        size_at(world.source, "1" * 5_000)
    with pytest.raises(NotFound, match=r"has only 2 entries, not 999999999999999999$"):
        size_at(world.source, "9" * 18)
    assert size_at(world.source, "0" * 5_000 + "1") == 1
    assert size_at(world.source, "0" * 5_000) == 0


def test_a_copy_in_which_nothing_ever_ran_is_read_to_its_end(tmp_path: Path) -> None:
    """Without the file of the published size there is the database; and the environment is closed again each time."""
    left = Left(tmp_path / "data")
    left.append(event("ann"), event("bob"))
    left.close()
    folder = DataFolder(left.data)
    for _ in range(2):
        with log_of(folder) as source:
            assert source.published() == 4
        folder.published.unlink(missing_ok=True)
    assert shards_of(folder.state) == 2
    with pytest.raises(NotFound, match="start the server once"):
        shards_of(tmp_path)
    with pytest.raises(NotFound), log_of(DataFolder(tmp_path / "nowhere")):
        pass
