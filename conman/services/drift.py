"""Drift in the records of environments: writing down what a look has found, and asking for one (`spec.md` 12).

`environments.owned.drift` is a `DriftRecord`. It is written under its own version and under the deployment that was in place when
somebody looked, with its audit events and its notice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from pymongo import DESCENDING

from conman.domain.decision import Actor, NewJob
from conman.domain.deploy_messages import DriftCheckStart
from conman.domain.deployment import Deployment, Kind
from conman.domain.drift_record import MOST_ACTS, Act, DriftRecord, DriftState, Look, Looked, dumped, left_by, look
from conman.domain.ids import derived_uuid7
from conman.domain.in_place import in_place, in_place_id
from conman.domain.jobs import JobType, max_attempts
from conman.domain.notification import Notice, NoticeKind, notice_entry
from conman.domain.outgoing import audit_entry, job_document
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.platform import Platform
from conman.store import feed, locks, records
from conman.store.database import Database, Document

ENVIRONMENTS = "environments"


def record_of(environment: Document) -> DriftRecord:
    """What is known of an environment's drift."""
    return DriftRecord.model_validate(environment["owned"].get("drift") or {})


def is_of_now(known: DriftRecord, environment: Document) -> bool:
    """Whether somebody has looked since something was put in place last: the same deployment too may have been put back."""
    there = in_place(environment["owned"])
    if there is None:
        return known.deployment_id is None
    return known.deployment_id == there.deployment_id and there.at <= (known.checked_at or "")


def drift_view(environment: Document) -> dict[str, Any]:
    """The field `drift` of an environment (`api.md` 4). What was seen before the last deployment says nothing of after it."""
    known = record_of(environment)
    stale = not is_of_now(known, environment)
    return {
        "state": DriftState.UNKNOWN.value if stale else known.state.value,
        "report": dumped(known.report),
        "first_seen_at": known.first_seen_at,
        "last_clean_at": known.last_clean_at,
        "checked_at": known.checked_at,
        "profile_revision": known.applied_revision,
        "deployment_id": known.deployment_id,
        "acts": [act.model_dump(mode="json") for act in known.acts],
        "more_acts": known.more_acts,
        "problem": known.problem,
        "healing_stopped_at": known.healing_stopped_at,
    }


# -- Fences around a look


@dataclass(frozen=True, slots=True)
class Standing:
    """What must be the same before and after a look, for what it has seen to count (`durability.md` 25)."""

    fence: int
    deployment_id: str | None
    is_running: bool
    holder_id: str | None


async def standing(db: Database, app_id: str, environment_id: str) -> Standing:
    """How the environment stands: its fence, what is in place, and whether a deployment is at work."""
    entry = (await locks.read(db, app_id)).get(environment_id, {"fence": 0, "holder": None})
    environment = await records.get(db, ENVIRONMENTS, environment_id, app_id=app_id, what="environment")
    holder = entry["holder"] or {}
    return Standing(
        fence=entry["fence"],
        deployment_id=in_place_id(environment["owned"]),
        is_running=holder.get("state") == "running",
        holder_id=holder.get("deployment_id"),
    )


def holds(before: Standing, after: Standing, deployment_id: str | None) -> bool:
    """Whether what was seen between the two counts; a deployment that asks must hold the environment all the while."""
    still_its = deployment_id is None or deployment_id == before.holder_id == after.holder_id
    unchanged = (before.fence, before.deployment_id) == (after.fence, after.deployment_id)
    return still_its and unchanged and not before.is_running and not after.is_running


# -- Writing down what was seen


async def note(db: Database, app: Document, seen: Look) -> DriftRecord | None:
    """Write down what a look has found, and tell of it; None when another deployment is in place by now.

    Two looks at once are written one after the other; the one that began first changes nothing any more.
    """

    async def decide(environment: Document, before: DriftRecord) -> Looked | None:
        if before.checked_at is not None and before.checked_at > seen.at:
            return None
        looked = look(before, seen)
        if not looked.is_news:
            return looked
        there = in_place(environment["owned"])
        since = before.last_clean_at or (there.at if there is not None else environment["created_at"])
        acts, more = await _acts_between(db, app["_id"], environment, since, seen.at)
        return replace(looked, record=looked.record.model_copy(update={"acts": acts, "more_acts": more}))

    return await _write(db, app, seen.environment_id, seen.deployment_id, seen.at, decide)


async def deployed(db: Database, environment_id: str, deployment_id: str, deployment: Deployment, at: str) -> None:
    """A deployment that succeeded has put right what a deployment can; a repeat changes nothing.

    Whether a healing holds, and what is left of what no deployment puts right, is for the next look to say.
    """
    if deployment.kind is Kind.HEAL:
        return
    app = await records.get(db, "apps", deployment.app_id, what="app")
    revision_id = deployment.profile_revision_id
    revision = await records.find(db, "profile_revisions", revision_id) if revision_id is not None else None
    number = revision["revision_number"] if revision is not None else None

    async def decide(_: Document, before: DriftRecord) -> Looked | None:
        if before.deployment_id == deployment_id or left_by(deployment, before.report):
            return None
        return look(before, Look(environment_id, at, deployment_id, deployment, number, report=[]))

    await _write(db, app, environment_id, deployment_id, at, decide)


