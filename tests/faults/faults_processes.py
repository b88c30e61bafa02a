"""Real processes to kill: the embedded servers, and in each cell an API and workers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from conman.config import Settings
from conman.embedded import guard
from conman.embedded.ports import PortLease, lease
from conman.embedded.stack import EmbeddedStack
from conman.settings.vault import generate_keyring
from tests.support import waiting
from tests.support.plain_http import NO_TLS

SECONDS = 90.0
"""The longest that anything is waited for. Nothing is expected to take this long: it makes a hang a failure."""

KILLED = -signal.SIGKILL
NURSERY = Path(__file__).with_name("faults_nursery.py")
PROGRAMS = Path(__file__).with_name("faults_programs.py")

SUITE = """#!/bin/sh
# The suite of the fault tests: it says that it runs, waits while its app is held, and passes.
echo "checking $CONMAN_SCOPE"
while [ -e "{holds}/$CONMAN_APP-$CONMAN_SCOPE" ]; do sleep 0.05; done
test ! -e fail
"""

T = TypeVar("T")


async def until(what: str, look: Callable[[], Awaitable[T]], seconds: float = SECONDS) -> T:
    """Wait for a condition: the first true answer. Raises `AssertionError` with what was waited for."""
    return await waiting.until(what, look, seconds)


class Process:
    """One `conman` process of its own."""

    def __init__(self, pid: int, log: Path, code: asyncio.Future[int]) -> None:
        self.pid = pid
        self.log = log
        self._code = code

    @property
    def alive(self) -> bool:
        return not self._code.done()

    def signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self, seconds: float = SECONDS) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._code), seconds)
        except TimeoutError:
            raise AssertionError(f"process {self.pid} lives on after {seconds:.0f} s: {self.said()[-3000:]}") from None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def says(self, words: str) -> Process:
        async def said() -> bool:
            alive = self.alive
            found = words in self.said()
            assert alive or found, f"it died with {self._code.result()}: {self.said()[-3000:]}"
            return found

        await until(f"{words!r} in {self.log}", said)
        return self


class Nursery:
    """A process to fork from; all its children have one hash seed, another nursery's another."""

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *guard.command([sys.executable, str(NURSERY)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])},
        )
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._codes: dict[int, asyncio.Future[int]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            code = self._codes.setdefault(message["pid"], asyncio.get_running_loop().create_future())
            if "code" in message:
                code.set_result(message["code"])
                del self._codes[message["pid"]]
            else:
                self._born.put_nowait(message["pid"])

    async def bear(self, arguments: list[str], env: dict[str, str], log: Path) -> Process:
        assert self._process.stdin is not None
        async with self._one_at_a_time:
            order = {"arguments": arguments, "env": env, "log": str(log)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            pid = await asyncio.wait_for(self._born.get(), SECONDS)
            return Process(pid, log, self._codes[pid])

    async def stop(self) -> None:
        """End it, and its children with it."""
        self._process.kill()
        await self._process.wait()
        self._listening.cancel()


class World:
    """The embedded servers, and what processes are forked from; all of it dies with the test process."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.stack = EmbeddedStack(Settings(data=data), print, usual_ports=False)
        self.nurseries = [Nursery(), Nursery()]
        self._count = 0

    async def __aenter__(self) -> World:
        await asyncio.gather(self.stack.start(), *(nursery.start() for nursery in self.nurseries))
        return self

    async def __aexit__(self, *_: Any) -> None:
        for nursery in self.nurseries:
            await nursery.stop()
        await self.stack.stop(at_once=True)

    async def bear(self, arguments: list[str], env: dict[str, str], logs: Path) -> Process:
        """A process, from the nurseries by turns: who takes over has another hash seed than who died."""
        self._count += 1
        nursery = self.nurseries[self._count % len(self.nurseries)]
        return await nursery.bear(arguments, env, logs / f"{self._count:03d}-{arguments[0]}.log")

    async def kill_server(self, name: str) -> None:
        """`kill -9` of `temporal` or `mongo`, which is started again on its port with its files; back when it is."""
        server = getattr(self.stack, name)
        before, restarts = server.pid, server.restarts
        server.kill()

        async def back() -> bool:
            return server.restarts > restarts and server.pid not in (None, before)

        await until(f"{name} to come back", back)

    @asynccontextmanager
    async def cell(self) -> AsyncIterator[Cell]:
        """A namespace, a database and a folder of one's own, with an API; all its processes end with it."""
        self._count += 1
        cell = Cell(self, f"cell{self._count}")
        try:
            await cell.start()
            yield cell
        finally:
            await cell.stop()


class Cell:
    """One Conman beside others on the same servers: what is killed here is missed here only."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.data = world.data / name
        self.holds = self.data / "holds"
        self.logs = self.data / "logs"
        self.holds.mkdir(parents=True)
        self.logs.mkdir()
        self.programs = self.data / "programs"
        """What the operator's programs do otherwise, and what they did: see `faults_programs.py`."""
        self.programs.mkdir()
        commands = self.programs / "commands.toml"
        commands.write_text(_commands(self.programs), encoding="utf-8")
        self.suite = self.data / "suite.sh"
        self.suite.write_text(SUITE.format(holds=self.holds), encoding="utf-8")
        self.admin = {"email": "admin@example.com", "password": secrets.token_urlsafe(18)}
        self.port: PortLease = lease([], "127.0.0.1")
        self.more_ports: list[PortLease] = []
        self.url = f"http://127.0.0.1:{self.port.port}"
        self.processes: list[Process] = []
        self.api: Process | None = None
        self._env = {
            "CONMAN_DATA": str(self.data),
            "CONMAN_MONGO_URI": world.stack.mongo_uri,
            "CONMAN_MONGO_DATABASE": name,
            "CONMAN_TEMPORAL_ADDRESS": world.stack.temporal_address,
            "CONMAN_TEMPORAL_NAMESPACE": name,
            "CONMAN_SECRET": secrets.token_urlsafe(48),
            "CONMAN_MASTER_KEYS": generate_keyring(),
            "CONMAN_ADMIN_EMAIL": self.admin["email"],
            "CONMAN_ADMIN_PASSWORD": self.admin["password"],
            "CONMAN_HOST": "127.0.0.1",
            "CONMAN_PORT": str(self.port.port),
            "CONMAN_MSUITE_COMMAND": f"sh {self.suite}",
            "CONMAN_COMMANDS_FILE": str(commands),
            "CONMAN_DIRECTORY_KEEP": "0",
            **{f"CONMAN_RATE_LIMIT_{bucket}": "1000000" for bucket in ("AUTH", "FILES", "READS", "WRITES")},
            # Longer than any test waits: whether a command is answered must not depend on how busy the machine is.
            "CONMAN_COMMAND_TIMEOUT_SECONDS": str(SECONDS),
            "CONMAN_PUBLISH_WAIT_SECONDS": str(SECONDS),
        }

    async def start(self) -> None:
        await self.register_namespace()
        await self.start_api()

    async def register_namespace(self) -> None:
        client = await Client.connect(self.world.stack.temporal_address)
        kept = Duration(seconds=int(timedelta(days=1).total_seconds()))
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=self.name, workflow_execution_retention_period=kept)
        )

    async def stop(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGKILL)
        for process in self.processes:
            await process.ended()
        for port in (self.port, *self.more_ports):
            port.release()

    def settings(self) -> Settings:
        """For what a test runs in its own process."""
        return Settings(**{name.removeprefix("CONMAN_").lower(): value for name, value in self._env.items()})

    async def conman(self, *arguments: str, **env: str) -> Process:
        process = await self.world.bear(list(arguments), {**self._env, **env}, self.logs)
        self.processes.append(process)
        return process

    async def worker(self, *, faults: str = "", queues: str | None = None, **env: str) -> Process:
        """A worker that polls; `faults` arms fault points in it."""
        arguments = ["worker"] if queues is None else ["worker", "--queues", queues]
        process = await self.conman(*arguments, CONMAN_FAULT_POINTS=faults, **env)
        return await process.says("worker_ready")

    async def start_api(self, *, faults: str = "") -> Process:
        """The API on its port; back when it answers."""
        self.api = await self._answering(self.url, await self.conman("api", CONMAN_FAULT_POINTS=faults))
        return self.api

    async def another_api(self) -> str:
        """One more API beside the first; its URL."""
        self.more_ports.append(lease([], "127.0.0.1"))
        port = self.more_ports[-1].port
        url = f"http://127.0.0.1:{port}"
        await self._answering(url, await self.conman("api", CONMAN_PORT=str(port)))
        return url

    async def _answering(self, url: str, api: Process) -> Process:
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS) as client:

            async def live() -> bool:
                assert api.alive, api.said()
                try:
                    return (await client.get("/api/health/live")).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            await until("the API", live)
        return api

    async def restart_api(self, *, faults: str = "") -> Process:
        assert self.api is not None
        await self.api.kill()
        return await self.start_api(faults=faults)

    async def nothing_of_a_gate_is_left(self) -> None:
        """No process works below the scratch folder, and nothing lies there."""
        scratch = self.data / "scratch"

        async def gone() -> bool:
            return not _working_below(scratch) and not (scratch.exists() and list(scratch.iterdir()))

        await until(f"the gates to leave nothing behind in {scratch}", gone, 30)


def _commands(folder: Path) -> str:
    """The operator's commands `box`, `migrate` and `probe`."""
    kinds = {"box": ("target", "target"), "migrate": ("migration", "migrate"), "probe": ("health", "health")}
    return "".join(
        f"[{name}]\nkind = {json.dumps(kind)}\nargv = {json.dumps([sys.executable, '-I', str(PROGRAMS), str(folder), role])}\n"
        for name, (kind, role) in kinds.items()
    )


def _working_below(folder: Path) -> list[int]:
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(folder)):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
