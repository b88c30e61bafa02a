"""The caller's own account."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, logged_in
from conman.api.body import Body, body
from conman.api.routes import data
from conman.api.versions import IfMatch, Versioned, expected_version
from conman.services import me

router = APIRouter(tags=["accounts"])


class PasswordChange(Body):
    """The present password and the one to be."""

    current: str = Field(max_length=1024)
    new: str = Field(max_length=1024)


class MyChange(Versioned):
    """What changes of one's account."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    password: PasswordChange | None = None


class Preferences(Body):
    """Which mails one gets."""

    email_enabled: bool


@router.get("/me")
async def show_me(caller: Caller = logged_in()) -> dict[str, Any]:
    """The caller with the apps that they belong to."""
    return data(await me.me_record(caller.platform, caller.user))


@router.patch("/me")
async def change_me(caller: Caller = logged_in(), change: MyChange = body(MyChange), if_match: IfMatch = None) -> dict[str, Any]:
    """Change one's name or password; a new password ends all one's sessions but this one."""
    password = me.NewPassword(change.password.current, change.password.new) if change.password is not None else None
    user = await me.change_me(
        caller.platform,
        caller.call,
        caller.session_id,
        name=change.name,
        password=password,
        expected_version=expected_version(if_match, change.version),
    )
    return data(await me.me_record(caller.platform, user))


@router.get("/me/notification-preferences")
async def show_preferences(caller: Caller = logged_in()) -> dict[str, Any]:
    """Which mails the caller gets, beside those about their account that always go."""
    return data(me.preferences_record(caller.user))


@router.patch("/me/notification-preferences")
async def change_preferences(caller: Caller = logged_in(), wanted: Preferences = body(Preferences)) -> dict[str, Any]:
    """Switch email on or off."""
    user = await me.change_preferences(caller.platform, caller.call, email_enabled=wanted.email_enabled)
    return data(me.preferences_record(user))