async def stop_healing(db: Database, app: Document, environment_id: str, deployment_id: str | None, at: str) -> None:
    """Say, and tell, that healing does not hold: nothing is healed until a person deploys, or the environment is seen clean."""

    async def decide(_: Document, before: DriftRecord) -> Looked | None:
        if before.healing_stopped_at is not None:
            return None
        update = {"version": before.version + 1, "healing_stopped_at": at}
        return Looked(before.model_copy(update=update), tells=True)

    await _write(db, app, environment_id, deployment_id, at, decide)


Decide = Callable[[Document, DriftRecord], Awaitable[Looked | None]]


async def _write(
    db: Database, app: Document, environment_id: str, deployment_id: str | None, at: str, decide: Decide
) -> DriftRecord | None:
    while True:
        environment = await records.get(db, ENVIRONMENTS, environment_id, what="environment")
        owned = environment["owned"]
        if in_place_id(owned) != deployment_id:
            return None
        before = record_of(environment)
        looked = await decide(environment, before)
        if looked is None:
            return before
        outgoing = _outgoing(app, environment, looked, at)
        query: Document = {"_id": environment_id}
        query |= {f"owned.{name}": owned.get(name) for name in ("applied_deployment_id", "current_deployment_id")}
        query["owned.drift.version"] = before.version if "drift" in owned else {"$exists": False}
        change = {"$set": {"owned.drift": looked.record.model_dump(mode="json")}}
        if await records.write_where(db, ENVIRONMENTS, query, change, outgoing=outgoing) is not None:
            fault_point("drift.noted")
            return looked.record


def _outgoing(app: Document, environment: Document, looked: Looked, at: str) -> list[Document]:
    def entry_id(what: str, number: int) -> str:
        parts = (f"environments:{environment['_id']}", "drift", str(looked.record.version), what, str(number))
        return derived_uuid7(milliseconds(at), *parts, order=number)

    entries = [
        audit_entry(entry_id("audit", number), event, app_id=app["_id"], actor=Actor(), at=at)
        for number, event in enumerate(looked.events)
    ]
    if looked.tells:
        stopped = looked.record.healing_stopped_at == at
        notice = Notice(
            kind=NoticeKind.DRIFT_HEAL_STOPPED if stopped else NoticeKind.DRIFT_DETECTED,
            at=at,
            app_id=app["_id"],
            entity_type="environment",
            entity_id=environment["_id"],
            data={"differences": len(looked.record.report)},
        )
        entries.append(notice_entry(entry_id("notice", 0), notice))
    return entries


async def _acts_between(db: Database, app_id: str, environment: Document, since: str, until: str) -> tuple[list[Act], bool]:
    """What was audited of the app, this environment, its profile and its deployments in that time, the latest first."""
    profile_id = environment["runtime_profile_id"]
    about = [
        {"entity_id": {"$in": [app_id, environment["_id"], profile_id]}},
        {"entity_type": "deployment", "after.environment_id": environment["_id"]},
    ]
    query = {"app_id": app_id, "occurred_at": {"$gte": since, "$lte": until}, "$or": about}
    fields = dict.fromkeys(("occurred_at", "entity_type", "entity_id", "action", "actor_user_id"), 1)
    rows = await db["audit"].find(query, fields).sort([("_id", DESCENDING)]).limit(MOST_ACTS + 1).to_list()
    acts = [Act.model_validate({"event_id": row["_id"], **row}) for row in rows[:MOST_ACTS]]
    return acts, len(rows) > MOST_ACTS


# -- Asking for a look


async def start_check(platform: Platform, call: Call, app: Document, environment: Document) -> Document:
    """The job of one look at an environment; a repeat of the same request finds its own. Its process is started."""
    job_id = call.derived_id("job")
    kind = JobType.RUNTIME_PROFILE_DRIFT_CHECK
    job = NewJob(job_id, kind, "environment", environment["_id"], max_attempts(kind), created_by=call.user_id)
    made, fresh = await records.insert_once(platform.db, "jobs", job_document(job, app_id=app["_id"], at=call.at))
    await feed.tell_jobs(platform.db, [job_id])
    fault_point("drift.inserted")
    if fresh or made["state"] == "queued":
        start = DriftCheckStart(
            job_id=job_id, app_id=app["_id"], environment_id=environment["_id"], environment=environment["name"]
        )
        await platform.commands.start_drift_check(start)
    return await records.get(platform.db, "jobs", job_id, what="job")


async def unfinished_checks(db: Database) -> AsyncIterator[DriftCheckStart]:
    """The looks that somebody asked for whose jobs have not ended, for upkeep."""
    query = {"job_type": JobType.RUNTIME_PROFILE_DRIFT_CHECK.value, "state": {"$in": ["queued", "running"]}}
    for row in await db["jobs"].find(query, {"app_id": 1, "entity_id": 1}).limit(1000).to_list():
        yield DriftCheckStart(job_id=row["_id"], app_id=row["app_id"], environment_id=row["entity_id"])
