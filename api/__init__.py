"""HTTP in, problems out: ingest, states, the public log, operations, the page.

`create_app(Services(...))` gives the application; `ingest` and `lo` are the pure middle of it, from bytes to
submissions.  Programs that run it: `tools`.

Read `app` first (the routes and who may ask), then `services` (what routes work with), `problems` (errors on the wire),
`ingest` and `events` (events in and out), `lo` and `lo_socket` (the same for the Learning Observer's clients), `shelf`,
`states` and `stream` (states out), `log` and `cosigned` (what the outside sees), `operations` and `pages`.  All routes
in one table: docs/http.md.
"""

from __future__ import annotations

from api.app import LOOPBACK_HOSTS, create_app
from api.cosigned import WitnessedClient, cosigned_size
from api.lo import Connection, Step
from api.operations import COSIGNING_S_MAX, store_is_well, store_remedy
from api.problems import STATUS, Problem, problem
from api.services import Counters, Services, open_states
from api.shelf import Place, Shelf
from replay import SHARDS_FILE

__all__ = [
    "COSIGNING_S_MAX",
    "LOOPBACK_HOSTS",
    "SHARDS_FILE",
    "STATUS",
    "Connection",
    "Counters",
    "Place",
    "Problem",
    "Services",
    "Shelf",
    "Step",
    "WitnessedClient",
    "cosigned_size",
    "create_app",
    "open_states",
    "problem",
    "store_is_well",
    "store_remedy",
]
