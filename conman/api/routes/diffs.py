"""Diffs of changesets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from conman.api.access import Caller, capability
from conman.api.routes import PageLimit, PageNumber
from conman.domain.changeset import Changeset, ChangesetState
from conman.domain.roles import Capability
from conman.services import diffs, semantic_diffs
from conman.store import records

router = APIRouter(prefix="/apps/{app}", tags=["changesets"])
_C = Capability
RevisionNumber = Annotated[int | None, Query(ge=1, le=1_000_000)]


@router.get("/changesets/{cs}/diff")
async def changeset_diff(
    cs: str,
    mode: Literal["raw", "semantic"] = "raw",
    revision: RevisionNumber = None,
    against: RevisionNumber = None,
    page: int = PageNumber,
    limit: int = PageLimit,
    caller: Caller = capability(_C.DIFF_READ),
) -> dict[str, Any]:
    """A revision (the latest by default) against its base or against another revision.

    Of a draft that was never submitted, those who may read its workspace see what it changes now.
    """
    found = await records.get(caller.platform.db, "changesets", cs, app_id=caller.of_app["_id"], what="changeset")
    changeset = Changeset.model_validate(found["owned"])
    sides = diffs.revision_sides(changeset, revision, against) or await draft_shown(caller, changeset)
    git, repo = caller.platform.git, caller.of_app["repo_path"]
    if mode == "semantic":
        return await semantic_diffs.semantic_page(git, repo, sides, page, limit)
    return await diffs.raw_diff(git, repo, sides, page, limit)


async def draft_shown(caller: Caller, changeset: Changeset) -> diffs.Sides:
    """What a draft that was never submitted changes now, for those who may read its workspace. Raises `not_found`."""
    workspace = await caller.platform.db["workspaces"].find_one({"_id": changeset.workspace_id})
    if changeset.state is not ChangesetState.DRAFT or workspace is None:
        raise diffs.nothing_submitted()
    if workspace["owner_user_id"] != caller.user["_id"] and not caller.may(_C.WORKSPACE_READ_ANY):
        raise diffs.nothing_submitted()
    return await diffs.draft_sides(caller.platform, caller.of_app, workspace)
