"""Who may call the Git server, and how a call's errors reach the caller."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import structlog

from conman.git.adapter import GitError
from conman.git.server_call import Refused, status_of

TOKEN_VALID_SECONDS = 30
"""How far the time in a v2 token may be from this machine's, either way (Gitaly's own bound)."""
_V2 = "v2."
_CANCEL_SECONDS = 0.001
"""The library cancels a call in the turn of the event loop in which its request was broken off, or in one of the next."""
_Request = TypeVar("_Request")

_log = structlog.get_logger(__name__)


def v2_token(secret: str, when: int) -> str:
    """Gitaly's token of version 2: it proves knowledge of the secret at a Unix time, and does not show the secret."""
    return f"{_V2}{_signed(secret, str(when))}.{when}"


def check_authorization(header: str | None, secret: str, now: float) -> None:
    """Check an `authorization` header: `Bearer v2.<hmac>.<time>` or `Bearer <secret>`, compared in constant time.

    Raises `Refused`: UNAUTHENTICATED without a bearer token, PERMISSION_DENIED for a wrong or an expired one.
    """
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "authentication required")
    if hmac.compare_digest(token.encode(), secret.encode()):
        return
    signature, _, when = token.removeprefix(_V2).partition(".")
    signed = token.startswith(_V2) and hmac.compare_digest(signature.encode(), _signed(secret, when).encode())
    if not signed or not when.isascii() or not when.isdigit() or abs(now - int(when)) > TOKEN_VALID_SECONDS:
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, "permission denied")


def _signed(secret: str, message: str) -> str:
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


class CallGuard(grpc.aio.ServerInterceptor):
    """Checks the token of each call before anything is read of it, and turns our errors into statuses.

    What is not one of our errors is a defect: the library logs it and answers UNKNOWN.
    """

    def __init__(self, secret: str | None, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """See the class."""
        handler: Any = await continuation(handler_call_details)
        details: Any = handler_call_details
        if handler is None:
            return handler
        header = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
        return self._guarded(handler, details.method, header)

    def _guarded(self, handler: Any, method: str, header: str | bytes | None) -> grpc.RpcMethodHandler:
        shown = header.decode("ascii", "replace") if isinstance(header, bytes) else header
        kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
        inner = _given_whole(getattr(handler, kind)) if handler.request_streaming else getattr(handler, kind)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        guarded = self._streaming(inner, method, shown) if handler.response_streaming else self._single(inner, method, shown)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _single(self, inner: Any, method: str, header: str | None) -> Any:
        async def call(request: Any, context: Any) -> Any:
            started = time.monotonic()
            try:
                self._admit(header)
                answer = await inner(request, context)
            except (Refused, GitError) as error:
                await _end(context, method, started, error)
                raise
            _done(method, started)
            return answer

        return call

    def _streaming(self, inner: Any, method: str, header: str | None) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            started = time.monotonic()
            try:
                self._admit(header)
                # Closed at once, not when the garbage is collected: what a cancelled call holds is then free.
                async with aclosing(inner(request, context)) as answers:
                    async for answer in answers:
                        yield answer
            except (Refused, GitError) as error:
                await _end(context, method, started, error)
            _done(method, started)

        return call

    def _admit(self, header: str | None) -> None:
        if self._secret is not None:
            check_authorization(header, self._secret, self._now())


def _given_whole(inner: Any) -> Any:
    return lambda requests, context: inner(whole(requests), context)


async def whole(requests: AsyncIterator[_Request]) -> AsyncIterator[_Request]:
    """The messages of a request, which ends only when all of them have come: a call that was broken off is cancelled first.

    The library lets a request that was broken off end like a whole one and cancels the call just after that, while half of a
    file is being committed.
    """
    async for request in requests:
        yield request
    await asyncio.sleep(_CANCEL_SECONDS)


async def _end(context: Any, method: str, started: float, error: Refused | GitError) -> None:
    code, message = (error.code, error.message) if isinstance(error, Refused) else (status_of(error), str(error))
    _log.info("git call refused", method=method, code=code.name, reason=message, milliseconds=_since(started))
    await context.abort(code, message)


def _done(method: str, started: float) -> None:
    _log.debug("git call", method=method, milliseconds=_since(started))


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
