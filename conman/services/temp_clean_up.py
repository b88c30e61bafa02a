"""Removing what a temp env had: its database, its branch, its profile, and what was dumped for it (`spec.md` 13).

Each step stands alone and may be repeated; what is gone counts as removed. Where one fails the others go on.
"""

from __future__ import annotations

import structlog

from conman.config import Settings
from conman.domain.errors import Unavailable
from conman.domain.temp_env import TempEnv
from conman.domain.temp_env_messages import CleanUpReply
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError, RepositoryMissing
from conman.services import temp_branches, temp_databases, temp_profiles
from conman.services.mongo_connections import CloneError
from conman.services.secrets import SecretStore
from conman.store import records
from conman.store.database import Document

log = structlog.get_logger(__name__)


async def clean_up(
    store: SecretStore, git: GitAdapter, settings: Settings, app: Document, temp_env_id: str, temp: TempEnv
) -> CleanUpReply:
    """Remove all that can be removed now, and say what could not, and why."""
    profile = await records.find(store.db, temp_profiles.PROFILES, temp_profiles.derived_id(temp_env_id, temp))
    left: list[str] = []
    dropped = await _drop(store, profile, temp_env_id, left)
    fault_point("clone.dropped")
    await temp_databases.forget_dump(settings, temp_env_id)
    branch_gone = await _delete_branch(git, app, temp, left)
    profile_gone = True if profile is None else await temp_profiles.delete(store.db, profile)
    fault_point("temp_env.unprofiled")
    if not profile_gone:
        log.info("derived_profile_kept", temp_env_id=temp_env_id, why="something else builds on it")
    return CleanUpReply(database_dropped=dropped, branch_deleted=branch_gone, profile_deleted=profile_gone, left=left)


async def _drop(store: SecretStore, profile: Document | None, temp_env_id: str, left: list[str]) -> bool:
    """Without a profile there never was a database: it is made after the profile."""
    if profile is None:
        return True
    try:
        await temp_databases.drop(store, profile, temp_env_id)
    except (CloneError, Unavailable) as error:
        left.append(f"the database: {error.message}")
        return False
    return True


async def _delete_branch(git: GitAdapter, app: Document, temp: TempEnv, left: list[str]) -> bool:
    try:
        await temp_branches.delete_branch(git, app["repo_path"], temp.branch)
    except RepositoryMissing:
        return True
    except GitError as error:
        left.append(f"the branch {temp.branch}: {error}")
        return False
    return True
