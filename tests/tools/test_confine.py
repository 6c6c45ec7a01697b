"""Limits that a process puts on itself, tried in processes of their own, since they are for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.confine import data_bytes

pytestmark = pytest.mark.process


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
    ],
)
def test_a_cell_can_reach_nothing(attempt: str) -> None:
    """Each attempt meets the system's refusal, not only Python's."""
    said = outcome(
        "import os, socket, sys",
        "from tools.confine import confine, readable_folders",
        "import pathlib",
        "kept = confine(readable_folders(pathlib.Path('/nowhere')), 64 << 20)",
        "assert kept == ['files', 'memory', 'network', 'processes', 'programs'], kept",
        "try:",
        f"    {attempt}",
        "except PermissionError:",
        "    print('refused')",
    )
    assert said == "refused"


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
