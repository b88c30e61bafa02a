"""Whether Conman works, by component."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import APIRouter, Response

from conman import __version__
from conman.api.access import Caller, public
from conman.domain.times import parse_time
from conman.services.platform import Platform

router = APIRouter(tags=["health"])
log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0
WORKER_SILENT_SECONDS = 15.0
"""A worker that has not been heard of for this long counts as down; it writes every five seconds."""


async def _worker(platform: Platform) -> None:
    newest = await platform.db["workers"].find_one(sort=[("seen_at", -1)])
    if newest is None:
        raise RuntimeError("no worker has been seen yet: start one with `conman worker`")
    silent = (datetime.now(UTC) - parse_time(newest["seen_at"])).total_seconds()
    if silent > WORKER_SILENT_SECONDS:
        raise RuntimeError(f"no worker has been heard of for {round(silent)} s: start one with `conman worker`")


async def _mongo(platform: Platform) -> None:
    await platform.db.command("ping")


async def _temporal(platform: Platform) -> None:
    if not await platform.commands.client.service_client.check_health():
        raise RuntimeError("Temporal's frontend is not serving")


async def _git(platform: Platform) -> dict[str, Any]:
    health = await platform.git.health()
    # What the server was found to do, and not where it is: this route needs no login.
    found = {name: health.details[name] for name in ("packs", "operations") if name in health.details}
    return {"backend": health.backend, "mode": health.mode, **found}


async def _state(name: str, check: Awaitable[dict[str, Any] | None]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await check
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a component is what this route is for
        log.warning("component_down", component=name, error=str(error)[:300])
        message = str(error).splitlines()[0][:200] if isinstance(error, RuntimeError) else f"{name} does not answer"
        return {"status": "down", "message": message}
    return {"status": "ok", **(found or {})}


async def components(platform: Platform) -> dict[str, dict[str, Any]]:
    """The state of each component, looked at side by side."""
    checks = {
        "mongo": _mongo(platform),
        "temporal": _temporal(platform),
        "git": _git(platform),
        "worker": _worker(platform),
    }
    states = await asyncio.gather(*(_state(name, check) for name, check in checks.items()))
    return dict(zip(checks, states, strict=True))


@router.get("/health", responses={503: {"description": "a component is down"}})
async def health(response: Response, caller: Caller = public()) -> dict[str, Any]:
    """Ok when every component is; 503 when one is down."""
    found = await components(caller.platform)
    down = [name for name, state in found.items() if state["status"] != "ok"]
    response.status_code = 503 if down else 200
    return {"status": "down" if down else "ok", "version": __version__, "components": found}


@router.get("/health/live")
async def live(caller: Caller = public()) -> dict[str, Any]:
    """The process alone."""
    return {"status": "ok", "version": __version__}
