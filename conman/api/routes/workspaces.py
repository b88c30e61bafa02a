"""Workspaces: making, showing, editing, checkpoints, sync, reset."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, cut, data, listed
from conman.api.versions import IfMatch, Versioned, expected_version
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.key_merge import ABSENT, KeyChoice, Take
from conman.domain.roles import Capability
from conman.services import checkpoints, files, saves, sync, workspace_end, workspaces
from conman.services.resolutions import Resolution
from conman.services.sync import Strategy
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/workspaces", tags=["workspaces"])
_C = Capability
MOST_RESOLUTIONS = 1000


class NewWorkspace(Body):
    """`{}` for the default workspace, else an extra one."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    branch_name: str | None = Field(default=None, min_length=1, max_length=200)
    from_release_id: str | None = Field(default=None, min_length=1, max_length=64)


class WorkspacePatch(Versioned):
    """What may be edited; a `commit_mode` of null is the app's default again."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    commit_mode: Literal["submit_commit", "manual_checkpoint"] | None = None


class NewCheckpoint(Body):
    """A commit of what is pending."""

    message: str | None = Field(default=None, min_length=1, max_length=2000)


class KeyTake(Body):
    """Which value one conflicting key gets."""

    pointer: str = Field(max_length=8192)
    take: Literal["base", "ours", "theirs", "value"]
    value: Any = None


class Resolved(Body):
    """What becomes of one conflicting path: `content` (base64), `deleted: true`, or a choice for each of its `keys`."""

    path: str = Field(max_length=8192)
    content: str | None = None
    deleted: bool | None = None
    keys: list[KeyTake] | None = Field(default=None, max_length=100_000)


class SyncRequest(Body):
    """How to bring the workspace onto the integration branch."""

    strategy: Literal["rebase", "merge"] | None = None
    resolutions: list[Resolved] | None = Field(default=None, max_length=MOST_RESOLUTIONS)


async def own_workspace(caller: Caller, workspace_id: str, own: Capability) -> Document:
    """A workspace on which the caller has a capability. Raises `not_found` or `forbidden`."""
    found = await workspaces.find(caller.platform, caller.of_app, workspace_id)
    caller.require_own(found["owner_user_id"], own)
    return found


async def _shown(caller: Caller, workspace_id: str) -> dict[str, Any]:
    found = await workspaces.find(caller.platform, caller.of_app, workspace_id)
    return data(await workspaces.workspace_record(caller.platform, caller.of_app, found))


@router.get("")
async def list_workspaces(
    page: int = PageNumber,
    limit: int = PageLimit,
    owner: str | None = Query(None, max_length=64),
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """The caller's workspaces (an app_admin's: all, or of one owner); the first listing makes the default one."""
    if not caller.of_app["archived"]:
        await workspaces.default_workspace(caller.platform, caller.call, caller.of_app)
    await workspace_end.finish_deletions(caller.platform, caller.of_app)
    query: dict[str, Any] = {"app_id": caller.of_app["_id"], "ready": True, "deleting": {"$ne": True}}
    if not caller.may(_C.WORKSPACE_READ_ANY):
        if owner not in (None, caller.user["_id"]):
            raise DomainError(ErrorCode.FORBIDDEN, "Only an app admin sees other people's workspaces.")
        query["owner_user_id"] = caller.user["_id"]
    elif owner is not None:
        query["owner_user_id"] = owner
    found = await records.page(caller.platform.db, "workspaces", query, number=page, limit=limit)
    shown = [await workspaces.workspace_record(caller.platform, caller.of_app, row) for row in found.items]
    return listed(shown, found)


@router.post("", status_code=201, responses={200: {"description": "the default one, which was there"}})
async def create_workspace(
    response: Response,
    caller: Caller = capability(_C.WORKSPACE_CREATE_OWN),
    new: NewWorkspace = body(NewWorkspace),
) -> dict[str, Any]:
    """The caller's default workspace, or an extra one."""
    if new.title is None and new.branch_name is None and new.from_release_id is None:
        made, fresh = await workspaces.default_workspace(caller.platform, caller.call, caller.of_app)
        if not fresh:
            response.status_code = 200
    else:
        made = await workspaces.extra_workspace(
            caller.platform,
            caller.call,
            caller.of_app,
            title=new.title,
            branch_name=new.branch_name,
            from_release_id=new.from_release_id,
        )
    return data(await workspaces.workspace_record(caller.platform, caller.of_app, made))


