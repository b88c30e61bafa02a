"""`conman up` as a process, with stand-ins for the API and the worker: order, ready file, signals, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from conman.config import Settings
from conman.embedded.ports import lease
from conman.embedded.stack import USUAL_PORTS
from conman.embedded.up import read_running

pytestmark = [pytest.mark.kill, pytest.mark.timeout(1200)]

SECONDS = 60.0

API = """
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
folder = sys.argv[1]
with open(f"{folder}/events", "a") as file:
    file.write("api up\\n")
def note(*_):
    with open(f"{folder}/events", "a") as file:
        file.write("api stopped\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, note)
with open(f"{folder}/api.json", "w") as file:
    json.dump({k: v for k, v in os.environ.items() if k.startswith("CONMAN_")} | {"pid": os.getpid()}, file)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        worker = "ok" if os.path.exists(f"{folder}/worker.up") else "down"
        body = {"status": "ok", "components": {"mongo": "ok", "temporal": {"status": "ok"}, "worker": worker}}
        self.send_response(200 if self.path.endswith("live") or worker == "ok" else 503)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *_):
        pass
ThreadingHTTPServer((os.environ["CONMAN_HOST"], int(os.environ["CONMAN_PORT"])), Handler).serve_forever()
"""

WORKER = """
import os, signal, sys, time
folder = sys.argv[1]
def note(*_):
    with open(f"{folder}/events", "a") as file:
        file.write("worker stopped\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, note if len(sys.argv) == 2 else signal.SIG_IGN)
with open(f"{folder}/events", "a") as file:
    file.write("worker up\\n")
open(f"{folder}/worker.up", "w").close()
while True:
    time.sleep(60)
"""

UP = """
import asyncio, json, sys
from pathlib import Path
from conman.config import load_settings
from conman.embedded.up import Commands, run_up
from conman.leaving import run_to_exit
options = json.loads(sys.argv[1])
commands = Commands(api=options["api"], worker=options["worker"])
run_to_exit(lambda: sys.exit(asyncio.run(run_up(
    load_settings(**options["settings"]), ready_file=Path(options["ready"]), worker=options["with_worker"],
    progress=lambda line: print(line, file=sys.stderr, flush=True), commands=commands))))
"""


class Up:
    """One run of `up` below a folder; its children are all processes below it."""

    def __init__(self, folder: Path, *, api: str = API, stubborn: bool = False, worker: bool = True, **settings: Any) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.ready = folder / "ready.json"
        python = [sys.executable, "-c"]
        options = {
            "api": [*python, api, str(folder)],
            "worker": [*python, WORKER, str(folder), *(["stubborn"] if stubborn else [])],
            "settings": {"data": str(self.data), **settings},
            "ready": str(self.ready),
            "with_worker": worker,
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CONMAN_") or k == "CONMAN_CACHE"}
        self.output = (folder / "output").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, json.dumps(options)],
            stdout=self.output,
            stderr=self.output,
            env=environment,
            start_new_session=True,
        )

    def said(self) -> str:
        return (self.folder / "output").read_text()

    def events(self) -> list[str]:
        return (self.folder / "events").read_text().splitlines()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def until_ready(self) -> dict[str, Any]:
        await self.until(self.ready.exists, "ready")
        return json.loads(self.ready.read_text())

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + (1000 if what == "ready" else SECONDS)  # a first start builds the servers
        while not condition():
            assert self.process.poll() is None or what == "over", f"up ended: {self.said()}"
            assert time.monotonic() < deadline, f"never {what}: {self.said()}"
            await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; gives the exit code."""
        self.process.send_signal(number)
        await self.until(lambda: self.process.poll() is not None, "over")
        assert self.process.returncode is not None
        return self.process.returncode


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Up]]:
    runs: list[Up] = []

    def start(**options: Any) -> Up:
        runs.append(Up(tmp_path, **options))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        run.output.close()


def gone(children: list[psutil.Process]) -> bool:
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


