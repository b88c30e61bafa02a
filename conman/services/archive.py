"""Archiving an app: no way back, states stay, and what runs for it ends (`api.md` 3).

The record says `archived` by one guarded write, made at a standstill (`services/standstill.py`): no deployment is active, and no
release assembles or publishes. What ends after it is recorded with it as `ending`, and ended by steps that may be repeated: by
the same request, then by upkeep, until nothing is left and no request can still be on its way that was let in before.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.service import RPCError, RPCStatusCode

from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.temp_env import LIVE, TempEnvState
from conman.domain.times import later
from conman.faults import fault_point
from conman.services import invites, standstill, temp_env_use
from conman.services.call import Call, has_happened
from conman.services.clock import now
from conman.services.platform import Platform
from conman.store import locks, records
from conman.store.database import Database, Document
from conman.store.outgoing import TERMINAL_JOB_STATES
from conman.workflows import options
from conman.workflows.client import Commands

LAST_REQUESTS = timedelta(minutes=10)
"""How long a request that was let in before the app was archived may still start something: longer than any request waits."""


async def archive(platform: Platform, call: Call, app_id: str) -> None:
    """Archive the app. A repeat with the same key finds it done.

    Raises `conflict` while a deployment is active or a release assembles or publishes, and when it is archived already.
    """
    app = await records.get(platform.db, "apps", app_id, what="app")
    if not await has_happened(platform.db, call, app):
        app = await _archive(platform, call, app_id)
    if app.get("ending") is not None:
        await end(platform.db, platform.commands, app)


async def _archive(platform: Platform, call: Call, app_id: str) -> Document:
    try:
        await standstill.begin(platform, call, app_id, "archive")
        holder = await locks.close(platform.db, app_id, None, by=call.command_id, at=now())
        if holder is not None:
            raise DomainError(
                ErrorCode.CONFLICT,
                "A deployment of the app is active: wait for its end, or cancel it, then archive the app.",
                {"deployment_id": holder.deployment_id, "environment_id": holder.environment_id},
            )
        fault_point("archive.closed")
        await standstill.wait_for_releases(platform, app_id)
        archived = await _write(platform, call, app_id)
    except DomainError:
        there = await records.get(platform.db, "apps", app_id, what="app")
        if await has_happened(platform.db, call, there):  # a repeat of this request was faster
            return there
        await standstill.abandon(platform.db, app_id, call.command_id)
        raise
    fault_point("archive.written")
    await locks.settle(platform.db, app_id, by=call.command_id)
    return archived


async def _write(platform: Platform, call: Call, app_id: str) -> Document:
    """The write that archives, made on the version that was read after the standstill began; settings may change meanwhile."""
    while True:
        app = await records.get(platform.db, "apps", app_id, what="app")
        if app["archived"] or (app.get("closing") or {}).get("by") != call.command_id:
            raise standstill.closing_conflict(app) or DomainError(ErrorCode.CONFLICT, "It took too long: archive the app again.")
        after = {
            "archived": True,
            "canceled_job_ids": await _open_jobs(platform.db, app_id),
            "ended_temp_env_ids": await _temp_envs_to_end(platform.db, app_id),
            "revoked_invite_ids": await _pending_invites(platform.db, app_id),
        }
        event = Event("app", app_id, "archived", before={"archived": False}, after=after)
        try:
            return await records.update_part(
                platform.db,
                "apps",
                app_id,
                set_fields={"archived": True, "ending": {"at": now(), "actor": call.actor.model_dump(mode="json")}},
                unset=["closing"],
                at=call.at,
                outgoing=call.audit(event, app_id=app_id),
                expected_version=app["version"],
            )
        except DomainError as error:
            if error.code is not ErrorCode.STALE_WRITE:
                raise


async def _open_jobs(db: Database, app_id: str) -> list[str]:
    query = {"app_id": app_id, "state": {"$nin": TERMINAL_JOB_STATES}}
    return [job["_id"] async for job in db["jobs"].find(query, {"_id": 1})]


async def _pending_invites(db: Database, app_id: str) -> list[str]:
    query = {"app_id": app_id, "state": invites.InviteState.PENDING.value}
    return [invite["_id"] async for invite in db[invites.COLLECTION].find(query, {"_id": 1})]


async def _temp_envs_to_end(db: Database, app_id: str) -> list[str]:
    """Those that are live, and those whose profile keeps what they have: nobody could delete these any more."""
    states = [state.value for state in (*sorted(LIVE), TempEnvState.EXPIRED)]
    query = {"app_id": app_id, "owned.state": {"$in": states}}
    return [row["_id"] async for row in db[temp_env_use.COLLECTION].find(query, {"_id": 1})]


async def end(db: Database, commands: Commands, app: Document) -> None:
    """Revoke an archived app's invites, cancel its gates and revalidations, end its temp envs; until none is left or can come."""
    actor = Actor.model_validate(app["ending"]["actor"])
    await invites.revoke_all(db, app["_id"], actor=actor, at=app["ending"]["at"])
    fault_point("archive.revoked")
    jobs = await _open_jobs(db, app["_id"])
    for job_id in jobs:
        await _cancel(commands, options.job_workflow(job_id))
    queue = await db["queues"].find_one({"_id": app["_id"]})
    if jobs and queue is not None:
        await _cancel(commands, options.revalidation_workflow(app["_id"], queue["owned"]["epoch"]))
    temp_envs = await _temp_envs_to_end(db, app["_id"])
    for temp_env_id in temp_envs:
        await _cancel(commands, options.temp_env_workflow(temp_env_id))
    fault_point("archive.canceled")
    if not jobs and not temp_envs and later(app["ending"]["at"], LAST_REQUESTS) < now():
        await db["apps"].update_one({"_id": app["_id"]}, {"$unset": {"ending": ""}})


async def _cancel(commands: Commands, workflow_id: str) -> None:
    try:
        await commands.client.get_workflow_handle(workflow_id).cancel()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended, or has not begun: upkeep looks again
            raise


async def end_all(db: Database, commands: Commands) -> int:
    """End what still runs for archived apps. Returns for how many it looked."""
    found = await db["apps"].find({"ending.at": {"$exists": True}}).to_list()
    for app in found:
        await end(db, commands, app)
    return len(found)
