"""The README's walk-through, done as a new user does it: each command, in order, on a fresh server, as it is printed.

Only the port is replaced, KEY by what the command before printed, and SIZE by that of the first receipt.  `curl` is
played by an HTTP client, so that the test needs no software that the project does not.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.process.served import OWN, PYTHON, Served, serving
from tools import demo
from tools.settings import Settings

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
USUAL = "http://127.0.0.1:8400"
STATEMENT = {"id": "statement-1", "actor": {"account": {"name": "bob"}}, "verb": "read"}


def section(title: str) -> str:
    """Return the text below a heading of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(title: str) -> list[list[str]]:
    """Return the commands that a section shows, in order, as a shell splits them."""
    blocks = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
    found: list[list[str]] = []
    for word in shlex.split(
        re.sub(r"(?m)^(?=\w)", " ; ", "\n".join(blocks)).replace("\\\n", " "), comments=True
    ):
        if word == ";":
            found.append([])
        else:
            found[-1].append(word)
    return found


def curl(server: Served, command: list[str], place: Path) -> httpx2.Response:
    """Do what curl does with these arguments, in a folder, at a server that has another port."""
    headers, body, save, url = {}, None, False, ""
    words = iter(command[1:])
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word in {"-d", "--data-binary"}:
            given = next(words)
            body = (place / given[1:]).read_bytes() if given.startswith("@") else given.encode()
        elif word == "-OJ":
            save = True
        else:
            assert word.startswith(USUAL), f"curl {word}: this test does not know it"
            url = server.url + word.removeprefix(USUAL)
    answer = httpx2.request("GET" if body is None else "POST", url, headers=headers, content=body, timeout=30)
    assert answer.status_code == 200, answer.text
    if save:
        name = re.findall(r'filename="([^"/]+)"', answer.headers["content-disposition"])[0]
        (place / name).write_bytes(answer.content)
    return answer


def typed(command: list[str], place: Path) -> str:
    """Run a command of ours in a folder, and return what it prints; it must end well."""
    words = command if command[0] != "treering" else command[1:]
    done = subprocess.run(
        [*PYTHON, "tools.cli", *words], cwd=place, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shown_receipt() -> Any:
    """Return the answer that the README shows."""
    return json.loads(re.findall(r"```json\n(.*?)```", section("Send an event"), re.DOTALL)[0])


def test_the_walk_through_is_what_a_new_user_sees(tmp_path: Path) -> None:
    """Every index and size that the README prints is that of a fresh log, and every command in it ends well."""
    key = ""
    with serving(tmp_path / "data") as server:
        first, second = commands("Send an event")
        answer = curl(server, first, tmp_path).json()
        expected = shown_receipt()
        expected["checkpoint"]["root"] = answer["checkpoint"]["root"]
        assert answer == expected
        assert curl(server, first, tmp_path).json() == expected, "the same event again gets the same receipt"
        (tmp_path / "statements.ndjson").write_text(json.dumps(STATEMENT) + "\n")
        assert curl(server, second, tmp_path).json()["receipts"][0]["index"] == OWN + 1
        (read,) = commands("Read a state")
        assert curl(server, read, tmp_path).json()["state"] == {"events": 1}
        (size,) = set(re.findall(r"(?:min|at)_size=([0-9]+)", section("Read a state")))
        assert int(size) == expected["receipts"][0]["size"]
        past = server.get("/v1/states/event_count", student="ada", at_size=size)
        assert past.json()["state"] == {"events": 1}
        server.wait_ready()
        for command in commands("Check it"):
            words = [{"KEY": key, "SIZE": size}.get(word, word) for word in command]
            if words[0] == "curl":
                curl(server, words, tmp_path)
            elif words[0] in {"mkdir", "cp"}:
                subprocess.run(words, cwd=tmp_path, check=True)
            else:
                printed = typed(words, tmp_path)
                key = key or printed.strip()
    assert key


def test_the_own_entries_are_counted_as_they_are() -> None:
    """The README says which entries of a new log come before the first event."""
    assert f"Entries 0 to {OWN - 1} are the log's own" in section("Send an event")
    assert shown_receipt()["receipts"][0]["index"] == OWN


def test_the_addresses_are_those_that_are_served() -> None:
    """Of the server and of the demo, which have ports of their own."""
    assert f"<http://127.0.0.1:{Settings().port}>" in section("Start")
    assert f"<http://127.0.0.1:{demo.parser().get_default('port')}>" in section("Start")
