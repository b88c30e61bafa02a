"""Runtime profiles: their content, revisions and secrets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.versions import LARGEST_VERSION, IfMatch, Versioned, expected_version, required_version
from conman.domain.profile_edit import NewProfile, ProfileEdit
from conman.domain.roles import Capability
from conman.services import profile_changes, profiles
from conman.services.secret_rotation import rotate_data_key
from conman.services.secrets import reveal
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/runtime-profiles", tags=["runtime profiles"])
_C = Capability
_REVISION = "a revision's number, `<profile id>:<number>` of another profile, or `<profile id>` as it is now"


class ProfileToMake(Body, NewProfile):
    """A profile; what is left out has its default."""


class ProfilePatch(Versioned, ProfileEdit):
    """What changes: `env_vars` and `secrets` by key, null deletes; all else as a whole, null clears."""


class Revert(Body):
    """Which revision to make anew."""

    revision_number: int = Field(ge=1, le=LARGEST_VERSION)


async def _shown(caller: Caller, document: Document) -> dict[str, Any]:
    return data((await profiles.profile_records(caller.platform, caller.of_app, [document]))[0])


@router.get("")
async def list_profiles(
    page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.PROFILE_READ)
) -> dict[str, Any]:
    """The app's profiles, secrets masked."""
    found = await profiles.page(caller.platform, caller.of_app, page, limit)
    return listed(await profiles.profile_records(caller.platform, caller.of_app, found.items), found)


@router.post("", status_code=201)
async def create_profile(
    caller: Caller = capability(_C.PROFILE_MANAGE), new: ProfileToMake = body(ProfileToMake)
) -> dict[str, Any]:
    """Make a profile."""
    return await _shown(caller, await profile_changes.create(caller.platform, caller.call, caller.of_app, new))


@router.get("/{p}")
async def show_profile(p: str, caller: Caller = capability(_C.PROFILE_READ)) -> dict[str, Any]:
    """One profile, secrets masked."""
    return await _shown(caller, await profiles.find(caller.platform, caller.of_app, p))


@router.patch("/{p}")
async def edit_profile(
    p: str,
    caller: Caller = capability(_C.PROFILE_MANAGE),
    patch: ProfilePatch = body(ProfilePatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change a profile, against the version that was read; the change is a new revision."""
    version = required_version(if_match, patch.version)
    return await _shown(caller, await profile_changes.edit(caller.platform, caller.call, caller.of_app, p, patch, version))


@router.delete("/{p}", status_code=204)
async def delete_profile(p: str, caller: Caller = capability(_C.PROFILE_MANAGE), if_match: IfMatch = None) -> None:
    """Delete a profile that nothing is linked to."""
    await profile_changes.delete(caller.platform, caller.call, caller.of_app, p, expected_version(if_match))


@router.get("/{p}/revisions")
async def list_revisions(
    p: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.PROFILE_READ)
) -> dict[str, Any]:
    """What the profile has been, newest first, secrets masked."""
    found = await profiles.find(caller.platform, caller.of_app, p)
    items, part = await profiles.revision_page(caller.platform, found, page, limit)
    return listed(items, part)


@router.get("/{p}/diff")
async def diff(
    p: str,
    from_: str | None = Query(None, alias="from", max_length=64, description=f"{_REVISION}; default: this profile as it is now"),
    to: str | None = Query(None, max_length=64, description=f"{_REVISION}; default: this profile as it is now"),
    caller: Caller = capability(_C.PROFILE_READ),
) -> dict[str, Any]:
    """What differs from one revision to another, of this profile or of others; secrets masked."""
    found = await profiles.find(caller.platform, caller.of_app, p)
    one = await profiles.choose(caller.platform, caller.of_app, found, from_, "from")
    other = await profiles.choose(caller.platform, caller.of_app, found, to, "to")
    return data(await profiles.difference(caller.platform, one, other))


@router.get("/{p}/effective")
async def effective(p: str, caller: Caller = capability(_C.PROFILE_READ)) -> dict[str, Any]:
    """The variables that a process gets with this profile, each with where it comes from; secrets masked."""
    return data(profiles.effective_record(caller.of_app, await profiles.find(caller.platform, caller.of_app, p)))


@router.post("/{p}/revert")
async def revert_profile(
    p: str, caller: Caller = capability(_C.PROFILE_MANAGE), wanted: Revert = body(Revert), if_match: IfMatch = None
) -> dict[str, Any]:
    """Make a new revision from an old one."""
    version = expected_version(if_match)
    reverted = await profile_changes.revert(caller.platform, caller.call, caller.of_app, p, wanted.revision_number, version)
    return await _shown(caller, reverted)


@router.post("/{p}/rotate-key")
async def rotate_key(
    p: str, caller: Caller = capability(_C.SECRET_ROTATE), _: Empty = body(Empty), if_match: IfMatch = None
) -> dict[str, Any]:
    """Encrypt all secrets of the profile anew, under a new data key."""
    found = await profiles.find(caller.platform, caller.of_app, p)
    version = expected_version(if_match)
    return await _shown(caller, await rotate_data_key(caller.platform, caller.call, found["_id"], expected_version=version))


@router.post("/{p}/secrets/{key}/reveal")
async def reveal_secret(
    p: str, key: str, caller: Caller = capability(_C.SECRET_REVEAL), _: Empty = body(Empty)
) -> dict[str, Any]:
    """The value of a secret; the audit tells who saw it."""
    found = await profiles.find(caller.platform, caller.of_app, p)
    return data({"value": await reveal(caller.platform, caller.call, found, key)})
