"""Workspaces and their files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, cut, data, listed
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.roles import Capability
from conman.git.adapter import FileContent
from conman.services import files, workspaces
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/workspaces", tags=["workspaces"])
_C = Capability


class NewWorkspace(Body):
    """`{}` for the default workspace, else an extra one."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    branch_name: str | None = Field(default=None, min_length=1, max_length=200)


class FileWrite(Body):
    """One file to save; `content` is base64."""

    path: str = Field(max_length=8192)
    content: str
    message: str | None = Field(default=None, max_length=2000)
    expected_blob_id: str | None = Field(default=None, max_length=64)


class FileDelete(Body):
    """One file to delete."""

    path: str | None = Field(default=None, max_length=8192)
    message: str | None = Field(default=None, max_length=2000)
    expected_blob_id: str | None = Field(default=None, max_length=64)


async def _workspace(caller: Caller, workspace_id: str, own: Capability) -> Document:
    found = await records.get(caller.platform.db, "workspaces", workspace_id, app_id=caller.of_app["_id"], what="workspace")
    caller.require_own(found["owner_user_id"], own)
    return found


@router.get("")
async def list_workspaces(
    page: int = PageNumber,
    limit: int = PageLimit,
    owner: str | None = Query(None, max_length=64),
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """The caller's workspaces (an app_admin's: all, or of one owner); the first listing makes the default one."""
    await workspaces.default_workspace(caller.platform, caller.call, caller.of_app)
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    if not caller.may(_C.WORKSPACE_READ_ANY):
        if owner not in (None, caller.user["_id"]):
            raise DomainError(ErrorCode.FORBIDDEN, "Only an app admin sees other people's workspaces.")
        query["owner_user_id"] = caller.user["_id"]
    elif owner is not None:
        query["owner_user_id"] = owner
    found = await records.page(caller.platform.db, "workspaces", query, number=page, limit=limit)
    shown = [await workspaces.workspace_record(caller.platform, caller.of_app, row) for row in found.items]
    return listed(shown, found)


@router.post("", status_code=201)
async def create_workspace(
    response: Response,
    caller: Caller = capability(_C.WORKSPACE_CREATE_OWN),
    new: NewWorkspace = body(NewWorkspace),
) -> dict[str, Any]:
    """The caller's default workspace, or an extra one."""
    if new.title is None and new.branch_name is None:
        made, fresh = await workspaces.default_workspace(caller.platform, caller.call, caller.of_app)
        if not fresh:
            response.status_code = 200
    else:
        made = await workspaces.extra_workspace(
            caller.platform, caller.call, caller.of_app, title=new.title, branch_name=new.branch_name
        )
    return data(await workspaces.workspace_record(caller.platform, caller.of_app, made))


@router.get("/{ws}")
async def show_workspace(ws: str, caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY)) -> dict[str, Any]:
    """One workspace."""
    found = await _workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    return data(await workspaces.workspace_record(caller.platform, caller.of_app, found))


@router.get("/{ws}/files")
async def read_files(
    ws: str,
    path: Annotated[str, Query(max_length=8192)] = "",
    recursive: bool = False,
    page: int = PageNumber,
    limit: int = Query(100, ge=1, le=100),
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """A folder's entries, or a file."""
    found = await _workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    there = await files.read(caller.platform, caller.of_app, found, path=path, recursive=recursive)
    if isinstance(there, FileContent):
        pending = await files.is_pending(caller.platform, caller.of_app, found, there)
        return data(files.shown(there, pending=pending))
    return cut(there, page, limit)


@router.put("/{ws}/files")
async def write_file(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    new: FileWrite = body(FileWrite),
) -> dict[str, Any]:
    """Save one file as a pending edit."""
    found = await _workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    written = await files.write_file(
        caller.platform,
        caller.call,
        caller.of_app,
        found,
        path=new.path,
        content=new.content,
        message=new.message,
        expected_blob_id=new.expected_blob_id,
    )
    return data(_written(written))


@router.delete("/{ws}/files", status_code=204)
async def delete_file(
    ws: str,
    path: Annotated[str | None, Query(max_length=8192)] = None,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    gone: FileDelete = body(FileDelete),
) -> None:
    """Delete one file as a pending edit."""
    found = await _workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    named = gone.path if gone.path is not None else path
    if named is None:
        raise invalid("path", "name the file to delete")
    await files.delete_file(
        caller.platform,
        caller.call,
        caller.of_app,
        found,
        path=named,
        message=gone.message,
        expected_blob_id=gone.expected_blob_id,
    )


def _written(written: files.Written) -> dict[str, Any]:
    return {
        "path": written.path,
        "blob_id": written.blob_id,
        "commit_sha": None,
        "pending_edits": written.pending_edits,
    }


@router.get("/{ws}/diff")
async def diff(
    ws: str,
    page: int = PageNumber,
    limit: int = PageLimit,
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """What the workspace changes against its base, pending edits in."""
    found = await _workspace(caller, ws, _C.WORKSPACE_READ_OWN)
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
