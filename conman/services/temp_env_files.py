"""The files that a temp env serves: those of the repository at its commit, never its rendered profile (`spec.md` 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conman.domain.errors import DomainError, not_found
from conman.domain.paths import check_blocked, normalise_path
from conman.domain.temp_env import TempEnv
from conman.git.adapter import EntryType
from conman.services.platform import Platform
from conman.store.database import Document

INDEX: Final = "index.html"
"""What a folder shows, where it has one; a folder is never listed."""


@dataclass(frozen=True, slots=True)
class Served:
    """A file to send."""

    path: str
    blob_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with a page, which was asked for without the slash at its end: links within that page need it."""

    path: str


async def file_at(platform: Platform, app: Document, temp_env: TempEnv, path: str) -> Served | Folder:
    """What stands at a path of the temp env's host, as the URL names it after one decoding.

    Raises `not_found` for all that is not served: what is not there or outside, what no path may be or the app blocks, a folder
    without a page, a symbolic link, a submodule.
    """
    nothing = not_found("file")
    wants_folder = path == "" or path.endswith("/")
    try:
        clean = normalise_path(path, folder=wants_folder)
        check_blocked(clean, app["settings"]["blocked_paths"])
    except DomainError as error:
        raise nothing from error
    kind = await _kind(platform, app, temp_env, clean) if clean else EntryType.TREE
    if kind is EntryType.TREE:
        page = f"{clean}/{INDEX}" if clean else INDEX
        if await _kind(platform, app, temp_env, page) is not EntryType.BLOB:
            raise nothing
        if not wants_folder:
            return Folder(clean)
        clean = page
    elif kind is not EntryType.BLOB or wants_folder:
        raise nothing
    content = await platform.git.read_file(app["repo_path"], temp_env.head_sha, clean)
    if content is None:
        raise nothing
    return Served(clean, content.blob_id, content.data)


async def _kind(platform: Platform, app: Document, temp_env: TempEnv, path: str) -> EntryType | None:
    entry = await platform.git.entry(app["repo_path"], temp_env.head_sha, path)
    return entry.type if entry is not None else None
