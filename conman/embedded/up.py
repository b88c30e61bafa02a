"""`conman up`: the embedded stack, the API and a worker, started together, watched, and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from conman.config import Settings
from conman.domain.addresses import is_loopback
from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError, NotReady, Progress
from conman.embedded.ports import PortLease, lease
from conman.embedded.process import ManagedProcess, ProcessSpec, tail
from conman.embedded.running import Keys, RunningUp, announce, load_keys, read_running, withdraw
from conman.embedded.stack import EmbeddedStack

_T = TypeVar("_T")

__all__ = ["Commands", "RunningUp", "read_running", "run_up"]

_READY_SECONDS = 90.0
_READY_POLL_SECONDS = 0.1
_TELL_EVERY_SECONDS = 5.0
_API_STOP_SECONDS = 15.0
_WORKER_GRACE_SECONDS = 10.0
_PORTS_TO_TRY = 100
_HTTP_SECONDS = 5.0
_DEATHS_WHILE_STARTING = 3
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The API is asked over plain HTTP, several times a second: a context with all authorities takes longer than its answer."""


@dataclass(frozen=True)
class Commands:
    """The command lines of the API and the worker."""

    api: Sequence[str] = (sys.executable, "-m", "conman", "api")
    worker: Sequence[str] = (sys.executable, "-m", "conman", "worker")


class _Stop:
    """SIGINT, SIGTERM and SIGHUP as two events: the first asks to stop in order, the second to stop at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.again = asyncio.Event()

    def _received(self) -> None:
        (self.again if self.asked.is_set() else self.asked).set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is ignored under nohup, and must stay so
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._received)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


class _Up:
    """The parts of one `conman up`, in the order in which they start."""

    def __init__(self, settings: Settings, commands: Commands, progress: Progress, cache: Cache | None) -> None:
        self.settings = settings
        self.commands = commands
        self.progress = progress
        self.stack = EmbeddedStack(settings, progress, cache=cache)
        self.api: ManagedProcess | None = None
        self.worker: ManagedProcess | None = None
        self.port: PortLease | None = None
        self._hurry = False

    async def start(self, *, worker: bool) -> RunningUp:
        """Start everything and wait until the API says that all of it works. Raises `EmbeddedError`."""
        await self.stack.start()
        keys = load_keys(self.settings)
        self.port = _api_port(self.settings)
        url = f"http://{_reachable(self.settings.host)}:{self.port.port}"
        env = self._environment(keys, self.port.port)
        self.progress(f"starting the API on {url}")
        self.api = self._process(
            ProcessSpec(
                name="api",
                command=self.commands.api,
                log=self.stack.data / "logs" / "api.log",
                env=env,
                healthy=lambda: _check_live(url),
                stop_seconds=_API_STOP_SECONDS,
            )
        )
        await self.api.start()
        if worker:
            self.progress("starting a worker")
            self.worker = self._process(
                ProcessSpec(
                    name="worker",
                    command=self.commands.worker,
                    log=self.stack.data / "logs" / "worker.log",
                    env=env,
                    stop_seconds=self.settings.worker_drain_seconds + _WORKER_GRACE_SECONDS,
                )
            )
            await self.worker.start()
        await self._wait_until_all_ok(url, worker=worker)
        return RunningUp(
            api_url=url,
            temporal_address=self.stack.temporal_address,
            temporal_ui_url=self.stack.temporal_ui_url,
            mongo_uri=self.stack.mongo_uri,
            admin_email=keys.admin_email,
            admin_password=keys.admin_password,
            secret=keys.secret,
            master_keys=keys.master_keys,
            codec_keys=None if self.settings.codec_keys is None else self.settings.codec_keys.get_secret_value(),
            codec_encrypt=self.settings.codec_encrypt,
        )

    async def stop(self) -> None:
        """Stop what was started: no new requests, then no more work, then the servers under them."""
        try:
            for process in (self.api, self.worker):
                if process is not None:
                    self.progress(f"stopping the {process.spec.name}")
                    await process.stop(at_once=self._hurry)
        finally:
            if self.stack.mongo or self.stack.temporal:
                self.progress("stopping the servers")
            await self.stack.stop(at_once=self._hurry)
            if self.port is not None:
                self.port.release()

    async def hurry_when(self, event: asyncio.Event) -> None:
        """Kill all that still runs once the event comes; a `stop` that is waiting for something then goes on."""
        await event.wait()
        self._hurry = True
        for process in (self.api, self.worker, self.stack.temporal, self.stack.mongo):
            if process is not None:
                process.kill()

    def _process(self, spec: ProcessSpec) -> ManagedProcess:
        return ManagedProcess(spec, self.stack.group, self.progress)

    def _environment(self, keys: Keys, port: int) -> dict[str, str]:
        """The environment of the API and the worker: ours, with the settings that `up` itself runs with."""
        env = dict(os.environ)
        for name in self.settings.model_fields_set:
            value = getattr(self.settings, name)
            if value is not None:
                env[f"CONMAN_{name.upper()}"] = _as_variable(value)
        env.update(
            CONMAN_DATA=str(self.stack.data),
            CONMAN_TEMPORAL_ADDRESS=self.stack.temporal_address,
            CONMAN_MONGO_URI=self.stack.mongo_uri,
            CONMAN_SECRET=keys.secret,
            CONMAN_MASTER_KEYS=keys.master_keys,
            CONMAN_HOST=self.settings.host,
            CONMAN_PORT=str(port),
            CONMAN_ADMIN_EMAIL=keys.admin_email,
            CONMAN_ADMIN_PASSWORD=keys.admin_password,
        )
        if is_loopback(self.settings.host):  # Whoever uses this Conman is on this machine: it may be reached from here, too.
            env.setdefault("CONMAN_WEBHOOK_NETWORKS", "127.0.0.0/8 ::1")
        env.setdefault("CONMAN_PUBLIC_URL", f"http://{_reachable(self.settings.host)}:{port}")
        if self.stack.temporal_ui_url is not None:
            env["CONMAN_TEMPORAL_UI_URL"] = self.stack.temporal_ui_url
        return env

    async def _wait_until_all_ok(self, url: str, *, worker: bool) -> None:
        started = told = time.monotonic()
        while True:
            try:
                await _check_all_ok(url, worker=worker)
                return
            except NotReady as error:
                now = time.monotonic()
                if now - started > _READY_SECONDS:
                    raise EmbeddedError(
                        f"not ready after {_READY_SECONDS:.0f} s: {error}; logs are in {self.stack.data / 'logs'}"
                    ) from error
                if now - told > _TELL_EVERY_SECONDS:
                    self.progress(f"waiting: {error} ({now - started:.0f} s)")
                    told = now
            if self.worker is not None and self.worker.restarts > _DEATHS_WHILE_STARTING:
                raise EmbeddedError(f"the worker keeps dying: {tail(self.worker.spec.log)}")
            await asyncio.sleep(_READY_POLL_SECONDS)


async def run_up(
    settings: Settings,
    *,
    ready_file: Path | None,
    worker: bool,
    progress: Progress,
    commands: Commands | None = None,
    cache: Cache | None = None,
) -> int:
    """Run everything until SIGINT or SIGTERM; a second one stops at once. Gives the exit code.

    0 after a stop that was asked for, also during the start; 1 when the start failed, after one line that says why.
    Call from the main thread, which has the signals. What it started never outlives it, not even after kill -9.
    """
    stop = _Stop()
    up = _Up(settings, commands or Commands(), progress, cache)
    data = up.stack.data
    claimed = False
    with stop.listening():
        hurry = asyncio.create_task(up.hurry_when(stop.again))
        try:
            up.stack.claim()
            claimed = True
            withdraw(data, ready_file)  # of an `up` that was killed
            running = await _unless(stop.asked, up.start(worker=worker))
            if running is None:
                return 0
            announce(running, data, ready_file)
            _show(running)
            if running.codec_keys is not None:
                progress(f"Temporal keeps payloads encrypted; to read them in its Web UI: conman codec-server --data {data}")
            await stop.asked.wait()
            return 0
        except EmbeddedError as error:
            progress(str(error))
            return 1
        finally:
            try:
                if claimed:
                    withdraw(data, ready_file)
            finally:
                await up.stop()
                hurry.cancel()


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result of `work`, or None if the event comes first; then `work` has been cancelled and has cleaned up."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.wait([task, stopped])


def _api_port(settings: Settings) -> PortLease:
    """The API's port: exactly the one that was asked for; if none was, the default or the next free one."""
    explicit = "port" in settings.model_fields_set
    if settings.port == 0:
        return lease([], settings.host)
    wanted = [settings.port] if explicit else range(settings.port, settings.port + _PORTS_TO_TRY)
    held = lease(wanted, settings.host)
    if explicit and held.port != settings.port:
        held.release()
        raise EmbeddedError(f"port {settings.port} on {settings.host} is in use: stop what listens there, or take another --port")
    return held


