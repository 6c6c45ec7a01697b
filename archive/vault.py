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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from archive.datakey import DataKey
from archive.errors import IntegrityError, NotFound
from archive.ports import Random, Store, View, Write

TABLES: Final = ("meta", "subjects", "names")
KEYS_CACHED: Final = 65_536

_SITE_AAD: Final = b"treering/site/v1"
_SUBJECT_AAD: Final = b"treering/subject/v1\0"


def hkdf_expand(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes derived from a uniformly random secret (RFC 5869, 2.3, one block of SHA-256)."""
    return hmac.digest(secret, info + b"\x01", "sha256")


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
    One process admits subjects; any number may read.
    """

    def __init__(self, store: Store, vault_key: bytes, random: Random) -> None:
        self._store, self._random = store, random
        self._wrap = AESGCM(vault_key)
        site = self._site_secret()
        self.id_key = hkdf_expand(site, b"treering/id/v1")
        self.route_key = hkdf_expand(site, b"treering/route/v1")
        self._name_key = hkdf_expand(site, b"treering/name/v1")
        self._by_number: dict[int, SubjectKeys] = {}
        self._by_name: dict[str, SubjectKeys] = {}

    def find(self, name: str) -> SubjectKeys | None:
        """Return the keys of the subject with this name, or None."""
        if found := self._by_name.get(name):
            return found
        with self._store.view() as view:
            number = view.get("names", self._name_hash(name))
            return None if number is None else self._remember(self._load(view, number))

    def keys(self, number: int) -> SubjectKeys:
        """Return the keys of a subject; raise NotFound if it was never admitted or is erased."""
        if found := self._by_number.get(number):
            return found
        with self._store.view() as view:
            return self._remember(self._load(view, number.to_bytes(8)))

    def name(self, number: int) -> str:
        """Return the name of a subject (kind:label); raise NotFound as `keys` does."""
        return self.keys(number).name

    def data_key(self, numbers: Sequence[int]) -> DataKey:
        """Return the key of rows about these subjects, in the row's order; raise NotFound if one is erased."""
        if len(numbers) == 1:
            return self.keys(numbers[0]).data_key
        with self._store.view() as view:
            secrets = [self._secret(view, number.to_bytes(8))[0] for number in numbers]
        return DataKey(hkdf_expand(sha256(b"".join(secrets)).digest(), b"treering/data/v1/combined"))

    def admit(self, names: Iterable[str]) -> dict[str, SubjectKeys]:
        """Return the keys of all these subjects; those that are new are durable on return."""
        wanted = set(names)
        cached = self._by_name.get
        found = {name: keys for name in wanted if (keys := cached(name) or self.find(name)) is not None}
        new = sorted(wanted - found.keys())
        if new:
            found |= self._create(new)
        return found

    def close(self) -> None:
        """Release the store; what is cached is forgotten with this object."""
        self._store.close()

    def _create(self, names: Sequence[str]) -> dict[str, SubjectKeys]:
        with self._store.view() as view:
            first = int.from_bytes(view.get("meta", b"next") or b"")
        created: dict[str, SubjectKeys] = {}
        writes = [Write("meta", b"next", (first + len(names)).to_bytes(8))]
        for number, name in enumerate(names, first):
            key, secret = number.to_bytes(8), self._random(32)
            wrapped = self._seal(secret + name.encode(), _SUBJECT_AAD + key)
            writes += [Write("subjects", key, wrapped), Write("names", self._name_hash(name), key)]
            created[name] = _derive(number, name, secret)
        self._store.commit(writes)
        for keys in created.values():
            self._remember(keys)
        return created

    def _remember(self, keys: SubjectKeys) -> SubjectKeys:
        for cache in (self._by_number, self._by_name):
            if len(cache) >= KEYS_CACHED:  # oldest out: dictionaries keep the order of insertion
                del cache[next(iter(cache))]  # type: ignore[arg-type]
        self._by_number[keys.number] = self._by_name[keys.name] = keys
        return keys

    def _load(self, view: View, key: bytes) -> SubjectKeys:
        secret, name = self._secret(view, key)
        return _derive(int.from_bytes(key), name, secret)

    def _secret(self, view: View, key: bytes) -> tuple[bytes, str]:
        wrapped = view.get("subjects", key)
        if wrapped is None:
            raise NotFound(f"subject {int.from_bytes(key)} is not in the vault: erased, or never admitted")
        plain = self._open(wrapped, _SUBJECT_AAD + key)
        return plain[:32], plain[32:].decode()

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
        except InvalidTag:
            raise IntegrityError(
                "vault: this is not the vault key it was made with, or it was altered"
            ) from None


def _derive(number: int, name: str, secret: bytes) -> SubjectKeys:
    data_key = DataKey(hkdf_expand(secret, b"treering/data/v1"))
    return SubjectKeys(number, name, hkdf_expand(secret, b"treering/tag/v1"), data_key)
