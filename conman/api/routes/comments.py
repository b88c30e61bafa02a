"""Comments on changesets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.versions import LARGEST_VERSION, IfMatch, Versioned, expected_version
from conman.domain.comment import LONGEST_BODY
from conman.domain.errors import invalid
from conman.domain.paths import MAX_PATH_BYTES
from conman.domain.roles import Capability
from conman.services import comments
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/changesets/{cs}/comments", tags=["changesets"])
_C = Capability


class CommentToMake(Body):
    """A comment on the changeset, on a file or a line of its current revision, or a reply, which stands where its thread does."""

    body: str = Field(min_length=1, max_length=LONGEST_BODY)
    file_path: str | None = Field(default=None, max_length=MAX_PATH_BYTES)
    line_number: int | None = Field(default=None, ge=1, le=LARGEST_VERSION, description="from 1, in the head of the revision")
    parent_comment_id: str | None = Field(default=None, max_length=64)


class CommentPatch(Versioned):
    """Another body (its author alone), or whether the thread is resolved (any member)."""

    body: str | None = Field(default=None, min_length=1, max_length=LONGEST_BODY)
    resolved: bool | None = None


async def _changeset(caller: Caller, changeset_id: str) -> Document:
    return await records.get(caller.platform.db, "changesets", changeset_id, app_id=caller.of_app["_id"], what="changeset")


@router.get("")
async def list_comments(
    cs: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.COMMENT_READ)
) -> dict[str, Any]:
    """The changeset's comments, oldest first."""
    changeset = await _changeset(caller, cs)
    items, part = await comments.page(caller.platform, caller.of_app, changeset, page, limit)
    return listed(items, part)


@router.post("", status_code=201)
async def create_comment(
    cs: str, caller: Caller = capability(_C.COMMENT_CREATE), new: CommentToMake = body(CommentToMake)
) -> dict[str, Any]:
    """Comment on the changeset, a file or a line, or reply."""
    changeset = await _changeset(caller, cs)
    made = comments.NewComment(**new.model_dump())
    return data(await comments.create(caller.platform, caller.call, caller.of_app, changeset, made))


@router.patch("/{comment}")
async def change_comment(
    cs: str,
    comment: str,
    caller: Caller = capability(_C.COMMENT_RESOLVE, _C.COMMENT_EDIT_OWN),
    patch: CommentPatch = body(CommentPatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Edit one's own comment, resolve or reopen a thread."""
    changeset = await _changeset(caller, cs)
    if patch.body is not None:
        caller.require(_C.COMMENT_EDIT_OWN)
    for name in ("body", "resolved"):
        if name in patch.model_fields_set and getattr(patch, name) is None:
            raise invalid(name, "can't be null: leave it out to keep it")
    changed = await comments.change(
        caller.platform,
        caller.call,
        caller.of_app,
        changeset,
        comment,
        body=patch.body,
        resolved=patch.resolved,
        version=expected_version(if_match, patch.version),
    )
    return data(changed)


@router.get("/{comment}/revisions")
async def list_revisions(
    cs: str, comment: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.COMMENT_READ)
) -> dict[str, Any]:
    """What the body of a comment has been, the present one first."""
    found = await comments.revisions(caller.platform, await _changeset(caller, cs), comment, page, limit)
    return listed(found.items, found)
