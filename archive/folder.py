"""The data folder: where everything of a deployment lies, with modes that fit.

    DIR/log/<partition>/    the log: LMDB, seal, lock, caches
    DIR/vault/              secrets and names, of all logs; lock
    DIR/keys/               log-<partition>.key (signs), .begun (it has signed), vault.key (unwraps); 0600 or refused
    DIR/state/              derived states, may be deleted
    DIR/run/                sockets, the published size, and what the server says of itself; made anew at each start

What a folder lacks is created on first use, by the one process that owns it; readers create nothing.  `verify-log`
needs `log/` alone.

>>> DataFolder("/srv/treering").socket
PosixPath('/srv/treering/run/archiver-0.sock')
"""

from __future__ import annotations

import os
from pathlib import Path

from archive.errors import KEYS, IntegrityError, InvalidEvent, NotFound
from archive.files import make_folder, sync_folder, write_whole
from archive.keyfile import encode_key, read_key, read_secret
from archive.lmdb_store import LmdbStore
from archive.plan import APPEND_TABLES, TABLES
from archive.ports import Random, Store
from archive.seal import take_lock
from archive.vault import TABLES as VAULT_TABLES
from archive.vault import Vault
from merkle import ED25519, Ed25519Signer

SOCKET_PATH_MAX = 107
RESTORE = "restore the newest backup (docs/recovery.md, rotten bytes)"


class DataFolder:
    """Paths, stores and keys of one data folder and one partition of it."""

    def __init__(self, path: str | os.PathLike[str], partition: int = 0) -> None:
        self.path = Path(path)
        self.partition = partition

    @property
    def log(self) -> Path:
        """Folder of the log."""
        return self.path / "log" / str(self.partition)

    @property
    def state(self) -> Path:
        """Folder of the derived states."""
        return self.path / "state"

    @property
    def run(self) -> Path:
        """Folder of sockets and the published size."""
        return self.path / "run"

    @property
    def socket(self) -> Path:
        """The archiver's socket."""
        return self.run / f"archiver-{self.partition}.sock"

    @property
    def address(self) -> Path:
        """The file that says where the server that started last answers, as a URL."""
        return self.run / "address"

    @property
    def published(self) -> Path:
        """The file of the published size."""
        return self.run / f"published-{self.partition}"

    @property
    def stopped(self) -> Path:
        """The file that says why the archiver is down for good (`archive.stopped`)."""
        return self.run / f"archiver-{self.partition}.stopped"

    @property
    def log_key(self) -> Path:
        """The key that signs checkpoints."""
        return self.path / "keys" / f"log-{self.partition}.key"

    @property
    def begun(self) -> Path:
        """The file that says that the log's key has signed a log."""
        return self.path / "keys" / f"log-{self.partition}.begun"

    @property
    def next_log_key(self) -> Path:
        """The key that is to sign checkpoints next, while the log rotates."""
        return self.path / "keys" / f"log-{self.partition}.key.next"

    @property
    def cosigned(self) -> Path:
        """The newest checkpoint that enough witnesses have cosigned."""
        return self.log / "cosigned"

    @property
    def policy(self) -> Path:
        """The server's copy of its policy for witnesses, empty where it has none; before its first start, no file."""
        return self.log / "policy"

    @property
    def vault_key(self) -> Path:
        """The key that unwraps the vault."""
        return self.path / "keys" / "vault.key"

    def create(self) -> None:
        """Create the folders that are missing, mode 0700; raise InvalidEvent if the socket's path is too long."""
        if len(os.fsencode(self.socket.absolute())) > SOCKET_PATH_MAX:
            raise InvalidEvent(
                f"{self.socket.absolute()}: too long for a socket; choose a shorter data folder"
            )
        folders = (self.path, self.path / "keys", self.log, self.path / "vault", self.state, self.run)
        for folder in folders:
            make_folder(folder)
        for parent in {folder.parent for folder in folders}:
            sync_folder(
                parent
            )  # also where all are there: a start that was killed may have made them, and no more

    def take_locks(self) -> list[int]:
        """Return descriptors that hold the log and the vault for one who writes, until they close.

        All logs of a folder have one vault, and two who admit people to it would give two of them one number.  Raises
        Locked if another one writes either.
        """
        log = take_lock(self.log / "lock")
        try:
            return [
                log,
                take_lock(self.path / "vault" / "lock", "archiver, of another log, writes this vault"),
            ]
        except BaseException:
            os.close(log)
            raise

    def open_log(self, *, read_only: bool = True) -> LmdbStore:
        """Open the log's database; raise NotFound if `read_only` and there is none."""
        return LmdbStore(self.log, TABLES, append=APPEND_TABLES, read_only=read_only, remedy=RESTORE)

    def open_vault_store(self, *, read_only: bool = True) -> LmdbStore:
        """Open the vault's database, which takes no key: to copy it, say."""
        return LmdbStore(self.path / "vault", VAULT_TABLES, read_only=read_only, remedy=RESTORE)

    def open_vault(self, random: Random, *, read_only: bool = True) -> Vault:
        """Open the vault with the key that the environment or the key file gives.

        A key is made only for a vault that holds nothing yet, and only if not `read_only`.  Raises NotFound if there
        is no key, IntegrityError if it is not the vault's.
        """
        store = self.open_vault_store(read_only=read_only)
        try:
            key = self._vault_key(random, is_new=_is_new(store), create=not read_only)
            return Vault(store, key, random)
        except BaseException:
            store.close()  # an environment can be opened once in a process: leave it for the next try
            raise

    def signer(self, random: Random, origin: str | None = None) -> Ed25519Signer:
        """Return the log's signing key; it is made for `origin` if there is none and an origin is given."""
        if not self.log_key.exists() and origin is not None:
            write_whole(self.log_key, encode_key(origin, ED25519, random(32)).encode())
        key = read_key(self.log_key)
        if not isinstance(key, Ed25519Signer):
            raise IntegrityError(
                f"{self.log_key}: a log signs with an Ed25519 key; this is a witness's", section=KEYS
            )
        return key

    def _vault_key(self, random: Random, *, is_new: bool, create: bool) -> bytes:
        text, where = os.environ.get("TREERING_VAULT_KEY"), "TREERING_VAULT_KEY"
        if text is None:
            where = str(self.vault_key)
            if not self.vault_key.exists():
                if not is_new:  # a new key opens nothing, and takes the place where the old one belongs
                    raise NotFound(
                        f"{self.vault_key}: this vault was made with a key that is missing; bring the key back",
                        section=KEYS,
                    )
                if create:
                    write_whole(self.vault_key, (random(32).hex() + "\n").encode())
            text = read_secret(self.vault_key)
        try:
            key = bytes.fromhex(text.strip())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise IntegrityError(f"{where}: a vault key is 64 hexadecimal digits", section=KEYS)
        return key


def _is_new(vault: Store) -> bool:
    """Return whether a vault holds nothing yet: what comes first is a secret that the vault key wraps (vault.md)."""
    with vault.view() as view:
        return view.get("meta", b"site") is None
