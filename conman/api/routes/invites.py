"""Invites to an app, and accepting one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability, public
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.routes.auth import session_record
from conman.api.versions import IfMatch, expected_version
from conman.domain.roles import Capability
from conman.services import invites
from conman.services.members import parse_role
from conman.store import records

router = APIRouter(tags=["invites"])


class NewInvite(Body):
    """Who is invited, and to which role."""

    email: str = Field(max_length=320)
    role: str = Field(max_length=64)


class Acceptance(Body):
    """The token of the mail; name and password of the account to be, or the password of the one that there is."""

    token: str = Field(max_length=512)
    name: str = Field(min_length=1, max_length=200)
    password: str = Field(max_length=1024)


@router.get("/apps/{app}/invites")
async def list_invites(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(Capability.INVITE_MANAGE)
) -> dict[str, Any]:
    """The app's invites that nobody has accepted yet."""
    query = {"app_id": caller.of_app["_id"], "state": {"$in": invites.OPEN}}
    found = await records.page(caller.platform.db, invites.COLLECTION, query, number=page, limit=limit)
    return listed([invites.invite_record(row) for row in found.items], found)


@router.post("/apps/{app}/invites", status_code=201)
async def invite(caller: Caller = capability(Capability.INVITE_MANAGE), new: NewInvite = body(NewInvite)) -> dict[str, Any]:
    """Invite somebody by mail."""
    role = parse_role(new.role)
    made = await invites.create(caller.platform, caller.call, caller.of_app, email=new.email, role=role)
    return data(invites.invite_record(made))


@router.post("/apps/{app}/invites/{invite}/resend")
async def resend(
    invite: str, caller: Caller = capability(Capability.INVITE_MANAGE), _: Empty = body(Empty), if_match: IfMatch = None
) -> dict[str, Any]:
    """Send an invite again, for 7 days more; the token before is void."""
    version = expected_version(if_match)
    found = await invites.find(caller.platform, caller.of_app, invite)
    sent = await invites.resend(caller.platform, caller.call, caller.of_app, found, version=version)
    return data(invites.invite_record(sent))


@router.delete("/apps/{app}/invites/{invite}", status_code=204)
async def revoke(invite: str, caller: Caller = capability(Capability.INVITE_MANAGE), if_match: IfMatch = None) -> None:
    """Make an invite's token good for nothing."""
    version = expected_version(if_match)
    found = await records.get(caller.platform.db, invites.COLLECTION, invite, app_id=caller.of_app["_id"], what="invite")
    await invites.revoke(caller.platform, caller.call, caller.of_app, found, version=version)


@router.post("/auth/accept-invite")
async def accept(caller: Caller = public(), acceptance: Acceptance = body(Acceptance)) -> dict[str, Any]:
    """Join an app by the token of a mail, with a new account or the one that there is, and log in."""
    session = await invites.accept(
        caller.platform, caller.call, token=acceptance.token, name=acceptance.name, password=acceptance.password
    )
    return data(session_record(session))
