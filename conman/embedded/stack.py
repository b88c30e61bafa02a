"""The embedded stack: a Temporal server and a MongoDB-protocol server for one data folder."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conman.config import Settings
from conman.embedded import mongo, temporal
from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError, NotReady, Progress, silent
from conman.embedded.files import DataLock, write_private
from conman.embedded.ports import PortLease, lease
from conman.embedded.process import ManagedProcess, ProcessGroup, ProcessSpec

USUAL_PORTS = {"temporal": 7233, "temporal_ui": 8233, "mongo": 27017}
_EXTERNAL_SECONDS = 15.0


class EmbeddedStack:
    """The servers that Conman needs, started unless the settings name others.

    After `start`, `temporal_address`, `temporal_ui_url` and `mongo_uri` say where they are. A server that dies is
    started again on its port with its state. Use as an async context manager, or call `start` and `stop`, from a thread
    that lives as long: the servers die with it. Whatever happens to this process, they don't outlive it.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress = silent,
        *,
        cache: Cache | None = None,
        usual_ports: bool = True,
    ) -> None:
        self.settings = settings
        self.data = settings.data.resolve()
        self.group = ProcessGroup()
        self.temporal: ManagedProcess | None = None
        """The server's process; None when the settings name another server."""
        self.mongo: ManagedProcess | None = None
        """The server's process; None when the settings name another server."""
        self._progress = progress
        self._cache = cache or Cache()
        self._usual_ports = usual_ports
        self._lock = DataLock(self.data)
        self._leases: list[PortLease] = []
        self._temporal_address: str | None = None
        self._temporal_ui_url: str | None = None
        self._mongo_uri: str | None = None

    @property
    def temporal_address(self) -> str:
        """Temporal's frontend, `host:port`. Raises `EmbeddedError` before `start`."""
        return _started(self._temporal_address)

    @property
    def temporal_ui_url(self) -> str | None:
        """Temporal's Web UI; None only for a server of the settings whose UI they don't name."""
        _started(self._temporal_address)
        return self._temporal_ui_url

    @property
    def mongo_uri(self) -> str:
        """The database's URI. Raises `EmbeddedError` before `start`."""
        return _started(self._mongo_uri)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def claim(self) -> None:
        """Take the data folder; `start` does it too. Raises `EmbeddedError` if another process has it."""
        if self._lock.held:
            return
        try:
            self.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"the data folder {self.data} can't be made: {error}") from error
        self._lock.acquire()

    async def start(self) -> None:
        """Start both servers and wait until they answer. Raises `EmbeddedError`; then nothing of it is left running."""
        self.claim()
        try:
            remembered = self._remembered()
            await self._start_mongo(remembered)
            await self._start_temporal(remembered)
            write_private(self._memory, json.dumps(remembered, indent=2) + "\n")
        except BaseException:
            await self.stop(at_once=True)
            raise

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop what was started, Temporal first, with all that came of it. Does nothing if nothing runs."""
        try:
            for process in (self.temporal, self.mongo):
                if process is not None:
                    await process.stop(at_once=at_once)
        finally:
            self.temporal = self.mongo = None
            self.group.sweep()
            for held in self._leases:
                held.release()
            self._leases.clear()
            self._lock.release()

    @property
    def _memory(self) -> Path:
        return self.data / "run" / "stack.json"

    def _remembered(self) -> dict[str, Any]:
        """What the last start on this data folder chose; empty for the first, and when it can't be read."""
        try:
            content = json.loads(self._memory.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._progress(f"{self._memory} can't be read ({error}); choosing ports anew")
            return {}
        return content if isinstance(content, dict) else {}

    def _port(self, name: str, remembered: dict[str, Any]) -> int:
        before = remembered.get(f"{name}_port")
        held = lease([before if isinstance(before, int) else None, USUAL_PORTS[name] if self._usual_ports else None])
        self._leases.append(held)
        remembered[f"{name}_port"] = held.port
        return held.port

    async def _start_mongo(self, remembered: dict[str, Any]) -> None:
        given = self.settings.mongo_uri
        if given:
            await self._wait_for_external("MongoDB at CONMAN_MONGO_URI", lambda: mongo.check_ready(given))
            self._mongo_uri = given
            return
        folder = self.data / "mongo"
        folder.mkdir(exist_ok=True)
        program = await mongo.find_mongo(folder, self._cache, self._progress)
        port = self._port("mongo", remembered)
        address = mongo.uri(port)
        self.mongo = ManagedProcess(
            ProcessSpec(
                name="mongo",
                command=program.at(folder, port),
                log=self.data / "logs" / "mongo.log",
                healthy=lambda: mongo.check_ready(address),
            ),
            self.group,
            self._progress,
        )
        await self.mongo.start()
        self._mongo_uri = address

    async def _start_temporal(self, remembered: dict[str, Any]) -> None:
        namespace = self.settings.temporal_namespace
        given = self.settings.temporal_address
        if given:
            await self._wait_for_external("Temporal at CONMAN_TEMPORAL_ADDRESS", lambda: temporal.check_ready(given, namespace))
            self._temporal_address, self._temporal_ui_url = given, self.settings.temporal_ui_url
            return
        folder = self.data / "temporal"
        folder.mkdir(exist_ok=True)
        binary = await temporal.find_temporal(self._cache, self._progress)
        port, ui_port = self._port("temporal", remembered), self._port("temporal_ui", remembered)
        address = f"127.0.0.1:{port}"
        self.temporal = ManagedProcess(
            ProcessSpec(
                name="temporal",
                command=temporal.server_command(
                    binary,
                    folder=folder,
                    port=port,
                    ui_port=ui_port,
                    namespace=namespace,
                    codec_endpoint=_codec_endpoint(self.settings),
                ),
                log=self.data / "logs" / "temporal.log",
                env=temporal.server_environment(os.environ),
                healthy=lambda: temporal.check_ready(address, namespace),
            ),
            self.group,
            self._progress,
        )
        await self.temporal.start()
        try:
            version = await temporal.set_retention(await temporal.check_ready(address, namespace))
        except NotReady as error:
            raise EmbeddedError(f"temporal went away while it was set up: {error}") from error
        before = remembered.get("temporal_version")
        if before and before != version:
            self._progress(f"{folder} was last used by Temporal {before}, now by {version}")
        remembered["temporal_version"] = version
        self._temporal_address = address
        self._temporal_ui_url = self.settings.temporal_ui_url or f"http://127.0.0.1:{ui_port}"

    async def _wait_for_external(self, what: str, check: Callable[[], Awaitable[object]]) -> None:
        deadline = time.monotonic() + _EXTERNAL_SECONDS
        while True:
            try:
                await check()
                return
            except NotReady as error:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"{what} does not answer: {error}") from error
            await asyncio.sleep(0.5)


def _started(value: str | None) -> str:
    if value is None:
        raise EmbeddedError("the stack has not been started")
    return value


def _codec_endpoint(settings: Settings) -> str | None:
    """Where `conman codec-server` listens when payloads are encrypted: a browser on this machine asks there."""
    if settings.codec_keys is None or settings.codec_server_port == 0:
        return None
    scheme = "http" if settings.codec_server_tls_cert is None else "https"
    return f"{scheme}://{settings.codec_server_host}:{settings.codec_server_port}"
