"""What members are told live (`api.md` 3): what has changed, and nothing that only admins may see."""

from __future__ import annotations

from typing import Any

import pytest

from conman.domain.feed import FeedEvent, FeedType, Standing, told_of_audit, told_of_job, told_of_write
from conman.domain.roles import Capability, Role, allows

AT = "2026-01-31T09:30:00.000Z"
READS = {
    FeedType.CHANGESET: Capability.CHANGESET_READ,
    FeedType.QUEUE: Capability.QUEUE_READ,
    FeedType.RELEASE: Capability.RELEASE_READ,
    FeedType.DEPLOYMENT: Capability.DEPLOYMENT_READ,
    FeedType.JOB: Capability.JOB_READ,
    FeedType.TEMP_ENV: Capability.TEMP_ENV_READ,
    FeedType.ENVIRONMENT: Capability.ENVIRONMENT_READ,
    FeedType.APP: Capability.APP_READ,
}


def audited(entity_type: str = "changeset", action: str = "approved", **fields: Any) -> dict[str, Any]:
    base = {"_id": "e", "occurred_at": AT, "actor_user_id": "rob", "app_id": "app", "entity_type": entity_type, "entity_id": "x"}
    return {**base, "action": action, "before": None, "after": {"state": "approved"}, **fields}


@pytest.mark.parametrize("kind", FeedType, ids=str)
def test_each_member_may_read_what_each_event_is_about(kind: FeedType) -> None:
    """`api.md` 2: events are for every member, whatever they are about."""
    assert allows(Role.USER, READS[kind], platform_admin=False)
    assert allows(Role.USER, Capability.EVENT_READ, platform_admin=False)


def test_an_audit_event_is_told_without_what_only_admins_see() -> None:
    """`api.md` 2: the audit is an app admin's."""
    event = told_of_audit(audited(before={"comment": "old"}, after={"state": "approved", "comment": "why", "env_vars": {"A": 1}}))
    assert event == FeedEvent("e", "app", AT, FeedType.CHANGESET, "approved", "x", "rob", {"state": "approved"})


@pytest.mark.parametrize(
    "hidden",
    [audited("runtime_profile"), audited("user"), audited("membership"), audited("job", "canceled"), audited(app_id=None)],
    ids=["a profile", "an account", "a membership", "what was asked of a job", "of no app"],
)
def test_what_nobody_follows_is_not_told(hidden: dict[str, Any]) -> None:
    assert told_of_audit(hidden) is None


def test_a_temporary_environment_has_the_name_that_clients_know() -> None:
    event = told_of_audit(audited("temp_environment", "expired"))
    assert event is not None and event.type is FeedType.TEMP_ENV


def test_a_write_is_told_with_how_its_own_record_stands_by_it() -> None:
    own = audited(after=None)
    other = audited("environment", "drift_cleared", _id="f", entity_id="env", after=None)
    standing = Standing("changesets", "x", {"state": "queued", "version": 7, "app_id": "app"}, AT)
    assert [event.more for event in told_of_write([own, other], standing)] == [{"state": "queued", "version": 7}, {}]


def test_a_write_of_a_queue_without_an_audit_event_is_told_once_under_its_version() -> None:
    owned = {"app_id": "app", "version": 4, "epoch": 2, "integration_sha": "a" * 40, "progress_done": 1, "progress_total": 3}
    standing = Standing("queues", "app", owned, AT)
    (event,) = told_of_write([], standing)
    assert (event.id, event.type, event.action, event.entity_id) == ("queues:app:4", FeedType.QUEUE, "updated", "app")
    assert event.more == {"epoch": 2, "integration_sha": "a" * 40, "version": 4, "progress": {"done": 1, "total": 3}}
    reordered = audited("queue", "reordered", entity_id="app", after=None)
    assert [one.action for one in told_of_write([reordered], standing)] == ["reordered"]


def test_a_write_of_a_changeset_without_an_audit_event_tells_nothing() -> None:
    assert told_of_write([], Standing("changesets", "x", {"state": "draft", "version": 1, "app_id": "app"}, AT)) == []


@pytest.mark.parametrize(
    ("state", "progress", "action"),
    [
        ("queued", None, "queued"),
        ("running", None, "started"),
        ("running", {"done": 1, "total": 2, "message": "half"}, "progressed"),
        ("succeeded", {"done": 2, "total": 2, "message": "all"}, "ended"),
        ("failed", None, "ended"),
        ("canceled", None, "ended"),
    ],
)
def test_a_job_is_told_as_its_record_shows_it(state: str, progress: Any, action: str) -> None:
    job = {"_id": "j", "app_id": "app", "updated_at": AT, "created_by": None, "entity_type": "changeset", "entity_id": "x"}
    job |= {"state": state, "progress": progress, "version": 3, "reason_code": None, "job_type": "msuite_submit", "attempt": 1}
    event = told_of_job(job)
    assert (event.id, event.action, event.more["state"]) == ("jobs:j:3", action, state)
    assert event.more["subject"] == {"type": "changeset", "id": "x"}
