"""Accounts, by platform admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, platform_capability
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.versions import IfMatch, Versioned, expected_version
from conman.domain.roles import Capability
from conman.services.accounts import user_record
from conman.services.platform_admins import Flags
from conman.services.users import add_user, change_user
from conman.store import records

router = APIRouter(tags=["accounts"])


class NewUser(Body):
    """An account to be made; without a password its owner is mailed a link to set one."""

    email: str = Field(max_length=320)
    name: str = Field(min_length=1, max_length=200)
    password: str | None = Field(default=None, max_length=1024)


class UserChange(Versioned):
    """The flags of an account."""

    is_platform_admin: bool | None = None
    disabled: bool | None = None


@router.get("/users")
async def list_users(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = platform_capability(Capability.USER_MANAGE)
) -> dict[str, Any]:
    """All accounts."""
    found = await records.page(caller.platform.db, "users", {}, number=page, limit=limit)
    return listed([user_record(user) for user in found.items], found)


@router.post("/users", status_code=201)
async def create_user(
    caller: Caller = platform_capability(Capability.USER_MANAGE), new: NewUser = body(NewUser)
) -> dict[str, Any]:
    """Make an account."""
    user = await add_user(caller.platform, caller.call, email=new.email, name=new.name, password=new.password)
    return data(user_record(user))


@router.patch("/users/{user}")
async def patch_user(
    user: str,
    caller: Caller = platform_capability(Capability.USER_MANAGE),
    change: UserChange = body(UserChange),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Make somebody platform admin or not, disable or enable their account. A last platform admin stays."""
    wanted = Flags(is_platform_admin=change.is_platform_admin, disabled=change.disabled)
    expected = expected_version(if_match, change.version)
    return data(user_record(await change_user(caller.platform, caller.call, user, wanted, expected_version=expected)))
