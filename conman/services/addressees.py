"""Who is told of what: one rule per kind of notice (`spec.md` 14).

A later kind needs a line here, its templates in `conman/mail/templates`, and a place in `NoticeKind`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from conman.domain.deployment import Deployment
from conman.domain.membership import may_review
from conman.domain.notification import Notice, NoticeKind, Recipient, recipients
from conman.domain.roles import Role
from conman.store import records
from conman.store.database import Database

Rule = Callable[[Database, Notice], Awaitable[list[Recipient]]]
"""Who is to be told, as things are when the notice is looked at first; later it stays so."""


async def named(db: Database, notice: Notice) -> list[Recipient]:
    """Those whom the notice names."""
    accounts: dict[str, str] = {}
    if notice.emails:
        found = db["users"].find({"email": {"$in": notice.emails}}, {"email": 1})
        accounts = {row["email"]: row["_id"] async for row in found}
    return recipients(notice, notice.user_ids, notice.emails, accounts)


async def reviewers(db: Database, notice: Notice) -> list[Recipient]:
    """Those who may review what the notice is about: its app's reviewers and up, without its author."""
    author = notice.data.get("author_user_id")
    told = [user_id for user_id, role in await _members(db, notice) if may_review(role) and user_id != author]
    return recipients(notice, told, [], {})


async def approvers(db: Database, notice: Notice) -> list[Recipient]:
    """Those who may give the approval that a deployment waits for, without those whose yes to what it is now counts already."""
    least = Role(notice.data["role"] or Role.REVIEWER)
    agreed = await _agreed(db, notice.entity_id)
    told = [user_id for user_id, role in await _members(db, notice) if role >= least and user_id not in agreed]
    return recipients(notice, told, [], {})


def at_least(least: Role) -> Rule:
    """Those whom the notice names, and the app's members with this role or a higher one."""

    async def rule(db: Database, notice: Notice) -> list[Recipient]:
        told = [user_id for user_id, role in await _members(db, notice) if role >= least]
        return recipients(notice, [*notice.user_ids, *told], [], {})

    return rule


managers = at_least(Role.CONFIG_MANAGER)


async def everybody(db: Database, notice: Notice) -> list[Recipient]:
    """All members of the app."""
    return recipients(notice, [user_id for user_id, _ in await _members(db, notice)], [], {})


async def _members(db: Database, notice: Notice) -> list[tuple[str, Role]]:
    found = db["memberships"].find({"app_id": notice.app_id}, {"user_id": 1, "role": 1}).sort("_id")
    return [(row["user_id"], Role(row["role"])) async for row in found]


async def _agreed(db: Database, deployment_id: str) -> set[str]:
    document = await records.find(db, "deployments", deployment_id)
    if document is None:
        return set()
    deployment = Deployment.model_validate(document["owned"])
    return {approval.user_id for approval in deployment.approvals if approval.digest == deployment.shown_digest}


RULES: Final[Mapping[NoticeKind, Rule]] = MappingProxyType(
    {
        NoticeKind.INVITE: named,
        NoticeKind.PASSWORD_RESET: named,
        NoticeKind.ACCOUNT_CREATED: named,
        NoticeKind.CHANGESET_SUBMITTED: at_least(Role.REVIEWER),
        NoticeKind.CHANGESET_GATE_FAILED: named,
        NoticeKind.CHANGESET_APPROVED: named,
        NoticeKind.CHANGESET_CHANGES_REQUESTED: named,
        NoticeKind.CHANGESET_REJECTED: named,
        NoticeKind.CHANGESET_QUEUED: managers,
        NoticeKind.CHANGESET_CONFLICTED: managers,
        NoticeKind.CHANGESET_NEEDS_REVALIDATION: managers,
        NoticeKind.REVIEW_REQUESTED: named,
        NoticeKind.REVIEW_REMINDER: reviewers,
        NoticeKind.RELEASE_CREATED: managers,
        NoticeKind.RELEASE_PUBLISHED: everybody,
        NoticeKind.RUNTIME_PROFILE_CHANGED: at_least(Role.APP_ADMIN),
        NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL: approvers,
        NoticeKind.DEPLOYMENT_WARNING: named,
        NoticeKind.DEPLOYMENT_BLOCKED_BY_DRIFT: managers,
        NoticeKind.DEPLOYMENT_STARTED: managers,
        NoticeKind.DEPLOYMENT_SUCCEEDED: everybody,
        NoticeKind.DEPLOYMENT_FAILED: managers,
        NoticeKind.DEPLOYMENT_CANCELED: named,
        NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK: managers,
        NoticeKind.DEPLOYMENT_HEALED: managers,
        NoticeKind.DRIFT_DETECTED: managers,
        NoticeKind.DRIFT_HEAL_STOPPED: managers,
        NoticeKind.TEMP_ENV_WARNING: named,
        NoticeKind.TEMP_ENV_EXPIRING: named,
        NoticeKind.TEMP_ENV_EXPIRED: named,
        NoticeKind.TEMP_ENV_PROVISION_FAILED: named,
        NoticeKind.TEMP_ENV_CLEAN_UP_FAILED: managers,
    }
)
