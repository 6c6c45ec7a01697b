"""treering new: begin a module of your own, with something that works.

    $ treering new module essay-stats
    essay-stats/pyproject.toml
    essay-stats/README.md
    ...
    next: pip install --no-deps -e essay-stats && pytest essay-stats

The package is made beside its place and then renamed, so it is there wholly or not at all.  A name that could
not be a module's, or that would hide a Python package which is there already, is refused, and so is a folder
that exists.  What the files hold: `tools.new_files`.  How to go on: docs/reducers.md.
"""

from __future__ import annotations

import argparse
import keyword
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path

from reducers import available, is_module_name
from tools.console import exit_codes, fail, print_json
from tools.new_files import files
from tools.process import EXIT_GOOD, EXIT_USAGE

OURS = Path(__file__).resolve().parents[1]
"""Where this software lies; in a checkout of it, a module of somebody else would be taken for a part of it."""


class Refused(Exception):
    """This name or folder cannot be used; the message says why and what to do."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering new`."""
    made = argparse.ArgumentParser(
        prog="treering new",
        epilog=exit_codes("made", "", "this name or folder cannot be used"),
        description="Begin a module of your own.",
    )
    commands = made.add_subparsers(dest="command", required=True)
    module = commands.add_parser("module", help="make a package with a reducer, its test and an entry point")
    module.add_argument("name", metavar="NAME", help="letters, digits, '_' and '-', such as essay-stats")
    module.add_argument("--dir", type=Path, default=Path(), help="where its folder is made; by default, here")
    module.add_argument("--dry-run", action="store_true", help="say what would be made, and make nothing")
    module.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering new`."""
    arguments = parser().parse_args(argv)
    try:
        package = package_of(arguments.name)
        made = files(arguments.name, package)
        target = checked_target(arguments.dir, arguments.name)
        if not arguments.dry_run:
            write(target, made)
    except (Refused, OSError) as error:
        return fail(str(error), EXIT_USAGE)
    if arguments.json:
        print_json(
            {
                "module": arguments.name,
                "package": package,
                "folder": str(target),
                "files": sorted(made),
                "dry_run": arguments.dry_run,
            }
        )
        return EXIT_GOOD
    print("\n".join(str(target / path) for path in made))
    if not arguments.dry_run:
        print(f"next: pip install --no-deps -e {target} && pytest {target}")
    return EXIT_GOOD


def package_of(name: str) -> str:
    """Return the Python package of a module of this name; raise Refused where there can be none.

    >>> package_of("essay-stats")
    'essay_stats'
    """
    package = name.replace("-", "_")
    sound = is_module_name(name) and name[0] != "_" and name[-1] not in "_-"  # as a distribution's must be
    if not sound or keyword.iskeyword(package):
        raise Refused(
            f"{name!r} cannot be a module's name: use 1 to 64 letters, digits, '_', '-'; begin with a letter, and end "
            "with a letter or digit"
        )
    if name in available():
        raise Refused(f"a module named {name!r} is installed already; choose another name")
    if package in sys.stdlib_module_names or util.find_spec(package) is not None or is_distribution(name):
        raise Refused(
            f"there is a Python package {package!r} already, which would be hidden; choose another name"
        )
    return package


def is_distribution(name: str) -> bool:
    """Return whether a distribution of this name is installed."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def checked_target(folder: Path, name: str) -> Path:
    """Return the folder that is to be made; raise Refused if it cannot."""
    if not folder.is_dir():
        raise Refused(f"{folder}: there is no such folder; make it first, or name another with --dir")
    if (OURS / "pyproject.toml").exists() and folder.resolve().is_relative_to(OURS):
        raise Refused(
            f"{folder.resolve()}: this is Treering's own checkout, whose checks would judge the module, too; make it "
            "beside it, with --dir .."
        )
    target = folder / name
    if target.exists() or target.is_symlink():
        raise Refused(f"{target} exists; nothing is overwritten: choose another name, or another --dir")
    return target


def write(target: Path, made: Mapping[str, str]) -> None:
    """Write the files and give the folder its name last, so that it is never half there."""
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for path, text in made.items():
            file = beside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        beside.chmod(0o755)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
