"""Apps and their environments."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, app_creation, capability, logged_in
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.app import NAME_PATTERN
from conman.domain.roles import Capability, Role
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
