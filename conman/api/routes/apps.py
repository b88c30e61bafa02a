"""Apps, environments and audit."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import Field
from pymongo import ASCENDING

from conman.api.access import Caller, app_creation, capability, logged_in, platform_capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.app import NAME_PATTERN
from conman.domain.errors import invalid
from conman.domain.roles import Capability, Role
from conman.domain.times import format_time, parse_time
from conman.services import apps, environment_records, holds
from conman.services.clock import now
from conman.store import memberships, records

router = APIRouter(tags=["apps"])


class NewApp(Body):
    """An app on a repository."""

    name: str = Field(min_length=1, max_length=100, pattern=NAME_PATTERN)
    repo_path: str = Field(min_length=1, max_length=400)
    integration_branch: str = Field(default="main", max_length=200)
    create_repository: bool = False


@router.get("/apps")
async def list_apps(page: int = PageNumber, limit: int = PageLimit, caller: Caller = logged_in()) -> dict[str, Any]:
    """The apps that the caller belongs to."""
    db = caller.platform.db
    roles = {row["app_id"]: row["role"] for row in await memberships.of_user(db, caller.user["_id"])}
    query = {"_id": {"$in": list(roles)}, "ready": True}
    found = await records.page(db, "apps", query, number=page, limit=limit)
    shown = [
        apps.app_record(app, integration_sha=await apps.integration_head_if_any(caller.platform, app), my_role=roles[app["_id"]])
        for app in found.items
    ]
    return listed(shown, found)


@router.post("/apps", status_code=201)
async def create_app(caller: Caller = app_creation(), new: NewApp = body(NewApp)) -> dict[str, Any]:
    """Make an app; the caller becomes its app_admin."""
    app = await apps.create_app(
        caller.platform,
        caller.call,
        name=new.name,
        repo_path=new.repo_path,
        integration_branch=new.integration_branch,
        create_repository=new.create_repository,
    )
    head = await apps.integration_head(caller.platform, app)
    return data(apps.app_record(app, integration_sha=head, my_role=Role.APP_ADMIN.value))


@router.get("/apps/{app}")
async def show_app(caller: Caller = capability(Capability.APP_READ)) -> dict[str, Any]:
    """One app, with the hold that stands."""
    head = await apps.integration_head_if_any(caller.platform, caller.of_app)
    shown = apps.app_record(caller.of_app, integration_sha=head, my_role=caller.role.value if caller.role else None)
    hold = await holds.find(caller.platform.db, shown["id"], now())
    return data({**shown, "hold": holds.hold_record(shown["id"], hold)})


@router.get("/apps/{app}/environments")
async def list_environments(caller: Caller = capability(Capability.ENVIRONMENT_READ)) -> dict[str, Any]:
    """The environments in stage order, with what is where now."""
    shown = await environment_records.environment_records(caller.platform, caller.of_app)
    return {"data": shown, "pagination": {"page": 1, "limit": max(len(shown), 1), "total": len(shown)}}


def _audit_query(entity_type: str | None, entity_id: str | None, action: str | None, actor_user_id: str | None) -> dict[str, Any]:
    wanted = {"entity_type": entity_type, "entity_id": entity_id, "action": action, "actor_user_id": actor_user_id}
    return {name: value for name, value in wanted.items() if value is not None}


def _between(earliest: str | None, latest: str | None) -> dict[str, Any]:
    """The events of a span of time, both ends in. Raises `validation_error` for what is no time."""
    wanted: dict[str, str] = {}
    for field, operator, text in (("from", "$gte", earliest), ("to", "$lte", latest)):
        if text is None:
            continue
        try:
            wanted[operator] = format_time(parse_time(text))
        except ValueError as error:
            raise invalid(field, str(error)) from error
    return {"occurred_at": wanted} if wanted else {}


@router.get("/apps/{app}/audit")
async def audit(
    page: int = PageNumber,
    limit: int = PageLimit,
    after: str | None = Query(None, max_length=64, description="id of the last event seen: oldest first from there"),
    entity_type: str | None = Query(None, max_length=64),
    entity_id: str | None = Query(None, max_length=64),
    action: str | None = Query(None, max_length=64),
    actor_user_id: str | None = Query(None, max_length=64),
    from_: str | None = Query(None, alias="from", max_length=64, description="RFC 3339; events at that time or later"),
    to: str | None = Query(None, max_length=64, description="RFC 3339; events at that time or earlier"),
    caller: Caller = capability(Capability.AUDIT_READ),
) -> dict[str, Any]:
    """What was done in this app."""
    query = {"app_id": caller.of_app["_id"], **_audit_query(entity_type, entity_id, action, actor_user_id), **_between(from_, to)}
    return await _audit_page(caller, query, page, limit, after)


@router.get("/audit")
async def platform_audit(
    page: int = PageNumber,
    limit: int = PageLimit,
    after: str | None = Query(None, max_length=64),
    entity_type: str | None = Query(None, max_length=64),
    entity_id: str | None = Query(None, max_length=64),
    action: str | None = Query(None, max_length=64),
    actor_user_id: str | None = Query(None, max_length=64),
    from_: str | None = Query(None, alias="from", max_length=64, description="RFC 3339; events at that time or later"),
    to: str | None = Query(None, max_length=64, description="RFC 3339; events at that time or earlier"),
    caller: Caller = platform_capability(Capability.AUDIT_READ_PLATFORM),
) -> dict[str, Any]:
    """What was done outside apps."""
    query = {"app_id": None, **_audit_query(entity_type, entity_id, action, actor_user_id), **_between(from_, to)}
    return await _audit_page(caller, query, page, limit, after)


async def _audit_page(caller: Caller, query: dict[str, Any], page: int, limit: int, after: str | None) -> dict[str, Any]:
    sort = None
    if after is not None:
        query["_id"] = {"$gt": after}
        sort = [("_id", ASCENDING)]
    found = await records.page(caller.platform.db, "audit", query, number=page, limit=limit, sort=sort)
    return listed([{"id": event.pop("_id"), **event} for event in found.items], found)
