"""Files of a workspace: reading, saving, many at once, raw bytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.errors import envelope
from conman.api.file_replies import file_reply, type_by_name
from conman.api.ranges import UnsatisfiableRangeError
from conman.api.routes import PageNumber, data
from conman.api.routes.workspaces import own_workspace
from conman.domain.errors import ErrorCode, invalid
from conman.domain.roles import Capability
from conman.services import files, saves
from conman.services.files import FileShown
from conman.services.saves import LARGEST_BATCH, BatchChange

router = APIRouter(prefix="/apps/{app}/workspaces/{ws}/files", tags=["files"])
_C = Capability


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


class FileChange(Body):
    """One change of many; `to` is for a move, `content` (base64) for a write, and for a move that changes the file too."""

    action: Literal["write", "delete", "move"]
    path: str = Field(max_length=8192)
    to: str | None = Field(default=None, max_length=8192)
    content: str | None = None
    expected_blob_id: str | None = Field(default=None, max_length=64)


class Batch(Body):
    """Changes that are made together or not at all."""

    changes: list[FileChange] = Field(min_length=1, max_length=LARGEST_BATCH)
    message: str | None = Field(default=None, max_length=2000)


@router.get("")
async def read_files(
    ws: str,
    path: Annotated[str, Query(max_length=8192)] = "",
    recursive: bool = False,
    page: int = PageNumber,
    limit: int = Query(100, ge=1, le=100),
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> dict[str, Any]:
    """A folder's entries, or a file."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    there = await files.read(caller.platform, caller.of_app, found, path=path, recursive=recursive, page=page, limit=limit)
    if isinstance(there, FileShown):
        return data(files.file_record(there))
    return {"data": there.entries, "pagination": {"page": page, "limit": limit, "total": there.total}}


@router.get(
    "/raw",
    response_class=StreamingResponse,
    responses={
        200: {"description": "the whole file", "content": {"*/*": {}}},
        206: {"description": "one range of it", "content": {"*/*": {}}},
        304: {"description": "it is what `If-None-Match` names"},
    },
)
async def read_raw(
    request: Request,
    ws: str,
    path: Annotated[str, Query(max_length=8192)] = "",
    blob_id: Annotated[str | None, Query(max_length=64)] = None,
    caller: Caller = capability(_C.WORKSPACE_READ_OWN, _C.WORKSPACE_READ_ANY),
) -> Response:
    """A file's bytes, whole or one range of them; with `blob_id` those of another version of this file."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_READ_OWN)
    raw = await files.raw(caller.platform, caller.of_app, found, path=path, blob_id=blob_id)
    headers = {
        "Cache-Control": "private, no-cache",
        # A file that somebody saved is never run or shown as a page of this server.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(raw.path.rpartition('/')[2], safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    try:
        return file_reply(request, raw.data, etag=f'"{raw.blob_id}"', media_type=type_by_name(raw.path), headers=headers)
    except UnsatisfiableRangeError:
        size = len(raw.data)
        reply = envelope(request, ErrorCode.VALIDATION_ERROR, f"The file has {size} bytes: ask for a range within it.")
        reply.status_code = 416
        reply.headers["Content-Range"] = f"bytes */{size}"
        return reply


@router.put("")
async def write_file(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    new: FileWrite = body(FileWrite),
) -> dict[str, Any]:
    """Save one file as a pending edit."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    written = await saves.write_file(
        caller.platform,
        caller.call,
        caller.of_app,
        found,
        path=new.path,
        content=new.content,
        message=new.message,
        expected_blob_id=new.expected_blob_id,
    )
    return data(written)


@router.post("/batch")
async def write_batch(
    ws: str,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    batch: Batch = body(Batch),
) -> dict[str, Any]:
    """Save many changes as one pending edit, all or none."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    changes = [BatchChange(**change.model_dump()) for change in batch.changes]
    return data(
        await saves.write_batch(caller.platform, caller.call, caller.of_app, found, changes=changes, message=batch.message)
    )


@router.delete("", status_code=204)
async def delete_file(
    ws: str,
    path: Annotated[str | None, Query(max_length=8192)] = None,
    caller: Caller = capability(_C.WORKSPACE_EDIT_OWN, _C.WORKSPACE_EDIT_ANY),
    gone: FileDelete = body(FileDelete),
) -> None:
    """Delete one file as a pending edit."""
    found = await own_workspace(caller, ws, _C.WORKSPACE_EDIT_OWN)
    named = gone.path if gone.path is not None else path
    if named is None:
        raise invalid("path", "name the file to delete")
    await saves.delete_file(
        caller.platform,
        caller.call,
        caller.of_app,
        found,
        path=named,
        message=gone.message,
        expected_blob_id=gone.expected_blob_id,
    )
