r"""Which software this is: digests of its own source and of what is installed beside it.

A state is a function of the log *and of the code that folds it*.  Code digests of reducers cover their own files only;
what all of them stand on (the reader, the encoding, a library) is told by digests, which every start writes into the
log (docs/formats/entry.md) and which `treering --version` prints, so that an auditor can compare.

    code      of each .py and .c file of the six packages, and what pages are made of: a line "path SP hash LF", hashed
    native    of each compiled file of the kernel that runs: a line "name SP hash LF", hashed; None where none runs
    packages  of each installed distribution: a line "name SP version LF", hashed

>>> code_digest({"merkle/text.py": b"a = 1\r\n"}) == code_digest({"merkle/text.py": b"a = 1\n"})
True
>>> packages_digest({"numpy": "2.4.6", "lmdb": "3.0.0"}) == packages_digest({"lmdb": "3.0.0", "numpy": "2.4.6"})
True

`sources`, `compiled` and `installed` read the disk; all else computes.  The digest of one reducer's code:
`reducers.sources`.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from tools.process import version

PACKAGES: Final = ("merkle", "archive", "reducers", "replay", "api", "tools")
SUFFIXES: Final = frozenset({".py", ".c"})
PAGES: Final = frozenset({".html", ".css", ".js", ".svg"})
"""What pages are made of, below `api` alone: an installation has no such files elsewhere."""
TOP: Final = Path(__file__).resolve().parents[1]
"""Where the six packages stand, in a checkout and in an installation alike."""
_SEPARATORS = re.compile(r"[-_.]+")


def software() -> dict[str, str | None]:
    """Return what a start entry says about the software, and `treering --version` prints."""
    return {
        "software": f"treering {version()}",
        "code": code_digest(sources()),
        "native": native_digest(compiled()),
        "packages": packages_digest(installed()),
        "python": platform.python_version(),
    }


def code_digest(files: Mapping[str, bytes]) -> str:
    """Return the hex SHA-256 of source files by path: of a line "path SP hash LF" for each, in the order of paths.

    Line ends count as LF, so that checkouts of any system agree.
    """
    return _digest_of_lines({path: sha256(_with_lf(text)).hexdigest() for path, text in files.items()})


def native_digest(files: Mapping[str, bytes]) -> str | None:
    """Return the hex SHA-256 of compiled files: of a line "name SP hash LF" for each, in the order of names; else None.

    >>> native_digest({}) is None
    True
    """
    return (
        _digest_of_lines({name: sha256(data).hexdigest() for name, data in files.items()}) if files else None
    )


def packages_digest(versions: Mapping[str, str]) -> str:
    """Return the hex SHA-256 of distributions: of a line "name SP version LF" for each, in the order of names."""
    return _digest_of_lines(versions)


def _digest_of_lines(values: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {values[name]}\n" for name in sorted(values))
    return sha256(lines.encode(errors="surrogateescape")).hexdigest()  # a file's name may be no text


def _with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def normalised(name: str) -> str:
    """Return a distribution's name in the one form that all its spellings share (PEP 503).

    >>> normalised("Typing_Extensions")
    'typing-extensions'
    """
    return _SEPARATORS.sub("-", name).lower()


# --- what is read from the disk -------------------------------------------------------------------


def sources(top: Path = TOP) -> dict[str, bytes]:
    """Return Treering's own source files, by path below the folder in which its packages stand."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in (top / package).rglob("*")
        if path.suffix in (SUFFIXES | PAGES if package == "api" else SUFFIXES) and path.is_file()
    }


def compiled() -> dict[str, bytes]:
    """Return the compiled files of the kernel that this process runs, by name; none where the twin in Python runs."""
    from archive import kernel_files  # noqa: PLC0415 - to load all of it would hold up every command

    return {name: path.read_bytes() for name, path in kernel_files().items()}


def installed(path: Sequence[str] | None = None) -> dict[str, str]:
    """Return the version of each installed distribution by its normalised name; the first on the path counts.

    What has no name or version that could be read, such as the rest of one that was removed, is passed over.
    """
    found: dict[str, str] = {}
    for one in metadata.distributions(path=list(path) if path is not None else sys.path):
        name, number = _name_and_version(one)
        if name and number:
            found.setdefault(normalised(name), number)
    return found


def _name_and_version(one: metadata.Distribution) -> tuple[str, str]:
    """Return two fields of a distribution's metadata; to parse all of it would take six times as long."""
    fields = dict.fromkeys(("name", "version"), "")
    try:
        text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    except UnicodeDecodeError:  # somebody else's package is no reason not to start
        text = ""
    for line in text.splitlines():
        if not line:
            break
        name, _, value = line.partition(":")
        if not fields.get(name.lower(), "passed over"):
            fields[name.lower()] = value.strip()
    return fields["name"], fields["version"]
