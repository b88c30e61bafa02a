"""The error envelope, and the one table from codes to HTTP statuses (`api.md` 1)."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException
from temporalio.service import RPCError

from conman.domain.errors import ConmanError, ErrorCode, RateLimited
from conman.git.adapter import GitError, StaleRef

log = structlog.get_logger(__name__)

_E = ErrorCode
STATUS: dict[ErrorCode, int] = {
    _E.VALIDATION_ERROR: 400,
    _E.TOKEN_INVALID: 400,
    _E.INVITE_INVALID: 400,
    _E.UNAUTHORIZED: 401,
    _E.INVALID_CREDENTIALS: 401,
    _E.FORBIDDEN: 403,
    _E.BLOCKED_PATH: 403,
    _E.NOT_FOUND: 404,
    _E.METHOD_NOT_ALLOWED: 405,
    _E.CONFLICT: 409,
    _E.INVALID_TRANSITION: 409,
    _E.OUT_OF_DATE: 409,
    _E.GATE_NOT_PASSED: 409,
    _E.STALE_WRITE: 409,
    _E.ENVIRONMENT_LOCKED: 409,
    _E.STAGE_SKIPPED: 409,
    _E.ENVIRONMENT_FROZEN: 409,
    _E.APP_ON_HOLD: 409,
    _E.MARKED_BAD: 409,
    _E.COMMAND_EXPIRED: 409,
    _E.TOKEN_EXPIRED: 410,
    _E.INVITE_EXPIRED: 410,
    _E.GRACE_ENDED: 410,
    _E.PAYLOAD_TOO_LARGE: 413,
    _E.UNSUPPORTED_MEDIA_TYPE: 415,
    _E.RATE_LIMITED: 429,
    _E.INTERNAL: 500,
    _E.GIT_ERROR: 502,
    _E.AI_ERROR: 502,
    _E.UNAVAILABLE: 503,
    _E.OUTCOME_UNKNOWN: 503,
}

RETRY_AFTER_SECONDS = 2


def request_id_of(request: Request) -> str:
    """The request's id, as the middleware set it."""
    return getattr(request.state, "request_id", "-")


def envelope(request: Request, code: ErrorCode, message: str, details: Any = None) -> JSONResponse:
    """`{"error": {code, message, request_id, details?}}` with the code's status."""
    error: dict[str, Any] = {"code": code.value, "message": message, "request_id": request_id_of(request)}
    if details is not None:
        error["details"] = details
    status = STATUS[code]
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every failure with the envelope."""

    @app.exception_handler(ConmanError)
    async def _conman(request: Request, error: ConmanError) -> JSONResponse:
        request.state.refusal = error  # for `OutcomeMiddleware`
        reply = envelope(request, error.code, error.message, error.details)
        if isinstance(error, RateLimited):
            reply.headers["Retry-After"] = str(error.retry_after)
        return reply

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        details = [{"field": field_of(item["loc"][1:]), "message": item["msg"]} for item in error.errors()]
        named = "; ".join(f"{item['field']}: {item['message']}" for item in details[:3])
        return envelope(request, ErrorCode.VALIDATION_ERROR, f"Mend the request: {named}.", details)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return envelope(request, ErrorCode.NOT_FOUND, f"There is no route {request.url.path}; see /api/docs.")
        if error.status_code == 405:
            message = f"{request.method} is not allowed on {request.url.path}; see /api/docs."
            reply = envelope(request, ErrorCode.METHOD_NOT_ALLOWED, message)
            reply.headers.update(error.headers or {})
            return reply
        if error.status_code == 413:
            return envelope(request, ErrorCode.PAYLOAD_TOO_LARGE, "The body is too large.")
        return envelope(request, ErrorCode.VALIDATION_ERROR, "The request can't be read.", [])

    @app.exception_handler(GitError)
    async def _git(request: Request, error: GitError) -> JSONResponse:
        log.warning("git_error", operation=error.operation, error=str(error), request_id=request_id_of(request))
        if isinstance(error, StaleRef):
            message = "The branch moved while this was written: read again, then repeat."
            return envelope(request, ErrorCode.STALE_WRITE, message)
        again = "read the record before you repeat it"
        if error.safe_to_repeat:
            again = "the same request can be repeated"
            if request.method != "GET":
                again = "it may have happened, and can be repeated with the same Idempotency-Key"
        message = f"Git could not carry out {error.operation}: {again}."
        return envelope(
            request, ErrorCode.GIT_ERROR, message, {"operation": error.operation, "safe_to_repeat": error.safe_to_repeat}
        )

    @app.exception_handler(PyMongoError)
    @app.exception_handler(RPCError)
    async def _away(request: Request, error: Exception) -> JSONResponse:
        log.warning("dependency_away", error=str(error)[:500], request_id=request_id_of(request))
        what = "The database" if isinstance(error, PyMongoError) else "Temporal"
        if request.method == "GET":
            return envelope(request, ErrorCode.UNAVAILABLE, f"{what} does not answer: try again in a moment.")
        message = f"{what} did not answer: it may have happened. Repeat with the same Idempotency-Key."
        return envelope(request, ErrorCode.OUTCOME_UNKNOWN, message)


def field_of(location: tuple[int | str, ...]) -> str:
    """The field that a validation problem is about, as text, without where FastAPI found it."""
    return ".".join(str(part) for part in location) or "body"
