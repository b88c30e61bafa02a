"""Temp environments: how they are made and made again, what is asked of them, and how they are shown (`spec.md` 13).

`temp_envs` {_id, app_id, label, live_slot?, last_activity_at, owned: TempEnv}: `temp-env:{id}` owns `owned`, each use writes
`last_activity_at` (`services/temp_env_use.py`). Two unique indexes decide what no check can: one live temp env per source
(`live_slot`), and a label for one temp env only. A record `deleted:{workspace}` holds the place of a workspace that is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.config import Settings
from conman.domain import temp_env_moves as moves
from conman.domain.changeset import TERMINAL, Changeset
from conman.domain.decision import Command, Decision, Event, NewJob
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.jobs import JobType, max_attempts
from conman.domain.outgoing import job_document
from conman.domain.temp_env import (
    ENTITY_TYPE,
    TempEnv,
    TempEnvKind,
    TempEnvState,
    expires_at,
    temp_branch,
    temp_snapshot_ref,
)
from conman.domain.temp_env_messages import DeleteCommand, ExtendCommand, UndoExpireCommand
from conman.domain.temp_words import label_prefix, temp_label
from conman.faults import fault_point
from conman.git.adapter import GitError, ObjectMissing, RefUpdate, StaleRef
from conman.mail.links import public_base
from conman.services import profiles, workspaces
from conman.services.call import Call, record
from conman.services.checkpoints import commit_pending
from conman.services.clock import now
from conman.services.platform import Platform
from conman.services.temp_env_use import COLLECTION
from conman.services.workspace_end import give_back_abandoned
from conman.store import records
from conman.store.database import Database, Document
from conman.store.outgoing import deliver

NUMBERS = "temp_env_numbers"
"""{_id: what labels of an app and kind begin with, next}: how many labels were given."""
_AGAIN = (TempEnvState.EXPIRED, TempEnvState.DELETED, TempEnvState.FAILED)
"""The states from which a temp env can be made again."""
_TAKEN_LABELS = 20
"""How many labels in a row may turn out to be taken, as after a restored backup of the numbers alone."""


def owned(document: Document) -> TempEnv:
    """What the workflow owns of a temp env's document."""
    return TempEnv.model_validate(document["owned"])


async def find(platform: Platform, app: Document, temp_env_id: str) -> Document:
    """A temp env of the app. Raises `not_found`."""
    return await records.get(platform.db, COLLECTION, temp_env_id, app_id=app["_id"], what="temp environment")


# -- What it is made from


@dataclass(frozen=True, slots=True)
class Source:
    """A workspace or changeset from which a temp env is made, and whose it is."""

    kind: TempEnvKind
    document: Document
    owner_id: str

    @property
    def ended(self) -> str | None:
        """The state in which it has ended for good; None: it has not (`spec.md` 13)."""
        if self.kind is TempEnvKind.WORKSPACE:
            return None
        state = Changeset.model_validate(self.document["owned"]).state
        return state.value if state in TERMINAL else None


async def source_of(platform: Platform, app: Document, kind: TempEnvKind, source_id: str) -> Source:
    """The source of a temp env. Raises `not_found`, for a deleted workspace too."""
    if kind is TempEnvKind.WORKSPACE:
        workspace = await workspaces.find(platform, app, source_id)
        return Source(kind, workspace, workspace["owner_user_id"])
    changeset = await records.get(platform.db, "changesets", source_id, app_id=app["_id"], what="changeset")
    return Source(kind, changeset, changeset["owned"]["author_user_id"])


async def owner_of(platform: Platform, document: Document) -> str:
    """Whose a temp env is: that of its source, and its maker's once that is deleted (`api.md` 2)."""
    state = owned(document)
    collection = "workspaces" if state.kind is TempEnvKind.WORKSPACE else "changesets"
    source = await records.find(platform.db, collection, state.source_id)
    if source is None:
        return state.created_by
    return str(source["owner_user_id"] if state.kind is TempEnvKind.WORKSPACE else source["owned"]["author_user_id"])


async def _living_source(platform: Platform, app: Document, state: TempEnv) -> Source | None:
    """The source of a temp env, None when it was deleted or has ended."""
    try:
        source = await source_of(platform, app, state.kind, state.source_id)
    except DomainError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        return None
    return None if source.ended else source


