"""Types of the native kernel's second part; what its functions do is said by `archive.twin`, which does the same."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

_Draft = TypeVar("_Draft")

def find_ids(prefixes: Any, identifiers: Sequence[bytes], /) -> list[tuple[int, int]]: ...
def draft_many(
    draft: type[_Draft],
    submissions: Iterable[Any],
    identifiers: Iterable[bytes],
    keys: Iterable[Any],
    sequences: Iterable[int],
    remembered: dict[bytes, Any],
    learn: Callable[..., Any],
    encode: Callable[[Any], bytes],
    /,
) -> list[_Draft]: ...
