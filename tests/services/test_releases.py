"""What a publish answers when it takes long (`api.md` 3): 202 while it goes on by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from conman.domain.errors import ErrorCode, Unavailable
from conman.domain.release import EditIntent, PublishIntent, Release, ReleaseState
from conman.services import releases
from conman.services.call import Call
from conman.services.clock import new_id
from conman.workflows.client import Commands
from tests.services.shop import Shop


@dataclass
class Silent:
    """A front door whose command is not answered in time."""

    waited: float | None = None

    def not_after(self) -> str:
        return "2026-03-01T09:30:30.000Z"

    def release_start(self, *_: str) -> None:
        return None

    async def send(self, *_: Any, timeout_seconds: float | None = None) -> None:
        self.waited = timeout_seconds
        raise Unavailable(ErrorCode.OUTCOME_UNKNOWN, "No answer in time.")


def intent(call: Call) -> PublishIntent:
    return PublishIntent(command_id=call.command_id, actor={}, old_sha="o", new_sha="n", tag="r1", at=call.at)


def edit(call: Call) -> EditIntent:
    return EditIntent(command_id=call.command_id, kind="publish", actor={})


async def published(shop: Shop, call: Call, **owned: Any) -> tuple[bool, Silent]:
    release = Release(app_id=shop.app["_id"], created=True, state=ReleaseState.VALIDATED).model_copy(update=owned)
    document = {"_id": new_id(), "app_id": shop.app["_id"], "owned": release.model_dump(mode="json")}
    door = Silent()
    async with shop.platform() as platform:
        await platform.db["releases"].insert_one(document)
        platform = replace(platform, commands=cast("Commands", door))
        return await releases.publish(platform, call, document), door


async def test_a_publish_that_is_still_at_it_after_twenty_seconds_goes_on(shop: Shop) -> None:
    call = shop.call()
    for owned in ({"edit": edit(call)}, {"publishing": intent(call)}):
        done, door = await published(shop, call, **owned)
        assert (done, door.waited) == (False, 20)


async def test_a_publish_that_was_done_meanwhile_is_done(shop: Shop) -> None:
    done, _ = await published(shop, shop.call(), state=ReleaseState.PUBLISHED, published_sha="n", told=False)
    assert done


async def test_a_publish_of_which_nothing_is_known_is_no_success(shop: Shop) -> None:
    for owned in ({}, {"edit": edit(shop.call())}):
        with pytest.raises(Unavailable):
            await published(shop, shop.call(), **owned)
