"""What a cell's process is kept from, by the kernel: files, the network, other processes, memory without end.

Each part is asked for by a system call that takes rights away and never gives any back, and needs no privilege:

    files       Landlock: nothing but reading below the folders of Python and of what is installed
    network     Landlock (TCP), seccomp (no new sockets at all, so no Unix socket of ours either)
    processes   Landlock scopes (signals, tracing, their memory and environment), seccomp (no other program)
    memory      RLIMIT_DATA; maps of files do not count
    cores       RLIMIT_CORE 0: what a process held must not lie about on disk after it crashed

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
# What a seccomp filter refuses, by architecture (AUDIT_ARCH_*, numbers of the calls).
_REFUSED = {
    "x86_64": (0xC000003E, {"socket": 41, "socketpair": 53, "ptrace": 101, "execve": 59, "execveat": 322,
                            "process_vm_readv": 310, "process_vm_writev": 311, "kill": 62, "tkill": 200,
                            "pidfd_open": 434, "io_uring_setup": 425}),
    "aarch64": (0xC00000B7, {"socket": 198, "socketpair": 199, "ptrace": 117, "execve": 221, "execveat": 281,
                             "process_vm_readv": 270, "process_vm_writev": 271, "kill": 129, "tkill": 130,
                             "pidfd_open": 434, "io_uring_setup": 425}),
}  # fmt: skip
_EPERM, _ALLOW, _ERRNO, _KILL = 1, 0x7FFF0000, 0x00050000, 0x80000000

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
    limit = data_bytes() + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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


def _seccomp() -> bool:
    """Refuse the calls of `_REFUSED` with EPERM; return whether that worked."""
    if platform.machine() not in _REFUSED:
        return False
    architecture, calls = _REFUSED[platform.machine()]
    numbers = sorted(calls.values())
    program = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 1, 0, architecture),
        (0x06, 0, 0, _KILL),
        (0x20, 0, 0, 0),  # load the number of the call
        (0x35, len(numbers) + 1, 0, 0x40000000),  # x32, another way to say the same
        *[(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)],
        (0x06, 0, 0, _ALLOW),
        (0x06, 0, 0, _ERRNO | _EPERM),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, header, 0, 0) == 0)
