"""What a cell's process is kept from, by the kernel: files, the network, other processes, memory without end.

Each part is asked for by a system call that takes rights away and never gives any back, and needs no privilege:

    files       Landlock: nothing but reading below the folders of Python and of what is installed
    network     Landlock (TCP), seccomp (no new sockets at all, so no Unix socket of ours either)
    programs    seccomp: no other program, no other process at all; threads may be started
    processes   Landlock scopes (signals, tracing, their memory and environment)
    memory      RLIMIT_DATA; maps of files do not count, and seccomp refuses what the limit would not see
                (`tools.cell_calls`).  RLIMIT_AS bounds whatever is left: a stack that grows, tables of pages
    cores       RLIMIT_CORE 0: what a process held must not lie about on disk after it crashed

Who runs as root loses what root may (capabilities): limits and priority could else be lifted again.  What stays is to
read files that only their owner may.

A kernel that lacks a part is no reason to refuse work: what is not there is left out of the answer, which is shown to
the operator.  Linux on x86-64 and AArch64; elsewhere only the limits hold.

    confine(readable=[sys.prefix], memory_bytes=1 << 30)     -> ["files", "network", "processes", "memory"]

Who calls it: `tools.cell`, before the module is imported.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from tools.cell_calls import refusing

_NR_LANDLOCK_CREATE, _NR_LANDLOCK_ADD, _NR_LANDLOCK_RESTRICT = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SIGKILL, _SECCOMP_FILTER = 9, 2
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Every right to files that a version of Landlock knows: all are taken, two are given back."""
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_ROOMS = ("merkle", "archive", "reducers", "replay", "api", "tools")
_SCOPES = 0b11
"""Abstract sockets and signals stay among the processes that are confined together."""
_O_PATH = 0o10000000
_SYSTEM = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip
IMPORT_ADDRESSES, ADDRESSES = 8 << 30, 1 << 30
"""Addresses that a cell has beyond the memory it may take, while it imports and afterwards: for maps of libraries and
arenas of threads.  They are no memory; but what is mapped without being counted ends here."""
STACK_BYTES_MAX, FILES_MAX = 64 << 20, 256
_CAPABILITY_VERSION, _MAY_READ = 0x20080522, 1 << 2
"""CAP_DAC_READ_SEARCH."""

_libc = ctypes.CDLL(None, use_errno=True)


def data_bytes() -> int:
    """Return how much memory of this process counts against RLIMIT_DATA (Linux)."""
    return int(os.pread(_statm(), 200, 0).split()[5]) * resource.getpagesize()


@functools.cache
def _statm() -> int:
    """Return a descriptor that stays open: a confined process could not open the file again."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more memory than it has, and leave no core behind."""
    _at_most(resource.RLIMIT_DATA, data_bytes() + more_bytes)
    _at_most(resource.RLIMIT_CORE, 0)


def limit_addresses(more_bytes: int) -> None:
    """Let this process map so much more than it has, counted or not."""
    _at_most(
        resource.RLIMIT_AS, int(os.pread(_statm(), 200, 0).split()[0]) * resource.getpagesize() + more_bytes
    )


def _at_most(what: int, limit: int) -> None:
    """Set a limit for good, or keep it for good where it is lower."""
    lowest = min([limit, *(one for one in resource.getrlimit(what) if one != resource.RLIM_INFINITY)])
    resource.setrlimit(what, (lowest, lowest))


def readable_folders(data: Path, value: str = "") -> list[str]:
    """Return what may be read so that a module can be imported, and nothing that leads to `data`.

    `value` is where its entry point leads.  Where a folder of the search path holds the data folder (a checkout does),
    its other parts are named one by one.
    """
    data, found = data.resolve(), []
    tops = {part.partition(":")[0].partition(".")[0] for part in value.split()}
    places = {place for name in {*_ROOMS, *tops} for place in _places_of(name)}
    for entry in {sys.prefix, sys.base_prefix, *sys.path, *places}:
        place = Path(entry).resolve()
        if not entry or not place.exists():
            continue
        found += _without(place, data)
    return sorted({str(one) for one in found})


def _places_of(name: str) -> list[str]:
    """Return where a package stands; one that is being worked on (pip install -e) may stand outside of the path."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    return list(spec.submodule_search_locations or filter(None, [spec.origin]))


def _without(place: Path, data: Path) -> list[Path]:
    if place == data or place.is_relative_to(data):
        return []
    if not data.is_relative_to(place):
        return [place]
    return [found for part in place.iterdir() for found in _without(part.resolve(), data)]


def die_with_parent() -> None:
    """Have this process killed when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def keep_to_itself() -> bool:
    """Keep this process from signalling and tracing others, for good: a worker that runs modules needs neither."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = _libc.syscall(_NR_LANDLOCK_CREATE, None, 0, 1)
    return abi >= _SCOPES_SINCE and _restricted(0, 0, _SCOPES, ())


def confine(readable: Iterable[str], memory_bytes: int) -> list[str]:
    """Take every right away that a fold does not need, for good, and return the names of what is kept from now on."""
    limit_memory(memory_bytes)
    limit_addresses(memory_bytes + IMPORT_ADDRESSES)
    _at_most(resource.RLIMIT_STACK, STACK_BYTES_MAX)
    _at_most(resource.RLIMIT_NOFILE, FILES_MAX)
    _drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kept, abi = ["memory"], _libc.syscall(_NR_LANDLOCK_CREATE, None, 0, 1)
    if abi >= 1 and _landlock(abi, readable):
        kept.append("files")
    if _seccomp():
        kept += ["network", "programs"]
    if abi >= _SCOPES_SINCE and "files" in kept:
        kept.append("processes")
    return sorted(kept)


def _landlock(abi: int, readable: Iterable[str]) -> bool:
    files = _FS_BY_ABI[max(known for known in _FS_BY_ABI if known <= abi)]
    network = 0b11 if abi >= _NETWORK_SINCE else 0
    scopes = _SCOPES if abi >= _SCOPES_SINCE else 0
    return _restricted(files, network, scopes, {*readable, *_SYSTEM})


def _restricted(files: int, network: int, scopes: int, readable: Iterable[str]) -> bool:
    """Take these rights, but for reading below `readable`; return whether that worked."""
    size = 24 if scopes else 16 if network else 8
    attributes = struct.pack("=QQQ", files, network, scopes)[:size]
    rules = _libc.syscall(_NR_LANDLOCK_CREATE, attributes, size, 0)
    if rules < 0:
        return False
    try:
        for path in readable:
            _allow(rules, path)
        return bool(_libc.syscall(_NR_LANDLOCK_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str) -> None:
    """Let files below `path` be read."""
    try:
        place = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        _libc.syscall(_NR_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _drop_capabilities() -> None:
    """Give up all that root may, but to read."""
    header, held = struct.pack("=Ii", _CAPABILITY_VERSION, 0), ctypes.create_string_buffer(24)
    if _libc.capget(header, held) == 0:
        permitted = struct.unpack("=6I", held.raw)[1] & _MAY_READ
        _libc.capset(header, struct.pack("=6I", permitted, permitted, 0, 0, 0, 0))


def _seccomp() -> bool:
    """Refuse the calls that `tools.cell_calls` names; return whether that worked."""
    code = refusing(platform.machine())
    if code is None:
        return False
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, header, 0, 0) == 0)
