"""Notices are looked at and started beside the work that wrote them: only what somebody is to be told gets a workflow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from pymongo.errors import AutoReconnect

from conman.domain.mail import Wave
from conman.domain.notification import NoticeKind
from conman.services import mails
from conman.services.clock import new_id
from conman.services.notices import NoticeStarter
from conman.store.database import Database
from conman.workflows.client import Commands
from tests.mail.post import Post

ACCOUNT_CREATED = NoticeKind.ACCOUNT_CREATED


@pytest.fixture
def post(db: Database, tmp_path: Path) -> Post:
    return Post(db, tmp_path)


class Starts:
    """What was started, each with the mails that were found."""

    def __init__(self) -> None:
        self.waves: dict[str, Wave | None] = {}
        self.one_more = asyncio.Event()

    async def start_notice(self, notice_id: str, wave: Wave | None = None) -> None:
        self.waves[notice_id] = wave
        self.one_more.set()

    async def after(self, starter: NoticeStarter, *notice_ids: str) -> None:
        """Start, and wait until the last of them was."""
        starter.start_soon(notice_ids)
        async with asyncio.timeout(15):
            while notice_ids[-1] not in self.waves:
                await self.one_more.wait()
                self.one_more.clear()


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
def starter(post: Post, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> NoticeStarter:
    monkeypatch.setattr(NoticeStarter, "AFTER_SECONDS", 0)
    monkeypatch.setattr(NoticeStarter, "AT_ONCE", 1)  # in the order in which they are asked for
    return NoticeStarter(cast("Commands", starts), post.db)


async def test_a_notice_starts_with_its_mails(post: Post, starts: Starts, starter: NoticeStarter) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com"])
    await starts.after(starter, notice_id)
    assert starts.waves[notice_id] == await mails.next_wave(post.db, notice_id)
    assert len(await post.rows(notice_id)) == 2


async def test_a_notice_for_nobody_is_done_without_a_workflow(post: Post, starts: Starts, starter: NoticeStarter) -> None:
    for_nobody = await post.notice(ACCOUNT_CREATED)
    for_one = await post.notice(ACCOUNT_CREATED, emails=["a@example.com"])
    await starts.after(starter, for_nobody, for_one)
    assert list(starts.waves) == [for_one]
    assert (await post.db["notifications"].find_one({"_id": for_nobody}) or {})["state"] == "done"


async def test_a_notice_that_can_not_be_looked_at_is_left_to_its_workflow(
    post: Post, starts: Starts, starter: NoticeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_db: Database, _notice_id: str) -> Wave:
        raise AutoReconnect

    unreadable = await post.notice(ACCOUNT_CREATED, emails=["a@example.com"])
    await post.db["notifications"].update_one({"_id": unreadable}, {"$set": {"notice.kind": "of a later version"}})
    missing, readable = new_id(), await post.notice(ACCOUNT_CREATED, emails=["a@example.com"])
    await starts.after(starter, unreadable, missing)
    monkeypatch.setattr(mails, "next_wave", away)
    await starts.after(starter, readable)
    assert starts.waves == {unreadable: None, missing: None, readable: None}
