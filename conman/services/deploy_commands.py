"""What people and upkeep tell deployments that are under way: a yes, a stop, to look again, who superseded them (`spec.md` 12).

A yes or a cancel of one deployment counts for all that came in the same request. Each is told under a command id of its own made
from the call's, so a repeat changes nothing; what a crash left untold, upkeep tells (`settle_all`).
"""

from __future__ import annotations

from typing import Any

import structlog

from conman.domain.decision import Actor
from conman.domain.deploy_messages import ApproveCommand, RevalidateCommand, SupersedeCommand
from conman.domain.deployment import TERMINAL, Approval, Deployment, DeploymentState, Kind
from conman.domain.errors import ConmanError, DomainError, ErrorCode
from conman.domain.roles import Role
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.services.surroundings import shown_digest
from conman.store import locks, records
from conman.store.database import Database, Document
from conman.workflows import options
from conman.workflows.client import Commands, EntityWorkflow, signal_if_running
from conman.workflows.deployment import CancelCommand

log = structlog.get_logger(__name__)

_PENDING: Document = {"owned.state": DeploymentState.PENDING.value}


def start_of(commands: Commands, document: Document, summary: str = "") -> EntityWorkflow:
    """The workflow of a deployment's record."""
    return commands.deployment_start(document["app_id"], document["_id"], summary)


async def _others(db: Database, document: Document) -> list[Document]:
    """What came in the same request and has not ended, the last in stage order first."""
    group_id = document["owned"].get("group_id")
    if group_id is None:
        return []
    ended = [state.value for state in TERMINAL]
    query = {"owned.group_id": group_id, "app_id": document["app_id"], "owned.state": {"$nin": ended}}
    rows = await db["deployments"].find({**query, "_id": {"$ne": document["_id"]}}).to_list()
    after = {row["_id"]: row["owned"].get("after_deployment_id") for row in [document, *rows]}

    def depth(deployment_id: str | None) -> int:
        return 0 if deployment_id not in after else 1 + depth(after[deployment_id])

    return sorted(rows, key=lambda row: depth(row["_id"]), reverse=True)


# -- Approve


async def approve(platform: Platform, call: Call, document: Document, role: Role) -> None:
    """One person's yes, bound to the files, profile revision and overrides of now. It counts for all of the request.

    Raises `forbidden` where it could never count, `invalid_transition` or `conflict` where none is asked for.
    """
    refuse_what_cannot_count(Deployment.model_validate(document["owned"]), role)
    await _send_yes(platform.db, platform.commands, document, call.actor, call.command_id)
    fault_point("deploy.approved")
    for other in await _others(platform.db, document):
        await _quietly(_send_yes(platform.db, platform.commands, other, call.actor, f"{call.command_id}:{other['_id']}"))


def refuse_what_cannot_count(deployment: Deployment, role: Role) -> None:
    """An ordinary approval needs the environment's role; for what is exceptional any reviewer counts. Raises `forbidden`."""
    wanted = deployment.approval_role
    if wanted is None or deployment.exceptional_reasons or role >= Role(wanted):
        return
    raise DomainError(
        ErrorCode.FORBIDDEN,
        f"This environment's deployments are approved by a {wanted} or higher, and you are a {role.value}: ask one of them.",
        {"role": wanted},
    )


async def _send_yes(db: Database, commands: Commands, document: Document, actor: Actor, command_id: str) -> None:
    command = ApproveCommand(id=command_id, actor=actor, not_after=commands.not_after(), digest=await _digest(db, document))
    await commands.send(start_of(commands, document), "approve", command)


async def _digest(db: Database, document: Document) -> str | None:
    """What an approver is shown now; None before there is a release to be shown."""
    owned = document["owned"]
    if owned["release_id"] is None:
        return None
    app = await records.get(db, "apps", document["app_id"], what="app")
    environment = next((one for one in app["environments"] if one["id"] == owned["environment_id"]), None)
    if environment is None:
        return None
    release = await records.get(db, "releases", owned["release_id"], what="release")
    return await shown_digest(db, environment, release["_id"], release["owned"].get("published_sha"))


# -- Cancel, revalidate, supersede


async def cancel(platform: Platform, call: Call, document: Document) -> None:
    """Stop a deployment that has not switched yet, and those of the same request; back when they have ended."""
    await _send_cancel(platform.commands, document, call.actor, call.command_id)
    fault_point("deploy.canceled")
    for other in await _others(platform.db, document):
        await _quietly(_send_cancel(platform.commands, other, call.actor, f"{call.command_id}:{other['_id']}"))


async def _send_cancel(commands: Commands, document: Document, actor: Actor, command_id: str) -> None:
    command = CancelCommand(id=command_id, actor=actor, not_after=commands.not_after())
    await commands.send(start_of(commands, document), "cancel", command)


