"""Releases: their commands and records (`spec.md` 11)."""

from __future__ import annotations

from typing import Any

from conman.domain import release as rules
from conman.domain.errors import DomainError, ErrorCode, Unavailable, invalid, not_found
from conman.domain.release import Release, Selection
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
    _check_distinct("changeset_ids", changeset_ids)
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
    await _select(platform, call, made, Selection(changeset_ids=changeset_ids))
    return await find(platform, app, release_id)


def _check_distinct(field: str, changeset_ids: list[str]) -> None:
    if len(set(changeset_ids)) != len(changeset_ids):
        raise invalid(field, "names a changeset twice")


def check_version(document: Document, version: int | None) -> None:
    """Whether the release is the one that the writer read. Raises `stale_write`.

    Its `version` is that of the part that services own, which nothing changes; what its workflow owns is compared there.
    """
    if version not in (None, document["version"]):
        raise records.stale(document["version"])


async def _select(platform: Platform, call: Call, document: Document, selection: Selection) -> None:
    command = SelectCommand(
        id=call.command_id,
        actor=call.actor,
        not_after=platform.commands.not_after(),
        changeset_ids=selection.changeset_ids,
        selection=selection,
    )
    await platform.commands.send(_workflow(platform, document), "select", command)


async def edit(
    platform: Platform,
    call: Call,
    document: Document,
    *,
    whole: list[str] | None,
    add: list[str],
    remove: list[str],
    version: int | None = None,
) -> None:
    """Set the whole selection, in merge order, or take some out of the present one and add some at its end.

    The release decides what the present one is, so that of two who add something at once neither undoes the other. Raises
    `validation_error`, `stale_write`, `conflict` (nothing reserved) and `invalid_transition`.
    """
    if whole is not None:
        if add or remove:
            raise invalid("changeset_ids", "give either the whole selection, or add and remove")
        _check_distinct("changeset_ids", whole)
        selection = Selection(changeset_ids=whole)
    else:
        if not add and not remove:
            raise invalid("changeset_ids", "give the whole selection, or what to add or remove")
        _check_distinct("add", add)
        if set(add) & set(remove):
            raise invalid("add", "names a changeset that remove names too")
        selection = Selection(kind="change", add=add, remove=remove)
    check_version(document, version)
    await _select(platform, call, document, selection)


async def reorder(platform: Platform, call: Call, document: Document, ordered: list[str]) -> None:
    """Another merge order of the present selection. Raises `validation_error` for anything else, and `invalid_transition`."""
    await _select(platform, call, document, Selection(kind="reorder", changeset_ids=ordered))


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
