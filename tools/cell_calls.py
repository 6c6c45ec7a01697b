"""Which system calls a cell may not make, as the program that the kernel runs before each of them (seccomp).

A limit on memory counts what a process maps for itself, and a kill reaches what its killer knows.  So both are worth as
much as the ways around them are few:

    another process      fork, vfork, clone but for a thread, clone3, execve: a child has a memory of its own, and with
                         a session of its own it outlives whoever is killed
    memory elsewhere     memfd_create, shared memory without a file, System V and POSIX queues, pipes, keys: held by
                         the kernel, counted for nobody
    a stack that grows   MAP_GROWSDOWN: not counted as data
    other processes      ptrace, signals, new sockets, io_uring, new namespaces
    its own death        PR_SET_PDEATHSIG: it must die with its worker

A thread may be started: what it takes counts as this process's.  glibc asks for it by clone3 first, whose flags lie in
memory where a filter cannot look: "no such call" (ENOSYS) makes it go back to clone.

    program = refusing("x86_64")          # what prctl(PR_SET_SECCOMP, ...) takes; None: unknown architecture

Everything here is a pure function; who installs the program: `tools.confine`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

# AUDIT_ARCH_*, and the numbers of the calls that are refused with EPERM whatever their arguments.
_REFUSED: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (0xC000003E, {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "setsid": 112, "setpgid": 109,
        "memfd_create": 319, "memfd_secret": 447, "pipe": 22, "pipe2": 293, "shmget": 29, "shmat": 30,
        "msgget": 68, "semget": 64, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250,
        "socket": 41, "socketpair": 53, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "pidfd_open": 434, "io_uring_setup": 425,
        "unshare": 272, "setns": 308, "open_by_handle_at": 304,
    }),
    "aarch64": (0xC00000B7, {
        "execve": 221, "execveat": 281, "setsid": 157, "setpgid": 154,
        "memfd_create": 279, "memfd_secret": 447, "pipe2": 59, "shmget": 194, "shmat": 196,
        "msgget": 186, "semget": 190, "mq_open": 180, "add_key": 217, "request_key": 218, "keyctl": 219,
        "socket": 198, "socketpair": 199, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138, "pidfd_open": 434, "io_uring_setup": 425,
        "unshare": 97, "setns": 268, "open_by_handle_at": 265,
    }),
}  # fmt: skip
# Of these it depends on the arguments: (clone, clone3, mmap, prctl).
_LOOKED_AT = {"x86_64": (56, 435, 9, 157), "aarch64": (220, 435, 222, 167)}
_X32 = 0x40000000
"""Numbers from here on are another way to say the same (x86-64)."""
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x10000
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_GROWSDOWN = 0x01, 0x20, 0x100
_PR_SET_PDEATHSIG = 1

# Steps of the program: (code, jump if true, jump if false, operand).
_Step = tuple[int, int, int, int]
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOWED: _Step = (_RETURN, 0, 0, 0x7FFF0000)
_KILLED: _Step = (_RETURN, 0, 0, 0x80000000)


def refusing(machine: str) -> bytes | None:
    """Return the program for an architecture (as `platform.machine()` names it), or None if it is not known here.

    >>> len(refusing("x86_64")) % 8, refusing("riscv64")
    (0, None)
    """
    if machine not in _REFUSED:
        return None
    architecture, calls = _REFUSED[machine]
    clone, clone3, mmap, prctl = _LOOKED_AT[machine]
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        _KILLED,
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        _failed(_EPERM),
        *(step for number in sorted(calls.values()) for step in _only(number, [_failed(_EPERM)])),
        *_only(clone3, [_failed(_ENOSYS)]),
        *_only(clone, [_argument(0), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD), _ALLOWED, _failed(_EPERM)]),
        *_only(prctl, [_argument(0), (_IF_EQUAL, 0, 1, _PR_SET_PDEATHSIG), _failed(_EPERM), _ALLOWED]),
        *_only(mmap, _of_a_map()),
        _ALLOWED,
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _only(number: int, steps: list[_Step]) -> list[_Step]:
    """Return steps that are taken for this call only; they end with a return, since they may load something else."""
    return [(_IF_EQUAL, 0, len(steps), number), *steps]


def _of_a_map() -> list[_Step]:
    """Return what decides about mmap: no stack that grows, and nothing shared without a file."""
    return [
        _argument(3),  # flags
        (_IF_ANY_BIT, 3, 0, _MAP_GROWSDOWN),
        (_IF_ANY_BIT, 0, 1, _MAP_ANONYMOUS),
        (_IF_ANY_BIT, 1, 0, _MAP_SHARED),
        _ALLOWED,
        _failed(_EPERM),
    ]


def _argument(place: int) -> _Step:
    """Return what loads the lower half of an argument (both architectures are little-endian)."""
    return (_LOAD, 0, 0, 16 + 8 * place)


def _failed(errno: int) -> _Step:
    return (_RETURN, 0, 0, 0x00050000 | errno)
