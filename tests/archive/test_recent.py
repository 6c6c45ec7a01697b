"""A bounded mapping forgets what nobody asks for, and nothing that somebody just did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from archive.recent import Recent

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=200)


@given(st.integers(2, 9), steps)
def test_what_was_asked_for_lately_is_there(size: int, asked: list[tuple[bool, int]]) -> None:
    """The last size/2 different keys that were found or put are there as put last, and never more than size."""
    recent, values, used = Recent[int, str](size), dict[int, str](), list[int]()
    for number, (putting, key) in enumerate(asked):
        if putting:
            values[key] = f"{key} at {number}"
            recent.put(key, values[key])
        found = recent.get(key)
        assert found in {None, values.get(key)}
        if key in used[: size // 2]:
            assert found is not None
        if found is not None:
            used = [key, *(one for one in used if one != key)]
        assert len(recent) <= size


def test_what_is_asked_for_again_and_again_outlives_any_number_of_others() -> None:
    """Those who are active stay, however many pass by."""
    recent = Recent[int, int](8)
    recent.put(-1, 1)
    for number in range(1_000):
        recent.put(number, number)
        assert recent.get(-1) == 1
    assert recent.get(0) is None


def test_what_is_forgotten_is_gone() -> None:
    """Both halves are emptied."""
    recent = Recent[int, int](4)
    for number in range(4):
        recent.put(number, number)
    recent.clear()
    assert (len(recent), [recent.get(number) for number in range(4)]) == (0, [None] * 4)
