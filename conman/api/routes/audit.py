"""The audit of an app, and of what belongs to no app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query

from conman.api.access import Caller, capability, platform_capability
from conman.api.routes import PageLimit, PageNumber, listed
from conman.domain.roles import Capability
from conman.services.audit_log import AuditFilter, event_record, find_events

router = APIRouter(tags=["audit"])

After = Query(None, max_length=64, description="id of the last event seen, or 0: oldest first from there")
EntityType = Query(None, max_length=64, description="such as changeset or app")
EntityId = Query(None, max_length=64, description="id of the record that was changed")
Action = Query(None, max_length=64, description="such as submitted")
ActorId = Query(None, max_length=64, description="id of who did it")
From = Query(None, alias="from", max_length=64, description="RFC 3339; events at that time or later")
To = Query(None, max_length=64, description="RFC 3339; events at that time or earlier")


@router.get("/apps/{app}/audit")
async def audit(
    page: int = PageNumber,
    limit: int = PageLimit,
    after: str | None = After,
    entity_type: str | None = EntityType,
    entity_id: str | None = EntityId,
    action: str | None = Action,
    actor_user_id: str | None = ActorId,
    from_: str | None = From,
    to: str | None = To,
    caller: Caller = capability(Capability.AUDIT_READ),
) -> dict[str, Any]:
    """What was done in this app."""
    wanted = AuditFilter(
        entity_type=entity_type,
        entity_id=entity_id,
        action=action,
        actor_user_id=actor_user_id,
        earliest=from_,
        latest=to,
        after=after,
    )
    return await _listed(caller, caller.of_app["_id"], wanted, page, limit)


@router.get("/audit")
async def platform_audit(
    page: int = PageNumber,
    limit: int = PageLimit,
    after: str | None = After,
    entity_type: str | None = EntityType,
    entity_id: str | None = EntityId,
    action: str | None = Action,
    actor_user_id: str | None = ActorId,
    from_: str | None = From,
    to: str | None = To,
    caller: Caller = platform_capability(Capability.AUDIT_READ_PLATFORM),
) -> dict[str, Any]:
    """What was done outside apps."""
    wanted = AuditFilter(
        entity_type=entity_type,
        entity_id=entity_id,
        action=action,
        actor_user_id=actor_user_id,
        earliest=from_,
        latest=to,
        after=after,
    )
    return await _listed(caller, None, wanted, page, limit)


async def _listed(caller: Caller, app_id: str | None, wanted: AuditFilter, page: int, limit: int) -> dict[str, Any]:
    found = await find_events(caller.platform.db, app_id, wanted, number=page, limit=limit)
    return listed([event_record(event) for event in found.items], found)
