"""What a changeset changes, for reviewers: patches by file."""

from __future__ import annotations

from typing import Any

from conman.domain.errors import not_found
from conman.services.changesets import owned
from conman.services.platform import Platform
from conman.store.database import Document


async def raw_diff(
    platform: Platform, app: Document, document: Document, revision: int | None, page: int, limit: int
) -> dict[str, Any]:
    """One page of files with patches of a revision (the latest by default) against its base. Raises `not_found`."""
    revisions = owned(document).revisions
    chosen = next((r for r in revisions if r.revision_number == (revision or len(revisions))), None)
    if chosen is None:
        raise not_found("revision")
    repo = app["repo_path"]
    whole = await platform.git.diff(repo, chosen.base_sha, chosen.head_sha)
    files = whole[(page - 1) * limit : page * limit]
    rows = [
        {
            "path": row.change.path,
            "old_path": row.change.old_path,
            "status": row.change.status.value,
            "additions": row.additions,
            "deletions": row.deletions,
            "binary": row.binary,
            "patch": row.patch,
            "truncated": False,
        }
        for row in files
    ]
    return {
        "data": {
            "base_sha": chosen.base_sha,
            "head_sha": chosen.head_sha,
            "stats": {
                "files": len(whole),
                "additions": sum(row.additions for row in whole),
                "deletions": sum(row.deletions for row in whole),
            },
            "files": rows,
        },
        "pagination": {"page": page, "limit": limit, "total": len(whole)},
    }
