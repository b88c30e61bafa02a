"""The Git server: local repositories served over Gitaly's protocol, so that workers on several machines share them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from conman.domain.addresses import is_loopback
from conman.git.local_repo import Storage
from conman.git.server_call import Ground, ServerFlavour
from conman.git.server_guard import CallGuard
from conman.git.server_services import register

DEFAULT_STORAGE = "default"
"""The name of the one storage, as clients give it in `storage_name`."""
_PROCESSES_PER_THREAD = 4
"""A fetch or a push is a process of `git` that mostly waits for its client."""
_PING_SECONDS = 10
"""How often a client may ask whether the connection lives."""


class ServerError(Exception):
    """The server can't start; its text is one line that says why."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve. `token` is the shared secret; without one, only this machine is listened to."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    token: str | None = None
    tls_cert: Path | None = None
    """The certificate chain, PEM; with `tls_key`."""
    tls_key: Path | None = None
    flavour: ServerFlavour = ServerFlavour.FULL
    storage_name: str = DEFAULT_STORAGE
    threads: int = 8
    """Calls that work in process at a time."""
    max_message_mb: int = 16
    """Largest message in either direction, MiB."""
    stop_seconds: float = 5.0
    """How long running calls may go on when the server stops, seconds."""


@asynccontextmanager
async def serve(root: Path, options: ServerOptions | None = None) -> AsyncIterator[str]:
    """Serve the repositories below `root` until the end of the block; the value is the address, `host:port`.

    At the end no new call is taken, running ones may go on for `stop_seconds`, and no process is left. Raises `ServerError`.
    """
    chosen = options or ServerOptions()
    _check(chosen)
    storage = await asyncio.to_thread(_opened, root)
    pool = ThreadPoolExecutor(max_workers=chosen.threads, thread_name_prefix="git-server")
    most = chosen.threads * _PROCESSES_PER_THREAD
    processes = asyncio.Semaphore(most)
    server = grpc.aio.server(interceptors=[CallGuard(chosen.token)], options=_channel_options(chosen))
    register(Ground(storage, chosen.storage_name, chosen.flavour, pool, processes), server)
    try:
        port = _listen(server, chosen)
        await server.start()
        yield f"{_bracketed(chosen.host)}:{port}"
    finally:
        await server.stop(chosen.stop_seconds)
        # Whoever was cancelled is still ending its process; with all places free, the last one has ended.
        for _ in range(most):
            await processes.acquire()
        await asyncio.to_thread(pool.shutdown)


def _opened(root: Path) -> Storage:
    root.mkdir(parents=True, exist_ok=True)
    storage = Storage(root)
    storage.sweep()
    return storage


def _check(options: ServerOptions) -> None:
    if shutil.which("git") is None:
        raise ServerError("the program git is not on the PATH; fetches, pushes and comparisons need it")
    if options.token is None and not is_loopback(options.host):
        raise ServerError(f"without a token, {options.host} is not listened on: anybody could write; set a token")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ServerError("TLS needs both a certificate and a key")


def _listen(server: grpc.aio.Server, options: ServerOptions) -> int:
    address = f"{_bracketed(options.host)}:{options.port}"
    try:
        if options.tls_cert is None or options.tls_key is None:
            return server.add_insecure_port(address)
        pair = (options.tls_key.read_bytes(), options.tls_cert.read_bytes())
        return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except (OSError, RuntimeError) as error:
        raise ServerError(f"can't listen on {address}: {str(error).splitlines()[0]}") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    largest = options.max_message_mb * 1024 * 1024
    return [
        ("grpc.max_receive_message_length", largest),
        ("grpc.max_send_message_length", largest),
        # Else a second server on the port would take every other connection, without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_SECONDS * 1000),
    ]
