"""Which policy for witnesses is in force, known also where no server is asked.

What was given away cannot be taken back, so a command that publishes must not publish more than the server does, least
of all because an option was forgotten.  Therefore a server keeps a copy of the policy that it began with beside its
log, an empty one if it has none.  Its own processes read the copy, too: what is in force is one file, and is changed
by a start.

    keep_policy(folder, settings.policy)                              the server, when it begins
    policy_in_force(folder, arguments.policy, arguments.config)       who publishes without it

What may be shown under a policy: `archive.shown_outside`.  The command: `tools.export`.
"""

from __future__ import annotations

import os
from pathlib import Path

from archive import DataFolder, write_whole
from merkle import FormatError, Policy
from tools.settings import SettingsError, load


def keep_policy(folder: DataFolder, path: Path | None) -> None:
    """Keep a copy of the policy in a file, or of none, as that which is in force from now on."""
    write_whole(folder.policy, b"" if path is None else path.read_bytes())


def policy_in_force(folder: DataFolder, asked: Path | None, config: Path | None) -> Policy | None:
    """Return the policy that a flag, a variable or the server's file names, else that of the server; None for none.

    Raises SettingsError if it cannot be read, or if witnesses have cosigned the log and nobody said for which policy.
    """
    named = load({"data": str(folder.path), "policy": asked}, os.environ, config).policy
    path = named or folder.policy
    try:
        text = path.read_bytes()
        return Policy.parse(text) if text or named else None
    except FileNotFoundError:
        if named:
            raise SettingsError(f"{path}: there is no such policy") from None
    except (OSError, FormatError) as error:
        raise SettingsError(f"policy {path}: {error}") from None
    if folder.cosigned.exists():
        raise SettingsError(
            "witnesses have cosigned this log, but no server has said since which policy is in force; "
            "name it with --policy, or start the server once"
        )
    return None
