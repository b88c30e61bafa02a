"""The repository behind an app, as somebody with the `git` command sees and changes it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from conman.git.adapter import DeleteFile, FileChange, Signature, WriteFile
from conman.git.local import LocalGit
from tests.support.conman_stack import World

OUTSIDER = Signature("outside", "outside@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def git(world: World, *arguments: str, text: str = "") -> str:
    """What a `git` command on the app's repository prints; `text` is its input."""
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    done = subprocess.run(["git", "-C", str(repo), *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@asynccontextmanager
async def local_git(world: World) -> AsyncIterator[LocalGit]:
    adapter = LocalGit(world.stack.data / "repositories", 1)
    try:
        yield adapter
    finally:
        adapter.close()


async def commit_outside(world: World, files: dict[str, str | bytes | None], branch: str = "main") -> str:
    """Commit files (None: deleted) to a branch without asking Conman; the sha."""
    ref, repo = f"refs/heads/{branch}", world.app["repo_path"]
    changes: list[FileChange] = []
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        changes.append(DeleteFile(path) if data is None else WriteFile(path, data))
    async with local_git(world) as adapter:
        head = await adapter.resolve(repo, ref)
        return await adapter.commit_files(
            repo, ref=ref, expected_old=head, parent=head, changes=changes, author=OUTSIDER, message="outside\n"
        )


def commits(world: World, shown: dict[str, str]) -> list[str]:
    """The titles of a workspace's own commits, oldest first."""
    own = f"{shown['base_sha']}..{shown['branch_name']}"
    return git(world, "log", "--first-parent", "--reverse", "--format=%s", own).splitlines()


def refs(world: World, workspace_id: str) -> list[str]:
    """The private refs of a workspace."""
    return [ref for ref in git(world, "for-each-ref", "--format=%(refname)").splitlines() if workspace_id in ref]
