"""Accounts that platform admins make (`api.md` 3, `/users`)."""

from __future__ import annotations

from conman.services import password_resets
from conman.services.accounts import clean_email, create_user
from conman.services.call import Call
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.store.database import Document


async def add_user(platform: Platform, call: Call, *, email: str, name: str, password: str | None) -> Document:
    """Make an account. Without a password its owner gets a mail with a link, good for 7 days, to set one.

    Raises `validation_error`, or `conflict` when the email has an account.
    """
    if password is not None:
        return await create_user(platform.db, call, email=email, name=name, password=password, via="platform_admin")
    notice = await password_resets.first_password(platform, call, clean_email(email), name)
    made = await create_user(platform.db, call, email=email, name=name, password=None, via="platform_admin", notices=[notice])
    await start_notices(platform, notice["id"])
    return made