def _reachable(host: str) -> str:
    """The address by which a client on this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host) or (f"[{host}]" if ":" in host else host)


def _as_variable(value: Any) -> str:
    """A setting as the text of its environment variable."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, list):
        return " ".join(value)
    return str(value.value if isinstance(value, Enum) else value)


async def _get(url: str) -> httpx.Response:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_HTTP_SECONDS, verify=_NO_TLS) as client:
            return await client.get(url)
    except httpx.HTTPError as error:
        raise NotReady(f"{url}: {error or type(error).__name__}") from error


async def _check_live(url: str) -> None:
    response = await _get(f"{url}/api/health/live")
    if response.status_code != httpx.codes.OK:
        raise NotReady(f"the API answers {response.status_code} to /api/health/live")


async def _check_all_ok(url: str, *, worker: bool) -> None:
    """Return if every component is well; without a worker of ours, that one is not asked of it."""
    response = await _get(f"{url}/api/health")
    try:
        components: Mapping[str, Any] = response.json()["components"]
        bad = sorted(name for name, state in components.items() if not _is_ok(state))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotReady(f"/api/health answers {response.status_code} with no list of components") from error
    if not worker and bad == ["worker"]:
        return
    if bad or response.status_code != httpx.codes.OK:
        raise NotReady(f"not ok: {', '.join(bad) or f'/api/health answers {response.status_code}'}")


def _is_ok(state: Any) -> bool:
    return (state.get("status") if isinstance(state, Mapping) else state) == "ok"


def _show(running: RunningUp) -> None:
    for name, value in running.public().items():
        print(f"{name}: {value}", flush=True)
