"""Accounts as platform admins make and change them (`api.md` 3, `/users`)."""

from __future__ import annotations

from conman.services import password_resets, platform_admins, votes
from conman.services.accounts import clean_email, create_user
from conman.services.call import Call
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.services.platform_admins import Flags
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


async def change_user(platform: Platform, call: Call, user_id: str, wanted: Flags, *, expected_version: int | None) -> Document:
    """Set an account's flags; the account. Who is disabled has no vote any more on what is not yet queued.

    Raises as `platform_admins.change_flags`.
    """
    user = await platform_admins.change_flags(platform.db, call, user_id, wanted, expected_version=expected_version)
    await votes.take_back_soon(platform, "users", user)
    return user
