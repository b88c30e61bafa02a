"""Notices: what people are told by mail, and to whom (`spec.md` 14).

A notice leaves a document with the change that it tells of (`durability.md` 3). It carries ids and words, never a secret or a
token: who sends it looks up the rest, and computes a token again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field

from conman.domain.decision import Model
from conman.domain.mail import Wave
from conman.domain.tokens import TokenPurpose


class NoticeKind(StrEnum):
    """What a notice tells."""

    INVITE = "invite"
    PASSWORD_RESET = "password_reset"
    ACCOUNT_CREATED = "account_created"
    CHANGESET_SUBMITTED = "changeset_submitted"
    CHANGESET_GATE_FAILED = "changeset_gate_failed"
    CHANGESET_APPROVED = "changeset_approved"
    CHANGESET_CHANGES_REQUESTED = "changeset_changes_requested"
    CHANGESET_REJECTED = "changeset_rejected"
    CHANGESET_QUEUED = "changeset_queued"
    CHANGESET_CONFLICTED = "changeset_conflicted"
    CHANGESET_NEEDS_REVALIDATION = "changeset_needs_revalidation"
    REVIEW_REQUESTED = "review_requested"
    REVIEW_REMINDER = "review_reminder"
    RELEASE_CREATED = "release_created"
    RELEASE_PUBLISHED = "release_published"
    RUNTIME_PROFILE_CHANGED = "runtime_profile_changed"
    DEPLOYMENT_WAITS_FOR_APPROVAL = "deployment_waits_for_approval"
    DEPLOYMENT_WARNING = "deployment_warning"
    DEPLOYMENT_BLOCKED_BY_DRIFT = "deployment_blocked_by_drift"
    DEPLOYMENT_STARTED = "deployment_started"
    DEPLOYMENT_SUCCEEDED = "deployment_succeeded"
    DEPLOYMENT_FAILED = "deployment_failed"
    DEPLOYMENT_CANCELED = "deployment_canceled"
    DEPLOYMENT_AUTO_ROLLED_BACK = "deployment_auto_rolled_back"
    DEPLOYMENT_HEALED = "deployment_healed"
    DRIFT_DETECTED = "drift_detected"
    DRIFT_HEAL_STOPPED = "drift_heal_stopped"
    TEMP_ENV_WARNING = "temp_env_warning"
    TEMP_ENV_EXPIRING = "temp_env_expiring"
    TEMP_ENV_EXPIRED = "temp_env_expired"
    TEMP_ENV_PROVISION_FAILED = "temp_env_provision_failed"
    TEMP_ENV_CLEAN_UP_FAILED = "temp_env_clean_up_failed"


ALWAYS_SENT = frozenset({NoticeKind.INVITE, NoticeKind.PASSWORD_RESET, NoticeKind.ACCOUNT_CREATED})
"""Auth mails: they go out also to those who switched email off (`spec.md` 14)."""


TOKEN_RECORDS: Final[Mapping[TokenPurpose, str]] = MappingProxyType(
    {TokenPurpose.INVITE: "invites", TokenPurpose.PASSWORD_RESET: "password_resets"}
)
"""The collection of the records that tokens belong to. A record has `token_number`, `expires_at` and, until the token was used or
revoked, `token_hash`."""

TOKEN_PATHS: Final[Mapping[TokenPurpose, str]] = MappingProxyType(
    {TokenPurpose.INVITE: "/accept-invite", TokenPurpose.PASSWORD_RESET: "/reset-password"}
)
"""The page that a token's link opens, below `CONMAN_PUBLIC_URL`."""


class TokenRef(Model):
    """Which token the mail carries; the sender computes it (`spec.md` 5). `record_id` is an id in `TOKEN_RECORDS[purpose]`."""

    purpose: TokenPurpose
    record_id: str
    number: int


class Notice(Model):
    """One event that people are told of. `emails` are addresses without an account, `user_ids` accounts."""

    kind: NoticeKind
    at: str
    app_id: str | None = None
    entity_type: str
    entity_id: str
    actor_user_id: str | None = None
    user_ids: list[str] = Field(default_factory=list[str])
    emails: list[str] = Field(default_factory=list[str])
    token: TokenRef | None = None
    data: dict[str, Any] = Field(default_factory=dict[str, Any])


def notice_entry(entry_id: str, notice: Notice) -> dict[str, Any]:
    """The notice as an outgoing entry; its id names the row in `notifications` and the workflow `notify:{id}`."""
    return {
        "id": entry_id,
        "kind": "notice",
        "doc": {"_id": entry_id, "created_at": notice.at, "state": "pending", "notice": notice.model_dump(mode="json")},
    }


class NoticeState(StrEnum):
    """Where a notice is: `done` when each of its mails has ended."""

    PENDING = "pending"
    DONE = "done"
    CANCELED = "canceled"
    """Somebody stopped its workflow; what had not left by then did not leave."""


class Recipient(Model):
    """Somebody whom a notice is for: an account, or an address that has none."""

    user_id: str | None = None
    email: str | None = None

    @property
    def key(self) -> str:
        """By what a notice knows its recipients apart."""
        return self.user_id or self.email or ""


def recipients(notice: Notice, user_ids: Sequence[str], emails: Sequence[str], accounts: Mapping[str, str]) -> list[Recipient]:
    """Each of them once, in order; an address stands for the account that it belongs to when that is among them, too.

    `accounts` are the user ids of those addresses that have one. Who did it is not told, except by auth mails (`spec.md` 14).
    """
    told = [Recipient(user_id=user_id) for user_id in dict.fromkeys(user_ids)]
    if notice.kind not in ALWAYS_SENT:
        told = [person for person in told if person.user_id != notice.actor_user_id]
    taken = frozenset(user_ids)
    told += [Recipient(email=email) for email in dict.fromkeys(emails) if accounts.get(email) not in taken]
    return told


class NotifyStart(Model):
    """How `notify:{notice_id}` is started. `wave`: who started it has looked at the notice already, and found these mails."""

    notice_id: str
    wave: Wave | None = None
