"""The front as a process: uvicorn around `api.create_app`, on a socket that the supervisor opened.

The listening socket belongs to the supervisor, so that connections wait in its queue while a front that
died is started again.

    python -m tools.front --data DIR --shards 2 --fd 7
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from api import LOOPBACK_HOSTS, Services, Shelf, WitnessedClient, cosigned_size, create_app, open_states
from archive import ArchiverClient, DataFolder, SteadyClock
from merkle import FormatError, Policy
from tools.front_states import reading
from tools.past import Past
from tools.process import (
    EXIT_AGAIN,
    clocks,
    quick_turns,
    quiet_collector,
    raise_files,
    say,
    version,
    watch_parent,
    with_times,
)
from tools.sockets import RawTextProtocol
from tools.stores import stores_of

FRAME_SIZE_MAX = 8 << 20
DRAIN_S = 10


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        watch_parent(self._drain)
        print("ready", flush=True)

    def _drain(self) -> None:
        self.should_exit = True


@with_times()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a front on an open socket."""
    arguments = _parser().parse_args(argv)
    raise_files()  # each connection takes one
    try:
        services = services_of(arguments)
    except (OSError, FormatError) as error:
        say(f"front: {arguments.policy}: {error}")
        return EXIT_AGAIN  # the server's copy was sound when it began, and is being changed
    app = create_app(services, hosts=[*LOOPBACK_HOSTS, *arguments.host_name], version=version())
    config = _config(app)
    quiet_collector()
    quick_turns()  # the page is made in a thread
    listener = socket.socket(fileno=arguments.fd)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        server = _Server(config)
        services.leaving = lambda: server.should_exit
        runner.run(server.serve(sockets=[listener]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools.front", description="Serve HTTP and WebSockets.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--module", action="append", default=[], help="a module whose states are shown")
    parser.add_argument("--clock", type=clocks, help="what both clocks showed when the server began")
    parser.add_argument("--fd", type=int, required=True, help="an open, listening socket")
    parser.add_argument(
        "--policy", type=Path, help="show the outside only what these witnesses have cosigned"
    )
    parser.add_argument("--policy-wait", action="store_true", help="answer only what is cosigned")
    parser.add_argument("--page-host", action="append", default=[], help="host of web pages that may send")
    parser.add_argument("--host-name", action="append", default=[], help="a name this server is asked by")
    return parser


def services_of(arguments: argparse.Namespace) -> Services:
    """Return what the routes work with, whole: its parts that need each other are joined here and nowhere else."""
    folder, stores = DataFolder(arguments.data), stores_of()
    client = (WitnessedClient if arguments.policy_wait else ArchiverClient)(folder.socket)
    shelf = Shelf(
        folder.state, arguments.shards, open_states, arguments.module, folder.partition, complains=True
    )
    services = Services(
        folder,
        client,
        shelf,
        SteadyClock(since=arguments.clock),
        say=say,
        page_hosts=frozenset(arguments.page_host),
        slow=stores.link is not None,
        states=stores.status,
        past=Past(folder),
        policy=_policy(arguments.policy),
    )
    shelf.waits, shelf.open_store = services.waits, reading(stores, services)
    client.woken, client.settle = services.woken, services.settle
    if isinstance(client, WitnessedClient):
        client.seen = partial(cosigned_size, services)
    return services


def _policy(path: Path | None) -> Policy | None:
    return None if path is None else Policy.parse(path.read_bytes())


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws=RawTextProtocol,
        ws_max_size=FRAME_SIZE_MAX,
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )


if __name__ == "__main__":
    sys.exit(main())
