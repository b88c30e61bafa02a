"""Releases: their commands and records (`spec.md` 11)."""

from __future__ import annotations

from typing import Any

from conman.domain import release as rules
from conman.domain.errors import DomainError, ErrorCode, Unavailable, invalid, not_found
from conman.domain.release import Move, Release
from conman.services.call import Call, record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from conman.workflows.client import EntityWorkflow
from conman.workflows.release import AssembleCommand, DropCommand, PublishCommand, SelectCommand


def owned(document: Document) -> Release:
    """What the workflow owns of a release's document."""
    return Release.model_validate(document["owned"])


def _workflow(platform: Platform, document: Document) -> EntityWorkflow:
    return platform.commands.release_start(document["app_id"], document["_id"], document["owned"].get("tag") or "")


async def find(platform: Platform, app: Document, release_id: str) -> Document:
    """A release of the app that was created. Raises `not_found`."""
    document = await records.get(platform.db, "releases", release_id, app_id=app["_id"], what="release")
    if not document["owned"]["created"]:
        raise not_found("release")
    return document


async def create(platform: Platform, call: Call, app: Document, changeset_ids: list[str]) -> Document:
    """A draft with a reserved selection and a tag. Raises `conflict` (nothing reserved) or `validation_error`."""
    _check_distinct(changeset_ids)
    release_id = call.derived_id("release")
    document = {
        "_id": release_id,
        "app_id": app["_id"],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "owned": Release(app_id=app["_id"]).model_dump(mode="json"),
        "outgoing": [],
    }
    made, _ = await records.insert_once(platform.db, "releases", document)
    await select(platform, call, made, changeset_ids)
    return await find(platform, app, release_id)


def _check_distinct(changeset_ids: list[str]) -> None:
    if len(set(changeset_ids)) != len(changeset_ids):
        raise invalid("changeset_ids", "names a changeset twice")


async def select(platform: Platform, call: Call, document: Document, changeset_ids: list[str]) -> None:
    """Set the whole selection, in merge order."""
    _check_distinct(changeset_ids)
    command = SelectCommand(
        id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), changeset_ids=changeset_ids
    )
    await platform.commands.send(_workflow(platform, document), "select", command)


async def reorder(platform: Platform, call: Call, document: Document, ordered: list[str]) -> None:
    """Another merge order of the same selection. Raises `validation_error` for anything else."""
    state = owned(document)
    if state.remembered(call.command_id) is None and sorted(ordered) != sorted(state.ordered_changeset_ids):
        raise invalid("ordered_changeset_ids", "must name every changeset of the release, each once")
    await select(platform, call, document, ordered)


def edited(document: Document, *, whole: list[str] | None, add: list[str], remove: list[str]) -> list[str]:
    """The selection after an edit: the whole one, or the present one with some more and some less."""
    if whole is not None:
        if add or remove:
            raise invalid("changeset_ids", "give either the whole selection, or add and remove")
        return whole
    present = owned(document).ordered_changeset_ids
    return [one for one in present if one not in remove] + [one for one in add if one not in present]


async def assemble(platform: Platform, call: Call, document: Document) -> str:
    """Start an assembly; the id of its job."""
    command = AssembleCommand(
        id=call.command_id,
        actor=call.actor,
        not_after=platform.commands.not_after(),
        job_id=call.derived_id("job"),
    )
    result = await platform.commands.send(_workflow(platform, document), "assemble", command)
    return str(result["job_id"])


async def publish(platform: Platform, call: Call, document: Document) -> bool:
    """Publish; False when it takes longer than `publish_wait_seconds` and goes on by itself."""
    command = PublishCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after())
    try:
        await platform.commands.send(
            _workflow(platform, document), "publish", command, timeout_seconds=platform.settings.publish_wait_seconds
        )
    except Unavailable as error:
        present = owned(await records.get(platform.db, "releases", document["_id"]))
        busy = present.edit or present.publishing
        if error.code is ErrorCode.OUTCOME_UNKNOWN and busy is not None and busy.command_id == call.command_id:
            return False
        if present.published_sha is not None:
            return True
        raise
    return True


async def drop(platform: Platform, call: Call, document: Document) -> None:
    """Give a draft or validated release up; its changesets are free again."""
    command = DropCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after())
    await platform.commands.send(_workflow(platform, document), "drop", command)


def check_open(document: Document) -> None:
    """Edits need an open release. Raises `invalid_transition`."""
    rules.target(owned(document).state, Move.EDIT)


def release_record(document: Document) -> dict[str, Any]:
    """A release as `api.md` 4 shows it."""
    state = owned(document)
    return record(
        document,
        tag=state.tag,
        state=state.state.value,
        ordered_changeset_ids=state.ordered_changeset_ids,
        base_sha=state.base_sha,
        candidate_sha=state.candidate_sha,
        published_sha=state.published_sha,
        published_at=state.published_at,
        published_by=state.published_by,
        failure=state.failure.model_dump(mode="json") if state.failure else None,
        job_id=state.job_id,
        supersedes=state.supersedes,
        reverts_release_id=state.reverts_release_id,
        waiting_for=rules.waiting_for(state),
    )


def parse_state(text: str | None) -> list[str] | None:
    """The states of a `?state=` filter. Raises `validation_error` for an unknown one."""
    if text is None:
        return None
    known = {state.value for state in rules.ReleaseState}
    states = [part.strip() for part in text.split(",") if part.strip()]
    for state in states:
        if state not in known:
            raise invalid("state", f"{state!r} is no state; known are {', '.join(sorted(known))}")
    return states


def refuse_unknown_release(release: Document | None) -> Document:
    """The release that a deployment names. Raises `validation_error`."""
    if release is None or not release["owned"]["created"]:
        raise DomainError(
            ErrorCode.VALIDATION_ERROR,
            "release_id: there is no such release in this app.",
            [{"field": "release_id", "message": "there is no such release in this app"}],
        )
    return release
