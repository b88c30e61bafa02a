"""Comments on changesets: making, changing and showing them, with what each body has been (`spec.md` 8).

`comments` {_id, app_id, changeset_id, body, body_number, resolved, parent_comment_id, revision_number, anchor, was_resolved,
changes}: one guarded write for each change. `changes` are the last ones, by which a repeat of a request finds what its first run
answered; `was_resolved` is what the thread was when this comment was made, for the same.
`comment_revisions` {_id, app_id, comment_id, revision_number, body, created_at, created_by}: every body, never changed again.
It leaves the comment's document with the write that makes it the comment's body, as audit events do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING

from conman.domain import comment as rules
from conman.domain.changeset import Changeset
from conman.domain.comment import Anchor, Place
from conman.domain.decision import REMEMBERED_COMMANDS
from conman.domain.errors import not_found
from conman.services.anchors import anchor_at, places_in
from conman.services.call import Call, has_happened, keep, recall, record
from conman.services.changesets import owned
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from conman.store.outgoing import deliver, record_to_keep
from conman.store.records import Page

COMMENTS = "comments"
REVISIONS = "comment_revisions"


@dataclass(frozen=True, slots=True)
class NewComment:
    """What a new comment says, and where."""

    body: str
    file_path: str | None = None
    line_number: int | None = None
    parent_comment_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an answer showed of a comment, by references: a repeat of its request shows the same (`api.md` 1).

    `resolved` is the thread's, `at_revision` the changeset's revision in which the comment's place was shown.
    """

    version: int
    at: str
    body_number: int
    resolved: bool
    at_revision: int | None


async def find(platform: Platform, changeset: Document, comment_id: str) -> Document:
    """A comment of the changeset. Raises `not_found`."""
    found = await records.find(platform.db, COMMENTS, comment_id)
    if found is None or found["changeset_id"] != changeset["_id"]:
        raise not_found("comment")
    return found


# -- Changing


async def create(platform: Platform, call: Call, app: Document, changeset: Document, new: NewComment) -> dict[str, Any]:
    """A comment on the changeset, a file or a line of its current revision, or a reply to another one.

    Raises `validation_error` for a body or a place that is none, `not_found` for a parent that is no comment of the changeset.
    """
    comment_id = call.derived_id("comment")
    made = await records.find(platform.db, COMMENTS, comment_id) if call.keyed else None
    if made is None:  # else a repeat: what it names may be gone since
        document = await _new_document(platform, call, app, changeset, comment_id, new)
        made, _ = await records.insert_once(platform.db, COMMENTS, document)
    seen = _Seen(1, made["created_at"], 1, made["was_resolved"], made["revision_number"])
    return await _answer(platform, app, changeset, made, seen)


async def _new_document(
    platform: Platform, call: Call, app: Document, changeset: Document, comment_id: str, new: NewComment
) -> Document:
    state = owned(changeset)
    body = rules.check_body(new.body)
    thread: Document | None = None
    if new.parent_comment_id is None:
        anchor = await anchor_at(platform, app, state, new.file_path, new.line_number)
        place = rules.unmoved(anchor)
    else:
        thread = await _thread_of(platform, changeset, await find(platform, changeset, new.parent_comment_id))
        anchor = _anchor(thread)
        place = (await places_in(platform, app, state, _current(state), [anchor]))[anchor]
        rules.check_reply(anchor, place, new.file_path, new.line_number)
    thread_id = thread["_id"] if thread is not None else None
    event = rules.created_event(comment_id, changeset["_id"], body, place, _current(state), thread_id)
    document: Document = {
        "_id": comment_id,
        "app_id": app["_id"],
        "changeset_id": changeset["_id"],
        "body": body,
        "body_number": 1,
        "resolved": False,
        "parent_comment_id": thread_id,
        "revision_number": _current(state),
        "anchor": asdict(anchor),
        "was_resolved": thread is not None and thread["resolved"],
        "changes": [],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
    }
    return {**document, "outgoing": [*call.audit(event, app_id=app["_id"]), _revision(call, document)]}


async def change(
    platform: Platform,
    call: Call,
    app: Document,
    changeset: Document,
    comment_id: str,
    *,
    body: str | None,
    resolved: bool | None,
    version: int | None,
) -> dict[str, Any]:
    """Edit a body, resolve or reopen a thread, or both; what stands already is left alone.

    Two changes at once that name no version are made one after the other. Raises `forbidden` for a body that another person
    wrote, `stale_write`, and `validation_error`.
    """
    current = _current(owned(changeset))
    while True:
        document = await find(platform, changeset, comment_id)
        if body is not None:
            rules.check_author(document["created_by"], call.user_id)
        thread = await _thread_of(platform, changeset, document)
        present = _Seen(document["version"], document["updated_at"], document["body_number"], thread["resolved"], current)
        answered = await _answered(platform, call, document, present)
        if answered is not None:
            return await _answer(platform, app, changeset, document, answered)
        if version not in (None, document["version"]):
            raise records.stale(document["version"])
        changed = rules.decide_change(_facts(document), body=body, resolved=resolved)
        if changed is None:
            await keep(platform.db, call, {"seen": asdict(present)})
            return await _answer(platform, app, changeset, document, present)
        written = await _write(platform, call, document, changed, present)
        if written is not None:
            return await _answer(platform, app, changeset, *written)


