"""What a deployed folder shows, read from its files: hand-edited ones are what drift is about (`spec.md` 12).

The file of the environment's variables decides what they are, `profile.json` the URL and the database. A file that is no profile
any more is told as a changed path, and what it would have said is not observed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError

from conman.domain.errors import DomainError
from conman.domain.paths import normalise_path
from conman.domain.profile import Profile, read_env_file
from conman.domain.target import MOST_PATHS, Observation, secret_digest
from conman.git.adapter import EntryType, GitAdapter, TreeEntry
from conman.services.rendering import PROFILE_ENV, PROFILE_JSON
from conman.targets.base import ObserveOrder

MANIFEST = "manifest.json"
STATE_FILE = "file:"
"""How an `applied_state_ref` begins that names a file of the environment's folder, beside `current`: one name of a migration per
line. Any other one is not for this target to read."""

_LARGEST_BYTES = 16 * 1024 * 1024
MOST_NAMES = 10_000
"""How many variables or migrations a file may name, as many as a target program may: each one is compared, and may be told."""
_EXECUTABLE = 0o100


class _Manifest(BaseModel):
    commit_sha: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


class _Content(BaseModel):
    """`profile.json`: the profile, the secrets as values."""

    profile: Profile
    secrets: dict[str, str]


async def observed(git: GitAdapter, home: Path, order: ObserveOrder) -> Observation:
    """What is in place below `home`; nothing was ever deployed there: nothing is observed. Raises `OSError` and `GitError`."""
    current = home / "current"
    if order.deployment_id is None:
        return Observation()
    migrations = await asyncio.to_thread(_applied_migrations, home, order)
    if not current.exists():
        return Observation(env_vars={}, secrets={}, observes_base_url=True, database={}, files="", migrations=migrations)
    folder = await asyncio.to_thread(current.resolve)
    seen, changed = await asyncio.to_thread(_profile, folder / "profile", order)
    commit_sha = await asyncio.to_thread(_commit_of, folder)
    if commit_sha is None or await git.resolve(order.repo_path, commit_sha) is None:
        changed.append(f"current/{MANIFEST}")
        commit_sha = order.commit_sha or ""
    entries = await git.list_tree(order.repo_path, commit_sha, recursive=True)
    changed += await asyncio.to_thread(tree_differences, folder / "files", entries, MOST_PATHS)
    found = {"files": commit_sha, "changed_paths": changed[:MOST_PATHS], "migrations": migrations}
    return seen.model_copy(update=found)


def tree_differences(folder: Path, entries: Sequence[TreeEntry], most: int) -> list[str]:
    """The first `most` paths, in order, that are not as the commit's entries say: other bytes, missing, or not in the commit.

    Links are compared as links and never followed. Raises `OSError` when the folder can't be read.
    """
    expected = {entry.path: entry for entry in entries if entry.type in (EntryType.BLOB, EntryType.SYMLINK)}
    there = _leaves(folder)
    differing: list[str] = []
    for path in sorted(expected.keys() | there.keys()):
        entry, file = expected.get(path), there.get(path)
        if entry is None or file is None or not _is_as(entry, file):
            differing.append(path)
            if len(differing) == most:
                break
    return differing


def _leaves(folder: Path) -> dict[str, Path]:
    """Path as it is shown → path on disk, of all that is no folder. A folder that is gone, or something else now, has nothing."""
    found: dict[str, Path] = {}
    if folder.is_symlink() or not folder.is_dir():
        return found

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *links):
            path = here / name
            found[os.fsencode(path.relative_to(folder)).decode(errors="replace")] = path
    return found


def _is_as(entry: TreeEntry, file: Path) -> bool:
    state = file.lstat()
    if entry.type is EntryType.SYMLINK:
        return stat.S_ISLNK(state.st_mode) and _blob_id(os.fsencode(file.readlink())) == entry.blob_id
    if not stat.S_ISREG(state.st_mode) or (entry.size is not None and entry.size != state.st_size):
        return False
    if bool(entry.mode & _EXECUTABLE) != bool(state.st_mode & _EXECUTABLE):
        return False
    try:
        return _blob_id(file.read_bytes()) == entry.blob_id
    except PermissionError:
        return False


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _profile(folder: Path, order: ObserveOrder) -> tuple[Observation, list[str]]:
    """What the profile's two files say, and which of them say nothing, or not what was written."""
    changed: list[str] = []
    seen: dict[str, Any] = {}
    content = _content(folder / PROFILE_JSON)
    applied = order.applied
    if content is None:
        changed.append(f"current/profile/{PROFILE_JSON}")
    else:
        database = content.profile.database
        seen |= {
            "base_url": content.profile.base_url,
            "observes_base_url": True,
            "database": database.model_dump(mode="json") if database is not None else {},
        }
        if applied is not None and (content.profile.env_vars, content.secrets) != (applied.profile.env_vars, applied.secrets):
            changed.append(f"current/profile/{PROFILE_JSON}")
    variables = _variables(folder / PROFILE_ENV)
    if variables is None:
        changed.append(f"current/profile/{PROFILE_ENV}")
    else:
        names = {*(applied.secrets if applied is not None else ()), *(content.secrets if content is not None else ())}
        seen["env_vars"] = {key: value for key, value in variables.items() if key not in names}
        seen["secrets"] = {key: secret_digest(order.digest_key, value) for key, value in variables.items() if key in names}
    return Observation(**seen), sorted(changed)


def _variables(path: Path) -> dict[str, str] | None:
    text = text_of(path)
    try:
        found = read_env_file(text) if text is not None else None
    except ValueError:
        return None
    return found if found is not None and len(found) <= MOST_NAMES else None


def _content(path: Path) -> _Content | None:
    text = text_of(path)
    try:
        loaded = json.loads(text) if text is not None else None
        if not isinstance(loaded, dict):
            return None
        content = cast("dict[str, Any]", loaded)
        return _Content.model_validate({"profile": {**content, "secrets": {}}, "secrets": content.get("secrets")})
    except (ValueError, RecursionError, ValidationError):
        return None


def _commit_of(folder: Path) -> str | None:
    text = text_of(folder / MANIFEST)
    try:
        return _Manifest.model_validate_json(text).commit_sha if text is not None else None
    except ValidationError:
        return None


def text_of(path: Path) -> str | None:
    """The file's text; None when it is gone, no plain file, too large, not for this process to read, or no text."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST_BYTES:
            return None
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError, PermissionError, UnicodeDecodeError):
        return None


def state_file(home: Path, reference: str) -> Path | None:
    """The file that an `applied_state_ref` names; None where it names none of this environment's folder.

    What was deployed is no such file, and neither is what a link of it points to: its lines would be shown to every member.
    """
    if not reference.startswith(STATE_FILE):
        return None
    try:
        path = normalise_path(reference.removeprefix(STATE_FILE))
    except DomainError:
        return None
    file, top = (home / path).resolve(), home.resolve()
    return file if file.is_relative_to(top) and not file.is_relative_to(top / "deployments") else None


def _applied_migrations(home: Path, order: ObserveOrder) -> list[str] | None:
    """The names in the file that the profile's `applied_state_ref` names; a file that is not there names none, and one with
    too many says nothing.
    """
    migrations = order.applied.profile.migrations if order.applied is not None else None
    file = state_file(home, migrations.applied_state_ref or "") if migrations is not None else None
    if file is None:
        return None
    names = [name for line in (text_of(file) or "").splitlines() if (name := line.strip())]
    return names if len(names) <= MOST_NAMES else None