@router.get("/{ws}")
async def show_workspace(ws: str, caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY)) -> dict[str, Any]:
    """One workspace."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    return data(await workspaces.workspace_record(caller.platform, caller.of_app, found))


@router.patch("/{ws}")
async def edit_workspace(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    patch: WorkspacePatch = body(WorkspacePatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change title or commit mode."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    version = expected_version(if_match, patch.version)
    change = {name: getattr(patch, name) for name in ("title", "commit_mode") if name in patch.model_fields_set}
    if change:
        await workspaces.revise(caller.platform, caller.call, caller.of_app, found, change=change, version=version)
    return await _shown(caller, ws)


@router.delete("/{ws}", status_code=204)
async def delete_workspace(ws: str, caller: Caller = capability(_C.WORKSPACE_DELETE_OWN, _C.WORKSPACE_DELETE_ANY)) -> None:
    """Delete it with its branch; revisions that were submitted from it stay."""
    if await workspace_end.was_deleted_by(caller.platform, caller.call, ws):
        await workspace_end.finish_deletions(caller.platform, caller.of_app)
        return
    try:
        found = await own_workspace(caller, ws, _C.WORKSPACE_DELETE_OWN)
        await workspace_end.delete(caller.platform, caller.call, caller.of_app, found)
    except DomainError as error:
        # A repeat at the same moment may have come to the end first.
        if error.code is not ErrorCode.NOT_FOUND or not await workspace_end.was_deleted_by(caller.platform, caller.call, ws):
            raise


@router.post("/{ws}/reset")
async def reset_workspace(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_RESET_OWN, _C.WORKSPACE_RESET_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Go back to the baseline; what is pending is dropped."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_RESET_OWN)
    await workspace_end.reset(caller.platform, caller.call, caller.of_app, found)
    return await _shown(caller, ws)


@router.post("/{ws}/checkpoints", status_code=201)
async def make_checkpoint(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_CHECKPOINT_OWN, _C.WORKSPACE_CHECKPOINT_ANY),
    new: NewCheckpoint = body(NewCheckpoint),
) -> dict[str, Any]:
    """Make a commit of what is pending."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_CHECKPOINT_OWN)
    made = await checkpoints.checkpoint(caller.platform, caller.call, caller.of_app, found, new.message)
    return data({"commit_sha": made})


@router.post("/{ws}/sync-integration")
async def sync_workspace(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_SYNC_OWN, _C.WORKSPACE_SYNC_ANY),
    wanted: SyncRequest = body(SyncRequest),
) -> dict[str, Any]:
    """Bring the workspace onto the integration branch, or say where it conflicts."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_SYNC_OWN)
    limit = caller.of_app["settings"]["file_size_limit_bytes"]
    resolutions = [_resolution(one, f"resolutions.{number}", limit) for number, one in enumerate(wanted.resolutions or [])]
    strategy = Strategy(wanted.strategy) if wanted.strategy is not None else None
    return data(await sync.sync(caller.platform, caller.call, caller.of_app, found, strategy=strategy, resolutions=resolutions))


def _resolution(given: Resolved, field: str, limit: int) -> Resolution:
    if [given.content is not None, given.deleted is True, given.keys is not None].count(True) != 1 or given.deleted is False:
        raise invalid(field, "needs one of content, deleted: true, or keys")
    if given.keys is not None:
        return Resolution(given.path, keys=tuple(_choice(key, f"{field}.keys.{n}") for n, key in enumerate(given.keys)))
    if given.content is not None:
        return Resolution(given.path, content=saves.decode(given.content, limit, f"{field}.content"))
    return Resolution(given.path)


def _choice(given: KeyTake, field: str) -> KeyChoice:
    has_value = "value" in given.model_fields_set
    if has_value != (given.take == "value"):
        raise invalid(f"{field}.value", "stands with take: value, and only there")
    return KeyChoice(given.pointer, Take(given.take), given.value if has_value else ABSENT)


@router.get("/{ws}/diff")
async def diff(
    ws: str,
    page: int = PageNumber,
    limit: int = PageLimit,
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """What the workspace changes against its base, pending edits in."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    shown = await workspaces.workspace_record(caller.platform, caller.of_app, found)
    rows = await files.workspace_diff(caller.platform, caller.of_app, found, shown["base_sha"])
    part = cut(rows, page, limit)
    stats = {
        "files": len(rows),
        "additions": sum(row["additions"] for row in rows),
        "deletions": sum(row["deletions"] for row in rows),
    }
    made = {"base_sha": shown["base_sha"], "head_sha": shown["head_sha"], "stats": stats, "files": part["data"]}
    return {"data": made, "pagination": part["pagination"]}
