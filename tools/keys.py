"""treering keys: show the verifier key that others check the log with.

    $ treering keys vkey --data data
    treering.local/5f2a…/0+4d1c8a7b+AYk…

Give it to auditors over a way that they trust: with it, and nothing else of yours, they can check the log.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from archive import ArchiveError, DataFolder
from tools.process import EXIT_GOOD, EXIT_USAGE, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering keys`."""
    parser = argparse.ArgumentParser(prog="treering keys", description="Show a log's public key.")
    commands = parser.add_subparsers(dest="command", required=True)
    vkey = commands.add_parser("vkey", help="print the verifier key of a log")
    vkey.add_argument("--data", type=Path, default=Path("data"))
    vkey.add_argument("--partition", type=int, default=0)
    vkey.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    try:
        verifier = DataFolder(arguments.data, arguments.partition).signer(os.urandom).verifier
    except ArchiveError as error:
        say(f"treering keys: {error}")
        return EXIT_USAGE
    vkey_text = verifier.encode()
    print(json.dumps({"origin": verifier.name, "vkey": vkey_text}) if arguments.json else vkey_text)
    return EXIT_GOOD
