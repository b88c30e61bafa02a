"""Whether a pending deployment may start: the deciders of its request, with how things are now (`spec.md` 12)."""

from __future__ import annotations

from dataclasses import replace

from conman.domain import deploy_rules as rules
from conman.domain.deploy_messages import Blocker, StartQuestion, StartReply
from conman.domain.deploy_rules import Approvals, LockView, Surroundings, Wanted
from conman.domain.deployment import Deployment, Kind
from conman.domain.errors import ErrorCode
from conman.domain.roles import Role
from conman.services.profiles import PROFILES
from conman.services.surroundings import Scene, look, shown_digest
from conman.store import memberships, records
from conman.store.database import Database, Document

_ONLY_THE_LOCK = (Kind.ROLLBACK, Kind.HEAL)
"""What needs only the environment's lock: no stage order, freeze, hold, or approvals."""


async def judge(db: Database, question: StartQuestion) -> StartReply:
    """The deciders' answer at `question.at`, the role of each approver as it is now.

    Reasons for which it was asked to be exceptional stay; what only now makes it one comes to them.
    """
    app = await records.get(db, "apps", question.app_id, what="app")
    document = await records.get(db, "deployments", question.deployment_id, what="deployment")
    release = await records.get(db, "releases", question.release_id, what="release")
    deployment = Deployment.model_validate(document["owned"])
    scene = await look(db, app, release, question.at)
    group = await group_of(db, document)
    environment = scene.environment(question.environment_id)
    profile = await records.get(db, PROFILES, environment["runtime_profile_id"], what="runtime profile")
    here = scene.of(question.environment_id, question.at, besides=set(group))
    # Whether another one runs counts when the lock is taken, and is among the reasons then.
    here = replace(here, lock=LockView(closed=here.lock.closed, app_closed=here.lock.app_closed))
    wanted = _wanted(deployment, question, frozenset(group.values()))
    blockers, reasons, asked = _judged(wanted, here, deployment)
    blockers = [*await _lost_lock(db, scene, question, deployment), *blockers]
    digest = await shown_digest(db, environment, release["_id"], scene.release.published_sha)
    return StartReply(
        published_sha=scene.release.published_sha or "",
        tag=scene.release.tag or "",
        profile_id=profile["_id"],
        profile_revision_id=profile["revision_id"],
        blockers=blockers,
        eligible_approvers=await _counting(db, asked, deployment, question, digest),
        approvals_required=asked.required,
        approval_role=approval_role(asked),
        exceptional_reasons=reasons,
        shown_digest=digest,
        approval_ttl_hours=scene.app["settings"]["approval_ttl_hours"],
        auto_rollback=environment["auto_rollback"],
        health_command=environment["health_command"],
        freeze_windows=scene.freeze_names(question.environment_id, question.at),
        frozen_until=here.frozen_until,
    )


async def _lost_lock(db: Database, scene: Scene, question: StartQuestion, deployment: Deployment) -> list[Blocker]:
    """What nothing clears: somebody took the lock from it and never came to say so. One that is still to be told waits."""
    if deployment.fence is None or deployment.kind in _ONLY_THE_LOCK:
        return []
    active = scene.active.get(question.environment_id)
    holder: Document = scene.locked["environments"].get(question.environment_id, {}).get("holder") or {}
    if holder.get("deployment_id") == question.deployment_id:
        return []
    if active is not None and await records.find(db, "deployments", active.deployment_id) is None:
        return []
    if await db["deployments"].find_one({"supersedes_untold": question.deployment_id}, {"_id": 1}) is not None:
        return []
    message = "Another deployment has taken the environment from this one while it waited: ask for it again."
    return [Blocker(code=ErrorCode.CONFLICT.value, message=message, who=Role.CONFIG_MANAGER.value)]


async def group_of(db: Database, document: Document) -> dict[str, str]:
    """Deployment id → environment id of all that came in the same request, this one among them."""
    owned = document["owned"]
    if owned.get("group_id") is None:
        return {document["_id"]: owned["environment_id"]}
    rows = db["deployments"].find({"app_id": document["app_id"], "owned.group_id": owned["group_id"]})
    return {row["_id"]: row["owned"]["environment_id"] async for row in rows}


def approval_role(asked: Approvals) -> str | None:
    """The least role of the ordinary approvals, reviewer where only exceptional ones are asked for; None where none is."""
    return asked.role.value if asked.required else None


def _wanted(deployment: Deployment, question: StartQuestion, together: frozenset[str]) -> Wanted:
    return Wanted(
        release_id=question.release_id,
        start_at=question.at,
        kind=deployment.kind,
        skip_stage=deployment.skip_stage,
        override_freeze=deployment.override_freeze,
        together=together,
    )


def _judged(wanted: Wanted, here: Surroundings, deployment: Deployment) -> tuple[list[Blocker], list[str], Approvals]:
    if deployment.kind in _ONLY_THE_LOCK:
        return [], deployment.exceptional_reasons, Approvals()
    blockers = [one.blocker() for one in rules.hindrances(wanted, here)]
    now = rules.exceptional_reasons(wanted, here)
    reasons = [*deployment.exceptional_reasons, *(one for one in now if one not in deployment.exceptional_reasons)]
    return blockers, reasons, rules.approvals_asked(reasons, here.required)


async def _counting(db: Database, asked: Approvals, deployment: Deployment, question: StartQuestion, digest: str) -> list[str]:
    """Those whose yes counts now when they are enough; who approved after the question was put is left for the next one."""
    given = [one for one in deployment.approvals if one.user_id in question.approver_ids]
    roles: dict[str, Role | None] = {}
    for approval in given:
        roles[approval.user_id] = await memberships.role_now(db, question.app_id, approval.user_id)
    return rules.approved(asked, given, roles, digest)
