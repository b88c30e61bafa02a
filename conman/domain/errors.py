"""The closed vocabulary of refusals and failures (`api.md` 1).

    ConmanError
    ├── DomainError        a refusal: nothing was written (4xx)
    └── Unavailable        a dependency is away or the outcome is unknown (5xx)

Litmus sentences for the pairs that are easily confused:

- `conflict` / `invalid_transition`: another record stands in the way → conflict; its own state does → invalid_transition.
- `stale_write` / `out_of_date`: what you read has changed since → stale_write; the integration branch has moved on → out_of_date.
- `unavailable` / `outcome_unknown`: it certainly did not happen, try again → unavailable; it may have happened, repeat with the
  same Idempotency-Key → outcome_unknown.
- `forbidden` / `not_found`: the app is known to exist and you may not → forbidden; the id is not one of this app's → not_found.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Every code that a reply may carry; its HTTP status stands in `conman.api.errors`."""

    VALIDATION_ERROR = "validation_error"
    TOKEN_INVALID = "token_invalid"
    INVITE_INVALID = "invite_invalid"
    UNAUTHORIZED = "unauthorized"
    INVALID_CREDENTIALS = "invalid_credentials"
    FORBIDDEN = "forbidden"
    BLOCKED_PATH = "blocked_path"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    INVALID_TRANSITION = "invalid_transition"
    OUT_OF_DATE = "out_of_date"
    GATE_NOT_PASSED = "gate_not_passed"
    STALE_WRITE = "stale_write"
    ENVIRONMENT_LOCKED = "environment_locked"
    STAGE_SKIPPED = "stage_skipped"
    ENVIRONMENT_FROZEN = "environment_frozen"
    APP_ON_HOLD = "app_on_hold"
    MARKED_BAD = "marked_bad"
    COMMAND_EXPIRED = "command_expired"
    TOKEN_EXPIRED = "token_expired"
    INVITE_EXPIRED = "invite_expired"
    GRACE_ENDED = "grace_ended"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"
    GIT_ERROR = "git_error"
    AI_ERROR = "ai_error"
    UNAVAILABLE = "unavailable"
    OUTCOME_UNKNOWN = "outcome_unknown"


class ConmanError(Exception):
    """Anything that reaches a client as an error envelope.

    `message` says what to do; `details` is JSON data whose shape belongs to the code.
    """

    def __init__(self, code: ErrorCode, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class DomainError(ConmanError):
    """A refusal by a rule. It means: nothing was written."""


class RateLimited(DomainError):
    """Too much was asked in too short a time: the same may be asked again after `retry_after` seconds, at least one."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(ErrorCode.RATE_LIMITED, message)
        self.retry_after = max(1, retry_after)


class Unavailable(ConmanError):
    """A dependency did not answer in time, or the outcome of a command is not known."""


def invalid(field: str, message: str) -> DomainError:
    """A `validation_error` about one field."""
    return DomainError(ErrorCode.VALIDATION_ERROR, f"{field}: {message}", [{"field": field, "message": message}])


def not_found(what: str) -> DomainError:
    """A `not_found` for an id that does not exist, or is another app's."""
    return DomainError(ErrorCode.NOT_FOUND, f"No such {what}; check the id and the app in the path.")
