"""Asking for deployments: the locks are taken, the records inserted, the workflows started; in this order (`durability.md` 15).

The deployments of one request come with one write: the record of the first has those of the others among what leaves it, so that
none is without the others for longer than upkeep takes. A repeat of the request finds them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from conman.domain import deploy_news
from conman.domain import deploy_rules as rules
from conman.domain import deployment as states
from conman.domain.decision import Event
from conman.domain.deploy_rules import Wanted
from conman.domain.deployment import Deployment, DeploymentState, Kind
from conman.domain.drift import DriftItem
from conman.domain.errors import ConmanError, invalid
from conman.domain.hold import app_on_hold
from conman.domain.notification import notice_entry
from conman.domain.outgoing import audit_entry, notice_of
from conman.domain.times import format_time, parse_time
from conman.faults import fault_point
from conman.services.call import Call, record
from conman.services.clock import now
from conman.services.deploy_commands import start_of, tell_superseded
from conman.services.deploy_start import approval_role
from conman.services.new_deployments import new_document, requested
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.services.releases import refuse_unknown_release
from conman.services.surroundings import Scene, look, shown_digest
from conman.store import locks, memberships, records
from conman.store.database import Document
from conman.store.outgoing import deliver, record_to_keep

log = structlog.get_logger(__name__)

TELLING_SECONDS = 5.0
"""How long a request waits for a deployment to take that it is superseded; upkeep tells one that does not answer by then."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for; `not_before` is RFC 3339 as it came."""

    release_id: str
    kind: Kind = Kind.DEPLOY
    skip_stage: bool = False
    override_freeze: bool = False
    not_before: str | None = None
    wait: bool = False


def owned(document: Document) -> Deployment:
    """What the workflow owns of a deployment's document."""
    return Deployment.model_validate(document["owned"])


async def deploy(platform: Platform, call: Call, app: Document, environment_ids: Sequence[str], asked: Asked) -> list[Document]:
    """Take the locks of all these environments, or of none, and start a deployment in each; in stage order.

    A repeat of the same request finds its own. Raises `validation_error`, or the first of what hinders it (`deploy_rules`); then
    nothing is held.
    """
    ids = {environment_id: call.derived_id("deployment", environment_id) for environment_id in environment_ids}
    made = await _made(platform, list(ids.values()))
    if made:
        return await _started(platform, made)
    release = refuse_unknown_release(await records.find(platform.db, "releases", asked.release_id, app_id=app["_id"]))
    at = now()
    not_before = _not_before(asked, at)
    scene = await look(platform.db, app, release, at)
    _refuse_unknown(scene, environment_ids)
    wanted = Wanted(
        release_id=release["_id"],
        start_at=not_before or at,
        kind=asked.kind,
        skip_stage=asked.skip_stage,
        override_freeze=asked.override_freeze,
        wait=asked.wait,
        together=frozenset(environment_ids),
    )
    ordered = [row["_id"] for row in scene.environments if row["_id"] in ids]
    for environment_id in ordered:
        found = rules.hindrances(wanted, scene.of(environment_id, wanted.start_at, besides=ids.values()))
        if found:
            raise found[0].error
    taken = await locks.take(
        platform.db,
        app["_id"],
        {environment_id: ids[environment_id] for environment_id in ordered},
        at,
        wait=asked.wait,
        over=scene.superseding,
        start_at=wanted.start_at,
        kept_by=ids[ordered[0]] if len(ordered) > 1 else None,
    )
    _refuse_not_taken(taken, app["_id"])
    fault_point("deploy.locked")
    documents = await _documents(platform, call, scene, wanted, taken, [(one, ids[one]) for one in ordered], not_before)
    head, others = documents[0], documents[1:]
    head["outgoing"] += [record_to_keep("deployments", other) for other in others]
    await records.insert_once(platform.db, "deployments", head)
    fault_point("deploy.inserted")
    made = await _started(platform, await _made(platform, list(ids.values())))
    if any(entry["kind"] == "notice" for entry in head["outgoing"]):
        await start_notices(platform, _notice_id(call))
    return made


def _notice_id(call: Call) -> str:
    return call.derived_id("notice-approval")


def _not_before(asked: Asked, at: str) -> str | None:
    """When it is to start, None for now. Raises `validation_error`."""
    if asked.not_before is None:
        return None
    try:
        wanted = format_time(parse_time(asked.not_before))
    except ValueError as error:
        raise invalid("not_before", str(error)) from error
    rules.check_not_before(wanted, at)
    return wanted if wanted > at else None


