"""Temporary environments (`spec.md` 13)."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.roles import Capability
from conman.domain.temp_env import LEAST_EXTENSION_SECONDS, LONGEST_EXTENSION_SECONDS, TempEnvKind
from conman.services import temp_env_access, temp_envs
from conman.services.clock import now
from conman.services.jobs import job_record
from conman.services.temp_env_use import COLLECTION, touch
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/temp-envs", tags=["temp-envs"])
_C = Capability


class NewTempEnv(Body):
    """What to make it from: `workspace` or `changeset`, and which; and the profile to derive its own from.

    Without `base_profile_id` the app's `default_base_profile_id`.
    """

    kind: Literal["workspace", "changeset"]
    source_id: str = Field(max_length=64)
    base_profile_id: str | None = Field(default=None, max_length=64)


class Extension(Body):
    """For how long it may not begin to expire: seconds from now, an hour to 48."""

    seconds: int = Field(ge=LEAST_EXTENSION_SECONDS, le=LONGEST_EXTENSION_SECONDS)


async def _used(caller: Caller, temp_env_id: str) -> Document:
    """A temp env of the app, as it is after this use of it: a call about it counts as one."""
    found = await temp_envs.find(caller.platform, caller.of_app, temp_env_id)
    await touch(caller.platform.db, found["_id"], now())
    return await temp_envs.find(caller.platform, caller.of_app, found["_id"])


async def _own(caller: Caller, temp_env_id: str, own: Capability) -> Document:
    """As `_used`, for who may do this to it: it is the caller's own when its source is."""
    found = await temp_envs.find(caller.platform, caller.of_app, temp_env_id)
    caller.require_own(await temp_envs.owner_of(caller.platform, found), own)
    return await _used(caller, temp_env_id)


async def _with_job(caller: Caller, temp_env_id: str, job_id: str) -> dict[str, Any]:
    shown = await temp_envs.find(caller.platform, caller.of_app, temp_env_id)
    job = await records.get(caller.platform.db, "jobs", job_id, what="job")
    return data({"temp_env": temp_envs.temp_env_record(shown), "job": job_record(job)})


@router.get("")
async def list_temp_envs(
    page: int = PageNumber,
    limit: int = PageLimit,
    state: str | None = Query(None, max_length=200, description="states with commas between them"),
    caller: Caller = capability(_C.TEMP_ENV_READ),
) -> dict[str, Any]:
    """The app's temporary environments, newest first; deleted ones too."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    states = temp_envs.parse_states(state)
    if states is not None:
        query["owned.state"] = {"$in": states}
    found = await records.page(caller.platform.db, COLLECTION, query, number=page, limit=limit)
    return listed([temp_envs.temp_env_record(row) for row in found.items], found)


@router.post("", status_code=201)
async def create_temp_env(
    caller: Caller = capability(_C.TEMP_ENV_CREATE_OWN, _C.TEMP_ENV_CREATE_ANY), new: NewTempEnv = body(NewTempEnv)
) -> dict[str, Any]:
    """Make one of a workspace, pending edits included, or of a changeset; the job provisions it."""
    made = await temp_envs.made_before(caller.platform, caller.call)
    if made is None:
        source = await temp_envs.source_of(caller.platform, caller.of_app, TempEnvKind(new.kind), new.source_id)
        caller.require_own(source.owner_id, _C.TEMP_ENV_CREATE_OWN)
        made = await temp_envs.create(caller.platform, caller.call, caller.of_app, source, new.base_profile_id)
    return await _with_job(caller, made["_id"], made["owned"]["job_id"])


@router.get("/{t}")
async def show_temp_env(t: str, caller: Caller = capability(_C.TEMP_ENV_READ)) -> dict[str, Any]:
    """One temporary environment. To look at it is to use it."""
    return data(temp_envs.temp_env_record(await _used(caller, t)))


@router.delete("/{t}", status_code=202)
async def delete_temp_env(
    t: str, caller: Caller = capability(_C.TEMP_ENV_DELETE_OWN, _C.TEMP_ENV_DELETE_ANY), _: Empty = body(Empty)
) -> dict[str, Any]:
    """End it now, without grace; the job removes its database, branch and profile. The record stays."""
    found = await temp_envs.find(caller.platform, caller.of_app, t)
    caller.require_own(await temp_envs.owner_of(caller.platform, found), _C.TEMP_ENV_DELETE_OWN)
    return await _with_job(caller, t, await temp_envs.delete(caller.platform, caller.call, found))


@router.post("/{t}/extend")
async def extend_temp_env(
    t: str, caller: Caller = capability(_C.TEMP_ENV_EXTEND_OWN, _C.TEMP_ENV_EXTEND_ANY), wanted: Extension = body(Extension)
) -> dict[str, Any]:
    """Let it not begin to expire before so many seconds from now, 72 hours after it was made at most."""
    found = await _own(caller, t, _C.TEMP_ENV_EXTEND_OWN)
    await temp_envs.extend(caller.platform, caller.call, caller.of_app, found, wanted.seconds)
    return await show_temp_env(t, caller)


@router.post("/{t}/undo-expire")
async def undo_expire(
    t: str, caller: Caller = capability(_C.TEMP_ENV_UNDO_OWN, _C.TEMP_ENV_UNDO_ANY), _: Empty = body(Empty)
) -> dict[str, Any]:
    """Bring one back from its grace, with a fresh idle time."""
    found = await _own(caller, t, _C.TEMP_ENV_UNDO_OWN)
    await temp_envs.undo_expire(caller.platform, caller.call, found)
    return await show_temp_env(t, caller)


@router.post("/{t}/recreate", status_code=201)
async def recreate_temp_env(
    t: str, caller: Caller = capability(_C.TEMP_ENV_RECREATE_OWN, _C.TEMP_ENV_RECREATE_ANY), _: Empty = body(Empty)
) -> dict[str, Any]:
    """Make a new one from what one that is over recorded: the same source, base profile and commit."""
    found = await _own(caller, t, _C.TEMP_ENV_RECREATE_OWN)
    made = await temp_envs.recreate(caller.platform, caller.call, caller.of_app, found)
    return await _with_job(caller, made["_id"], made["owned"]["job_id"])


@router.post("/{t}/open")
async def open_temp_env(t: str, caller: Caller = capability(_C.TEMP_ENV_OPEN), _: Empty = body(Empty)) -> dict[str, Any]:
    """A link to it that is good once, within two minutes, and opens it for as long as the caller's session stands."""
    found = await _used(caller, t)
    url = await temp_env_access.make_link(
        caller.platform, caller.call, found, session_id=caller.session_id, session_ends=caller.session_ends
    )
    return data({"url": url})
