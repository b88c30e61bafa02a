"""The refs of a temp env: its snapshot branch, and the private ref that keeps its commit for ever (`spec.md` 13)."""

from __future__ import annotations

from typing import Final

from conman.domain.app import BRANCHES
from conman.domain.temp_env import TempEnv, temp_snapshot_ref
from conman.git.adapter import GitAdapter, GitError, RefUpdate, StaleRef

_TRIES: Final = 5


async def put_in_place(git: GitAdapter, repo: str, temp_env_id: str, temp: TempEnv) -> bool:
    """Both refs at its commit, in one transaction; a repeat changes nothing and is told by False.

    Whatever somebody with Git did to them is undone: they are Conman's own. Raises `GitError`.
    """
    wanted = (BRANCHES + temp.branch, temp_snapshot_ref(temp_env_id))
    for _ in range(_TRIES):
        there = {ref: await git.resolve(repo, ref) for ref in wanted}
        updates = [RefUpdate(ref, sha, temp.head_sha) for ref, sha in there.items() if sha != temp.head_sha]
        if not updates:
            return False
        try:
            await git.update_refs(repo, updates)
        except StaleRef:
            continue
        return True
    raise _moving(temp.branch)


async def delete_branch(git: GitAdapter, repo: str, branch: str) -> bool:
    """Delete a snapshot branch; the private ref stays, so that a temp env can be made again. False: there was none.

    Raises `GitError`.
    """
    ref = BRANCHES + branch
    for _ in range(_TRIES):
        sha = await git.resolve(repo, ref)
        if sha is None:
            return False
        try:
            await git.update_refs(repo, [RefUpdate(ref, sha, None)])
        except StaleRef:
            continue
        return True
    raise _moving(branch)


def _moving(branch: str) -> GitError:
    return GitError("update_refs", f"{branch} keeps moving", safe_to_repeat=True)
