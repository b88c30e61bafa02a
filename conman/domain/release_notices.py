"""What people are told of a release, and when (`spec.md` 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conman.domain.decision import NewNotice
from conman.domain.notification import NoticeKind

if TYPE_CHECKING:
    from conman.domain.release import Release

MOST_NAMED = 20
"""How many changesets a mail names; the release shows all."""


def created(release_id: str, release: Release) -> NewNotice:
    """The managers are told that there is a release to complete, assemble and publish."""
    return _about(NoticeKind.RELEASE_CREATED, release_id, release)


def published(release_id: str, release: Release) -> NewNotice:
    """All members are told that it landed on the integration branch, and what it brings."""
    return _about(NoticeKind.RELEASE_PUBLISHED, release_id, release)


def _about(kind: NoticeKind, release_id: str, release: Release) -> NewNotice:
    data = {
        "tag": release.tag,
        "titles": [member.title for member in release.members[:MOST_NAMED]],
        "changesets": len(release.members),
        "reverts_release_id": release.reverts_release_id,
    }
    return NewNotice(kind, "release", release_id, data=data)
