"""Commits in operations mode: what the server says of one, and what one that is to be made will be, to the byte.

The same inputs make the same commit on every backend, so its name is known before any server is asked to make it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp

from conman.git.adapter import Commit, GitError, Signature
from conman.git.checks import checked_signature, shown, trailers
from conman.git.gitaly_objects import object_id
from conman.git.proto import gitaly_pb2 as pb

_ZONE = re.compile(rb"([+-])(\d{2})(\d{2})")
_MINUTES_PER_HOUR = 60
_WEST, _EAST = -12, 14
"""The hours from UTC that the time zone database has a zone of whole hours for (`Etc/GMT+12` to `Etc/GMT-14`)."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who and when, as a commit keeps it; `offset` is in minutes east of UTC."""

    name: bytes
    email: bytes
    seconds: int
    offset: int

    @property
    def raw(self) -> bytes:
        """As it stands in a commit."""
        sign = b"-" if self.offset < 0 else b"+"
        hours, minutes = divmod(abs(self.offset), _MINUTES_PER_HOUR)
        return b"%s <%s> %d %s%02d%02d" % (self.name, self.email, self.seconds, sign, hours, minutes)

    @property
    def zone(self) -> str | None:
        """The time zone's name, by which an operation of the server is told the offset; None when no zone has it always."""
        hours, minutes = divmod(self.offset, _MINUTES_PER_HOUR)
        if minutes or not _WEST <= hours <= _EAST:
            return None
        # These names count westward.
        return f"Etc/GMT{-hours:+d}" if hours else "UTC"

    @property
    def timestamp(self) -> Timestamp:
        """The time as the server's operations take it."""
        return Timestamp(seconds=self.seconds)

    def user(self) -> pb.User:
        """The user on whose behalf the server makes a commit. Its committer, and where nothing else is said its author."""
        return pb.User(gl_id="conman", gl_username="conman", name=self.name, email=self.email, timezone=self.zone or "")


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit that is to be made."""

    tree: str
    parents: tuple[str, ...]
    author: Stamp
    committer: Stamp
    message: bytes

    @property
    def raw(self) -> bytes:
        """The object's bytes."""
        parents = b"".join(b"parent %s\n" % parent.encode() for parent in self.parents)
        head = b"tree %s\n%sauthor %s\ncommitter %s\n\n"
        return head % (self.tree.encode(), parents, self.author.raw, self.committer.raw) + self.message

    @property
    def sha(self) -> str:
        """The name that it will have."""
        return object_id("commit", self.raw)


def stamp_of(operation: str, signature: Signature) -> Stamp:
    """Raises `GitError` for a signature that a commit can't keep."""
    name, email, seconds, offset = checked_signature(operation, signature)
    return Stamp(name.encode(), email.encode(), seconds, offset)


def stamp_from(author: pb.CommitAuthor) -> Stamp:
    """What the server says of a commit's author or committer."""
    return Stamp(author.name, author.email, author.date.seconds, _offset(author.timezone))


def message_of(operation: str, commit: pb.GitCommit) -> bytes:
    """A commit's whole message. Raises `GitError` when the server has cut it short."""
    if commit.body_size > len(commit.body):
        raise GitError(operation, f"the server does not give the whole message of {commit.id}", safe_to_repeat=False)
    return commit.body


def metadata(commit: pb.GitCommit) -> Commit:
    """Our view of a commit; text that is not in its encoding is shown with replacement characters."""
    message = _decoded(commit.body, commit.encoding)
    return Commit(
        sha=commit.id,
        tree_id=commit.tree_id,
        parents=tuple(commit.parent_ids),
        author=_signature(commit.author),
        committer=_signature(commit.committer),
        message=message,
        trailers=trailers(message),
    )


def _offset(zone: bytes) -> int:
    match = _ZONE.fullmatch(zone)
    if match is None:
        return 0
    minutes = int(match[2]) * _MINUTES_PER_HOUR + int(match[3])
    return -minutes if match[1] == b"-" else minutes


def _signature(author: pb.CommitAuthor) -> Signature:
    offset = timedelta(minutes=_offset(author.timezone))
    zone = timezone(offset) if abs(offset) < timedelta(days=1) else UTC
    when = datetime.fromtimestamp(author.date.seconds, UTC).astimezone(zone)
    return Signature(shown(author.name), shown(author.email), when)


def _decoded(text: bytes, encoding: str) -> str:
    try:
        return text.decode(encoding or "utf-8", "replace")
    except LookupError:
        return shown(text)
