"""Merge commits under Conman's private refs: the same inputs make the same commit, however often an activity is run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from conman.git.adapter import Conflict, GitAdapter, Signature, StaleRef
from conman.services.conflicts import Merged, conflict_record, merge_under

MERGER = ("Conman", "conman@localhost")
"""Who makes merge commits; their author dates come from what is merged, so that a repeat makes the same commit."""

MOST_CONFLICT_BYTES = 256 * 1024
"""What is told of one merge's conflicts, some thousand paths: they travel with others, and Temporal refuses over 2 MiB."""


def conflict_records(conflicts: Sequence[Conflict]) -> list[dict[str, Any]]:
    """The first of these as records, as many as travel."""
    found: list[dict[str, Any]] = []
    size = 0
    for conflict in conflicts:
        record = conflict_record(conflict)
        size += len(json.dumps(record))
        if found and size > MOST_CONFLICT_BYTES:
            break
        found.append(record)
    return found


async def merge_onto(git: GitAdapter, repo: str, ref: str, base: str, head: str, message: str) -> Merged:
    """Merge `head` onto `base` under a private ref. Raises `RuntimeError` when the ref moves again and again."""
    when = (await git.commit(repo, head)).committer.when
    for _ in range(5):
        old = await git.resolve(repo, ref)
        try:
            return await merge_under(
                git,
                repo,
                ref=ref,
                expected_old=old,
                ours=base,
                theirs=head,
                author=Signature(*MERGER, when),
                message=message,
            )
        except StaleRef:
            continue  # an attempt that was given up is still at it; it makes the same commit
    raise RuntimeError(f"{ref} of {repo} keeps moving")
