"""Bundles: many leaves, or many rows, in one value of the database.  Pure.

Each part stands behind its length, and nothing else is added.  So values that follow one another, joined, are a bundle
again; those of leaves, with lengths of two bytes, are the entry bundles that C2SP has a log serve.

>>> value = bundle([b"a", b"bc"], 2) + bundle([b"d"], 2)
>>> list(unbundle(value, 2))
[b'a', b'bc', b'd']

Where a value ends: `archive.cutting`.  What the parts are: `archive.entry`.  One row at its place: `archive.picking`.
Layout: docs/formats/entry.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archive.errors import FormatError


def bundle(parts: Sequence[bytes], width: int) -> bytes:
    r"""Join parts, each behind its length in `width` bytes (2 for leaves, as C2SP bundles; 4 for rows).

    >>> bundle([b"a", b"bc"], 2)
    b'\x00\x01a\x00\x02bc'
    """
    sizes = [*map(len, parts)]
    prefixes = {size: size.to_bytes(width) for size in set(sizes)}
    if len(prefixes) == 1:  # as almost all leaves are: one prefix for all
        ((_, prefix),) = prefixes.items()
        return prefix + prefix.join(parts)
    pieces = [b""] * (2 * len(sizes))
    pieces[::2] = [prefixes[size] for size in sizes]
    pieces[1::2] = parts
    return b"".join(pieces)


def unbundle(value: bytes, width: int) -> Iterator[bytes]:
    """Yield the parts of a bundle; raise FormatError where a length runs over the end."""
    at, end = 0, len(value)
    while at < end:
        start = at + width
        at = start + int.from_bytes(value[at:start])
        if start > end or at > end:
            raise FormatError(f"bundle of {end} bytes: a part ends at byte {at}")
        yield value[start:at]
