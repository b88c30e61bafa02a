"""The files that a temp env serves: those of the repository at its commit, never its rendered profile (`spec.md` 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.paths import check_blocked, normalise_path
from conman.domain.temp_env import TempEnv
from conman.git.adapter import EntryType
from conman.services.platform import Platform
from conman.store.database import Document

INDEX: Final = "index.html"
"""What a folder shows, where it has one; a folder is never listed."""


@dataclass(frozen=True, slots=True)
class Served:
    """A file to send: its bytes are those of the blob."""

    path: str
    blob_id: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with a page, which was asked for without the slash at its end: links within that page need it."""

    path: str


async def file_at(platform: Platform, app: Document, temp_env: TempEnv, path: str) -> Served | Folder:
    """What stands at a path of the temp env's host, as the URL names it after one decoding.

    Raises `not_found` for all that is not served: what is not there or outside, what no path may be or the app blocks, a folder
    without a page, a symbolic link, a submodule.
    """
    nothing = DomainError(ErrorCode.NOT_FOUND, "This temporary environment has no such file: check the path.")
    wants_folder = path == "" or path.endswith("/")
    try:
        clean = normalise_path(path, folder=wants_folder)
        check_blocked(clean, app["settings"]["blocked_paths"])
    except DomainError as error:
        raise nothing from error
    entry = await platform.git.entry(app["repo_path"], temp_env.head_sha, clean)
    is_folder = entry is not None and entry.type is EntryType.TREE
    if is_folder:
        page = f"{clean}/{INDEX}" if clean else INDEX
        entry = await platform.git.entry(app["repo_path"], temp_env.head_sha, page)
    if entry is None or entry.type is not EntryType.BLOB or (wants_folder and not is_folder):
        raise nothing
    return Folder(clean) if is_folder and not wants_folder else Served(entry.path, entry.blob_id)
