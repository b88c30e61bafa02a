"""The hold of an app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import data
from conman.api.versions import IfMatch, expected_version
from conman.domain.hold import LONGEST_REASON
from conman.domain.roles import Capability
from conman.services import holds
from conman.services.clock import now

router = APIRouter(prefix="/apps/{app}", tags=["deployments"])
_C = Capability


class NewHold(Body):
    """Why nothing is to be published or deployed, and until when (RFC 3339; without it until somebody lifts the hold)."""

    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    until: str | None = Field(default=None, max_length=64)


@router.get("/hold")
async def show_hold(caller: Caller = capability(_C.HOLD_READ)) -> dict[str, Any]:
    """The hold that stands; null when none does."""
    app_id = caller.of_app["_id"]
    return data(holds.hold_record(app_id, await holds.find(caller.platform.db, app_id, now())))


@router.post("/hold", status_code=201)
async def hold_app(
    caller: Caller = capability(_C.HOLD_SET), wanted: NewHold = body(NewHold), if_match: IfMatch = None
) -> dict[str, Any]:
    """Hold the app: no new publish or deployment while it stands. It takes the place of a hold that stands."""
    made = await holds.hold(
        caller.platform,
        caller.call,
        caller.of_app,
        reason=wanted.reason,
        until=wanted.until,
        version=expected_version(if_match),
    )
    return data(made)


@router.delete("/hold", status_code=204)
async def lift_hold(caller: Caller = capability(_C.HOLD_SET), if_match: IfMatch = None) -> None:
    """Lift the hold; what waited for it looks again."""
    await holds.lift(caller.platform, caller.call, caller.of_app, version=expected_version(if_match))
