"""A hold: no new publish and no new deployment of an app while it stands (`spec.md` 12)."""

from __future__ import annotations

from conman.domain.decision import Model
from conman.domain.errors import DomainError, ErrorCode, invalid

LONGEST_REASON = 500


class Hold(Model):
    """Who holds the app, why, since when, and until when (None: until somebody lifts it). `version` counts the replacements."""

    id: str
    reason: str
    until: str | None = None
    by: str | None = None
    at: str
    version: int = 1

    def stands(self, at: str) -> bool:
        """Whether it is in force at this time; both are RFC 3339 UTC of the same form, which orders as text."""
        return self.until is None or at < self.until


def check_hold(reason: str, until: str | None, at: str) -> None:
    """A hold needs a reason, and an end that is still to come if it has one. Raises `validation_error`."""
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise invalid("reason", f"says in 1 to {LONGEST_REASON} characters why the app is held")
    if until is not None and until <= at:
        raise invalid("until", "must be later than now; leave it out to hold the app until somebody lifts it")


def app_on_hold(hold: Hold) -> DomainError:
    """The refusal of a publish or deployment while a hold stands."""
    end = f"until {hold.until}" if hold.until is not None else "until somebody lifts it"
    return DomainError(
        ErrorCode.APP_ON_HOLD,
        f"The app is on hold {end}: {hold.reason}",
        {"reason": hold.reason, "until": hold.until, "by": hold.by},
    )
