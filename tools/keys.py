"""treering keys: make keys, change them, and show the ones that others check with.

    $ treering keys vkey --data data                  the key that the log signs with now
    treering.local/5f2a…/0+4d1c8a7b+AYk…
    $ treering keys history --data data               all keys that it ever had, and from which size on
    $ treering keys rotate --data data                a new key, from the next checkpoint on (server stopped)
    $ treering keys generate witness.example/w1 --out w1.key
    witness.example/w1+9e07b2c1+BOv…                  for policies; the private key is in the file

Give a log's key to auditors over a way that they trust: with it, and nothing else of yours, they can check the log.
Who holds one of the log's keys can follow it to all others.  How: `archive.keyring`; why a crash while rotating does
no harm: `archive.rotation`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archive import (
    ArchiveError,
    DataFolder,
    InvalidEvent,
    KeyRing,
    Log,
    NotFound,
    current_signer,
    encode_key,
    find_signer,
    load_size,
    parse_key,
    read_rotation,
    ring_of,
    rotate,
    rotations_of,
    write_new_key,
)
from merkle import ED25519, ED25519_COSIGNATURE, ML_DSA_44, Ed25519Signer, MerkleError
from tools.archiver import begin, build
from tools.console import PARTITION_HELP, exit_codes
from tools.data_flag import add_data
from tools.process import EXIT_GOOD, EXIT_USAGE, say
from tools.settings import load

TYPES = {"log": ED25519, "witness": ED25519_COSIGNATURE, "witness-ml-dsa-44": ML_DSA_44}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering keys`."""
    made = argparse.ArgumentParser(
        prog="treering keys",
        epilog=exit_codes("done", "", "it could not be done"),
        description="Make, change and show keys.",
    )
    commands = made.add_subparsers(dest="command", required=True)
    vkey = commands.add_parser("vkey", help="print the verifier key that a log signs with now")
    history = commands.add_parser("history", help="print all verifier keys that a log ever had")
    change = commands.add_parser("rotate", help="give a log a new key; its server must be stopped")
    for one in (vkey, history, change):
        add_data(one)
        one.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    change.add_argument("--seal", help="where the seal lies, if not beside the log")
    change.add_argument(
        "--config", type=Path, help="the server's TOML file, which may say where the seal lies"
    )
    change.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    generate = commands.add_parser("generate", help="make a key in a new file, and print its verifier key")
    generate.add_argument("name", metavar="NAME", help="such as witness.example/w1; no spaces, no plus")
    generate.add_argument("--out", type=Path, required=True, metavar="FILE", help="it must not exist yet")
    generate.add_argument("--type", choices=sorted(TYPES), default="witness", help="default: %(default)s")
    for one in (vkey, history, change, generate):
        one.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering keys`."""
    arguments = parser().parse_args(argv)
    commands = {"vkey": show, "history": show_history, "rotate": change_key, "generate": make_key}
    try:
        lines, value = commands[arguments.command](arguments)
    except (ArchiveError, MerkleError, OSError) as error:
        say(f"treering keys: {error}")
        return EXIT_USAGE
    print(json.dumps(value) if arguments.json else "\n".join(lines))
    return EXIT_GOOD


Said = tuple[list[str], dict[str, Any]]
"""Lines for people, and the same as an object for programs."""


def show(arguments: argparse.Namespace) -> Said:
    """Return the verifier key that a log signs with now."""
    verifier = _signer(arguments).verifier
    return [verifier.encode()], {"origin": verifier.name, "vkey": verifier.encode()}


def show_history(arguments: argparse.Namespace) -> Said:
    """Return all keys of a log, with the smallest size of a checkpoint that each signs."""
    store = _folder(arguments).open_log()
    with store.view() as view:
        log = Log(view, load_size(view))
        keys = [] if log.size == 0 else history(log, arguments)
    store.close()
    lines = [f"{size:>12,}  {vkey}" for size, vkey in keys]
    return lines, {"keys": [{"from_size": size, "vkey": vkey} for size, vkey in keys]}


def history(log: Log, arguments: argparse.Namespace) -> list[tuple[int, str]]:
    """Return (smallest size, vkey) of each key; the first is named by the first rotation, if there is one."""
    for index, body in rotations_of(log.leaves(0, log.size)):
        ring = ring_of(log, read_rotation(index, body)[1])
        break
    else:
        ring = KeyRing(find_signer(_folder(arguments), log)[1].verifier)
    return [(size, key.encode()) for size, key in ring.keys]


def change_key(arguments: argparse.Namespace) -> Said:
    """Give a log a new key, under the locks of the one writer."""
    folder = _folder(arguments)
    flags = {"data": str(arguments.data), "seal": arguments.seal}
    settings = load(flags, os.environ, arguments.config)
    folder.take_locks()
    if arguments.dry_run:
        before = _signer(arguments).verifier.encode()
        return [f"{before} would be replaced"], {"old": before, "new": None, "dry_run": True}
    store = folder.open_log(read_only=False)
    old = current_signer(folder, store, os.urandom)
    store.close()
    archiver = build(folder, None, settings.seal)
    begin(archiver, folder, {"purpose": "rotate"})
    new = rotate(archiver, folder, old, os.urandom)
    archiver.close()
    before, after, size = old.verifier.encode(), new.verifier.encode(), archiver.head.size
    lines = [f"until size {size:,}:  {before}", f"from then on:  {after}"]
    return lines, {"old": before, "new": after, "last_size_of_old": size}


def make_key(arguments: argparse.Namespace) -> Said:
    """Make a private key in a new file."""
    line = encode_key(arguments.name, TYPES[arguments.type], os.urandom(32))
    if not arguments.out.parent.is_dir():
        raise InvalidEvent(f"{arguments.out.parent}: there is no such folder; make it first")
    write_new_key(arguments.out, line)
    vkey = parse_key(line, str(arguments.out)).verifier.encode()
    return [vkey], {"vkey": vkey, "file": str(arguments.out), "type": arguments.type}


def _signer(arguments: argparse.Namespace) -> Ed25519Signer:
    """Return the key that signs next, also where a rotation was interrupted; nothing is changed."""
    folder = DataFolder(arguments.data, arguments.partition)
    if not (folder.log / "data.mdb").is_file():
        return folder.signer(os.urandom)  # it may have been made before the log
    store = folder.open_log()
    try:
        with store.view() as view:
            log = Log(view, load_size(view))
            return find_signer(folder, log)[1] if log.size else folder.signer(os.urandom)
    finally:
        store.close()


def _folder(arguments: argparse.Namespace) -> DataFolder:
    folder = DataFolder(arguments.data, arguments.partition)
    if not (folder.log / "data.mdb").is_file():
        raise NotFound(f"{folder.log}: there is no log; name a data folder with --data")
    return folder
