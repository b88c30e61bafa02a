"""The codec server as a process of its own: signals, what it says, and the file that tells others that it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from conman.codec_server import CodecServerError, CodecServerOptions, check_options, codec_app
from conman.config import Settings
from conman.domain.addresses import is_loopback
from conman.workflows.codec import KeyringCodec

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BACKLOG = 128


def codec_server_options(settings: Settings) -> CodecServerOptions:
    """The options that the settings ask for; without origins of their own, pages of the Web UI that they name may call."""
    token = settings.codec_server_token
    origins = settings.codec_server_origins
    if not origins and settings.temporal_ui_url is not None:
        origins = origins_of(settings.temporal_ui_url)
    return CodecServerOptions(
        host=settings.codec_server_host,
        port=settings.codec_server_port,
        token=None if token is None else token.get_secret_value(),
        origins=tuple(origins),
        tls_cert=settings.codec_server_tls_cert,
        tls_key=settings.codec_server_tls_key,
        max_body_mb=settings.codec_server_max_body_mb,
        stop_seconds=settings.codec_server_stop_seconds,
    )


def origins_of(url: str) -> list[str]:
    """The origins by which a browser may know a page's address: a loopback address has a name as well."""
    parts = urlsplit(url)
    hosts = [parts.hostname or ""]
    if is_loopback(hosts[0]):
        hosts = ["127.0.0.1", "localhost"]
    port = "" if parts.port is None else f":{parts.port}"
    return [f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}" for host in hosts]


class _Server(uvicorn.Server):
    """One that leaves signals to `run_codec_server`: uvicorn's own way ends the process by the signal, not by its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_codec_server(
    codec: KeyringCodec, options: CodecServerOptions, *, ready_file: Path | None, say: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. Call from the main thread. Raises `CodecServerError`."""
    check_options(codec, options)
    with _listening(options) as listener:
        config = uvicorn.Config(
            codec_app(codec, options),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=options.stop_seconds,
            server_header=False,
            lifespan="off",
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise CodecServerError(f"TLS can't start with these files: {error}") from error
        server = _Server(config)

        def stop() -> None:
            say(f"stopping; running requests have {options.stop_seconds} s to finish")
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        try:
            url = _url(listener, options)
            for line in _told(codec, options, url):
                say(line)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            if ready_file is not None:
                await asyncio.to_thread(_announce, ready_file, url)
            await serving
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            if ready_file is not None:
                await asyncio.to_thread(ready_file.unlink, missing_ok=True)


@contextlib.contextmanager
def _listening(options: CodecServerOptions) -> Iterator[socket.socket]:
    """The listening socket; connections wait in it from now on."""
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(
            options.host.strip("[]"), options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind)
    except OSError as error:
        raise CodecServerError(f"can't listen on {options.host}:{options.port}: {error}") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise CodecServerError(f"can't listen on {options.host}:{options.port}: {error}") from error
        yield listener


def _url(listener: socket.socket, options: CodecServerOptions) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'http' if options.tls_cert is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"


def _told(codec: KeyringCodec, options: CodecServerOptions, url: str) -> list[str]:
    """What whoever starts it should know."""
    lines = [
        f"codec server: {url}, keys {', '.join(codec.key_ids)}",
        f"pages that may call: {' '.join(options.origins) or 'none, set CONMAN_CODEC_SERVER_ORIGINS for the Web UI'}",
        f"in the Web UI, set {url} as codec server; with the CLI: temporal --codec-endpoint {url}",
    ]
    if options.token is None:
        lines.append("no token: whoever may connect on this machine may read payloads")
    elif options.tls_cert is None and not is_loopback(options.host):
        lines.append("no TLS: payloads and the token can be read on the way, unless a proxy in front has TLS")
    return lines


def _announce(path: Path, url: str) -> None:
    """Write the file whole or not at all, so that whoever waits for it can read it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
    half.replace(path)
