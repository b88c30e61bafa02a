"""A process of its own that moves refs, for `test_local`: `python ref_racer.py ROOT REPO MODE …`.

`race`: for each line `REF OLD NEW` of its input it tries that move and answers `won`, `stale` or `busy`.
`hammer SHA SHA REF REF`: moves both refs together to and fro for ever, answering a line for each move.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from conman.git.adapter import GitError, RefUpdate, StaleRef
from conman.git.local import LocalGit


async def race(git: LocalGit, repo: str) -> None:
    for line in sys.stdin:
        ref, old, new = line.split()
        try:
            await git.update_refs(repo, [RefUpdate(ref, None if old == "-" else old, new)])
        except StaleRef:
            answer = "stale"
        except GitError:
            answer = "busy"
        else:
            answer = "won"
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


async def hammer(git: LocalGit, repo: str, one: str, two: str, *refs: str) -> None:
    old = (await git.list_refs(repo, ""))[refs[0]]
    while True:
        new = two if old == one else one
        await git.update_refs(repo, [RefUpdate(ref, old, new) for ref in refs])
        old = new
        sys.stdout.write("moved\n")
        sys.stdout.flush()


if __name__ == "__main__":
    root, name, mode, *rest = sys.argv[1:]
    adapter = LocalGit(Path(root), threads=1)
    asyncio.run(race(adapter, name) if mode == "race" else hammer(adapter, name, *rest))
