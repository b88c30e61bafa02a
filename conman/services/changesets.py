"""Changesets: their making, their title and description, and how many approvals they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError

from conman.domain.changeset import TERMINAL, Changeset, ChangesetState
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.services.call import Call, has_happened
from conman.services.overrides import overrides_canonical
from conman.services.platform import Platform
from conman.services.workspace_end import give_back_abandoned
from conman.store import records
from conman.store.database import Document


def owned(document: Document) -> Changeset:
    """What the workflow owns of a changeset's document."""
    return Changeset.model_validate(document["owned"])


async def create(
    platform: Platform, call: Call, app: Document, workspace: Document, *, title: str, description: str | None
) -> Document:
    """A draft on a workspace. Raises `conflict` when the workspace has an open changeset (a unique index holds it)."""
    changeset_id = call.derived_id("changeset")
    state = Changeset(
        app_id=app["_id"],
        author_user_id=call.user_id,
        workspace_id=workspace["_id"],
        title=title,
        hotpatch=workspace["hotpatch"],
        required_approvals=app["settings"]["required_approval_count"],
    )
    event = Event(
        "changeset",
        changeset_id,
        "created",
        after={"workspace_id": workspace["_id"], "author_user_id": call.user_id, "title": title, "state": "draft"},
    )
    document = {
        "_id": changeset_id,
        "app_id": app["_id"],
        "title": title,
        "description": description,
        "open_slot": workspace["_id"],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "owned": state.model_dump(mode="json"),
        "outgoing": call.audit(event, app_id=app["_id"]),
    }
    try:
        made, _ = await records.insert_once(platform.db, "changesets", document)
    except DuplicateKeyError as error:
        there = await platform.db["changesets"].find_one({"open_slot": workspace["_id"]})
        if there is not None and "owned" not in there:  # a deletion of the workspace has taken its place
            if await give_back_abandoned(platform.db, workspace["_id"]):
                return await create(platform, call, app, workspace, title=title, description=description)
            raise not_found("workspace") from error
        raise DomainError(
            ErrorCode.CONFLICT,
            "The workspace has an open changeset: finish or withdraw it first.",
            {"changeset_id": there["_id"] if there else None},
        ) from error
    return made


def required_approvals(app: Document, state: Changeset, overrides: Sequence[Any] | None = None) -> int:
    """How many approvals this changeset needs with `overrides`, without which those of its current revision count.

    A hotpatch needs two at least, and so may overrides of the canonical environment's profile (`spec.md` 3 and 6).
    """
    if overrides is None:
        overrides = state.revisions[-1].overrides if state.revisions else []
    count = int(app["settings"]["required_approval_count"])
    return max(count, 2) if state.hotpatch or overrides_canonical(app, overrides) else count


async def revise(
    platform: Platform, call: Call, app: Document, document: Document, *, change: dict[str, Any], version: int | None
) -> Document:
    """Change title or description while it is not at its end."""
    state = owned(document)
    if state.state in TERMINAL:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A changeset that is {state.state.value} can't be edited.",
            {"from": state.state.value, "to": state.state.value},
        )
    expected = version
    while not await has_happened(platform.db, call, document):
        before = {name: document.get(name) for name in change}
        event = Event("changeset", document["_id"], "updated", before=before, after=change)
        if version is None:  # no version was named: what is shown as before must still be what stood there
            expected = document["version"]
        try:
            return await records.update_part(
                platform.db,
                "changesets",
                document["_id"],
                set_fields=change,
                at=call.at,
                outgoing=call.audit(event, app_id=app["_id"]),
                expected_version=expected,
            )
        except DomainError as error:
            document = await records.get(platform.db, "changesets", document["_id"], what="changeset")
            if version is not None and not await has_happened(platform.db, call, document):
                raise error
    return document


def parse_states(text: str | None) -> list[str] | None:
    """The states of a `?state=a,b` filter. Raises `validation_error` for an unknown one."""
    if text is None:
        return None
    states = [part.strip() for part in text.split(",") if part.strip()]
    known = {state.value for state in ChangesetState}
    for state in states:
        if state not in known:
            raise invalid("state", f"{state!r} is no state; known are {', '.join(sorted(known))}")
    return states
