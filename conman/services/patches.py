"""Whether two revisions make the same change on two bases: a pure rebase (`spec.md` 3, `carry_votes`).

Both must hold. The patches are the same text, file by file, wherever the lines stand (as `git patch-id` compares them, but with
white space, which means something in configuration): so what was seen is what is there. And the new files are those that Git's
merge makes of the reviewed ones on the new base: so each change stands where it was reviewed, and not in another place whose
neighbours read alike. docs/adr/0019-what-a-pure-rebase-carries.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from conman.git.adapter import FileDiff, GitAdapter

_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@.*$")
_SAYS_WHERE = ("index ", "similarity index ", "dissimilarity index ")
"""Lines of a patch that differ between bases though the change does not."""


def patch_id_of(files: Iterable[FileDiff]) -> str:
    """The name of a change: a hash of its files' patches without line numbers. A binary file is named by its blobs."""
    digest = hashlib.sha256()
    for file in files:
        change = file.change
        whole = (change.old_blob_id, change.new_blob_id) if file.binary else ()
        head = (change.old_path, change.path, change.status.value, change.old_mode, change.new_mode, *whole)
        digest.update(repr(head).encode() + b"\0")
        in_hunks = False
        for line in file.patch.split("\n"):
            if _HUNK.match(line):
                in_hunks, line = True, "@@"
            elif not in_hunks and line.startswith(_SAYS_WHERE):
                continue
            digest.update(line.encode() + b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


async def patch_id(git: GitAdapter, repo: str, base: str, head: str) -> str:
    """The name of the change between two commits."""
    return patch_id_of(await git.diff(repo, base, head))


async def is_rebase(git: GitAdapter, repo: str, reviewed_head: str, base: str, head: str) -> bool:
    """Whether the files of `head` are those that a merge of the reviewed head and the new base has."""
    trial = await git.trial_merge(repo, base, reviewed_head)
    return trial.clean and trial.tree_id == (await git.commit(repo, head)).tree_id
