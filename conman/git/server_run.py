"""The Git server as a process of its own: signals, what it says, and the file that tells others that it is ready."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from conman.domain.addresses import is_loopback
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_git_server(root: Path, options: ServerOptions, *, ready_file: Path | None, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. Call from the main thread. Raises `ServerError`."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, asked.set)
    try:
        async with serve(root, options) as address:
            for line in _told(root, options, address):
                say(line)
            if ready_file is not None:
                await asyncio.to_thread(_announce, ready_file, address, options)
            await asked.wait()
            say(f"stopping; running calls have {options.stop_seconds:g} s to finish")
            if ready_file is not None:
                await asyncio.to_thread(ready_file.unlink, missing_ok=True)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _told(root: Path, options: ServerOptions, address: str) -> list[str]:
    """What whoever starts it should know."""
    tls = options.tls_cert is not None
    lines = [f"git server: storage {options.storage_name!r} is {root}, on {'tls://' if tls else ''}{address}"]
    if options.flavour is ServerFlavour.GITALY_RS:
        lines.append("it behaves as today's gitaly-rs: several calls say OK and do nothing; don't use it for work")
    if not tls and not is_loopback(options.host):
        lines.append("no TLS: what is read and written can be read on the way, and so can a token that is sent as it is")
    return lines


def _announce(path: Path, address: str, options: ServerOptions) -> None:
    """Write the file whole or not at all, so that whoever waits for it can read it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    ready = {"address": address, "tls": options.tls_cert is not None, "flavour": options.flavour.value, "pid": os.getpid()}
    half.write_text(json.dumps(ready) + "\n", encoding="utf-8")
    half.replace(path)