async def _refuse_second(db: Database, slot: str, temp_env_id: str) -> None:
    """Raises `conflict` while the source has another live temp env, `not_found` when it is a workspace that is deleted."""
    holder = await db[COLLECTION].find_one({"live_slot": slot})
    if holder is None or holder["_id"] == temp_env_id:  # a repeat of this request was faster
        return
    if "owned" not in holder:
        if await give_back_abandoned(db, slot.partition(":")[2]):
            return
        raise not_found("workspace")
    state = owned(holder)
    raise DomainError(
        ErrorCode.CONFLICT,
        f"The {state.kind.value} has a temporary environment that is {state.state.value}: use it, or delete it first.",
        {"temp_env_id": holder["_id"]},
    )


# -- Making


async def made_before(platform: Platform, call: Call) -> Document | None:
    """The temp env that an earlier request with this call's `Idempotency-Key` made, whatever became of its source since."""
    there = await records.find(platform.db, COLLECTION, call.derived_id("temp-env")) if call.keyed else None
    return await _started(platform, there) if there is not None else None


async def create(platform: Platform, call: Call, app: Document, source: Source, base_profile_id: str | None) -> Document:
    """A temp env of what the source shows now: pending edits are committed first. `made_before` has found none.

    Raises `validation_error` for a profile that can't be a base, `conflict` when the source has ended or has a live temp env.
    """
    base = await _base_profile(platform, app, base_profile_id)
    if source.ended:
        raise _ended(source.kind, source.document["_id"], f"is {source.ended}")
    await _refuse_second(platform.db, _slot(source.kind, source.document["_id"]), call.derived_id("temp-env"))
    head = await _head(platform, call, app, source)
    return await _insert(platform, call, app, kind=source.kind, source_id=source.document["_id"], base=base, head=head)


async def recreate(platform: Platform, call: Call, app: Document, document: Document) -> Document:
    """A new temp env of the same source, base profile and commit as one that is over. A repeat finds its own.

    Raises `invalid_transition` for one that is live, `conflict` when its source has ended, or what it recorded is gone.
    """
    there = await made_before(platform, call)
    if there is not None:
        return there
    state = owned(document)
    if state.state not in _AGAIN:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A temp env that is {state.state.value} can't become {TempEnvState.PROVISIONING.value} again: use it, or delete it.",
            {"from": state.state.value, "to": TempEnvState.PROVISIONING.value},
        )
    if await _living_source(platform, app, state) is None:
        raise _ended(state.kind, state.source_id, "has ended")
    await _refuse_second(platform.db, _slot(state.kind, state.source_id), call.derived_id("temp-env"))
    await _refuse_lost(platform, app, state)
    return await _insert(
        platform,
        call,
        app,
        kind=state.kind,
        source_id=state.source_id,
        base=state.base_profile_id,
        head=state.head_sha,
        former=document,
    )


def _slot(kind: TempEnvKind, source_id: str) -> str:
    return f"{kind.value}:{source_id}"


def _ended(kind: TempEnvKind, source_id: str, how: str) -> DomainError:
    return DomainError(
        ErrorCode.CONFLICT,
        f"The {kind.value} {how}: temporary environments are made of what is still worked on.",
        {"kind": kind.value, "source_id": source_id},
    )


async def _base_profile(platform: Platform, app: Document, wanted: str | None) -> str:
    """The profile to derive from: the request's, else the app's default, else that of its first environment (`spec.md` 13)."""
    if wanted is not None:
        try:
            found = await profiles.find(platform, app, wanted)
        except DomainError as error:
            raise invalid("base_profile_id", "is no runtime profile of this app") from error
        if found["content"]["kind"] != "persistent_env":
            raise invalid("base_profile_id", "is a temporary environment's own profile: name one of kind persistent_env")
        return str(found["_id"])
    first = app["environments"][0]["runtime_profile_id"] if app["environments"] else None
    base = app["settings"]["default_base_profile_id"] or first
    if base is None:
        raise DomainError(ErrorCode.CONFLICT, "The app has no default_base_profile_id: name a base_profile_id, or set one.")
    return str(base)


async def _head(platform: Platform, call: Call, app: Document, source: Source) -> str:
    """The commit to serve: a changeset's current revision, else the workspace with what is pending committed on it."""
    workspace = source.document
    if source.kind is TempEnvKind.CHANGESET:
        state = Changeset.model_validate(source.document["owned"])
        if state.revisions:
            return state.revisions[-1].head_sha
        workspace = await workspaces.find(platform, app, state.workspace_id)
    return await commit_pending(platform, call, app, workspace, title="Edit before a temporary environment")


