"""Members of an app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.errors import invalid
from conman.domain.roles import Capability, Role
from conman.services import members
from conman.store import records

router = APIRouter(tags=["members"])


class NewMember(Body):
    """Somebody with an account, and their role."""

    user_id: str | None = None
    email: str | None = Field(default=None, max_length=320)
    role: str


@router.get("/apps/{app}/members")
async def list_members(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(Capability.MEMBER_READ)
) -> dict[str, Any]:
    """The app's members."""
    db = caller.platform.db
    found = await records.page(db, "memberships", {"app_id": caller.of_app["_id"]}, number=page, limit=limit)
    users = {user["_id"]: user async for user in db["users"].find({"_id": {"$in": [row["user_id"] for row in found.items]}})}
    return listed([members.member_record(row, users.get(row["user_id"])) for row in found.items], found)


@router.post("/apps/{app}/members", status_code=201)
async def add_member(caller: Caller = capability(Capability.MEMBER_MANAGE), new: NewMember = body(NewMember)) -> dict[str, Any]:
    """Make somebody with an account a member."""
    if new.role not in {role.value for role in Role}:
        raise invalid("role", f"is none of {', '.join(role.value for role in Role)}")
    user = await members.find_user(caller.platform, user_id=new.user_id, email=new.email)
    made = await members.add_member(caller.platform, caller.call, caller.of_app, user=user, role=Role(new.role), via="direct")
    return data(members.member_record(made, user))
