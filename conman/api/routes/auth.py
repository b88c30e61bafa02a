"""Sessions, and passwords that a mailed token sets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from conman.api.access import Caller, logged_in, public
from conman.api.body import Body, body
from conman.api.routes import data
from conman.services import password_resets, sessions
from conman.services.accounts import user_record
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.store.database import Document

router = APIRouter(tags=["accounts"])


class Login(Body):
    """Email and password."""

    email: str = Field(max_length=320)
    password: str = Field(max_length=1024)


class ForgottenPassword(Body):
    """Whose password was forgotten."""

    email: str = Field(max_length=320)


class PasswordReset(Body):
    """The token of the mail, and the password to be."""

    token: str = Field(max_length=512)
    password: str = Field(max_length=1024)


def session_record(session: sessions.Session) -> dict[str, Any]:
    """A fresh session as `api.md` 3 shows it."""
    return {"token": session.token, "expires_at": session.expires_at, "user": user_record(session.user)}


@router.post("/auth/login")
async def log_in(caller: Caller = public(), login: Login = body(Login)) -> dict[str, Any]:
    """Start a session."""
    return data(session_record(await sessions.log_in(caller.platform, caller.call, login.email, login.password)))


@router.post("/auth/logout")
async def log_out(caller: Caller = logged_in()) -> dict[str, Any]:
    """Revoke the session of this token."""
    await sessions.log_out(caller.platform, caller.call, caller.session_id, caller.session_ends)
    return data({"logged_out": True})


@router.post("/auth/forgot-password")
async def forgot_password(
    background: BackgroundTasks, caller: Caller = public(), forgotten: ForgottenPassword = body(ForgottenPassword)
) -> dict[str, Any]:
    """Have a link mailed that sets a new password, if the email has an account: the answer never tells."""
    request = await password_resets.ask(caller.platform, caller.call, forgotten.email)
    background.add_task(_mail_link, caller.platform, request)
    return data({"message": "If this email has an account, a link to set a new password is on its way."})


async def _mail_link(platform: Platform, request: Document) -> None:
    notice_id = await password_resets.issue(platform.db, request)
    if notice_id is not None:
        await start_notices(platform, notice_id)


@router.post("/auth/reset-password")
async def reset_password(caller: Caller = public(), wanted: PasswordReset = body(PasswordReset)) -> dict[str, Any]:
    """Set the password with the token of a mail; all sessions of the account end."""
    return data(user_record(await password_resets.reset(caller.platform, caller.call, wanted.token, wanted.password)))