def _refuse_unknown(scene: Scene, environment_ids: Sequence[str]) -> None:
    listed = {row["_id"] for row in scene.environments}
    if not environment_ids:
        raise invalid("environment_ids", "names no environment")
    for number, environment_id in enumerate(environment_ids):
        if environment_id not in listed:
            raise invalid(f"environment_ids.{number}", "is no environment of this app")
        if environment_id in environment_ids[:number]:
            raise invalid(f"environment_ids.{number}", "stands twice in the list")


def _refuse_not_taken(taken: locks.Taken, app_id: str) -> None:
    """The write on the lock document has the last word, since the surroundings were read."""
    if taken.closed is not None:
        raise states.environment_closed(app_too=taken.closed == app_id)
    if taken.hold is not None:
        raise app_on_hold(taken.hold)
    if taken.holder is not None and not taken.waits:
        raise states.environment_locked(taken.holder.deployment_id)


async def _made(platform: Platform, ids: list[str]) -> list[Document]:
    """The deployments of a request that are there, the first one first; what a crash left on its way is brought."""
    while True:
        found = await platform.db["deployments"].find({"_id": {"$in": ids}}).to_list()
        for document in found:
            await deliver(platform.db, "deployments", document)
        if len(found) in (0, len(ids)):
            break  # else the first one was read before it brought the others
    following = {document["owned"].get("after_deployment_id"): document for document in found}
    ordered: list[Document] = []
    last: str | None = None
    while last in following:
        ordered.append(following[last])
        last = ordered[-1]["_id"]
    return ordered


async def _started(platform: Platform, documents: list[Document]) -> list[Document]:
    for document in documents:
        await deliver(platform.db, "deployments", document)
        await platform.commands.start(start_of(platform.commands, document, document.get("title", "")))
    for document in documents:
        if document.get("supersedes_untold") is not None:
            await _tell_soon(platform, document)
    return documents


async def _tell_soon(platform: Platform, document: Document) -> None:
    """Tell whom it superseded, as far as that answers soon; never fails, since upkeep goes on."""
    try:
        async with asyncio.timeout(TELLING_SECONDS):
            await tell_superseded(platform.db, platform.commands, document)
    except (TimeoutError, ConmanError) as error:
        log.warning("superseded_left_to_upkeep", deployment_id=document["_id"], error=str(error))


async def _documents(
    platform: Platform,
    call: Call,
    scene: Scene,
    wanted: Wanted,
    taken: locks.Taken,
    places: list[tuple[str, str]],
    not_before: str | None,
) -> list[Document]:
    """The records to be, in stage order."""
    role = await memberships.role_now(platform.db, scene.app["_id"], call.user_id)
    group_id = call.derived_id("group") if len(places) > 1 else None
    made: list[Document] = []
    for number, (environment_id, deployment_id) in enumerate(places):
        environment = scene.environment(environment_id)
        here = scene.of(environment_id, wanted.start_at, besides=[one for _, one in places])
        reasons = [one for one in rules.exceptional_reasons(wanted, here) if one != "concurrent"]
        if taken.concurrent and not taken.waits:
            reasons = _in_order([*reasons, "concurrent"])
        asked = rules.approvals_asked(reasons, here.required)
        digest = await shown_digest(platform.db, environment, wanted.release_id, scene.release.published_sha)
        agrees = role is not None and (asked.exceptional > 0 or (asked.ordinary > 0 and role >= asked.role))
        ttl_hours = scene.app["settings"]["approval_ttl_hours"]
        state = Deployment(
            app_id=scene.app["_id"],
            environment_id=environment_id,
            release_id=wanted.release_id,
            kind=wanted.kind,
            requested_by=call.user_id,
            requested_at=call.at,
            group_id=group_id,
            after_deployment_id=places[number - 1][1] if number else None,
            skip_stage=wanted.skip_stage,
            override_freeze=wanted.override_freeze,
            wait=wanted.wait,
            not_before=not_before,
            exceptional_reasons=reasons,
            approvals=[states.Approval(user_id=call.user_id, at=call.at, digest=digest)] if agrees else [],
            approvals_required=asked.required,
            approval_role=approval_role(asked),
            approvals_expire_at=states.approvals_deadline(not_before or call.at, ttl_hours) if asked.required else None,
            shown_digest=digest,
            previous_deployment_id=environment["owned"].get("current_deployment_id"),
            job_id=call.derived_id("job", environment_id),
            fence=taken.fences.get(environment_id),
        )
        document = _document(call, deployment_id, state, number, _overridden_freeze(scene, state, wanted.start_at))
        document["title"] = f"{state.kind.value} {scene.release.tag} to {environment['name']}"
        if number == 0 and len(state.approvals) < state.approvals_required:  # a yes for one counts for the whole request
            told = notice_of(
                deploy_news.waits_for_approval(deployment_id, state), app_id=state.app_id, actor=call.actor, at=call.at
            )
            document["outgoing"].append(notice_entry(_notice_id(call), told))
        if environment_id in taken.superseded:
            document["supersedes_untold"] = taken.superseded[environment_id]
        made.append(document)
    return made


