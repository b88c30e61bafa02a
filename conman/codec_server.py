"""The codec server: lets Temporal's Web UI and CLI show encrypted payloads to people who may read them.

It speaks Temporal's protocol for codec servers (`temporalio/samples-go`, codec-server/protocol.md): POST `…/decode` and
`…/encode` with `{"payloads": […]}` in protobuf's JSON; what stands before the last part of the path, such as a namespace, is
ignored. No payload is ever logged.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads

from conman.domain.addresses import is_loopback
from conman.workflows.codec import CodecError, KeyringCodec

log = structlog.get_logger("conman.codec_server")

_REALM = 'realm="conman codec-server"'


class CodecServerError(Exception):
    """The codec server can't start; its text is one line that says why."""


@dataclass(frozen=True, slots=True)
class CodecServerOptions:
    """How to serve. `token` is the secret of those who may read; without one, only this machine is listened to."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    """Origins of the Web UIs whose pages may call, as a browser sends them."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body_mb: int = 16
    """Largest request, MiB."""
    stop_seconds: int = 5
    """How long running requests may go on when the server stops, seconds."""


def check_options(codec: KeyringCodec, options: CodecServerOptions) -> None:
    """Raises `CodecServerError` for what can't be served, or must not be."""
    if not codec.key_ids:
        raise CodecServerError("CONMAN_CODEC_KEYS is missing: without keys there is nothing to decode")
    if options.token is None and not is_loopback(options.host):
        raise CodecServerError(
            f"without CONMAN_CODEC_SERVER_TOKEN, {options.host} is not listened on: anybody could read what Temporal keeps"
        )
    if (options.tls_cert is None) != (options.tls_key is None):
        raise CodecServerError("TLS needs both CONMAN_CODEC_SERVER_TLS_CERT and CONMAN_CODEC_SERVER_TLS_KEY")
    for path in (options.tls_cert, options.tls_key):
        if path is not None and not path.is_file():
            raise CodecServerError(f"there is no file {path} for TLS")


def codec_app(codec: KeyringCodec, options: CodecServerOptions) -> Starlette:
    """The HTTP application."""
    serving = _Codec(codec, options)
    routes = [
        Route("/", serving.sign_in, methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
    ]
    for name, convert in (("decode", codec.decode), ("encode", codec.encode)):
        endpoint = serving.endpoint(name, convert)
        routes += [
            Route(f"/{name}", endpoint, methods=["POST"]),
            Route(f"/{{before:path}}/{name}", endpoint, methods=["POST"]),
        ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=options.origins,
        allow_methods=["POST"],
        allow_headers=["Authorization", "Content-Type", "X-Namespace"],
        allow_credentials=True,
    )
    return Starlette(routes=routes, middleware=[cors])


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


class _Codec:
    """The endpoints, over one keyring."""

    def __init__(self, codec: KeyringCodec, options: CodecServerOptions) -> None:
        self._codec = codec
        self._token = None if options.token is None else options.token.encode()
        self._origins = frozenset(options.origins)
        self._limit = options.max_body_mb * 1024 * 1024

    def endpoint(
        self, name: str, convert: Callable[[list[Payload]], Awaitable[list[Payload]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """One of the protocol's two endpoints: who asks, how much, what, and the answer."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            response, count = await self._answered(request, convert)
            log.info(
                "codec_request",
                operation=name,
                status=response.status_code,
                payloads=count,
                ms=round((time.perf_counter() - started) * 1000, 1),
            )
            return response

        return answer

    async def _answered(
        self, request: Request, convert: Callable[[list[Payload]], Awaitable[list[Payload]]]
    ) -> tuple[Response, int]:
        refusal = self._refusal(request)
        if refusal is not None:
            return _unread(refusal), 0
        body = await self._body(request)
        if body is None:
            return _unread(_error(413, f"the request is larger than {self._limit // (1024 * 1024)} MiB")), 0
        payloads = _parsed(body)
        if payloads is None:
            return _error(400, 'the body is not {"payloads": […]} in protobuf\'s JSON'), 0
        try:
            converted = await convert(payloads)
        except CodecError as error:
            return _error(400, str(error)), len(payloads)
        return JSONResponse({"payloads": [MessageToDict(payload) for payload in converted]}), len(payloads)

    def _refusal(self, request: Request) -> Response | None:
        """Why the caller gets nothing: a page of an origin that is not listed, or no right secret."""
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins:
            return _error(403, f"pages of {origin[:100]} may not call: add the origin to CONMAN_CODEC_SERVER_ORIGINS")
        if not self._may_read(request):
            return _unauthorized("a bearer token is needed, or a sign-in at / with credentials sent along")
        return None

    def _may_read(self, request: Request) -> bool:
        if self._token is None:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "bearer":
                secret = given.strip().encode()
            case "basic":
                try:
                    secret = base64.b64decode(given.strip(), validate=True).partition(b":")[2]
                except (binascii.Error, ValueError):
                    return False
            case _:
                return False
        return hmac.compare_digest(secret, self._token)

    async def _body(self, request: Request) -> bytes | None:
        """The whole body, or None as soon as it is too large."""
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._limit:
                return None
            parts.append(part)
        return b"".join(parts)

    async def sign_in(self, request: Request) -> Response:
        """For browsers: asks for the secret as a password, which the browser then sends with the Web UI's requests too."""
        if not self._may_read(request):
            return _unauthorized("sign in with any name, and the codec server's token as password")
        return PlainTextResponse(
            "You may read payloads. In Temporal's Web UI, set this address as codec server, and include cross-origin"
            " credentials.\n"
        )


def _parsed(body: bytes) -> list[Payload] | None:
    """The payloads of a request, or None when it is not in the protocol's form."""
    try:
        read = json.loads(body)
        payloads = read.get("payloads") if isinstance(read, dict) else None
        if not isinstance(payloads, list) or not all(isinstance(payload, dict) for payload in payloads):
            return None
        # A newer client may send fields that this version of the API does not know.
        return list(ParseDict(read, Payloads(), ignore_unknown_fields=True).payloads)
    except (ParseError, ValueError, RecursionError):
        return None


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status_code=status)


def _unread(response: Response) -> Response:
    """End the connection after the answer: else the server would read the rest of the body only to throw it away."""
    response.headers["Connection"] = "close"
    return response


def _unauthorized(message: str) -> Response:
    response = _error(401, message)
    response.headers["WWW-Authenticate"] = f"Basic {_REALM}, Bearer {_REALM}"
    return response