async def _refuse_lost(platform: Platform, app: Document, state: TempEnv) -> None:
    """What a temp env recorded must still be there. Raises `conflict`."""
    hint = "create a temporary environment anew instead"
    try:
        await profiles.find(platform, app, state.base_profile_id)
    except DomainError as error:
        raise DomainError(ErrorCode.CONFLICT, f"Its base profile was deleted: {hint}.") from error
    try:
        await platform.git.commit(app["repo_path"], state.head_sha)
    except ObjectMissing as error:
        raise DomainError(ErrorCode.CONFLICT, f"Its commit is not in the repository any more: {hint}.") from error


async def _insert(
    platform: Platform,
    call: Call,
    app: Document,
    *,
    kind: TempEnvKind,
    source_id: str,
    base: str,
    head: str,
    former: Document | None = None,
) -> Document:
    """Insert the record with its audit event and its job, then start its process.

    A private ref keeps the commit from before the record names it, whatever becomes of the workspace.
    """
    temp_env_id = call.derived_id("temp-env")
    kept = RefUpdate(temp_snapshot_ref(temp_env_id), None, head)
    with suppress(StaleRef):  # a repeat of this request was faster
        await platform.git.update_refs(app["repo_path"], [kept])
    fault_point("temp_env.kept")
    for _ in range(_TAKEN_LABELS):
        label = await _next_label(platform.db, app, kind)
        state = TempEnv(
            kind=kind,
            source_id=source_id,
            created_at=call.at,
            created_by=call.user_id,
            base_profile_id=base,
            head_sha=head,
            label=label,
            url=temp_url(platform.settings, app, label),
            branch=temp_branch(label),
            job_id=call.derived_id("job"),
            recreated_from=former["_id"] if former is not None else None,
        )
        try:
            made, _ = await records.insert_once(platform.db, COLLECTION, _document(call, temp_env_id, app["_id"], state, former))
        except DuplicateKeyError:
            try:
                await _refuse_second(platform.db, _slot(kind, source_id), temp_env_id)
            except DomainError:
                with suppress(GitError):  # what stays holds one commit, and is found by nobody
                    await platform.git.update_refs(app["repo_path"], [RefUpdate(kept.ref, head, None)])
                raise
            continue
        fault_point("temp_env.inserted")
        return await _started(platform, made)
    raise DomainError(ErrorCode.CONFLICT, "The names of temporary environments keep being taken: try again.")


def _document(call: Call, temp_env_id: str, app_id: str, state: TempEnv, former: Document | None) -> Document:
    after = {
        "kind": state.kind.value,
        "source_id": state.source_id,
        "state": state.state.value,
        "base_profile_id": state.base_profile_id,
        "url": state.url,
        "branch": state.branch,
        "job_id": state.job_id,
    }
    if former is None:
        event = Event(ENTITY_TYPE, temp_env_id, "created", after=after, git_sha=state.head_sha)
    else:
        before = {"temp_env_id": former["_id"], "state": owned(former).state.value}
        event = Event(ENTITY_TYPE, temp_env_id, "recreated", before=before, after=after, git_sha=state.head_sha)
    kind = JobType.TEMP_ENV_PROVISION
    job = NewJob(state.job_id, kind, ENTITY_TYPE, temp_env_id, max_attempts(kind), created_by=call.user_id)
    new_job = {"id": call.derived_id("outgoing-job"), "kind": "job", "doc": job_document(job, app_id=app_id, at=call.at)}
    return {
        "_id": temp_env_id,
        "app_id": app_id,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "label": state.label,
        "live_slot": state.live_slot,
        "last_activity_at": call.at,
        "owned": state.model_dump(mode="json"),
        "outgoing": [*call.audit(event, app_id=app_id), new_job],
    }


async def _started(platform: Platform, document: Document) -> Document:
    """Bring its job, and start its process if it waits to be provisioned: what a repeat finds may have come no further."""
    await deliver(platform.db, COLLECTION, document)
    state = owned(document)
    if state.state is TempEnvState.PROVISIONING:
        await platform.commands.start(platform.commands.temp_env_start(document["app_id"], document["_id"], state.label))
    return document


async def _next_label(db: Database, app: Document, kind: TempEnvKind) -> str:
    """A label that was not given before: they are numbered by what they begin with."""
    counter, more = {"_id": label_prefix(app["name"], kind)}, {"$inc": {"next": 1}}
    while True:
        try:
            found = await db[NUMBERS].find_one_and_update(counter, more, upsert=True, return_document=ReturnDocument.AFTER)
        except DuplicateKeyError:
            continue  # another request made it at the same moment: now it is there
        return temp_label(app["name"], kind, cast("Document", found)["next"] - 1)


