"""Limits that a process puts on itself, tried in processes of their own, since they are for good."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tools.confine import data_bytes

pytestmark = pytest.mark.process

CONFINED = (
    "import pathlib",
    "from tools.confine import confine, readable_folders",
    "kept = confine(readable_folders(pathlib.Path('/nowhere')), 64 << 20)",
)
"""What a program begins with that goes on confined."""


def outcome(*lines: str) -> str:
    """Run a program in a process of its own and return what it prints."""
    program = "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_memory_is_counted_as_the_kernel_counts_it() -> None:
    """What is taken shows; so a limit that is set from it is where it says."""
    before = data_bytes()
    held = bytearray(64 << 20)
    assert data_bytes() - before >= len(held)


def test_more_than_the_limit_is_refused_and_maps_of_files_do_not_count() -> None:
    """LMDB maps a terabyte of address space, which costs nothing."""
    said = outcome(
        "import mmap, tempfile",
        "from tools.confine import limit_memory",
        "limit_memory(64 << 20)",
        "kept = bytearray(32 << 20)",
        "with tempfile.TemporaryFile() as file:",
        "    file.truncate(1 << 40)",
        "    mapped = mmap.mmap(file.fileno(), 1 << 40, prot=mmap.PROT_READ)",
        "try:",
        "    bytearray(64 << 20)",
        "except MemoryError:",
        "    print('refused')",
    )
    assert said == "refused"


def test_a_worker_cannot_signal_others_and_can_do_all_else() -> None:
    """Files, sockets and its own children's pipes are as before; its own signals, too."""
    said = outcome(
        "import os, signal, socket, tempfile",
        "from tools.confine import keep_to_itself",
        "assert keep_to_itself()",
        "try:",
        "    os.kill(os.getppid(), 0)",
        "except PermissionError:",
        "    print('refused')",
        "os.kill(os.getpid(), 0)",
        "tempfile.TemporaryFile().close()",
        "socket.socket(socket.AF_UNIX).close()",
    )
    assert said == "refused"


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/new', 'w')",
        "os.listdir('/')",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.kill(os.getppid(), 0)",
        "os.execv(sys.executable, [sys.executable])",
        "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "os.unlink(__import__('json').__file__)",
        "os.fork()",
        "os.posix_spawn(sys.executable, [sys.executable], {})",
        "os.setsid()",
        "os.pipe()",
        "os.memfd_create('held by nobody')",
        "mmap.mmap(-1, 1 << 20)",
        "os.nice(-1)",
    ],
)
def test_a_cell_can_reach_nothing(attempt: str) -> None:
    """Each attempt meets the system's refusal, not only Python's; also of one that runs as root."""
    said = outcome(
        "import mmap, os, socket, sys",
        *CONFINED,
        "assert kept == ['files', 'memory', 'network', 'processes', 'programs'], kept",
        "try:",
        f"    {attempt}",
        "except PermissionError:",
        "    print('refused')",
    )
    assert said == "refused"


NUMBERS = {
    "x86_64": {
        "clone": 56,
        "clone3": 435,
        "mmap": 9,
        "shmget": 29,
        "msgget": 68,
        "prctl": 157,
        "fork": 57,
        "vfork": 58,
    },
    "aarch64": {"clone": 220, "clone3": 435, "mmap": 222, "shmget": 194, "msgget": 186, "prctl": 167},
}[platform.machine()]
ATTEMPTS = [
    ("clone", "17, None, None, None, None", "EPERM"),  # SIGCHLD: as the C library forks
    ("clone3", "None, 0", "ENOSYS"),  # the C library goes back to clone
    ("mmap", "None, 1 << 20, 3, 0x21, -1, 0", "EPERM"),  # shared, of no file
    ("mmap", "None, 1 << 20, 3, 0x23, -1, 0", "EPERM"),  # the same, said otherwise
    ("mmap", "None, 1 << 20, 3, 0x122, -1, 0", "EPERM"),  # a stack that grows
    ("mmap", "None, 1 << 40, 1, 0x22, -1, 0", "ENOMEM"),  # so much that its tables would be memory
    ("shmget", "0, 1 << 20, 0o600", "EPERM"),
    ("msgget", "0, 0o1600", "EPERM"),
    ("prctl", "1, 0, 0, 0, 0", "EPERM"),  # not to die with its worker
    ("fork", "None", "EPERM"),
    ("vfork", "None", "EPERM"),
]


@pytest.mark.parametrize(("call", "arguments", "errno"), [one for one in ATTEMPTS if one[0] in NUMBERS])
def test_no_way_leads_around_the_limits_of_a_cell(call: str, arguments: str, errno: str) -> None:
    """C code asks the kernel itself: no second process, no memory that is counted for nobody, no life of its own."""
    said = outcome(
        "import ctypes, errno, os",
        *CONFINED,
        "libc = ctypes.CDLL(None, use_errno=True)",
        f"arguments = [ctypes.c_void_p(one) for one in ({NUMBERS[call]}, {arguments})]",
        "answer = libc.syscall(*arguments)",
        "if answer != -1: os._exit(9)",  # perhaps as a child
        "print(errno.errorcode[ctypes.get_errno()])",
    )
    assert said == errno


def test_what_may_be_mapped_is_mapped() -> None:
    """Memory of its own, anonymous and private, is what everybody allocates; a file may be read by a map."""
    said = outcome(
        "import json, mmap",
        *CONFINED,
        "own = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "own[0] = 7",
        "with open(json.__file__, 'rb') as file:",
        "    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)",
        "print(own[0], len(mapped) > 0)",
    )
    assert said == "7 True"


def test_limits_stand_for_root_too_and_a_cell_dies_with_its_worker() -> None:
    """What a root process may, a cell gave up before it ran anything; and that left its death as it was."""
    said = outcome(
        "import ctypes, resource",
        "from tools.confine import die_with_parent",
        "die_with_parent()",
        *CONFINED,
        "for what in (resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_STACK, resource.RLIMIT_NOFILE):",
        "    soft, hard = resource.getrlimit(what)",
        "    assert soft == hard != resource.RLIM_INFINITY, what",
        "    try:",
        "        resource.setrlimit(what, (hard + 4096, hard + 4096))",
        "    except (ValueError, PermissionError):",
        "        print('refused')",
        "signal = ctypes.c_int()",
        "ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0)",
        "print(signal.value)",
    )
    assert said.split() == ["refused"] * 4 + ["9"]


def test_a_limit_is_never_lifted_by_a_later_one() -> None:
    """What a module took while it was imported does not give it more afterwards than it was given at first."""
    said = outcome(
        "import resource",
        "from tools.confine import limit_memory",
        "limit_memory(64 << 20)",
        "first = resource.getrlimit(resource.RLIMIT_DATA)",
        "held = bytearray(32 << 20)",
        "limit_memory(64 << 20)",
        "print(resource.getrlimit(resource.RLIMIT_DATA) == first)",
    )
    assert said == "True"


def test_a_cell_can_import_and_start_threads() -> None:
    """What a module needs of Python is there."""
    said = outcome(
        "import pathlib, threading",
        "from tools.confine import confine, readable_folders",
        "confine(readable_folders(pathlib.Path('/nowhere')), 256 << 20)",
        "import wave, decimal, zoneinfo",
        "import numpy",
        "thread = threading.Thread(target=lambda: print(int(numpy.arange(4).sum())))",
        "thread.start(); thread.join()",
    )
    assert said == "6"
