"""How a server is configured: flags, then TREERING_* variables, then one TOML file, then defaults.

A key that is not known is refused: a typing error must not silently leave a default in force.

>>> load({"port": 9000}, {"TREERING_SHARDS": "3"}, None).shards
3

How a module is kept from harming others stands in a table of its own (docs/modules.md):

    seconds_per_event = 5.0          # for all modules

    [module.essay]
    isolation = "own"                # "shared", "own" or "cell"
    memory_mb = 512
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from archive import InvalidEvent
from merkle import Ed25519Signer, NoteError
from replay import LEVELS, Level, Stores

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SHARDS_MAX = 64
SPARES_MAX = 16


ISOLATIONS: Final[tuple[Level, ...]] = LEVELS
MEMORY_MB, MEMORY_MB_MIN, MEMORY_MB_MAX = 2_048, 64, 1 << 24
"""At most 16 TiB: what is larger is a typing error, and no limit that the kernel could be given."""
SECONDS_PER_EVENT, SECONDS_MIN, SECONDS_MAX = 10.0, 0.1, 3_600.0


class SettingsError(InvalidEvent):
    """A setting is not known or not possible: correct it where the message says."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a module runs, and what it may use there."""

    isolation: Level = "shared"
    """With others in one process, in one of its own, or in one of its own without keys and files."""
    memory_mb: int = MEMORY_MB
    """What a process may take beyond what it has once everything is loaded, MiB."""
    seconds_per_event: float = SECONDS_PER_EVENT
    """How long one event may take."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    data: Path = Path("data")
    host: str = "127.0.0.1"
    port: int = 8400
    shards: int = 2
    spare_workers: int = 1
    """Workers that wait, loaded, to take over from one that died; 0: it is started from nothing."""
    origin: str | None = None
    """Name of a new log; by default a random one."""
    seal: Path | None = None
    """Where the seal lies; on another disk it can reveal a rolled-back one."""
    policy: Path | None = None
    """File that says which witnesses must cosign what the outside sees (docs/formats/policy.md)."""
    policy_wait: bool = False
    """Whether acknowledgements wait until enough witnesses have cosigned."""
    page_hosts: tuple[str, ...] = ()
    """Hosts of web pages that may send events over the socket; browser extensions always may."""
    modules: tuple[str, ...] = ()
    """Modules to run; by default all that are installed."""
    memory_mb: int = MEMORY_MB
    seconds_per_event: float = SECONDS_PER_EVENT
    module: tuple[tuple[str, Limits], ...] = ()
    """Limits of single modules, by name."""
    state_store: str = "auto"
    """Where states are kept: lmdb (on disk), memory, redis (a copy for readers), auto (redis if it is there)."""
    redis_url: str | None = None
    """Where Redis is; `redis+cluster://` for a cluster."""
    host_names: tuple[str, ...] = ()
    """Names under which the server may be asked beside those of loopback (a proxy's)."""

    def limits(self, name: str) -> Limits:
        """Return the limits of a module."""
        return dict(self.module).get(name, Limits("shared", self.memory_mb, self.seconds_per_event))

    def text(self) -> str:
        """Return all settings but one as a JSON object, name to text, as docs/formats/entry.md says."""
        # An address may hold a password, and a hash of it would stand in the public log.
        known = {one.name: str(getattr(self, one.name)) for one in fields(self) if one.name != "redis_url"}
        return json.dumps(known, sort_keys=True)

    def digest(self) -> str:
        """Return the hex SHA-256 of the settings, by which a start entry names them."""
        return sha256(self.text().encode()).hexdigest()


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Return the settings; raise SettingsError that names what is wrong and where."""
    values: dict[str, Any] = {}
    if file is not None:
        values |= {name: _typed(name, value, str(file)) for name, value in _toml(file).items()}
    prefix = "TREERING_"
    for variable, text in environment.items():
        name = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and name not in {"vault_key", "kernel"}:
            values[name] = _typed(name, text, variable)
    values |= {name: _typed(name, value, f"--{name}") for name, value in flags.items() if value is not None}
    tables = values.pop("module", {})
    plain = Settings(**values)
    limits = [(name, _limits(name, table, plain, str(file))) for name, table in sorted(tables.items())]
    return _checked(replace(plain, module=tuple(limits)))


def _limits(name: str, table: Any, settings: Settings, where: str) -> Limits:
    """Return the limits in the table of a module; what it does not say is as for all."""
    where = f"{where}: [module.{name}]"
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: must be a table")
    known = [field.name for field in fields(Limits)]
    if unknown := sorted(set(table) - set(known)):
        raise SettingsError(f"{where}: there is no setting {unknown[0]!r}; there are {', '.join(known)}")
    values = {key: _typed(key, value, where) for key, value in table.items() if key != "isolation"}
    isolation = table.get("isolation", "shared")
    if isolation not in ISOLATIONS:
        raise SettingsError(f"{where}: isolation is one of {', '.join(ISOLATIONS)}, not {isolation!r}")
    limits = replace(settings.limits(name), isolation=isolation, **values)
    _check_limits(limits.memory_mb, limits.seconds_per_event, where)
    return limits


def _check_limits(memory_mb: int, seconds_per_event: float, where: str) -> None:
    if memory_mb < MEMORY_MB_MIN:
        raise SettingsError(f"{where}: memory_mb is at least {MEMORY_MB_MIN}, not {memory_mb}")
    if memory_mb > MEMORY_MB_MAX:
        raise SettingsError(f"{where}: memory_mb is at most {MEMORY_MB_MAX:,} (16 TiB), not {memory_mb}")
    check_seconds(seconds_per_event, f"{where}: seconds_per_event")


def check_seconds(seconds: float, what: str) -> None:
    """Raise SettingsError, which says `what`, unless an event may be given so many seconds.

    >>> check_seconds(-1, "--seconds-per-event")
    Traceback (most recent call last):
    tools.settings.SettingsError: --seconds-per-event is 0.1 to 3600, not -1
    """
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:  # false for NaN, too
        raise SettingsError(f"{what} is {SECONDS_MIN} to {SECONDS_MAX:.0f}, not {seconds}")


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from None


def _typed(name: str, value: Any, where: str) -> Any:
    known = {field.name: str(field.type) for field in fields(Settings)}
    if name not in known:
        raise SettingsError(f"{where}: there is no setting {name!r}; there are {', '.join(sorted(known))}")
    try:
        return READ[known[name]](value)
    except (KeyError, TypeError, ValueError, OverflowError):
        hint = (
            "; settings of one module are [module.NAME]"
            if name == "modules" and isinstance(value, dict)
            else ""
        )
        raise SettingsError(f"{where}: {name} cannot be {value!r}{hint}") from None


def _names(value: Any) -> tuple[str, ...]:
    """Return a list of names, or one text with commas between them; a table is none, though it has names, too."""
    if not isinstance(value, str | list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(value)
    return tuple(value.split(",") if isinstance(value, str) else value)


def _truth(value: Any) -> bool:
    """Return true or false, from TOML or a text; raise KeyError for anything else."""
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _whole(value: Any) -> int:
    """Return a whole number, from a TOML integer or a text; raise ValueError for what would have to be rounded."""
    if isinstance(_no_truth(value), float):
        raise ValueError(value)
    return int(value)


def _no_truth(value: Any) -> Any:
    """Return a value that is not true or false, which Python takes for 1 and 0; raise ValueError for one that is."""
    if isinstance(value, bool):
        raise ValueError(value)
    return value


READ: Final[dict[str, Callable[[Any], Any]]] = {
    "str": str,
    "str | None": str,
    "int": _whole,
    "float": lambda value: float(_no_truth(value)),
    "bool": _truth,
    "Path": Path,
    "Path | None": Path,
    "tuple[str, ...]": _names,
    "tuple[tuple[str, Limits], ...]": dict,
}
"""How a value is read, by the type of its setting: a setting of another type needs a row here."""


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.shards <= SHARDS_MAX:
        raise SettingsError(f"shards: 1 to {SHARDS_MAX}, not {settings.shards}")
    if not 0 <= settings.spare_workers <= SPARES_MAX:
        raise SettingsError(f"spare_workers: 0 to {SPARES_MAX}, not {settings.spare_workers}")
    if not 0 <= settings.port < 65_536:
        raise SettingsError(f"port: 0 to 65535, not {settings.port}")
    if settings.policy_wait and settings.policy is None:
        raise SettingsError("policy_wait: there is no policy to wait for; set policy, too")
    _check_limits(settings.memory_mb, settings.seconds_per_event, "settings")
    try:
        Stores(settings.state_store, settings.redis_url)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if settings.origin is not None:
        try:
            Ed25519Signer(settings.origin, bytes(32))  # what a log cannot sign under is no name of a log
        except NoteError as error:
            raise SettingsError(f"origin: {error}") from None
    if settings.host not in LOOPBACK:
        raise SettingsError(
            f"host {settings.host}: this version has no authentication, so it listens on loopback only; "
            "put a proxy that authenticates in front of it"
        )
    return settings
