"""The overrides of profiles that travel with a changeset."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import body
from conman.api.routes import data
from conman.api.versions import IfMatch, Versioned, expected_version
from conman.domain.overrides import MAX_OVERRIDES, GivenOverride
from conman.domain.roles import Capability
from conman.services import overrides
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}", tags=["changesets"])
_C = Capability


class Overrides(Versioned):
    """All overrides of the changeset, one per profile. Only what changes is sent: null deletes a key, or clears a field."""

    overrides: list[GivenOverride] = Field(max_length=MAX_OVERRIDES)


async def _changeset(caller: Caller, changeset_id: str) -> Document:
    return await records.get(caller.platform.db, "changesets", changeset_id, app_id=caller.of_app["_id"], what="changeset")


@router.get("/changesets/{cs}/profile-overrides")
async def show_overrides(cs: str, caller: Caller = capability(_C.CHANGESET_READ)) -> dict[str, Any]:
    """The present overrides, secrets masked, and the variables of each profile with them."""
    return data(await overrides.shown(caller.platform, caller.of_app, await _changeset(caller, cs)))


@router.put("/changesets/{cs}/profile-overrides")
async def set_overrides(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_OVERRIDES_OWN),
    wanted: Overrides = body(Overrides),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Replace the overrides, while the changeset is a draft or changes are requested."""
    found = await _changeset(caller, cs)
    caller.require_own(found["owned"]["author_user_id"], _C.CHANGESET_OVERRIDES_OWN)
    version = expected_version(if_match, wanted.version)
    changed = await overrides.set_overrides(caller.platform, caller.call, caller.of_app, found, wanted.overrides, version)
    return data(await overrides.shown(caller.platform, caller.of_app, changed))
