"""Releases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from conman.activities.gates import GateActivities
from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.versions import IfMatch, expected_version
from conman.domain.messages import GateStart
from conman.domain.roles import Capability
from conman.services import dry_runs, releases
from conman.services.jobs import job_record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/releases", tags=["releases"])
_C = Capability

Ids = list[Annotated[str, Field(max_length=64)]]


class NewRelease(Body):
    """A selection from the queue, in merge order."""

    changeset_ids: Ids = Field(default_factory=list, max_length=1000)


class Edit(Body):
    """The whole selection, or some more and some less."""

    changeset_ids: Ids | None = Field(default=None, max_length=1000)
    add: Ids = Field(default_factory=list, max_length=1000)
    remove: Ids = Field(default_factory=list, max_length=1000)


class Order(Body):
    """Another merge order."""

    ordered_changeset_ids: Ids = Field(max_length=1000)


@router.get("")
async def list_releases(
    page: int = PageNumber,
    limit: int = PageLimit,
    state: str | None = Query(None, max_length=200),
    caller: Caller = capability(_C.RELEASE_READ),
) -> dict[str, Any]:
    """The app's releases."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"], "owned.created": True}
    states = releases.parse_state(state)
    if states is not None:
        query["owned.state"] = {"$in": states}
    found = await records.page(caller.platform.db, "releases", query, number=page, limit=limit)
    return listed([releases.release_record(row) for row in found.items], found)


@router.post("", status_code=201)
async def create_release(caller: Caller = capability(_C.RELEASE_MANAGE), new: NewRelease = body(NewRelease)) -> dict[str, Any]:
    """A draft that reserves its selection."""
    made = await releases.create(caller.platform, caller.call, caller.of_app, new.changeset_ids)
    return data(releases.release_record(made))


async def _found(r: str, caller: Caller, if_match: str | None) -> Document:
    """The release that a command names, as its writer read it. Raises `not_found` and `stale_write`."""
    found = await releases.find(caller.platform, caller.of_app, r)
    releases.check_version(found, expected_version(if_match))
    return found


@router.get("/{r}")
async def show_release(r: str, caller: Caller = capability(_C.RELEASE_READ)) -> dict[str, Any]:
    """One release."""
    return data(releases.release_record(await releases.find(caller.platform, caller.of_app, r)))


@router.delete("/{r}", status_code=204)
async def drop_release(r: str, caller: Caller = capability(_C.RELEASE_MANAGE), if_match: IfMatch = None) -> None:
    """Drop a draft or validated release."""
    found = await _found(r, caller, if_match)
    await releases.drop(caller.platform, caller.call, found)


@router.post("/{r}/changesets")
async def edit_release(
    r: str, caller: Caller = capability(_C.RELEASE_MANAGE), edit: Edit = body(Edit), if_match: IfMatch = None
) -> dict[str, Any]:
    """Change the selection; a validated release returns to draft."""
    version = expected_version(if_match)
    found = await releases.find(caller.platform, caller.of_app, r)
    await releases.edit(
        caller.platform,
        caller.call,
        found,
        whole=edit.changeset_ids,
        add=edit.add,
        remove=edit.remove,
        version=version,
    )
    return await show_release(r, caller)


@router.post("/{r}/reorder")
async def reorder_release(
    r: str, caller: Caller = capability(_C.RELEASE_MANAGE), order: Order = body(Order), if_match: IfMatch = None
) -> dict[str, Any]:
    """Change the merge order; a validated release returns to draft."""
    found = await _found(r, caller, if_match)
    await releases.reorder(caller.platform, caller.call, found, order.ordered_changeset_ids)
    return await show_release(r, caller)


@router.post("/{r}/assemble", status_code=202, responses={200: {"description": "a dry run: what would happen"}})
async def assemble_release(
    r: str,
    response: Response,
    dry_run: bool = Query(False, description="tell what would happen, and change nothing"),
    caller: Caller = capability(_C.RELEASE_MANAGE),
    _: Empty = body(Empty),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Compose the candidate and run the release gate on it."""
    found = await _found(r, caller, if_match)
    if dry_run:
        told = await dry_runs.dry_run(caller.platform, caller.call, caller.of_app, found, _reuse(caller.platform))
        response.status_code = 200
        return data({"release": releases.release_record(found), "job": None, "dry_run": told})
    job_id = await releases.assemble(caller.platform, caller.call, found)
    job = await records.get(caller.platform.db, "jobs", job_id, what="job")
    present = await releases.find(caller.platform, caller.of_app, r)
    return data({"release": releases.release_record(present), "job": job_record(job)})


def _reuse(platform: Platform) -> dry_runs.Kept:
    """Whether suites would be answered from kept results; without master keys there is no profile to compare with theirs."""

    async def unknown(_gate: GateStart, _tree_id: str) -> bool:
        return False

    if platform.keyring is None:
        return unknown
    return GateActivities(platform.settings, platform.db, platform.git, platform.vault).would_reuse


@router.post("/{r}/publish", responses={202: {"description": "not published within 20 s: it goes on"}})
async def publish_release(
    r: str,
    response: Response,
    caller: Caller = capability(_C.RELEASE_MANAGE),
    _: Empty = body(Empty),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Move the integration branch and make the tag, in one transaction."""
    found = await _found(r, caller, if_match)
    if not await releases.publish(caller.platform, caller.call, found):
        response.status_code = 202
    present = await releases.find(caller.platform, caller.of_app, r)
    return data({"release": releases.release_record(present)})
