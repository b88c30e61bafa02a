"""Whether an app's audit is what was sealed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from conman.api.access import Caller, capability
from conman.api.routes import data
from conman.domain.roles import Capability
from conman.services.audit_verify import verify_app

router = APIRouter(tags=["audit"])


@router.get("/apps/{app}/audit/verify")
async def verify(caller: Caller = capability(Capability.AUDIT_READ)) -> dict[str, Any]:
    """Recompute the chain of the app's events, and compare it with its anchor in the repository."""
    platform = caller.platform
    return data((await verify_app(platform.db, platform.git, caller.of_app)).as_dict())