async def test_up_tells_where_everything_is_and_stops_it_in_order(start: Callable[..., Up]) -> None:
    up = start(admin_email="ada@example.com", gate_concurrency=2)
    ready = await up.until_ready()
    assert stat.S_IMODE(up.ready.stat().st_mode) == 0o600
    assert set(ready) == {"api_url", "temporal_address", "temporal_ui_url", "mongo_uri", "admin_email", "admin_password"}
    assert ready["admin_email"] == "ada@example.com"
    for name, value in ready.items():
        assert f"{name}: {value}" in up.said()

    given = json.loads((up.folder / "api.json").read_text())
    running = read_running(up.data)
    assert running is not None and running.public() == ready
    assert given["CONMAN_SECRET"] == running.secret == (up.data / "keys" / "secret").read_text()
    assert given["CONMAN_MASTER_KEYS"] == running.master_keys == (up.data / "keys" / "master-keys").read_text().strip()
    assert given["CONMAN_ADMIN_PASSWORD"] == ready["admin_password"]
    assert given["CONMAN_TEMPORAL_ADDRESS"] == ready["temporal_address"]
    assert given["CONMAN_TEMPORAL_UI_URL"] == ready["temporal_ui_url"]
    assert given["CONMAN_MONGO_URI"] == ready["mongo_uri"]
    assert given["CONMAN_DATA"] == str(up.data)
    assert given["CONMAN_GATE_CONCURRENCY"] == "2"
    assert ready["api_url"] == f"http://{given['CONMAN_HOST']}:{given['CONMAN_PORT']}"

    children = up.children()
    assert len({os.getpgid(child.pid) for child in children}) == 1
    assert len(children) == 4
    assert await up.end(signal.SIGTERM) == 0
    assert up.events() == ["api up", "worker up", "api stopped", "worker stopped"]
    assert gone(children)
    assert not up.ready.exists()
    assert read_running(up.data) is None


async def test_the_admin_and_the_key_stay_the_same_from_run_to_run(start: Callable[..., Up]) -> None:
    # Others that start meanwhile want the usual ports too: both runs are to have ports of their own.
    with ExitStack() as held:
        for port in (Settings.model_fields["port"].default, *USUAL_PORTS.values()):
            held.callback(lease([port]).release)
        up = start()
        first = await up.until_ready()
        key = (up.data / "keys" / "secret").read_text()
        assert await up.end(signal.SIGINT) == 0
        again = start()
        assert await again.until_ready() == first
        assert (up.data / "keys" / "secret").read_text() == key


async def test_nothing_survives_the_kill_of_up_and_the_next_one_starts(start: Callable[..., Up]) -> None:
    up = start()
    first = await up.until_ready()
    children = up.children()
    assert await up.end(signal.SIGKILL) == -signal.SIGKILL
    await up.until(lambda: gone(children), "over")
    assert up.ready.exists() and read_running(up.data) is None
    (up.folder / "worker.up").unlink()
    again = start()
    await again.until(lambda: not up.ready.exists() or len(again.events()) > 2, "withdrawing the old ready file")
    second = await again.until_ready()
    assert (second["mongo_uri"], second["temporal_address"]) == (first["mongo_uri"], first["temporal_address"])


async def test_a_killed_api_comes_back_on_its_port(start: Callable[..., Up]) -> None:
    up = start()
    await up.until_ready()
    before = json.loads((up.folder / "api.json").read_text())
    os.kill(before["pid"], signal.SIGKILL)
    await up.until(lambda: "api is back" in up.said(), "api back")
    after = json.loads((up.folder / "api.json").read_text())
    assert after["pid"] != before["pid"] and after["CONMAN_PORT"] == before["CONMAN_PORT"]


async def test_without_a_worker_none_is_started_nor_waited_for(start: Callable[..., Up]) -> None:
    up = start(worker=False)
    await up.until_ready()
    assert up.events() == ["api up"]
    assert await up.end(signal.SIGTERM) == 0


async def test_an_api_that_can_not_start_stops_everything_and_says_why_in_one_line(start: Callable[..., Up]) -> None:
    up = start(api="import sys; sys.exit('CONMAN_SMTP_PORT: no such port')")
    await up.until(lambda: up.process.poll() is not None, "over")
    assert up.process.returncode == 1
    assert "api ended while starting (exit code 1): CONMAN_SMTP_PORT: no such port\n" in up.said()
    assert "Traceback" not in up.said()
    assert not up.ready.exists()


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = start(port=port)
        await up.until(lambda: up.process.poll() is not None, "over")
    assert up.process.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in up.said()


async def test_a_second_up_on_the_folder_is_refused_and_the_first_stays_ready(start: Callable[..., Up]) -> None:
    first = start()
    ready = await first.until_ready()
    second = start()
    await second.until(lambda: second.process.poll() is not None, "over")
    assert second.process.returncode == 1
    assert f"in use by another conman (process {first.process.pid})" in second.said()
    assert json.loads(first.ready.read_text()) == ready
    assert read_running(first.data) is not None


async def test_a_stop_while_starting_is_a_stop(start: Callable[..., Up]) -> None:
    up = start(api="import time; time.sleep(600)")
    await up.until(lambda: "starting the API" in up.said(), "the API's start")
    children = up.children()
    assert await up.end(signal.SIGINT) == 0
    assert gone(children)


async def test_a_second_signal_stops_at_once(start: Callable[..., Up]) -> None:
    up = start(stubborn=True, worker_drain_seconds=600)
    await up.until_ready()
    children = up.children()
    up.process.send_signal(signal.SIGINT)
    await up.until(lambda: "stopping the worker" in up.said(), "stopping the worker")
    assert await up.end(signal.SIGINT) == 0
    assert gone(children)
