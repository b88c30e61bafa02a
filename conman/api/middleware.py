"""What every request passes: its id, the body limit, one log line."""

from __future__ import annotations

import re
import time
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conman.api import rate_limits
from conman.api.errors import envelope
from conman.domain.app import LARGEST_FILE_SIZE_LIMIT
from conman.domain.errors import ErrorCode
from conman.services.clock import new_id

log = structlog.get_logger("conman.request")

_INTERNAL = "Something went wrong on our side; report the request_id to the operator."

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,128}$")
BODY_LIMIT = 10 * 1024 * 1024
"""Body cap outside file routes, bytes (`spec.md` 7)."""
_FILE_ROUTE = re.compile(r"^/api/apps/[^/]+/workspaces/[^/]+/files(/batch)?$")


def is_file_route(path: str) -> bool:
    """Whether a body on this path carries files."""
    return _FILE_ROUTE.match(path) is not None


def file_body_cap(file_size_limit: int) -> int:
    """Body cap of an app's file routes, bytes: room for the largest file in base64 (`spec.md` 7)."""
    return max(BODY_LIMIT, -(-file_size_limit * 4 // 3) + 64 * 1024)


FILE_BODY_LIMIT = file_body_cap(LARGEST_FILE_SIZE_LIMIT)
"""Body cap of file routes before the app is known; its own cap is compared where the body is read."""


class RequestMiddleware:
    """Takes or makes `X-Request-Id`, echoes it, caps the body, and logs the request with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else new_id()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        limit = FILE_BODY_LIMIT if is_file_route(scope["path"]) else BODY_LIMIT
        started = time.perf_counter()
        status: int | None = None
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise HTTPException(413)
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                standing = state.get("rate_limit")
                limits = rate_limits.headers_of(standing) if standing is not None else []
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *limits]
            await send(message)

        try:
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > limit:
                too_large = f"The body is over {limit} bytes: send less at once."
                await envelope(Request(scope), ErrorCode.PAYLOAD_TOO_LARGE, too_large)(scope, receive, noted)
                return
            await self.app(scope, limited, noted)
        except Exception as error:
            log.error("unhandled_error", exc_info=error, path=scope["path"])
            if status is not None:
                raise  # the reply has begun: only hanging up tells the client that it is not whole
            await envelope(Request(scope), ErrorCode.INTERNAL, _INTERNAL)(scope, receive, noted)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
            )
