"""Where an app's integration branch is, and its present head."""

from __future__ import annotations

from conman.domain.app import BRANCHES
from conman.git.adapter import GitAdapter
from conman.store import records
from conman.store.database import Database


async def integration_branch(db: Database, app_id: str) -> tuple[str, str]:
    """Repository and full name of the app's integration branch. Raises `not_found` for no such app."""
    app = await records.get(db, "apps", app_id, what="app")
    return app["repo_path"], BRANCHES + app["integration_branch"]


async def head_of(git: GitAdapter, repo: str, ref: str) -> str:
    """The commit that a branch points at. Raises `RuntimeError` when the branch is gone: what needs it is tried again."""
    head = await git.resolve(repo, ref)
    if head is None:
        raise RuntimeError(f"the branch {ref} of {repo} is gone")
    return head