async def revalidate(platform: Platform, call: Call, document: Document, *, overwrite: bool) -> None:
    """Have a deployment that drift blocks look again, and with `overwrite` go over what was touched."""
    command = RevalidateCommand(
        id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), overwrite=overwrite
    )
    await platform.commands.send(start_of(platform.commands, document), "revalidate", command)


async def tell_superseded(db: Database, commands: Commands, document: Document) -> None:
    """Tell the deployment whose lock this one has taken, until it knows; a repeat changes nothing."""
    old = await records.find(db, "deployments", document["supersedes_untold"])
    if old is not None and DeploymentState(old["owned"]["state"]) not in TERMINAL:
        command = SupersedeCommand(
            id=f"supersede:{document['_id']}",
            actor=Actor(user_id=document["created_by"]),
            not_after=commands.not_after(),
            by_deployment_id=document["_id"],
        )
        await _quietly(commands.send(start_of(commands, old), "supersede", command))
        # A rollback may take the lock from one that waits for more than drift: what came with it in one request ends with it.
        for other in await _others(db, old) if document["owned"]["kind"] == Kind.ROLLBACK.value else []:
            await _quietly(_send_cancel(commands, other, command.actor, f"supersede:{document['_id']}:{other['_id']}"))
        fault_point("deploy.superseded")
    await db["deployments"].update_one({"_id": document["_id"]}, {"$unset": {"supersedes_untold": ""}})


async def _quietly(sending: Any) -> None:
    """What has ended, or is past the point, has no use for it any more."""
    try:
        await sending
    except DomainError as error:
        if error.code not in (ErrorCode.INVALID_TRANSITION, ErrorCode.CONFLICT):
            raise


async def signal(commands: Commands, deployment_id: str, name: str) -> None:
    """Wake a deployment's workflow; one that is not running is started by upkeep, and looks by itself."""
    await signal_if_running(commands.client, options.deployment_workflow(deployment_id), name)


async def tell_pending(db: Database, commands: Commands, name: str, query: Document) -> int:
    """Wake the pending deployments that `query` finds; returns how many there are."""
    rows = await db["deployments"].find({**query, **_PENDING}, {"_id": 1}).to_list()
    for row in rows:
        await signal(commands, row["_id"], name)
    return len(rows)


async def look_again(db: Database, commands: Commands, app_id: str) -> int:
    """Have the app's pending deployments look whether they may start now; returns how many."""
    return await tell_pending(db, commands, "look_again", {"app_id": app_id})


# -- What upkeep finishes


async def settle_all(db: Database, commands: Commands) -> None:
    """Tell what crashes have left untold: superseded ones, members of a group, and who has got a lock while waiting for it."""
    for document in await db["deployments"].find({"supersedes_untold": {"$exists": True}}).to_list():
        await _or_later(tell_superseded(db, commands, document))
    for document in await db["deployments"].find({**_PENDING, "owned.group_id": {"$ne": None}}).to_list():
        await _or_later(_catch_up(db, commands, document))
    for document in await db["deployments"].find({**_PENDING, "owned.wait": True, "owned.fence": None}).to_list():
        await _or_later(_grant(db, commands, document))


async def _or_later(telling: Any) -> None:
    try:
        await telling
    except ConmanError as error:
        log.warning("deployment_left_to_the_next_round", error=str(error))


async def _catch_up(db: Database, commands: Commands, document: Document) -> None:
    """What was told to others of the same request: their approvals, or a cancel."""
    mine = Deployment.model_validate(document["owned"])
    rows = await db["deployments"].find({"app_id": document["app_id"], "owned.group_id": mine.group_id}).to_list()
    others = [Deployment.model_validate(row["owned"]) for row in rows if row["_id"] != document["_id"]]
    if any(other.state is DeploymentState.CANCELED for other in others):
        await _quietly(_send_cancel(commands, document, Actor(), f"group-cancel:{document['_id']}"))
        return
    known = {approval.user_id for approval in mine.approvals}
    missing: dict[str, Approval] = {one.user_id: one for other in others for one in other.approvals if one.user_id not in known}
    for user_id, approval in sorted(missing.items()):
        command_id = f"group-yes:{document['_id']}:{user_id}:{approval.at}"
        await _quietly(_send_yes(db, commands, document, Actor(user_id=user_id), command_id))


async def _grant(db: Database, commands: Commands, document: Document) -> None:
    owned = document["owned"]
    await locks.advance(db, document["app_id"], owned["environment_id"], now())
    entry = (await locks.read(db, document["app_id"])).get(owned["environment_id"]) or {}
    if (entry.get("holder") or {}).get("deployment_id") == document["_id"]:
        await signal(commands, document["_id"], "lock_granted")
