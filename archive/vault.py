"""The vault: who is behind a subject number, and the secret that makes their rows readable.

Each subject has 32 random bytes.  From them come the data key (to read), the tag key (to recognise leaves), and
nothing else anywhere can bring them back: destroying the secret is what erasing a person means.  Secrets and names
are wrapped under one vault key that is never stored beside them.

A new subject's secret is durable before its first entry commits: the other order could leave, after a crash,
an acknowledged entry that nobody can ever read.

>>> from archive.memory_store import MemoryStore
>>> vault = Vault(MemoryStore(TABLES), bytes(32), lambda size: bytes([7]) * size)
>>> keys = vault.admit(["student:ann"])["student:ann"]
>>> keys.number, vault.name(0), vault.find("student:bob")
(0, 'student:ann', None)

Layout: docs/formats/vault.md.  What the keys are used for: `archive.entry`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import chain, islice
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from archive.datakey import DataKey
from archive.entry import tag_of
from archive.errors import KEYS, IntegrityError, NotFound
from archive.ports import Random, Store, View, Write
from archive.recent import Recent

TABLES: Final = ("meta", "subjects", "names")
KEYS_CACHED: Final = 65_536
"""Subjects whose keys are remembered, at most: about 450 bytes each; of those that are only read, 200."""

_SITE_AAD: Final = b"treering/site/v1"
_SUBJECT_AAD: Final = b"treering/subject/v1\0"
_DATA: Final = b"treering/data/v1"
VIEWED = 1_000
"""Subjects that are read in one view."""
_TAG: Final = b"treering/tag/v1"
_COMBINED: Final = b"treering/data/v1/combined"


def hkdf_expand(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes derived from a uniformly random secret (RFC 5869, 2.3, one block of SHA-256)."""
    return hmac.digest(secret, info + b"\x01", "sha256")


class KeyTable(Protocol):
    """Data keys by the number of a subject: `archive.twin.Keys`."""

    def put(self, number: int, key: bytes, /) -> None:
        """Remember one."""

    def unknown(self, bundles: Sequence[bytes], places: list[int], /) -> list[int]:
        """Return the subjects of these rows whose keys are wanted."""

    def clear(self) -> None:
        """Forget all."""

    def __len__(self) -> int:
        """Return how many there are, or a few more."""


@dataclass(frozen=True, slots=True)
class SubjectKeys:
    """What the secret of one subject gives."""

    number: int
    name: str
    tag_key: bytes
    data_key: DataKey


