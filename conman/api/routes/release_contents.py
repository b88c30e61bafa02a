"""What is in a release: its diff and its notes."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from conman.api.access import Caller, capability
from conman.api.routes import PageLimit, PageNumber, data
from conman.domain.roles import Capability
from conman.services import diffs, release_diffs, releases, semantic_diffs
from conman.services.release_notes import release_notes

router = APIRouter(prefix="/apps/{app}/releases/{r}", tags=["releases"])
_C = Capability
MARKDOWN = "text/markdown"


@router.get("/diff")
async def release_diff(
    r: str,
    mode: Literal["raw", "semantic"] = "raw",
    against: str | None = Query(None, max_length=64, description="id or tag of another release"),
    page: int = PageNumber,
    limit: int = PageLimit,
    caller: Caller = capability(_C.RELEASE_READ),
) -> dict[str, Any]:
    """A release against the one published before it, or against any other; in the shapes of a changeset's diff.

    Of an open release, what its candidate changes now.
    """
    platform, app = caller.platform, caller.of_app
    found = await releases.find(platform, app, r)
    if against is None:
        sides = await release_diffs.compared(platform, app, found)
    else:
        sides = await release_diffs.compared_with(platform, app, found, against)
    if mode == "semantic":
        return await semantic_diffs.semantic_page(platform.git, app["repo_path"], sides, page, limit)
    return await diffs.raw_diff(platform.git, app["repo_path"], sides, page, limit)


@router.get("/notes", response_model=None, responses={200: {"content": {MARKDOWN: {"schema": {"type": "string"}}}}})
async def show_notes(r: str, request: Request, caller: Caller = capability(_C.RELEASE_READ)) -> dict[str, Any] | Response:
    """What each changeset of the release changes, in words; with `Accept: text/markdown` the text alone."""
    found = await releases.find(caller.platform, caller.of_app, r)
    notes = await release_notes(caller.platform, caller.of_app, found)
    if request.headers.get("accept", "").split(";")[0].split(",")[0].strip().lower() == MARKDOWN:
        return PlainTextResponse(notes["text"], media_type=MARKDOWN)
    return data(notes)
