"""Commits, tags and signatures of a repository as messages of the protocol, and people's words as signatures."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pygit2

from conman.git.adapter import Signature
from conman.git.checks import trailers
from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import invalid, text

MAX_TEXT_BYTES = 16 * 1024
"""A commit's or tag's message that is longer is cut; `body_size` and `message_size` tell its length, as the protocol has it."""


def commit_message(commit: pygit2.Commit, *, with_trailers: bool = False) -> pb.GitCommit:
    """A commit; its `body` is the whole message."""
    body = commit.raw_message
    message = pb.GitCommit(
        id=str(commit.id),
        subject=body.split(b"\n", 1)[0].rstrip(b"\r")[:MAX_TEXT_BYTES],
        body=body[:MAX_TEXT_BYTES],
        body_size=len(body),
        author=author_message(commit.author),
        committer=author_message(commit.committer),
        parent_ids=[str(parent) for parent in commit.parent_ids],
        tree_id=str(commit.tree_id),
        encoding=commit.message_encoding or "",
    )
    if with_trailers:
        found = trailers(body.decode("utf-8", "surrogateescape"))
        encoded = [[part.encode("utf-8", "surrogateescape") for part in trailer] for trailer in found]
        message.trailers.extend(pb.CommitTrailer(key=key, value=value) for key, value in encoded)
    return message


def author_message(signature: pygit2.Signature) -> pb.CommitAuthor:
    """Who and when, with the time zone as Git writes it (`+0200`)."""
    hours, minutes = divmod(abs(signature.offset), 60)
    author = pb.CommitAuthor(name=signature.raw_name, email=signature.raw_email)
    author.date.seconds = signature.time
    author.timezone = f"{'-' if signature.offset < 0 else '+'}{hours:02}{minutes:02}".encode()
    return author


def tag_message(repository: pygit2.Repository, name: bytes, target: pygit2.Oid) -> pb.Tag:
    """A tag: what its ref holds, the commit below, and for an annotated one its message and author."""
    held = repository[target]
    tag = pb.Tag(name=name, id=str(target))
    if isinstance(held, pygit2.Tag):
        written = held.raw_message or b""
        tag.message = written[:MAX_TEXT_BYTES]
        tag.message_size = len(written)
        if held.tagger is not None:
            tag.tagger.CopyFrom(author_message(held.tagger))
    below = held
    while isinstance(below, pygit2.Tag):
        below = repository[below.target]
    if isinstance(below, pygit2.Commit):
        tag.target_commit.CopyFrom(commit_message(below))
    return tag


def user_signature(request: Any, *, user: pb.User | None = None) -> Signature:
    """The signature of a request's user (or of `user`) at the request's time, in the time zone of the request's user.

    Raises `Refused` without a name and an email, and for a time zone that is not in the database of the system.
    """
    who = request.user if user is None else user
    if not who.name or not who.email:
        raise invalid("a user needs a name and an email")
    return Signature(text("user.name", who.name), text("user.email", who.email), request_time(request))


def request_time(request: Any) -> datetime:
    """A request's `timestamp` (now, when it has none) in the time zone of its user (UTC, when it has none)."""
    zone: tzinfo = UTC
    if request.user.timezone:
        try:
            zone = ZoneInfo(request.user.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise invalid(f"{request.user.timezone!r} is not a time zone") from error
    if not request.HasField("timestamp"):
        return datetime.now(zone)
    try:
        return datetime.fromtimestamp(request.timestamp.seconds, UTC).astimezone(zone)
    except (OverflowError, ValueError, OSError) as error:
        raise invalid("timestamp is out of range") from error
