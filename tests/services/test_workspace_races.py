"""Saves that race checkpoints, submits, syncs and resets, from threads that share nothing but the stores (`spec.md` 7).

Whatever the interleaving: an acknowledged save is in the branch or pending, once; a reset drops only what was there before it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from conman.domain.app import pending_ref
from conman.domain.errors import DomainError, ErrorCode
from conman.services import checkpoints, saves, workspace_end
from conman.services.platform import Platform
from conman.services.sync import head_for_submit, sync
from tests.services.shop import REPO, Shop

SAVERS = 3
SAVES = 8
MOVES = 5


@dataclass
class Clock:
    """One order of everything that the threads saw begin and end."""

    ticks: itertools.count[int] = field(default_factory=itertools.count)

    def tick(self) -> int:
        return next(self.ticks)


async def until_done(attempt: Callable[[], Awaitable[object]]) -> None:
    """A client that is told to try again does."""
    while True:
        try:
            await attempt()
            return
        except DomainError as error:
            if error.code is not ErrorCode.STALE_WRITE:
                raise


def saver(shop: Shop, number: int, clock: Clock, began: dict[str, int]) -> Callable[[Platform], Awaitable[None]]:
    async def work(platform: Platform) -> None:
        for turn in range(SAVES):
            path = f"entities/{number}-{turn}.json"
            began[path] = clock.tick()

            async def save(path: str = path) -> None:
                await saves.write_file(
                    platform,
                    shop.call(),
                    shop.app,
                    shop.workspace,
                    path=path,
                    content="e30=",
                    message=None,
                    expected_blob_id=None,
                )

            await until_done(save)

    return work


async def checkpoint(shop: Shop, platform: Platform, turn: int) -> None:
    try:
        await checkpoints.checkpoint(platform, shop.call(), shop.app, shop.workspace, f"step {turn}")
    except DomainError as error:
        if error.code is not ErrorCode.CONFLICT:  # nothing was pending
            raise


async def submit(shop: Shop, platform: Platform, turn: int) -> None:
    frozen = await head_for_submit(
        platform, shop.call(), shop.app, shop.workspace, title=f"submit {turn}", submitted=set(), up_to_date=True
    )
    assert not frozen.conflicts


async def synced(shop: Shop, platform: Platform, turn: int) -> None:
    await shop.commit_to_main(platform, f"theirs/{turn}.json", "{}")
    reply = await sync(platform, shop.call(), shop.app, shop.workspace, strategy=None, resolutions=[])
    assert reply["clean"]


Step = Callable[[Shop, Platform, int], Awaitable[None]]


def mover(shop: Shop, *steps: Step) -> Callable[[Platform], Awaitable[None]]:
    async def work(platform: Platform) -> None:
        for turn in range(MOVES):
            for step in steps:
                await until_done(lambda step=step, turn=turn: step(shop, platform, turn))

    return work


MOVERS: dict[str, list[list[Step]]] = {
    "checkpoints": [[checkpoint]],
    "submits": [[submit]],
    "syncs": [[synced]],
    "all": [[submit, synced], [checkpoint]],
}


@pytest.mark.parametrize("name", MOVERS)
async def test_every_acknowledged_save_is_in_the_branch_or_pending_and_audited_once(shop: Shop, name: str) -> None:
    clock, began = Clock(), dict[str, int]()
    savers = [saver(shop, number, clock, began) for number in range(SAVERS)]
    await asyncio.gather(*(shop.apart(work) for work in [*savers, *(mover(shop, *steps) for steps in MOVERS[name])]))
    async with shop.platform() as platform:
        await shop.is_whole(platform)
        assert set(began) <= set(await shop.files(platform))
        written = [event["after"]["path"] for event in await shop.audit(platform, "written")]
        assert sorted(written) == sorted(began)
        await submit(shop, platform, MOVES)
        pending, head = await shop.tip(platform, pending_ref(shop.workspace["_id"])), await shop.head(platform)
        assert pending == head
        assert set(began) <= set(await shop.files(platform))


async def test_a_reset_drops_what_was_there_before_it_and_nothing_later(shop: Shop) -> None:
    clock, began = Clock(), dict[str, int]()
    ended: list[int] = []

    async def resets(platform: Platform) -> None:
        for _ in range(MOVES):
            await until_done(lambda: workspace_end.reset(platform, shop.call(), shop.app, shop.workspace))
            ended.append(clock.tick())

    savers = [saver(shop, number, clock, began) for number in range(SAVERS)]
    await asyncio.gather(*(shop.apart(work) for work in [*savers, resets]))
    async with shop.platform() as platform:
        await saver(shop, SAVERS, clock, began)(platform)
        await shop.is_whole(platform)
        left = set(await shop.files(platform))
        assert {path for path, at in began.items() if at > ended[-1]} <= left
        dropped = [event["before"]["pending_sha"] for event in await shop.audit(platform, "reset")]
        assert len(dropped) == MOVES
        events = await shop.audit(platform, "written")
        assert sorted(event["after"]["path"] for event in events) == sorted(began)
        for event in events:
            by_reset = [sha for sha in dropped if await platform.git.is_ancestor(REPO, event["git_sha"], sha)]
            assert bool(by_reset) != (event["after"]["path"] in left), event
