"""Comments on changesets: where they stand, how they follow the lines they are about, and what may be changed (`spec.md` 8).

Decisions that the specification leaves open:

- A comment is put on the changeset, on a file or on a line of the current revision's head. That place, its `Anchor`, never
  changes; what is shown is the `Place` in the revision that is current now, computed from the difference between the two heads
  alone. So a line that one revision removes and the next one brings back is there again.
- A line that was changed or removed makes the comment outdated, and so does a file that is gone; an outdated comment shows the
  place that it was put on. A file that Git takes for moved is followed.
- A reply hangs on its thread: a reply to a reply is one to the thread's first comment, and stands where that one stands.
- Resolved is a thread, by its first comment; its replies show the same. A reply to a resolved thread does not reopen it.
- A body is kept and returned as it was written: nothing of it is rendered, stripped or escaped.
- Comments may be made, edited and resolved in every state of a changeset, its last ones included, until the app is archived.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid

LONGEST_BODY = 10_000
"""Characters of a body at most."""

BINARY_PROBE_BYTES = 8000
"""A file with a NUL among this many first bytes is binary to Git, and has no lines."""

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a comment was put: in the head of a revision on a line (from 1) of a file, on the file, or on the changeset.

    `revision_number` is None for one on a changeset that has no revision yet.
    """

    revision_number: int | None
    file_path: str | None = None
    line_number: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a comment stands in a revision. `outdated`: what it is about is not there, and file and line are the anchor's."""

    file_path: str | None
    line_number: int | None
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Hunk:
    """`old_count` lines from `old_start` on that `new_count` lines took the place of.

    None of them is context. Without old lines, the new ones came after line `old_start`.
    """

    old_start: int
    old_count: int
    new_count: int


@dataclass(frozen=True, slots=True)
class FileFate:
    """What became of a file between two heads: where it is (None: gone), and how its lines differ.

    `hunks` are in the order of the lines; None when its lines can't be followed: it is binary, or no file any more.
    """

    path: str | None
    hunks: Sequence[Hunk] | None = ()


def hunks_of(patch: str) -> tuple[Hunk, ...]:
    """The hunks of one file's unified patch that was made without context lines."""
    return tuple(Hunk(int(start), _count(old), _count(new)) for start, old, new in _HUNK.findall(patch))


def _count(text: str) -> int:
    """A range's length as a hunk's head has it: one is left out."""
    return int(text) if text else 1


def follow_line(hunks: Sequence[Hunk], line_number: int) -> int | None:
    """Where a line of the old file stands in the new one; None when it was changed or removed."""
    moved_by = 0
    for hunk in hunks:
        first_behind = hunk.old_start + max(hunk.old_count, 1)
        if line_number < first_behind:
            if hunk.old_count and line_number >= hunk.old_start:
                return None
            break
        moved_by += hunk.new_count - hunk.old_count
    return line_number + moved_by


def follow(anchor: Anchor, fate: FileFate) -> Place:
    """Where a comment on a file or a line stands after what became of its file."""
    outdated = Place(anchor.file_path, anchor.line_number, outdated=True)
    if fate.path is None:
        return outdated
    if anchor.line_number is None:
        return Place(fate.path, None)
    line = follow_line(fate.hunks, anchor.line_number) if fate.hunks is not None else None
    return outdated if line is None else Place(fate.path, line)


def unmoved(anchor: Anchor) -> Place:
    """Where a comment stands in the revision that it was put on."""
    return Place(anchor.file_path, anchor.line_number)


def count_lines(data: bytes) -> int | None:
    """How many lines a file has, as Git counts them; None for a binary one."""
    if b"\0" in data[:BINARY_PROBE_BYTES]:
        return None
    return data.count(b"\n") + (data[-1:] not in (b"", b"\n"))


def check_body(body: str) -> str:
    """A body that says something, as it was written. Raises `validation_error`."""
    if not body.strip():
        raise invalid("body", "has nothing but blanks: write what you mean")
    if len(body) > LONGEST_BODY:
        raise invalid("body", f"is longer than {LONGEST_BODY} characters: write several comments")
    return body


def check_line(file_path: str, line_number: int, lines: int | None, revision_number: int) -> None:
    """Refuse a line that the head's file does not have; `lines` None: what is there has no lines. Raises `validation_error`."""
    if lines is None:
        raise invalid("line_number", f"{file_path} has no lines in revision {revision_number}: comment on the file as a whole")
    if line_number > lines:
        raise invalid("line_number", f"{file_path} has {lines} lines in revision {revision_number}: name one of them")


def check_reply(anchor: Anchor, place: Place, file_path: str | None, line_number: int | None) -> None:
    """Refuse a reply that names another place than its thread's, which it may leave out. Raises `validation_error`."""
    for name, given, known in (
        ("file_path", file_path, (anchor.file_path, place.file_path)),
        ("line_number", line_number, (anchor.line_number, place.line_number)),
    ):
        if given is not None and given not in known:
            raise invalid(name, "is not where the thread stands: a reply stands there, so leave it out")


def check_author(author_user_id: str, user_id: str) -> None:
    """Nobody else edits a body, whatever their role (`api.md` 2). Raises `forbidden`."""
    if author_user_id != user_id:
        raise DomainError(ErrorCode.FORBIDDEN, "Only its author edits a comment: reply to it instead.")


@dataclass(frozen=True, slots=True)
class Comment:
    """What may change of a comment; `thread_id` is the first comment of its thread, None for a first one itself."""

    id: str
    changeset_id: str
    thread_id: str | None
    body: str
    resolved: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """A comment after a change, and what the audit says of it. `new_body`: the body is another one, which is kept beside it."""

    body: str
    resolved: bool
    new_body: bool
    events: tuple[Event, ...] = field(default=())


def created_event(
    comment_id: str, changeset_id: str, body: str, place: Place, revision_number: int | None, thread_id: str | None
) -> Event:
    """The audit event of a new comment, where it stands in the revision that is current."""
    after = {
        "changeset_id": changeset_id,
        "body": body,
        "file_path": place.file_path,
        "line_number": place.line_number,
        "parent_comment_id": thread_id,
        "revision_number": revision_number,
    }
    return Event("comment", comment_id, "created", after=after)


def decide_change(comment: Comment, *, body: str | None, resolved: bool | None) -> Changed | None:
    """An edit of the body, a resolution, or both; None when all of it stands there already.

    Raises `validation_error` for a body that is none, and for a resolution of a reply.
    """
    if resolved is not None and comment.thread_id is not None:
        raise invalid("resolved", f"is the whole thread's: send it to its first comment, {comment.thread_id}")
    new_body = body is not None and check_body(body) != comment.body
    turned = resolved is not None and resolved != comment.resolved
    after = Changed(
        body=body if body is not None else comment.body,
        resolved=resolved if resolved is not None else comment.resolved,
        new_body=new_body,
        events=(
            *([_event(comment, "edited", "body", comment.body, body)] if new_body else []),
            *([_event(comment, "resolved", "resolved", comment.resolved, resolved)] if turned else []),
        ),
    )
    return after if after.events else None


def _event(comment: Comment, action: str, name: str, before: object, after: object) -> Event:
    of = {"changeset_id": comment.changeset_id}
    return Event("comment", comment.id, action, before={**of, name: before}, after={**of, name: after})
