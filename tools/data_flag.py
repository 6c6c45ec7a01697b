"""--data: which data folder a command is about, said in the same way to all of them.

The flag, else TREERING_DATA, else ./data: so `treering doctor` looks where a `treering serve` of the same environment
keeps its data, which goes by `tools.settings`.  `treering restore` wants to be told, since it writes; `demo` and
`drill` make folders of their own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from tools.settings import Settings

VARIABLE: Final = "TREERING_DATA"


def add_data(made: argparse.ArgumentParser, what: str = "the data folder") -> None:
    """Add the flag to a parser; `what` says what it names."""
    default = Path(os.environ.get(VARIABLE, Settings().data))
    made.add_argument(
        "--data", type=Path, default=default, help=f"{what} (default: {VARIABLE}, else ./{Settings().data})"
    )
