"""The demo's own `conman up`: a child process that is shown, watched, and stopped whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import conman
from conman.config import Settings
from conman.demo.show import DemoError
from conman.embedded import guard
from conman.embedded.cache import default_folder

_START_SECONDS = 3600.0
"""A first start may build the servers; `up` itself notices when a step of it hangs."""
_POLL_SECONDS = 0.1
_STOP_SECONDS = 120.0
_LINE_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Addresses:
    """Where the stack is, and the admin's login."""

    api_url: str
    temporal_ui_url: str
    admin_email: str
    admin_password: str


class Child:
    """`conman up` on a data folder, with free ports and with no other settings than the demo's."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._data = settings.data.resolve()
        self._tell = tell
        self._last_line = "it said nothing"
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def start(self, ready_file: Path) -> Addresses:
        """Start it and wait until all of it works. Raises `DemoError`."""
        command = (
            sys.executable,
            "-m",
            "conman",
            "up",
            "--data",
            str(self._data),
            "--port",
            "0",
            "--ready-file",
            str(ready_file),
        )
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                *guard.command(command),
                stdin=DEVNULL,
                stdout=DEVNULL,  # where it prints the admin's password
                stderr=PIPE,
                env=self._environment(),
                cwd=self._data,  # and so without the .env file of the folder that the demo was called in
                process_group=0,  # Ctrl-C reaches the demo alone, which then stops it in order
                limit=_LINE_LIMIT_BYTES,
            )
        except OSError as error:
            raise DemoError(f"conman up could not be started: {error}") from error
        self._reader = asyncio.create_task(self._read(self._process))
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(FileNotFoundError):
                return _addresses(await asyncio.to_thread(ready_file.read_text, encoding="utf-8"))
            if self._over.is_set():
                raise DemoError(self.death())
            if time.monotonic() > deadline:
                raise DemoError(f"conman up is not ready after {_START_SECONDS:.0f} s: {self._last_line}")
            await asyncio.sleep(_POLL_SECONDS)

    async def wait(self) -> str:
        """How it ended by itself, once it has."""
        await self._over.wait()
        return self.death()

    def death(self) -> str:
        """How it ended and its last line."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return f"conman up stopped talking: {self._last_line}"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"conman up {how}: {self._last_line}"

    def ask_to_stop(self) -> None:
        """Send SIGTERM; a second one makes it stop at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends at this very moment
                self._process.terminate()

    async def stop(self) -> None:
        """Stop it and wait until it is gone, with all that it started; does nothing when it is not running."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._tell(f"it does not stop within {_STOP_SECONDS:.0f} s and is killed")
            self._process.kill()  # what it started dies with it
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: Process) -> None:
        """Pass its lines on until it has ended."""
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").strip()
            if text:
                self._last_line = text
                self._tell(text)
        await process.wait()
        self._over.set()

    def _environment(self) -> dict[str, str]:
        """Ours without the settings of any other Conman: the demo must not reach somebody's database or mail server."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")}
        if "CONMAN_GUARD" in os.environ:
            env["CONMAN_GUARD"] = os.environ["CONMAN_GUARD"]
        env["CONMAN_CACHE"] = str(default_folder())
        if self._settings.admin_email is not None:
            env["CONMAN_ADMIN_EMAIL"] = self._settings.admin_email
        if self._settings.admin_password is not None:
            env["CONMAN_ADMIN_PASSWORD"] = self._settings.admin_password.get_secret_value()
        source = str(Path(conman.__file__).resolve().parent.parent)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        return env


def _addresses(text: str) -> Addresses:
    """What the ready file says, which is never seen half-written. Raises `DemoError`."""
    try:
        content = json.loads(text)
        return Addresses(**{name: str(content[name]) for name in Addresses.__dataclass_fields__})
    except (ValueError, TypeError, KeyError) as error:
        raise DemoError(f"the ready file of conman up can't be read: {error!r}") from error
