"""The option --vkey: a log's verifier key, as it is given on a command line.

    read_vkey("treering.local/5f2a…/0+4d1c8a7b+AYk…")        the key itself
    read_vkey("log.vkey")                                    or a file that holds it

A key has a plus between its name and the rest; what has none can only be a file.  A file whose name has one is a file
as long as it is there.  What a key says: `merkle.Ed25519Verifier`.  Keys that a policy names: `tools.verify_policy`.
"""

from __future__ import annotations

from pathlib import Path

from merkle import Ed25519Verifier, NoteError


def read_vkey(text: str) -> Ed25519Verifier:
    """Return the verifier key that is given, or that stands in the file that is given; raise NoteError if none does."""
    path = Path(text)
    if "+" not in text or _is_file(path):
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise NoteError(
                f"{path}: {error.strerror}; give a verifier key or a file that holds one"
            ) from None
        except UnicodeDecodeError:
            raise NoteError(f"{path}: not a verifier key: it holds bytes that are no text") from None
    return Ed25519Verifier.decode(text.strip())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no file has so long a name
        return False
