"""Who is told of what, and what the mails of deployments and drift say, over a real store (`spec.md` 14)."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from conman.domain import deploy_news
from conman.domain.deployment import Approval, Deployment, DeploymentState, Kind
from conman.domain.notification import ALWAYS_SENT, NoticeKind
from conman.domain.roles import Role
from conman.mail.rendering import Words, render
from conman.services.clock import new_id, now
from conman.store.database import Database
from tests.mail.post import PUBLIC, Post

MANAGERS = frozenset({"config_manager", "app_admin"})
EVERYBODY = frozenset(role.value for role in Role)
REVIEWERS = EVERYBODY - {"user"}
NAMED_ALONE = (
    NoticeKind.CHANGESET_GATE_FAILED,
    NoticeKind.CHANGESET_APPROVED,
    NoticeKind.CHANGESET_CHANGES_REQUESTED,
    NoticeKind.CHANGESET_REJECTED,
    NoticeKind.REVIEW_REQUESTED,
    NoticeKind.DEPLOYMENT_WARNING,
    NoticeKind.DEPLOYMENT_CANCELED,
    NoticeKind.TEMP_ENV_WARNING,
    NoticeKind.TEMP_ENV_EXPIRING,
    NoticeKind.TEMP_ENV_EXPIRED,
    NoticeKind.TEMP_ENV_PROVISION_FAILED,
)
"""Kinds that go to whom the notice names: the author, the requester, the creator."""
ROLES = {
    NoticeKind.DEPLOYMENT_STARTED: MANAGERS,
    NoticeKind.DEPLOYMENT_FAILED: MANAGERS,
    NoticeKind.DEPLOYMENT_BLOCKED_BY_DRIFT: MANAGERS,
    NoticeKind.DEPLOYMENT_HEALED: MANAGERS,
    NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK: MANAGERS,
    NoticeKind.DRIFT_DETECTED: MANAGERS,
    NoticeKind.DRIFT_HEAL_STOPPED: MANAGERS,
    NoticeKind.DEPLOYMENT_SUCCEEDED: EVERYBODY,
    NoticeKind.CHANGESET_SUBMITTED: REVIEWERS,
    NoticeKind.REVIEW_REMINDER: REVIEWERS,
    NoticeKind.CHANGESET_QUEUED: MANAGERS,
    NoticeKind.CHANGESET_CONFLICTED: MANAGERS,
    NoticeKind.CHANGESET_NEEDS_REVALIDATION: MANAGERS,
    NoticeKind.RELEASE_CREATED: MANAGERS,
    NoticeKind.RELEASE_PUBLISHED: EVERYBODY,
    NoticeKind.RUNTIME_PROFILE_CHANGED: frozenset({"app_admin"}),
    NoticeKind.TEMP_ENV_CLEAN_UP_FAILED: MANAGERS,
    **dict.fromkeys(NAMED_ALONE, frozenset[str]()),
}
"""By kind, the roles of those who are told without being named."""
BY_ROLE_ALONE = (NoticeKind.DEPLOYMENT_SUCCEEDED, NoticeKind.RELEASE_PUBLISHED, NoticeKind.REVIEW_REMINDER)
"""Kinds whose notices name nobody."""


@pytest.fixture
def post(db: Database, tmp_path: Path) -> Post:
    return Post(db, tmp_path)


async def team(post: Post) -> dict[str, str]:
    """One member of each role: role to user id."""
    return {role.value: await post.member(role) for role in Role}


async def told(post: Post, kind: NoticeKind, **fields: Any) -> set[str]:
    """Whom a notice about the app goes to."""
    notice_id = await post.notice(kind, app_id=(await post.app())["_id"], **fields)
    await post.mails(notice_id)
    return {row["recipient"] for row in await post.rows(notice_id)}


@pytest.mark.parametrize(("kind", "roles"), ROLES.items(), ids=[kind.value for kind in ROLES])
async def test_those_are_told_whom_the_specification_names(post: Post, kind: NoticeKind, roles: frozenset[str]) -> None:
    """`spec.md` 14: the members with a role, and whom the notice names, whatever their role; never who did it."""
    people = await team(post)
    named = await post.person()
    expected = {people[role] for role in roles}
    user_ids = [named["_id"]] if kind not in BY_ROLE_ALONE else []
    assert await told(post, kind, user_ids=user_ids) == {*expected, *user_ids}
    assert await told(post, kind, user_ids=user_ids, actor_user_id=people["app_admin"]) == {*expected, *user_ids} - {
        people["app_admin"]
    }


def test_every_kind_has_its_recipients_here() -> None:
    by_another_test = {*ALWAYS_SENT, NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL}
    assert {*ROLES} == {*NoticeKind} - by_another_test


@pytest.mark.parametrize(
    "kind",
    [
        NoticeKind.DEPLOYMENT_WARNING,
        NoticeKind.DEPLOYMENT_CANCELED,
        NoticeKind.DEPLOYMENT_FAILED,
        NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK,
    ],
    ids=str,
)
async def test_who_asked_for_it_is_told_once_whatever_their_role(post: Post, kind: NoticeKind) -> None:
    people = await team(post)
    assert people["user"] in await told(post, kind, user_ids=[people["user"]])
    assert people["app_admin"] in await told(post, kind, user_ids=[people["app_admin"]])


async def test_the_reviewers_are_reminded_without_the_author(post: Post) -> None:
    people = await team(post)
    data = {"author_user_id": people["reviewer"]}
    assert await told(post, NoticeKind.REVIEW_REMINDER, data=data) == {people["config_manager"], people["app_admin"]}


async def waiting_deployment(post: Post, **fields: Any) -> str:
    """A deployment that waits for approvals; its id."""
    app = await post.app()
    deployment_id = new_id()
    owned = Deployment(
        app_id=app["_id"],
        environment_id="production",
        release_id="release",
        kind=Kind.DEPLOY,
        fence=1,
        requested_at=now(),
        job_id=new_id(),
        **fields,
    )
    await post.db["deployments"].insert_one({"_id": deployment_id, "owned": owned.model_dump(mode="json")})
    return deployment_id


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (None, {"reviewer", "config_manager", "app_admin"}),
        ("reviewer", {"reviewer", "config_manager", "app_admin"}),
        ("config_manager", {"config_manager", "app_admin"}),
        ("app_admin", {"app_admin"}),
    ],
)
async def test_an_approval_is_asked_of_those_who_may_give_it(post: Post, role: str | None, may: set[str]) -> None:
    people = await team(post)
    deployment_id = await waiting_deployment(post)
    found = await told(post, NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL, entity_id=deployment_id, data={"role": role})
    assert found == {people[one] for one in may}


async def test_an_approval_is_not_asked_of_who_gave_it_but_of_who_gave_it_to_what_has_changed_since(post: Post) -> None:
    people = await team(post)
    approvals = [
        Approval(user_id=people["reviewer"], at=now(), digest="as it is"),
        Approval(user_id=people["config_manager"], at=now(), digest="as it was"),
    ]
    deployment_id = await waiting_deployment(post, approvals=approvals, shown_digest="as it is")
    found = await told(post, NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL, entity_id=deployment_id, data={"role": None})
    assert found == {people["config_manager"], people["app_admin"]}


async def test_a_mail_names_environment_release_and_requester_and_leads_to_the_deployment(post: Post) -> None:
    app = await post.app()
    await post.db["apps"].update_one({"_id": app["_id"]}, {"$set": {"environments": [{"id": "e", "name": "Production"}]}})
    await post.db["releases"].insert_one({"_id": "r", "app_id": app["_id"], "owned": {"tag": "r2026.01.31.1"}})
    requester = await post.member(Role.CONFIG_MANAGER, name="Eve")
    await post.member(Role.APP_ADMIN)
    notice_id = await post.notice(
        NoticeKind.DEPLOYMENT_STARTED,
        app_id=app["_id"],
        entity_type="deployment",
        entity_id="d",
        actor_user_id=requester,
        data={"environment_id": "e", "release_id": "r", "kind": "deploy", "requested_by": requester},
    )
    await post.send(notice_id)
    (mail,) = post.way.handed_over
    made = message_from_bytes(mail.content, policy=policy.SMTP)
    assert made["Subject"] == "Started: deployment to Production (release r2026.01.31.1)"
    assert "In Shop, the deployment to Production (release r2026.01.31.1), asked for by Eve, has started." in str(mail.content)
    assert f"{PUBLIC}/apps/{app['_id']}/deployments/d" in mail.content.decode()


async def test_a_mail_about_drift_names_its_environment_by_the_name_that_it_has_now(post: Post) -> None:
    app = await post.app()
    await post.db["apps"].update_one({"_id": app["_id"]}, {"$set": {"environments": [{"id": "e", "name": "Live\r\nBcc: x"}]}})
    await post.member(Role.APP_ADMIN)
    about = {"app_id": app["_id"], "entity_type": "environment", "entity_id": "e", "data": {"differences": 2}}
    await post.send(await post.notice(NoticeKind.DRIFT_DETECTED, **about))
    (mail,) = post.way.handed_over
    assert message_from_bytes(mail.content, policy=policy.SMTP)["Subject"] == "Drift: Live Bcc: x"


DEPLOYMENT = Deployment(
    app_id="app",
    environment_id="environment",
    release_id=None,
    kind=Kind.ROLLBACK,
    requested_at="2026-01-31T09:30:00.000Z",
    not_before="2026-01-31T10:30:00.000Z",
    job_id="job",
    fence=None,
)


@pytest.mark.parametrize("state", list(DeploymentState), ids=str)
@pytest.mark.parametrize("rolled_back", [False, True])
def test_every_notice_of_a_deployment_brings_what_its_mail_says(state: DeploymentState, rolled_back: bool) -> None:
    """Also of the barest record: a template that asks for what its notice does not bring is an error."""
    ended = DEPLOYMENT.model_copy(update={"state": state})
    notices = (
        deploy_news.waits_for_approval("d", DEPLOYMENT),
        deploy_news.would_fail("d", DEPLOYMENT, "Production is frozen then."),
        deploy_news.blocked_by_drift("d", DEPLOYMENT),
        deploy_news.started("d", DEPLOYMENT),
        *deploy_news.ended_notices("d", ended, expired=rolled_back, rolled_back=rolled_back, message=""),
    )
    for notice in notices:
        words = Words(
            link="https://conman.test/",
            preferences_link="https://conman.test/me",
            recipient_name=None,
            actor_name=None,
            app_name=None,
            role=None,
            expires_at=None,
            data=notice.data,
        )
        assert render(notice.kind, words).subject.strip()
