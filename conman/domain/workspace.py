"""What Conman writes into a workspace's commits, what its journal says, and what a submit folds together (`spec.md` 7).

A workspace has three refs, docs/adr/0005 and 0007: its branch; a private one with the pending edits, each save a commit, never
behind the branch; and its journal, whose newest entry says where Conman left the branch. All moves of the branch move the three
together.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from pydantic import Field, ValidationError

from conman.domain.decision import Event, Model

SAVE_TRAILER = "Conman-Command"
"""In the commit of a save: the command that made it."""
USER_TRAILER = "Conman-User"
TIME_TRAILER = "Conman-At"
"""The save's time in milliseconds; Git keeps whole seconds."""
MOVED_TRAILER = "Conman-Moved"
"""In the commit of a save: `["from", "to"]` of a file that it moved."""
SUBMIT_TRAILER = "Conman-Submit"
"""In a commit that a submit made: the command."""
CHECKPOINT_TRAILER = "Conman-Checkpoint"
"""In a commit that was made of pending edits by anything but a submit (a checkpoint, a sync): the command."""
ENTRY_TRAILER = "Conman-Move"
"""In an entry of a journal: the entry itself, as JSON on one line."""

MESSAGE_LENGTH = 200


def one_line(message: str) -> str:
    """A commit's title from what a user gave: nothing in it is taken for a trailer, or refused by Git (NUL)."""
    visible = "".join(character if character.isprintable() else " " for character in message)
    return " ".join(visible.split())[:MESSAGE_LENGTH].strip() or "Edit"


def save_message(title: str, *, command_id: str, user_id: str, at: str, moves: Sequence[tuple[str, str]] = ()) -> str:
    """The message of a save's commit."""
    lines = [f"{SAVE_TRAILER}: {command_id}", f"{USER_TRAILER}: {user_id}", f"{TIME_TRAILER}: {at}"]
    lines += [f"{MOVED_TRAILER}: {json.dumps(move)}" for move in moves]
    return f"{one_line(title)}\n\n" + "\n".join(lines) + "\n"


def moves_of(trailers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which files a save moved: from → to."""
    return [cast("tuple[str, str]", tuple(json.loads(value))) for key, value in trailers if key == MOVED_TRAILER]


def commit_message(title: str, *, command_id: str, user_id: str, submit: bool) -> str:
    """The message of the commit that pending edits become."""
    made_by = SUBMIT_TRAILER if submit else CHECKPOINT_TRAILER
    return f"{one_line(title)}\n\n{made_by}: {command_id}\n{USER_TRAILER}: {user_id}\n"


# -- What a submit folds together


@dataclass(frozen=True, slots=True)
class LineCommit:
    """A commit of a workspace's own line. `unsubmitted`: it was made of pending edits, and by no submit."""

    sha: str
    parents: tuple[str, ...]
    unsubmitted: bool


def line_commit(sha: str, parents: tuple[str, ...], trailers: Sequence[tuple[str, str]]) -> LineCommit:
    """A commit as `fold_onto` looks at it."""
    return LineCommit(sha, parents, any(key == CHECKPOINT_TRAILER for key, _ in trailers))


def fold_onto(line: Sequence[LineCommit], submitted: Collection[str]) -> str | None:
    """Where `submit_commit` puts the one commit of everything since the last submit (`spec.md` 7).

    `line` is the workspace's own line, newest first, without what the integration branch has; `submitted` are heads of revisions.
    The commits made of pending edits since the last submit go into the new one. A merge made by a sync stays, since it ties the
    branch to the integration branch, and so does what was submitted. None: the newest commit is one that stays.
    """
    onto: str | None = None
    for commit in line:
        if not commit.unsubmitted or len(commit.parents) != 1 or commit.sha in submitted:
            break
        onto = commit.parents[0]
    return onto


# -- The journal


class MoveKind(StrEnum):
    """Why the branch moved, or was first seen."""

    CREATED = "created"
    COMMITTED = "committed"
    SYNCED = "synced"
    RESET = "reset"


class BaseRef(Model):
    """What a workspace starts from: `base_ref_type` and `base_ref_value` of its record."""

    type: str
    value: str


class MoveEvent(Model):
    """An audit event that a move stands for."""

    entity_type: str
    entity_id: str
    action: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    git_sha: str | None = None

    def event(self) -> Event:
        """The event to be."""
        return Event(self.entity_type, self.entity_id, self.action, before=self.before, after=self.after, git_sha=self.git_sha)


class JournalEntry(Model):
    """One move of a workspace's branch: by which command, to where, and what the audit says of it.

    `answer` is what a repeat of the command is answered with; `base` what the workspace starts from since.
    """

    kind: MoveKind
    command_id: str
    user_id: str | None = None
    at: str
    after: str
    events: list[MoveEvent] = Field(default_factory=list[MoveEvent])
    answer: dict[str, Any] = Field(default_factory=dict[str, Any])
    base: BaseRef | None = None

    def message(self) -> str:
        """The message of the entry's commit."""
        text = json.dumps(self.model_dump(mode="json", exclude_none=False), separators=(",", ":"))
        return f"Workspace {self.kind.value}\n\n{ENTRY_TRAILER}: {text}\n"


def journal_entry(trailers: Sequence[tuple[str, str]]) -> JournalEntry | None:
    """The entry that a commit is, None for a commit that is none."""
    text = dict(trailers).get(ENTRY_TRAILER)
    if text is None:
        return None
    try:
        return JournalEntry.model_validate_json(text)
    except ValidationError:
        return None


def move_event(event: Event) -> MoveEvent:
    """An audit event as an entry keeps it."""
    return MoveEvent(
        entity_type=event.entity_type,
        entity_id=event.entity_id,
        action=event.action,
        before=event.before,
        after=event.after,
        git_sha=event.git_sha,
    )


# -- What stands in the way


class Trouble(StrEnum):
    """What somebody did to a workspace's refs outside Conman."""

    DELETED = "deleted"
    MOVED = "moved"
    EDITS_LOST = "edits_lost"


def trouble_of(*, head: str | None, known: str | None, pending: str | None, contained: bool) -> Trouble | None:
    """What is wrong with the refs of a workspace: `known` is where Conman left the branch, `contained` whether pending has it."""
    if head is None:
        return Trouble.DELETED
    if known is not None and head != known:
        return Trouble.MOVED
    if pending is None or not contained:
        return Trouble.EDITS_LOST if known is not None else Trouble.MOVED
    return None


_TOLD: Mapping[Trouble, str] = {
    Trouble.DELETED: "The branch {branch} was deleted outside Conman",
    Trouble.MOVED: "The branch {branch} was moved outside Conman",
    Trouble.EDITS_LOST: "The pending edits of {branch} were removed outside Conman",
}


def told(trouble: Trouble, branch: str) -> str:
    """What a refusal says: what happened, and what mends it."""
    return f"{_TOLD[trouble].format(branch=branch)}: reset the workspace to go on from the baseline."
