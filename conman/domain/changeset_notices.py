"""What people are told of a changeset, and when (`spec.md` 14). Who they are is the rule of each kind of notice.

A notice names paths and keys, never the text of a file, the value of an override, the output of a suite or a comment: those stand
behind the link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from conman.domain.changeset import Changeset, Gate, Move
from conman.domain.decision import NewNotice
from conman.domain.jobs import JobState
from conman.domain.notification import NoticeKind
from conman.domain.override_collisions import KIND as OVERRIDE_COLLISION

MOST_NAMED = 10
"""How many paths or keys a mail names; the changeset shows all."""


def about(kind: NoticeKind, changeset_id: str, cs: Changeset, *user_ids: str, **data: Any) -> NewNotice:
    """A notice about a changeset; each says its title, its author and which revision it is about."""
    known = {"title": cs.title, "author_user_id": cs.author_user_id, "revision_number": cs.current_revision}
    return NewNotice(kind, "changeset", changeset_id, user_ids=user_ids, data={**known, **data})


def submitted(changeset_id: str, cs: Changeset, *, again: bool) -> NewNotice:
    """Those who may review it are told that there is a revision to look at."""
    return about(NoticeKind.CHANGESET_SUBMITTED, changeset_id, cs, again=again, hotpatch=cs.hotpatch)


def gate_failed(changeset_id: str, cs: Changeset, gate: Gate) -> tuple[NewNotice, ...]:
    """The author is told of a gate that failed, with or without a verdict; not of one that somebody canceled or that was
    superseded."""
    if gate.state is not JobState.FAILED:
        return ()
    reason = gate.reason_code.value if gate.reason_code is not None else None
    return (_to_author(NoticeKind.CHANGESET_GATE_FAILED, changeset_id, cs, reason_code=reason, job_id=gate.job_id),)


def approved(changeset_id: str, cs: Changeset) -> NewNotice:
    """The author is told that it may enter the queue."""
    approvals = {"approval_count": cs.approval_count, "required_approvals": cs.required_approvals}
    return _to_author(NoticeKind.CHANGESET_APPROVED, changeset_id, cs, **approvals)


_REVIEWED: Final[Mapping[Move, NoticeKind]] = MappingProxyType(
    {Move.REQUEST_CHANGES: NoticeKind.CHANGESET_CHANGES_REQUESTED, Move.REJECT: NoticeKind.CHANGESET_REJECTED}
)


def reviewed(changeset_id: str, cs: Changeset, action: Move) -> tuple[NewNotice, ...]:
    """The author is told what a review decided; an approval that is not enough yet decides nothing."""
    if action in _REVIEWED:
        return (_to_author(_REVIEWED[action], changeset_id, cs),)
    return (approved(changeset_id, cs),) if cs.approval_count >= cs.required_approvals else ()


def queued(changeset_id: str, cs: Changeset) -> NewNotice:
    """The author and the managers are told that it may be taken into a release."""
    return _to_author(NoticeKind.CHANGESET_QUEUED, changeset_id, cs, hotpatch=cs.hotpatch)


def conflicted(changeset_id: str, cs: Changeset, conflicts: Sequence[Mapping[str, Any]]) -> NewNotice:
    """The author and the managers are told that it left the queue, and by which paths or overrides."""
    collisions = [one for one in conflicts if one.get("kind") == OVERRIDE_COLLISION]
    paths = list(dict.fromkeys(str(one["path"]) for one in conflicts if "path" in one))
    keys = list(dict.fromkeys(str(one["key"]) for one in collisions))
    return _to_author(
        NoticeKind.CHANGESET_CONFLICTED,
        changeset_id,
        cs,
        paths=paths[:MOST_NAMED],
        overrides=keys[:MOST_NAMED],
        more=max(len(paths) - MOST_NAMED, 0) + max(len(keys) - MOST_NAMED, 0),
    )


def needs_revalidation(changeset_id: str, cs: Changeset, job_id: str | None) -> NewNotice:
    """The author and the managers are told that its suite failed on the present integration head."""
    return _to_author(NoticeKind.CHANGESET_NEEDS_REVALIDATION, changeset_id, cs, job_id=job_id)


def _to_author(kind: NoticeKind, changeset_id: str, cs: Changeset, **data: Any) -> NewNotice:
    return about(kind, changeset_id, cs, cs.author_user_id, **data)