def _in_order(reasons: list[str]) -> list[str]:
    return [one for one in ("skip_stage", "multiple_environments", "concurrent", "override_freeze") if one in reasons]


def _overridden_freeze(scene: Scene, state: Deployment, start_at: str) -> dict[str, Any] | None:
    if "override_freeze" not in state.exceptional_reasons:
        return None
    return {
        "windows": scene.freeze_names(state.environment_id, start_at),
        "frozen_until": scene.frozen_until(state.environment_id, start_at),
        "not_before": state.not_before,
    }


def _document(call: Call, deployment_id: str, state: Deployment, number: int, overridden: dict[str, Any] | None) -> Document:
    asked = requested(
        deployment_id,
        state,
        group_id=state.group_id,
        skip_stage=state.skip_stage,
        override_freeze=state.override_freeze,
        wait=state.wait,
        not_before=state.not_before,
        exceptional_reasons=state.exceptional_reasons,
        approvals_required=state.approvals_required,
        approvals_expire_at=state.approvals_expire_at,
    )
    events = [asked]
    if overridden is not None:
        common = {"environment_id": state.environment_id, "release_id": state.release_id, "state": state.state.value}
        before = {"state": state.state.value}
        events.append(Event("deployment", deployment_id, "freeze_overridden", before=before, after={**common, **overridden}))
    audit = [
        audit_entry(call.event_id(2 * number + place), event, app_id=state.app_id, actor=call.actor, at=call.at)
        for place, event in enumerate(events)
    ]
    job_entry_id = call.derived_id("outgoing-job", state.environment_id)
    return new_document(deployment_id, state, audit=audit, job_entry_id=job_entry_id)


# -- Showing


def deployment_record(document: Document) -> dict[str, Any]:
    """A deployment as `api.md` 4 shows it."""
    state = owned(document)
    return record(
        document,
        environment_id=state.environment_id,
        release_id=state.release_id,
        state=state.state.value,
        phase=state.phase.value,
        kind=state.kind.value,
        group_id=state.group_id,
        after_deployment_id=state.after_deployment_id,
        requested_by=state.requested_by,
        skip_stage=state.skip_stage,
        override_freeze=state.override_freeze,
        wait=state.wait,
        exceptional_reasons=state.exceptional_reasons,
        approvals=[{"user_id": approval.user_id, "at": approval.at} for approval in state.approvals],
        approvals_required=state.approvals_required,
        approval_role=state.approval_role,
        approvals_expire_at=state.approvals_expire_at,
        not_before=state.not_before,
        warning=state.warning,
        drift_report=None if state.drift_report is None else [_drift(item) for item in state.drift_report],
        drift_waits_until=state.drift_waits_until,
        rollback=None if state.rollback is None else state.rollback.model_dump(mode="json"),
        profile_revision_id=state.profile_revision_id,
        previous_deployment_id=state.previous_deployment_id,
        reason_code=state.reason_code.value if state.reason_code else None,
        message=state.message,
        job_id=state.job_id,
        gate_job_id=state.gate_job_id,
        fence=state.fence,
        folder=state.folder,
        waiting_for=states.waiting_for(state),
    )


def _drift(item: DriftItem) -> dict[str, Any]:
    return item.model_dump(mode="json")


def parse_states(text: str | None) -> list[str] | None:
    """The states of a `?state=` filter. Raises `validation_error` for an unknown one."""
    if text is None:
        return None
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for state in wanted:
        if state not in {known.value for known in DeploymentState}:
            raise invalid("state", f"{state!r} is no state of a deployment")
    return wanted
