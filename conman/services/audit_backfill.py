"""Records without any event of their own get the one of their beginning (`spec.md` 14: a change without its event cannot stay).

They come from versions that wrote no audit, or from a database in which events were lost. What is written shows the record as it
is now, by its maker and at the time that it was made, and says in `backfilled_at` when that was found out. The id is derived from
the record, so that a second run, or one beside it, adds nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING

from conman.domain import profile_audit
from conman.domain.audit import BACKFILLED_AT, FIRST_ACTIONS
from conman.domain.decision import Actor, Event
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.profile import Profile
from conman.domain.times import later, milliseconds
from conman.store import audit
from conman.store.database import Database, Document

PAGE = 500
"""Records looked at, and events written, at once."""
SETTLES = timedelta(minutes=10)
"""A record that is younger may still be in the making, with its event on the way."""

After = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where the records of an entity type are, and what `after` says of one; None: it never came to be."""

    entity_type: str
    collection: str
    after: Callable[[Document], After | None]


def _of(document: Document, *names: str) -> After:
    return {name: document[name] for name in names if name in document}


def _app(app: Document) -> After | None:
    return _of(app, "name", "repo_path", "integration_branch") if app.get("ready", True) else None


def _membership(member: Document) -> After | None:
    return _of(member, "user_id", "role") if member.get("role") is not None else None


def _invite(invite: Document) -> After:
    return _of(invite, "email", "role", "expires_at")


def _user(user: Document) -> After:
    return _of(user, "email", "name", "is_platform_admin")


def _workspace(workspace: Document) -> After | None:
    if not workspace.get("ready", True):
        return None
    known = _of(workspace, "owner_user_id", "branch_name", "is_default", "title", "commit_mode", "hotpatch")
    return {**known, "base_sha": workspace["start_sha"]}


def _changeset(changeset: Document) -> After:
    shown = {"title": changeset["title"], "description": changeset.get("description")}
    return {**_of(changeset["owned"], "workspace_id", "author_user_id", "state", "hotpatch", "head_sha", "base_sha"), **shown}


def _comment(comment: Document) -> After:
    return _of(comment, "changeset_id", "body")


def _release(release: Document) -> After | None:
    owned = release["owned"]
    if not owned["created"] or owned["tag"] is None:
        return None
    order = [member["changeset_id"] for member in owned["members"]]
    return {**_of(owned, "tag", "state", "reverts_release_id"), "ordered_changeset_ids": order}


def _deployment(deployment: Document) -> After:
    return _of(deployment["owned"], "environment_id", "release_id", "kind", "state", "group_id", "skip_stage", "job_id")


def _profile(profile: Document) -> After | None:
    if profile.get("deleted"):
        return None
    content = Profile.model_validate(profile["content"])
    return profile_audit.created(profile["_id"], profile_audit.Revision(profile["revision_number"], content)).after


def _temp_env(temp_env: Document) -> After:
    names = ("kind", "source_id", "state", "base_profile_id", "runtime_profile_id", "url", "branch", "job_id")
    return _of(temp_env["owned"], *names)


KINDS = (
    _Kind("user", "users", _user),
    _Kind("app", "apps", _app),
    _Kind("membership", "memberships", _membership),
    _Kind("invite", "invites", _invite),
    _Kind("runtime_profile", "profiles", _profile),
    _Kind("workspace", "workspaces", _workspace),
    _Kind("changeset", "changesets", _changeset),
    _Kind("comment", "comments", _comment),
    _Kind("release", "releases", _release),
    _Kind("deployment", "deployments", _deployment),
    _Kind("temp_environment", "temp_envs", _temp_env),
)


async def backfill(
    db: Database, at: str, *, app_id: str | None = None, dry_run: bool = False, progress: Progress = lambda _done, _total: None
) -> dict[str, int]:
    """Write what is missing, of one app or of everything; how many events there were to write, by entity type.

    `progress` is told how many records were looked at, of how many. `dry_run` writes nothing. Raises `ValueError` for a record
    that the audit table can't show, naming it.
    """
    wanted = {kind: _query(kind, app_id) for kind in KINDS if app_id is None or kind.entity_type != "user"}
    total = sum([await db[kind.collection].count_documents(query) for kind, query in wanted.items()])
    missing: dict[str, int] = {}
    done = 0
    for kind, query in wanted.items():
        async for page in _pages(db, kind.collection, query):
            events, unsealed = await _missing(db, kind, page, at)
            if not dry_run:
                await audit.append(db, [*events, *unsealed])
            missing[kind.entity_type] = missing.get(kind.entity_type, 0) + len(events)
            done += len(page)
            progress(done, total)
    return {entity_type: number for entity_type, number in missing.items() if number}


def _query(kind: _Kind, app_id: str | None) -> Document:
    if app_id is None:
        return {}
    return {"_id": app_id} if kind.entity_type == "app" else {"app_id": app_id}


async def _pages(db: Database, collection: str, query: Document) -> AsyncIterator[list[Document]]:
    after = ""
    while True:
        found = db[collection].find({"$and": [query, {"_id": {"$gt": after}}]}).sort([("_id", ASCENDING)])
        page = await found.limit(PAGE).to_list()
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = page[-1]["_id"]


async def _missing(db: Database, kind: _Kind, page: list[Document], at: str) -> tuple[list[Document], list[Document]]:
    """The events for those of a page that have none, nor one on its way; and those that an earlier run wrote and that have no
    seal, since it may have died before they waited for one.
    """
    query = {"entity_type": kind.entity_type, "entity_id": {"$in": [record["_id"] for record in page]}}
    told = {event["entity_id"] async for event in db["audit"].find(query, {"entity_id": 1})}
    mine = [_event_id(kind, record) for record in page]
    written = await db["audit"].find({"_id": {"$in": mine}}).to_list()
    sealed = {seal["_id"] async for seal in db["audit_seals"].find({"_id": {"$in": mine}}, {"_id": 1})} if written else set[str]()
    events: list[Document] = []
    for record in page:
        on_the_way = any(entry["kind"] == "audit" for entry in record.get("outgoing") or [])
        if record["_id"] in told or on_the_way or record["created_at"] > later(at, -SETTLES):
            continue
        after = kind.after(record)
        if after is not None:
            events.append(_event(kind, record, {**after, BACKFILLED_AT: at}))
    return events, [event for event in written if event["_id"] not in sealed]


def _event_id(kind: _Kind, record: Document) -> str:
    return derived_uuid7(milliseconds(record["created_at"]), "backfill", kind.collection, record["_id"])


def _event(kind: _Kind, record: Document, after: After) -> Document:
    created_at, record_id, maker = record["created_at"], record["_id"], Actor(user_id=record.get("created_by"))
    app_id = record_id if kind.entity_type == "app" else record.get("app_id")
    event = Event(kind.entity_type, record_id, FIRST_ACTIONS[kind.entity_type], after=after)
    try:
        entry = audit_entry(_event_id(kind, record), event, app_id=app_id, actor=maker, at=created_at)
    except ValueError as error:
        raise ValueError(f"{kind.collection} {record_id}: {error}") from error
    document: Document = entry["doc"]
    return document