async def _write(
    platform: Platform, call: Call, document: Document, changed: rules.Changed, present: _Seen
) -> tuple[Document, _Seen] | None:
    """The one write that makes a change true; None when the comment has changed meanwhile."""
    fields: Document = {
        "body": changed.body,
        "body_number": document["body_number"] + changed.new_body,
        "resolved": changed.resolved,
        "updated_at": call.at,
    }
    thread_resolved = present.resolved if document["parent_comment_id"] is not None else changed.resolved
    seen = _Seen(document["version"] + 1, call.at, fields["body_number"], thread_resolved, present.at_revision)
    changes = [*document["changes"], {"id": call.event_id(0), "seen": asdict(seen)}]
    fields["changes"] = changes[-REMEMBERED_COMMANDS:]
    outgoing = call.audit(*changed.events, app_id=document["app_id"])
    if changed.new_body:
        outgoing.append(_revision(call, {**document, **fields}))
    guard = {"_id": document["_id"], "version": document["version"]}
    written = await records.write_where(platform.db, COMMENTS, guard, {"$set": fields, "$inc": {"version": 1}}, outgoing=outgoing)
    return None if written is None else (written, seen)


def _revision(call: Call, comment: Document) -> Document:
    """The comment's present body, as an outgoing entry."""
    kept = {
        "_id": call.derived_id("comment-revision"),
        "app_id": comment["app_id"],
        "comment_id": comment["_id"],
        "revision_number": comment["body_number"],
        "body": comment["body"],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
    }
    return record_to_keep(REVISIONS, kept)


async def _answered(platform: Platform, call: Call, document: Document, present: _Seen) -> _Seen | None:
    """What an earlier run of this request answered; None when there was none.

    The write itself remembers it, also for a driver that sent the write twice; what changed nothing is kept at the key.
    """
    event_id = call.event_id(0)
    for entry in document["changes"]:
        if entry["id"] == event_id:
            return _Seen(**entry["seen"])
    kept = await recall(platform.db, call)
    if kept is not None:
        return _Seen(**kept["seen"])
    # So many changes came after it that the comment remembers it no more.
    return present if await has_happened(platform.db, call, document) else None


def _facts(document: Document) -> rules.Comment:
    return rules.Comment(
        id=document["_id"],
        changeset_id=document["changeset_id"],
        thread_id=document["parent_comment_id"],
        body=document["body"],
        resolved=document["resolved"],
    )


# -- Showing


async def page(platform: Platform, app: Document, changeset: Document, number: int, limit: int) -> tuple[list[Any], Page]:
    """One page of the changeset's comments, oldest first, as they are shown."""
    query = {"changeset_id": changeset["_id"]}
    found = await records.page(
        platform.db, COMMENTS, query, number=number, limit=limit, sort=[("_id", ASCENDING)], leave_out=["changes", "outgoing"]
    )
    state = owned(changeset)
    places = await places_in(platform, app, state, _current(state), map(_anchor, found.items))
    threads = await _resolved(platform, found.items)
    shown = [
        _record(
            document,
            _Seen(
                document["version"],
                document["updated_at"],
                document["body_number"],
                threads[document["parent_comment_id"] or document["_id"]],
                _current(state),
            ),
            document["body"],
            places[_anchor(document)],
        )
        for document in found.items
    ]
    return shown, found


async def revisions(platform: Platform, changeset: Document, comment_id: str, number: int, limit: int) -> Page:
    """One page of what a comment's body has been, the present one first."""
    document = await find(platform, changeset, comment_id)
    await deliver(platform.db, COMMENTS, document)  # a writer that died may have left the last one
    query = {"comment_id": document["_id"]}
    found = await records.page(platform.db, REVISIONS, query, number=number, limit=limit, sort=[("revision_number", DESCENDING)])
    rows = [record(row, "comment_id", "revision_number", "body") for row in found.items]
    return Page(rows, found.page, found.limit, found.total)


async def _answer(platform: Platform, app: Document, changeset: Document, document: Document, seen: _Seen) -> dict[str, Any]:
    """The comment as an answer showed it, or shows it first."""
    body = document["body"]
    if seen.body_number != document["body_number"]:
        await deliver(platform.db, COMMENTS, document)
        query = {"comment_id": document["_id"], "revision_number": seen.body_number}
        former = await platform.db[REVISIONS].find_one(query)
        if former is None:
            raise not_found("revision of this comment")
        body = former["body"]
    anchor = _anchor(document)
    places = await places_in(platform, app, owned(changeset), seen.at_revision, [anchor])
    return _record(document, seen, body, places[anchor])


def _record(document: Document, seen: _Seen, body: str, place: Place) -> dict[str, Any]:
    """A comment as `api.md` 4 shows it; `original` is the place that it, or its thread, was put on."""
    then = {**document, "version": seen.version, "updated_at": seen.at}
    return record(
        then,
        "changeset_id",
        "parent_comment_id",
        "revision_number",
        body=body,
        file_path=place.file_path,
        line_number=place.line_number,
        original=document["anchor"],
        outdated=place.outdated,
        resolved=seen.resolved,
        edited=seen.body_number > 1,
    )


async def _thread_of(platform: Platform, changeset: Document, document: Document) -> Document:
    """The first comment of a comment's thread."""
    thread_id = document["parent_comment_id"]
    return document if thread_id is None else await find(platform, changeset, thread_id)


async def _resolved(platform: Platform, documents: list[Document]) -> dict[str, bool]:
    """First comment of a thread → whether it is resolved, for the threads of these comments."""
    found = {document["_id"]: document["resolved"] for document in documents if document["parent_comment_id"] is None}
    others = {document["parent_comment_id"] for document in documents} - {None, *found}
    if others:
        rows = platform.db[COMMENTS].find({"_id": {"$in": sorted(others)}}, {"resolved": 1})
        found |= {row["_id"]: row["resolved"] async for row in rows}
    return found


def _anchor(document: Document) -> Anchor:
    return Anchor(**document["anchor"])


def _current(state: Changeset) -> int | None:
    """The changeset's revision that is current; None before the first submit."""
    return state.current_revision or None
