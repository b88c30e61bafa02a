"""Members of an app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.versions import IfMatch, Versioned, expected_version
from conman.domain.roles import Capability
from conman.services import members
from conman.store import memberships, records

router = APIRouter(prefix="/apps/{app}/members", tags=["members"])


class NewMember(Body):
    """Somebody with an account, and their role."""

    user_id: str | None = Field(default=None, max_length=64)
    email: str | None = Field(default=None, max_length=320)
    role: str = Field(max_length=64)


class MemberChange(Versioned):
    """Another role for a member."""

    role: str = Field(max_length=64)


@router.get("")
async def list_members(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(Capability.MEMBER_READ)
) -> dict[str, Any]:
    """The app's members."""
    db = caller.platform.db
    await memberships.settle(db, caller.of_app)
    found = await records.page(db, "memberships", {"app_id": caller.of_app["_id"]}, number=page, limit=limit)
    users = {user["_id"]: user async for user in db["users"].find({"_id": {"$in": [row["user_id"] for row in found.items]}})}
    return listed([members.member_record(row, users.get(row["user_id"])) for row in found.items], found)


@router.post("", status_code=201)
async def add_member(caller: Caller = capability(Capability.MEMBER_MANAGE), new: NewMember = body(NewMember)) -> dict[str, Any]:
    """Make somebody with an account a member."""
    role = members.parse_role(new.role)
    user = await members.find_user(caller.platform, user_id=new.user_id, email=new.email)
    made = await members.add_member(caller.platform, caller.call, caller.of_app, user=user, role=role, via="direct")
    return data(members.member_record(made, user))


@router.patch("/{user}")
async def change_role(
    user: str,
    caller: Caller = capability(Capability.MEMBER_MANAGE),
    change: MemberChange = body(MemberChange),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Give a member another role. The last app_admin keeps theirs."""
    role = members.parse_role(change.role)
    version = expected_version(if_match, change.version)
    account = await members.account_of(caller.platform, user)
    changed = await members.change_role(caller.platform, caller.call, caller.of_app, account, role, version=version)
    return data(members.member_record(changed, account))


@router.delete("/{user}", status_code=204)
async def remove_member(user: str, caller: Caller = capability(Capability.MEMBER_MANAGE), if_match: IfMatch = None) -> None:
    """End a membership. Access ends at once; what the member made stays. The last app_admin can't be removed."""
    version = expected_version(if_match)
    account = await members.account_of(caller.platform, user)
    await members.remove_member(caller.platform, caller.call, caller.of_app, account, version=version)
