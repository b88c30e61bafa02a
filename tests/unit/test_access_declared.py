"""A route that does not say who may call it stops the start (`api.md` 1)."""

from __future__ import annotations

import pytest
from fastapi import APIRouter

from conman.api.access import AccessError, Caller, capability, check_every_route, logged_in, public
from conman.api.app import ROUTERS
from conman.domain.roles import Capability


def test_every_route_that_is_served_declares_its_access() -> None:
    check_every_route(ROUTERS)


def test_a_route_without_access_is_refused_by_its_name() -> None:
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten() -> dict[str, str]:
        return {}

    with pytest.raises(AccessError, match="GET /forgotten declares 0 kinds"):
        check_every_route([router])


def test_a_route_with_two_kinds_of_access_is_refused() -> None:
    router = APIRouter()

    @router.get("/apps/{app}/both")
    async def both(one: Caller = logged_in(), two: Caller = capability(Capability.APP_READ)) -> dict[str, str]:
        return {}

    with pytest.raises(AccessError, match="declares 2 kinds"):
        check_every_route([router])


def test_a_mounted_application_can_not_hide_routes() -> None:
    router = APIRouter()
    router.mount("/hidden", APIRouter())
    with pytest.raises(AccessError, match="no API route"):
        check_every_route([router])


def test_a_public_route_says_so() -> None:
    router = APIRouter()

    @router.get("/open")
    async def open_to_all(caller: Caller = public()) -> dict[str, str]:
        return {}

    check_every_route([router])