def temp_url(settings: Settings, app: Document, label: str) -> str:
    """Where the temp env with this label is reached: below the app's domain, else the operator's; as `CONMAN_PUBLIC_URL` is."""
    base = urlsplit(public_base(settings))
    domain = app["settings"].get("temp_url_domain") or settings.temp_url_domain
    return f"{base.scheme}://{label}.{domain}" + (f":{base.port}" if base.port else "")


# -- What is asked of it


async def extend(platform: Platform, call: Call, app: Document, document: Document, seconds: int) -> None:
    """Let it not begin to expire before `seconds` from now.

    Raises `validation_error` for what reaches too far, `invalid_transition` unless it is active, `conflict` for an ended source.
    """
    ended = await _living_source(platform, app, owned(document)) is None

    def decide(state: TempEnv) -> Decision[TempEnv]:
        used = document.get("last_activity_at")
        return moves.decide_extend(document["_id"], state, seconds, used, now(), source_ended=ended)

    said = _said(platform, call)
    await _send(platform, call, document, "extend", ExtendCommand(**said, seconds=seconds, source_ended=ended), decide)


async def undo_expire(platform: Platform, call: Call, document: Document) -> None:
    """Bring it back from its grace. Raises `grace_ended`, or `invalid_transition` for one that is not in it."""

    def decide(state: TempEnv) -> Decision[TempEnv]:
        return moves.decide_undo(document["_id"], state, now())

    await _send(platform, call, document, "undo_expire", UndoExpireCommand(**_said(platform, call)), decide)


async def delete(platform: Platform, call: Call, document: Document) -> str:
    """End it now, without grace; the id of the job that removes what it has. Raises `invalid_transition`."""
    job_id = call.derived_id("job")

    def decide(state: TempEnv) -> Decision[TempEnv]:
        return moves.decide_delete(document["_id"], state, job_id, call.user_id)

    command = DeleteCommand(**_said(platform, call), expire_job_id=job_id)
    result = await _send(platform, call, document, "delete", command, decide)
    return str(result["job_id"])


def _said(platform: Platform, call: Call) -> dict[str, Any]:
    return {"id": call.command_id, "actor": call.actor, "not_after": platform.commands.not_after()}


async def _send(
    platform: Platform,
    call: Call,
    document: Document,
    update: str,
    command: Command,
    decide: Callable[[TempEnv], Decision[TempEnv]],
) -> Mapping[str, Any]:
    """Send a command to the temp env's process, unless its record shows that a repeat is answered, or it refused, already.

    One that is over may have no process any more: the rule that the process would ask is asked here.
    """
    state = owned(document)
    done = state.remembered(call.command_id)
    if done is not None:
        await deliver(platform.db, COLLECTION, document)  # the job that the answer names may still be on its way
        return done.result
    decide(state)
    start = platform.commands.temp_env_start(document["app_id"], document["_id"], state.label)
    return await platform.commands.send(start, update, command)


# -- Showing


def temp_env_record(document: Document) -> dict[str, Any]:
    """A temp env as `api.md` 4 shows it."""
    state, used = owned(document), document.get("last_activity_at")
    return record(
        document,
        kind=state.kind.value,
        source_id=state.source_id,
        state=state.state.value,
        url=state.url,
        db_name=state.db_name,
        branch=state.branch,
        head_sha=state.head_sha,
        base_profile_id=state.base_profile_id,
        runtime_profile_id=state.runtime_profile_id,
        last_activity_at=used,
        extended_until=state.extended_until,
        expires_at=expires_at(state, used),
        grace_until=state.grace_until,
        auto_cleanup=state.auto_cleanup,
        reason_code=state.reason_code.value if state.reason_code else None,
        job_id=state.job_id,
        expire_job_id=state.expire_job_id,
        recreated_from=state.recreated_from,
        waiting_for=moves.waiting_for(state, used),
    )


def parse_states(text: str | None) -> list[str] | None:
    """The states of a `?state=a,b` filter. Raises `validation_error` for an unknown one."""
    if text is None:
        return None
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    known = {state.value for state in TempEnvState}
    for state in wanted:
        if state not in known:
            raise invalid("state", f"{state!r} is no state of a temporary environment; known are {', '.join(sorted(known))}")
    return wanted
