"""What became of a request with an `Idempotency-Key`, kept before it is told (`api.md` 1, `durability.md` 4).

A success is found again by its references; a refusal by the domain is kept, so that a repeat meets the same one. What was
refused by login, role or an unsound body leaves the key unused, and what failed (5xx) is there to be repeated.
"""

from __future__ import annotations

import structlog
from pymongo.errors import PyMongoError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conman.api.errors import STATUS, envelope
from conman.domain.errors import DomainError, ErrorCode
from conman.services.call import keep_refusal, keep_success

log = structlog.get_logger(__name__)

_NOT_KEPT = frozenset(
    {
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.RATE_LIMITED,
        ErrorCode.COMMAND_EXPIRED,  # it was not carried out, and its message asks to send it again
    }
)


class OutcomeMiddleware:
    """Keeps the outcome of a keyed request when its reply begins; without the store the outcome is not known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_lost = False

        async def kept(message: Message) -> None:
            nonlocal is_lost
            if message["type"] == "http.response.start":
                try:
                    await _keep(Request(scope), message["status"])
                except PyMongoError as error:
                    log.warning("outcome_not_kept", error=str(error)[:500])
                    is_lost = True
                    text = "The database did not answer: it may have happened. Repeat with the same Idempotency-Key."
                    await envelope(Request(scope), ErrorCode.OUTCOME_UNKNOWN, text)(scope, receive, send)
            if not is_lost:
                await send(message)

        await self.app(scope, receive, kept)


async def _keep(request: Request, status: int) -> None:
    caller = getattr(request.state, "caller", None)
    if caller is None or not caller.call.keyed:
        return
    refusal = getattr(request.state, "refusal", None)
    if isinstance(refusal, DomainError):
        if refusal.code not in _NOT_KEPT and STATUS[refusal.code] < 500:
            await keep_refusal(caller.platform.db, caller.call, refusal)
    elif status < 300:
        await keep_success(caller.platform.db, caller.call)
