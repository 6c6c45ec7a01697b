"""treering: the one command, and which module each of its commands is.

Commands are imported when they are called, so that `treering keys` does not wait for a web server to load.  What holds
for each of them as a program, such as that it may be piped into `head`, is `tools.console.as_program`.  What the system
refuses a command, a right above all, is one line and exit code 2: 1 would say that something was found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from tools.console import as_program, refused
from tools.process import EXIT_GOOD, EXIT_USAGE, say
from tools.software import software

COMMANDS = {
    "serve": ("tools.serve", "run a server on one machine"),
    "demo": ("tools.demo", "run a server with a simulated classroom"),
    "send": ("tools.send", "play captured frames and NDJSON files at a server"),
    "doctor": ("tools.doctor", "find what is wrong with a server, and say what to do"),
    "retry": ("tools.steer:retry", "try a parked module again, or a state that stands still"),
    "skip": ("tools.steer:skip", "fold as if a reducer had never seen an entry"),
    "undo": ("tools.steer:undo", "let an older version of a module run"),
    "replay": ("tools.replay", "fold the log again and compare with the live states"),
    "new": ("tools.new", "begin a module of your own"),
    "verify-state": ("tools.verify_state", "check one answer about a state against the log"),
    "bisect": ("tools.bisecting", "find the event, key and field at which two folds part"),
    "upgrade": ("tools.upgrade", "compare installed and active reducers, and what would change"),
    "verify-log": ("tools.verify_log:command", "check a whole log"),
    "drill": ("tools.drill", "tamper with a copy of a log, and show what notices"),
    "export": ("tools.export", "write the public log, or one subject's entries, as files"),
    "receipt": ("tools.receipt", "check receipts, openings and completeness, offline"),
    "witness": ("tools.witness", "cosign what continues other people's logs"),
    "backup": ("tools.backup", "copy a log while its server runs"),
    "restore": ("tools.restore", "bring a backup back"),
    "keys": ("tools.keys", "make, change and show keys"),
}


def usage() -> str:
    """Return the help text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    about = "An audited event store for learning research."
    head = f"usage: treering [--version] COMMAND ...\n\n{about}\n\ncommands:"
    return "\n".join([head, *lines, "", "treering COMMAND --help says more."])


def show_version(flags: Sequence[str]) -> int:
    """Print which software this is, as the log's start entries say it; return the exit code."""
    if [*flags] not in ([], ["--json"]):
        print(f"usage: treering --version [--json], not {' '.join(flags)}", file=sys.stderr)
        return EXIT_USAGE
    found = software()
    told = (f"{name} {found[name] or 'none'}" for name in ("code", "native", "packages", "python"))
    print(json.dumps(found) if flags else "\n".join([str(found["software"]), *told]))
    return EXIT_GOOD


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    if argv is None:
        return as_program(main)
    arguments = list(argv)
    if arguments[:1] == ["--version"]:
        return show_version(arguments[1:])
    if arguments[:1] in (["--help"], ["-h"]):
        print(usage())
        return EXIT_GOOD
    if not arguments or arguments[0] not in COMMANDS:
        print(usage(), file=sys.stderr)
        for wrong in arguments[:1]:
            near = get_close_matches(wrong, COMMANDS, 1)
            say(f"treering: there is no command {wrong!r}" + (f"; {near[0]!r} is near" if near else ""))
        return EXIT_USAGE
    try:
        return _run(*arguments)
    except OSError as error:
        say(f"treering {arguments[0]}: {refused(error)}")
        return EXIT_USAGE


def _run(name: str, *arguments: str) -> int:
    module, _, function = COMMANDS[name][0].partition(":")
    code: int = getattr(import_module(module), function or "main")(list(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main())
