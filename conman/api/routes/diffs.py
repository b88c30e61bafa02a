"""Diffs of changesets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from conman.api.access import Caller, capability
from conman.api.routes import PageLimit, PageNumber
from conman.domain.roles import Capability
from conman.services import diffs
from conman.store import records

router = APIRouter(prefix="/apps/{app}", tags=["changesets"])
_C = Capability


@router.get("/changesets/{cs}/diff")
async def changeset_diff(
    cs: str,
    mode: Literal["raw"] = "raw",
    revision: Annotated[int | None, Query(ge=1)] = None,
    page: int = PageNumber,
    limit: int = PageLimit,
    caller: Caller = capability(_C.DIFF_READ),
) -> dict[str, Any]:
    """The raw diff of a revision against its base."""
    changeset = await records.get(caller.platform.db, "changesets", cs, app_id=caller.of_app["_id"], what="changeset")
    return await diffs.raw_diff(caller.platform, caller.of_app, changeset, revision, page, limit)
