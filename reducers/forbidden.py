"""What a reducer may not reach for, by name, and what it should do instead.

One table serves both judges: `reducers.purity` reads it when a reducer is defined, `reducers.guard` when it
runs.  Names are looked up in modules that are loaded already; nothing here imports any of them.

>>> kind_of("time", "time"), kind_of("random", "Random"), kind_of("numpy.random", "rand")
('the clock', None, 'chance')
>>> kind_of("subprocess", "run")
'other processes'

Why it is forbidden, and what stays possible in spite of it: docs/adr/0045-purity.md.
"""

from __future__ import annotations

CLOCK, CHANCE, FILES = "the clock", "chance", "files"
NETWORK, PROCESSES, MACHINE = "the network", "other processes", "the machine it runs on"

INSTEAD = {
    CLOCK: "use event.time_ms or event.received_ms, and ticks= to let time pass",
    CHANCE: "derive what you need from the event, such as random.Random(event.index)",
    FILES: "load data when the module is imported, or send it as an event",
    NETWORK: "fetch it in a program of your own, and let that send the result as an event",
    PROCESSES: "do it in a program of your own, and let that send the result as an event",
    MACHINE: "send what it depends on as an event",
}
"""What an author can do, for each kind of thing that is out of reach."""

# fmt: off
FUNCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "time": {CLOCK: (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
        "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns", "sleep",
    ), MACHINE: ("localtime", "mktime", "ctime", "tzname", "timezone", "altzone", "daylight")},  # its time zone
    "random": {CHANCE: (
        "betavariate", "choice", "choices", "expovariate", "gammavariate", "gauss", "getrandbits",
        "lognormvariate", "normalvariate", "paretovariate", "randbytes", "randint", "random", "randrange",
        "sample", "seed", "shuffle", "triangular", "uniform", "vonmisesvariate", "weibullvariate",
        "SystemRandom", "_urandom",
    )},
    "uuid": {CHANCE: ("uuid1", "uuid4", "uuid6", "uuid7", "getnode")},
    "os": {
        CHANCE: ("urandom", "getrandom"),
        MACHINE: ("environ", "environb", "getenv", "getenvb", "getpid", "getppid", "getcwd", "getcwdb", "cpu_count",
                  "getlogin", "uname", "times", "getloadavg"),
        FILES: ("open", "read", "write", "stat", "lstat", "listdir", "scandir", "walk", "remove", "unlink",
                "rename", "replace", "mkdir", "makedirs", "rmdir", "readlink", "access"),
        PROCESSES: ("system", "popen", "fork", "kill", "spawnl", "spawnv", "posix_spawn", "execv", "execve"),
    },
    "posixpath": {FILES: ("exists", "lexists", "isfile", "isdir", "islink", "getsize", "abspath", "realpath")},
    "genericpath": {FILES: ("exists", "isfile", "isdir", "getsize", "getmtime", "getctime", "getatime")},
    "platform": {MACHINE: ("node", "platform", "machine", "processor", "system", "release", "uname")},
    "builtins": {FILES: ("open",), MACHINE: ("input",)},
    "io": {FILES: ("open", "open_code", "FileIO")},
    "threading": {PROCESSES: ("Thread", "Timer", "_start_new_thread", "_start_joinable_thread")},
    "_thread": {PROCESSES: ("start_new_thread", "start_joinable_thread")},
}
"""Single names of modules that are otherwise free."""

MODULES: dict[str, str] = {
    "secrets": CHANCE, "tempfile": FILES, "shutil": FILES, "glob": FILES, "fileinput": FILES, "sqlite3": FILES,
    "lmdb": FILES, "dbm": FILES, "shelve": FILES,
    "socket": NETWORK, "ssl": NETWORK, "select": NETWORK, "selectors": NETWORK, "http.client": NETWORK,
    "urllib.request": NETWORK, "requests": NETWORK, "httpx": NETWORK, "httpx2": NETWORK, "aiohttp": NETWORK,
    "urllib3": NETWORK, "smtplib": NETWORK, "ftplib": NETWORK, "redis": NETWORK,
    "subprocess": PROCESSES, "multiprocessing": PROCESSES, "asyncio": PROCESSES, "concurrent.futures": PROCESSES,
}
"""Modules of which every name is out of reach."""

CLASS_METHODS = {"now", "utcnow", "today"}
"""Class methods of `datetime.date` and of what derives from it, such as `datetime.datetime`: the clock."""

NUMPY_SEEDED = {
    "BitGenerator", "Generator", "MT19937", "PCG64", "PCG64DXSM", "Philox", "RandomState", "SFC64",
    "SeedSequence", "default_rng",
}
"""What numpy.random has that is pure if it is given a seed; without one, it asks the system, which is refused."""

AUDITED: dict[str, str] = {
    "open": FILES, "os": FILES, "shutil": FILES, "glob": FILES, "tempfile": FILES, "pathlib": FILES,
    "sqlite3": FILES, "fcntl": FILES,
    "socket": NETWORK, "urllib": NETWORK, "http": NETWORK, "ftplib": NETWORK, "smtplib": NETWORK,
    "imaplib": NETWORK, "poplib": NETWORK,
    "subprocess": PROCESSES, "pty": PROCESSES, "_thread": PROCESSES, "signal": PROCESSES,
}
"""Audit events of Python (PEP 578) that a reducer may not cause, by the first part of their name."""
# fmt: on

_KINDS = {
    (module, name): kind
    for module, kinds in FUNCTIONS.items()
    for kind, names in kinds.items()
    for name in names
}


def kind_of(module: str, name: str) -> str | None:
    """Return what one reaches for by `module.name`, or None where that is allowed."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if (kind := MODULES.get(".".join(parts[:size]))) is not None:
            return kind
    if module == "numpy.random":
        return None if name in NUMPY_SEEDED or name.startswith("_") else CHANCE
    return _KINDS.get((module, name))


def sentence(reducer: str, kind: str, what: str, where: str) -> str:
    """Return what is said to the author: who, what, where, and what to do instead.

    >>> sentence("idle", CLOCK, "time.time", "essay.py:12")[:64]
    "reducer 'idle' reaches for the clock (time.time) at essay.py:12;"
    """
    return f"reducer {reducer!r} reaches for {kind} ({what}) at {where}; {INSTEAD[kind]}"


def place(filename: str, line: int) -> str:
    """Return where something stands, short enough for a line: the file with its folder.

    >>> place("/srv/lib/essay_stats/idle.py", 12)
    'essay_stats/idle.py:12'
    """
    return f"{'/'.join(filename.replace(chr(92), '/').split('/')[-2:])}:{line}"