class Vault:
    """Subjects by number and by name.

    `vault_key` is 32 bytes.  Raises IntegrityError if it is not the key this vault was made with.
    One process admits subjects, and holds the vault's lock (`archive.folder`); any number may read.  Keys of the last
    `cached` subjects or so are remembered.
    """

    def __init__(self, store: Store, vault_key: bytes, random: Random, *, cached: int = KEYS_CACHED) -> None:
        self._store, self._random, self.cached = store, random, cached
        self._wrap = AESGCM(vault_key)
        site = self._site_secret()
        self.id_key = hkdf_expand(site, b"treering/id/v1")
        self.route_key = hkdf_expand(site, b"treering/route/v1")
        self._name_key = hkdf_expand(site, b"treering/name/v1")
        self._by_name = Recent[str, SubjectKeys](cached)
        self._by_number = Recent[int, SubjectKeys](cached)
        self._data_keys = Recent[tuple[int, ...], DataKey](cached)
        self.at_hand: KeyTable | None = None
        """Data keys where a kernel finds them by itself: `archive.reading` makes it."""

    def find(self, name: str) -> SubjectKeys | None:
        """Return the keys of the subject with this name, or None."""
        return self._by_name.get(name) or self._named([name]).get(name)

    def keys(self, number: int) -> SubjectKeys:
        """Return the keys of a subject; raise NotFound if it was never admitted or is erased."""
        found = self._by_number.get(number)
        if found is None:
            with self._store.view() as view:
                found = self._read_keys(view, number)
        return found

    def read_ahead(self, numbers: Iterable[int]) -> None:
        """Read the keys of those subjects that can be read, in one view, before `keys` is asked for each of them.

        Who is erased or altered is passed over: that is for `keys` to say.
        """
        if missing := sorted(one for one in set(numbers) if self._by_number.get(one) is None):
            with self._store.view() as view:
                for number in missing:
                    with suppress(NotFound, IntegrityError):
                        self._read_keys(view, number)

    def name(self, number: int) -> str:
        """Return the name of a subject (kind:label); raise NotFound as `keys` does."""
        return self.keys(number).name

    def data_key(self, numbers: Sequence[int]) -> DataKey:
        """Return the key of rows about these subjects, in the row's order; raise NotFound if one is erased."""
        row = tuple(numbers)
        found = self._data_keys.get(row)
        if found is None:
            with self._store.view() as view:
                found = self._read_data_key(view, row)
        return found

    def data_keys(self, rows: Sequence[tuple[int, ...]]) -> list[DataKey | None]:
        """Return for each row's subjects what `data_key` does, None where one is erased: all in one view."""
        found = self._data_keys.get_many(rows)
        if not all(found):
            read = self._read_data_keys({row for row, key in zip(rows, found, strict=True) if key is None})
            found = [key or read[row] for row, key in zip(rows, found, strict=True)]
        return found

    def lay_out(self, numbers: Iterable[int], table: KeyTable) -> None:
        """Put the data keys of rows about each of these subjects into a table, all in one view.

        Who is erased is passed over.
        """
        with self._store.view() as view:
            for number in sorted(set(numbers)):
                with suppress(NotFound):
                    table.put(number, hkdf_expand(self._secret(view, number)[0], _DATA))

    def admit(self, names: Iterable[str]) -> dict[str, SubjectKeys]:
        """Return the keys of all these subjects; those that are new are durable on return."""
        cached, missing = self._by_name.get, []
        found: dict[str, SubjectKeys] = {}
        for name in set(names):
            if (keys := cached(name)) is None:
                missing.append(name)
            else:
                found[name] = keys
        if missing:
            found |= self._named(missing)
            if new := sorted(name for name in missing if name not in found):
                found |= self._create(new)
        return found

    def admit_each(self, names: Sequence[str]) -> list[SubjectKeys]:
        """Return the keys of each of these subjects, in order, as `admit` does."""
        found = self._by_name.get_many(names)
        new = self.admit(name for name, keys in zip(names, found, strict=True) if keys is None)
        return [keys or new[name] for name, keys in zip(names, found, strict=True)]

    def everybody(self) -> Iterator[tuple[SubjectKeys, int | None]]:
        """Yield the keys of each subject, by number, and to which subject her name leads; None if to none.

        Who is erased or altered is passed over.  A thousand are read in one view.
        """
        start = b""
        while True:
            found = list[tuple[SubjectKeys, int | None]]()
            with self._store.view() as view:
                keys = [key for key, _ in islice(view.scan("subjects", start), VIEWED)]
                for key in keys:
                    with suppress(IntegrityError):
                        secret, name = self._secret(view, number := int.from_bytes(key))
                        leads_to = view.get("names", self._name_hash(name))
                        known = None if leads_to is None else int.from_bytes(leads_to)
                        found.append((_derive(number, name, secret), known))
            yield from found
            if len(keys) < VIEWED:
                return
            start = keys[-1] + b"\0"

    def whose(self, tag: bytes, count: Callable[[int], int], guess: Sequence[int] = ()) -> int | None:
        """Return the subject whose next entry would bear this tag, `count(number)` being how many each has; else None.

        Without a row to say so, the public leaf tells whose an entry is to whoever has all secrets, and looks at all of
        them: about 5 µs for each.  Numbers of the `guess` are looked at first.  An erased subject is not found.
        """
        with self._store.view() as view:
            for number in chain(guess, (int.from_bytes(key) for key, _ in view.scan("subjects"))):
                with suppress(NotFound, IntegrityError):
                    tag_key = hkdf_expand(self._secret(view, number)[0], _TAG)
                    if tag_of(tag_key, count(number) + 1) == tag:
                        return number
        return None

    @property
    def admitted(self) -> int:
        """How many subjects were ever admitted; their numbers are 0…admitted-1."""
        with self._store.view() as view:
            return int.from_bytes(view.get("meta", b"next") or b"")

    def forget(self) -> None:
        """Forget all keys that were read: what is asked for next is read again, and an erased subject is not found."""
        for cache in (self._by_name, self._by_number, self._data_keys):
            cache.clear()
        if self.at_hand is not None:
            self.at_hand.clear()

    def close(self) -> None:
        """Release the store; what is cached is forgotten with this object."""
        self._store.close()

    # --- reading -----------------------------------------------------------------------------------

    def _named(self, names: Sequence[str]) -> dict[str, SubjectKeys]:
        """Return the keys of those of these subjects that are in the vault, read in one view.

        A name may still lead to somebody whose secret is gone.  That person is erased, and not in the vault: nothing
        can bring the number's rows back, and who comes again under the name begins as a new, unlinked subject.
        """
        found = {}
        with self._store.view() as view:
            # In the order of the table, so that names that lie on one page are read one after the other.
            for hashed, name in sorted([(self._name_hash(name), name) for name in names]):
                if (key := view.get("names", hashed)) is not None:
                    number = int.from_bytes(key)
                    try:
                        secret, named = self._secret(view, number)
                    except NotFound:
                        continue  # erased
                    if named != name:
                        raise IntegrityError(
                            f"vault: a name leads to subject {number}, which has another: altered"
                        )
                    found[name] = keys = _derive(number, name, secret)
                    self._by_name.put(name, keys)
        return found

    def _read_keys(self, view: View, number: int) -> SubjectKeys:
        secret, name = self._secret(view, number)
        keys = _derive(number, name, secret)
        self._by_number.put(number, keys)
        return keys

    def _read_data_keys(self, rows: set[tuple[int, ...]]) -> dict[tuple[int, ...], DataKey | None]:
        found: dict[tuple[int, ...], DataKey | None] = {}
        with self._store.view() as view:
            for row in sorted(rows):
                try:
                    found[row] = self._read_data_key(view, row)
                except NotFound:
                    found[row] = None
        return found

    def _read_data_key(self, view: View, row: tuple[int, ...]) -> DataKey:
        secrets = [self._secret(view, number)[0] for number in row]
        if len(secrets) == 1:
            key = DataKey(hkdf_expand(secrets[0], _DATA))
        else:
            key = DataKey(hkdf_expand(sha256(b"".join(secrets)).digest(), _COMBINED))
        self._data_keys.put(row, key)
        return key

    def _secret(self, view: View, number: int) -> tuple[bytes, str]:
        key = number.to_bytes(8)
        wrapped = view.get("subjects", key)
        if wrapped is None:
            raise NotFound(f"subject {number} is not in the vault: erased, or never admitted")
        plain = self._open(wrapped, _SUBJECT_AAD + key)
        try:
            return plain[:32], plain[32:].decode()
        except UnicodeDecodeError:  # whoever has the vault key can wrap anything
            raise IntegrityError(f"vault: the name of subject {number} is no text: altered") from None

    # --- writing -----------------------------------------------------------------------------------

    def _create(self, names: Sequence[str]) -> dict[str, SubjectKeys]:
        first = self.admitted
        created: dict[str, SubjectKeys] = {}
        subjects, hashes = [], []
        for number, name in enumerate(names, first):
            key, secret = number.to_bytes(8), self._random(32)
            wrapped = self._seal(secret + name.encode(), _SUBJECT_AAD + key)
            subjects.append(Write("subjects", key, wrapped))
            hashes.append(Write("names", self._name_hash(name), key))
            created[name] = _derive(number, name, secret)
        # In the order of the table, as in `_named`.
        hashes.sort()
        self._store.commit([Write("meta", b"next", (first + len(names)).to_bytes(8)), *subjects, *hashes])
        for name, keys in created.items():
            self._by_name.put(name, keys)
        return created

    def _site_secret(self) -> bytes:
        with self._store.view() as view:
            wrapped = view.get("meta", b"site")
        if wrapped is not None:
            return self._open(wrapped, _SITE_AAD)
        secret = self._random(32)
        self._store.commit([Write("meta", b"site", self._seal(secret, _SITE_AAD))])
        return secret

    def _name_hash(self, name: str) -> bytes:
        return blake2b(name.encode(), digest_size=16, key=self._name_key).digest()

    def _seal(self, plain: bytes, aad: bytes) -> bytes:
        nonce = self._random(12)
        return nonce + self._wrap.encrypt(nonce, plain, aad)

    def _open(self, wrapped: bytes, aad: bytes) -> bytes:
        try:
            return self._wrap.decrypt(wrapped[:12], wrapped[12:], aad)
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise IntegrityError(
                "vault: this is not the vault key it was made with, or it was altered", section=KEYS
            ) from None


def _derive(number: int, name: str, secret: bytes) -> SubjectKeys:
    return SubjectKeys(number, name, hkdf_expand(secret, _TAG), DataKey(hkdf_expand(secret, _DATA)))
