"""Sessions, the caller, and accounts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, logged_in, platform_capability, public
from conman.api.body import Body, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.roles import Capability
from conman.services import accounts
from conman.services.call import record
from conman.store import records

router = APIRouter(tags=["accounts"])


class Login(Body):
    """Email and password."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=1024)


class NewUser(Body):
    """An account to be made by a platform admin."""

    email: str = Field(max_length=320)
    name: str = Field(min_length=1, max_length=200)
    password: str = Field(max_length=1024)


@router.post("/auth/login")
async def log_in(caller: Caller = public(), login: Login = body(Login)) -> dict[str, Any]:
    """Start a session."""
    session = await accounts.log_in(caller.platform, caller.call, login.email, login.password)
    return data({"token": session.token, "expires_at": session.expires_at, "user": accounts.user_record(session.user)})


@router.post("/auth/logout")
async def log_out(caller: Caller = logged_in()) -> dict[str, Any]:
    """Revoke the session of this token."""
    await accounts.log_out(caller.platform, caller.call, caller.session_id)
    return data({"logged_out": True})


@router.get("/me")
async def me(caller: Caller = logged_in()) -> dict[str, Any]:
    """The caller with the apps that they belong to."""
    rows = await caller.platform.db["memberships"].find({"user_id": caller.user["_id"]}).to_list()
    return data({**accounts.user_record(caller.user), "memberships": [record(row, "role") for row in rows]})


@router.get("/users")
async def list_users(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = platform_capability(Capability.USER_MANAGE)
) -> dict[str, Any]:
    """All accounts."""
    found = await records.page(caller.platform.db, "users", {}, number=page, limit=limit)
    return listed([accounts.user_record(user) for user in found.items], found)


@router.post("/users", status_code=201)
async def create_user(
    caller: Caller = platform_capability(Capability.USER_MANAGE), new: NewUser = body(NewUser)
) -> dict[str, Any]:
    """Make an account with a password."""
    user = await accounts.create_user(
        caller.platform.db, caller.call, email=new.email, name=new.name, password=new.password, via="platform_admin"
    )
    return data(accounts.user_record(user))
