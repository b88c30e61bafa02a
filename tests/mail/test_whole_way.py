"""From a notice to a mailbox: workflow, worker, store and SMTP server are real, the clock skips (`durability.md` 21)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from conman.activities.reconcile_notices import start_missing_notices
from conman.domain.mail import Wave
from conman.domain.notification import NoticeKind
from conman.embedded.testing import time_skipping_environment
from conman.services import mail_reports
from conman.services.clock import new_id
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store.database import Database
from conman.worker import make_workers
from conman.workflows import options
from conman.workflows.client import Commands
from conman.workflows.options import Queue
from tests.mail.post import Post
from tests.mail.server import Mailbox, says, says_in_turn, smtp_server
from tests.support.crashes import crash_at

AWAY = cast("Any", None)


@pytest.fixture(scope="module")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with await time_skipping_environment(data_converter=pydantic_data_converter) as env:
        keywords = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in options.SEARCH_ATTRIBUTES}
        request = AddSearchAttributesRequest(namespace=env.client.namespace, search_attributes=keywords)
        await env.client.operator_service.add_search_attributes(request)
        yield env


@dataclass
class Office:
    """A post office at work."""

    env: WorkflowEnvironment
    post: Post
    platform: Platform
    mailbox: Mailbox

    async def ended(self, notice_id: str, after: timedelta = timedelta()) -> dict[str, int]:
        """How the mails of a notice ended; `after` is what its retries take on the server's clock, which skips it."""
        await self.env.sleep(after)
        handle = self.platform.commands.client.get_workflow_handle(options.notify_workflow(notice_id), result_type=dict[str, int])
        return await handle.result()

    def tokens(self) -> list[str]:
        """The tokens in what the server was offered."""
        return [str(content).partition("?token=")[2][:43] for content in self.mailbox.offered]

    async def history(self, notice_id: str) -> bytes:
        """All that Temporal keeps of a notice's workflow, payloads and failures included."""
        handle = self.platform.commands.client.get_workflow_handle(options.notify_workflow(notice_id))
        return b"".join(event.SerializeToString() for event in (await handle.fetch_history()).events)

    async def notice(self, notice_id: str) -> dict[str, Any]:
        return await self.post.db["notifications"].find_one({"_id": notice_id}) or {}


@pytest.fixture
async def office(db: Database, env: WorkflowEnvironment, tmp_path: Path) -> AsyncIterator[Office]:
    mailbox = Mailbox()
    post = Post(db, tmp_path)
    options.set_queue_prefix(f"post-{new_id()[-12:]}")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(smtp_server(mailbox))
        settings = post.settings(smtp_host="127.0.0.1", smtp_port=port)
        vault = Vault.of(generate_keyring())
        platform = Platform(settings=settings, db=db, git=AWAY, commands=Commands(env.client), keyring=vault)
        for worker in make_workers(platform, {Queue.MAIN, Queue.MAIL}):
            await stack.enter_async_context(worker)
        yield Office(env, post, platform, mailbox)
    options.set_queue_prefix("conman")


async def test_a_notice_arrives_and_is_done(office: Office) -> None:
    notice_id = await office.post.invite("new@example.com")
    await start_notices(office.platform, notice_id)
    assert await office.ended(notice_id) == {"sent": 1, "failed": 0, "skipped": 0}
    assert [envelope.rcpt_tos for envelope in office.mailbox.arrived] == [["new@example.com"]]
    notice = await office.notice(notice_id)
    assert (notice["state"], notice["counts"]) == ("done", {"sent": 1, "failed": 0, "skipped": 0})


async def test_several_notices_are_started_together_and_a_second_start_changes_nothing(office: Office) -> None:
    ids = [await office.post.invite(f"new-{number}@example.com") for number in range(3)]
    await asyncio.gather(start_notices(office.platform, *ids), start_notices(office.platform, *ids))
    for notice_id in ids:
        await office.ended(notice_id)
    await start_notices(office.platform, *ids)
    assert len(office.mailbox.arrived) == 3


async def test_a_server_that_takes_it_later_gets_it_later(office: Office) -> None:
    office.mailbox.recipient = says_in_turn("450 4.2.0 greylisted", "421 4.3.2 shutting down", "250 OK")
    notice_id = await office.post.invite()
    await start_notices(office.platform, notice_id)
    assert (await office.ended(notice_id, after=timedelta(minutes=1)))["sent"] == 1
    (row,) = await office.post.rows(notice_id)
    assert (row["state"], row["attempts"], len(office.mailbox.arrived)) == ("sent", 3, 1)


async def test_a_server_that_refuses_for_good_is_asked_once(office: Office) -> None:
    office.mailbox.recipient = says("550 5.1.1 <new@example.com>: no such mailbox")
    notice_id = await office.post.invite("new@example.com")
    await start_notices(office.platform, notice_id)
    assert (await office.ended(notice_id))["failed"] == 1
    (row,) = await office.post.rows(notice_id)
    assert (row["state"], row["reason"], row["refusal"]["code"], row["attempts"]) == ("failed", "refused", 550, 1)


async def test_a_server_that_never_takes_it_is_given_up_with_its_last_words_on_the_row(office: Office) -> None:
    office.mailbox.recipient = says("451 4.7.1 not today")
    notice_id = await office.post.notice(NoticeKind.ACCOUNT_CREATED, emails=["new@example.com"])
    await start_notices(office.platform, notice_id)
    assert (await office.ended(notice_id, after=timedelta(hours=25)))["failed"] == 1
    (row,) = await office.post.rows(notice_id)
    assert (row["reason"], row["refusal"]["code"], row["refusal"]["text"]) == ("gave_up", 451, "4.7.1 not today")


async def test_a_mail_that_failed_is_sent_when_somebody_has_it_tried_again(office: Office) -> None:
    """And its notice then says how its mails ended."""
    office.mailbox.recipient = says_in_turn("550 5.1.1 no such mailbox", "250 OK")
    notice_id = await office.post.notice(NoticeKind.ACCOUNT_CREATED, emails=["new@example.com"])
    await start_notices(office.platform, notice_id)
    assert (await office.ended(notice_id))["failed: refused 550"] == 1
    (row,) = await office.post.rows(notice_id)
    await mail_reports.try_again(office.post.db, office.platform.commands, row["_id"])
    assert (await office.ended(notice_id))["sent"] == 1
    assert (await office.notice(notice_id))["counts"] == {"sent": 1, "failed": 0, "skipped": 0}
    assert len(office.mailbox.arrived) == 1


async def test_neither_address_nor_name_nor_token_gets_into_the_history(office: Office) -> None:
    said = "451 4.2.0 <secret-person@example.com> is busy"
    office.mailbox.content = says(said)
    notice_id = await office.post.reset(await office.post.person("Secret Person", email="secret-person@example.com"))
    await office.post.db["password_resets"].update_one({}, {"$set": {"expires_at": "2999-01-01T00:00:00.000Z"}})
    await start_notices(office.platform, notice_id)
    assert (await office.ended(notice_id, after=timedelta(hours=25)))["failed"] == 1
    history = await office.history(notice_id)
    assert b"answered 451 at the step `content`" in history
    for planted in ("secret-person", "Secret Person", "example.com", office.tokens()[0], "is busy"):
        assert planted.encode() not in history


async def test_upkeep_starts_what_nobody_started_and_nothing_twice(office: Office) -> None:
    notice_id = await office.post.invite()
    assert await start_missing_notices(office.post.db, office.platform.commands) == 1
    await office.ended(notice_id)
    assert await start_missing_notices(office.post.db, office.platform.commands) == 0
    assert len(office.mailbox.arrived) == 1


async def test_upkeep_that_dies_in_its_round_starts_the_rest_in_the_next(office: Office) -> None:
    ids = [await office.post.invite(f"new-{number}@example.com") for number in range(2)]
    with crash_at("missing.notice"):
        await start_missing_notices(office.post.db, office.platform.commands)
    await start_missing_notices(office.post.db, office.platform.commands)
    for notice_id in ids:
        await office.ended(notice_id)
    assert len(office.mailbox.arrived) == 2


async def test_a_notice_out_of_a_backup_is_closed_and_not_sent_again(office: Office) -> None:
    notice_id = await office.post.invite()
    await start_notices(office.platform, notice_id)
    await office.ended(notice_id)
    await office.post.db["mails"].delete_many({"notice_id": notice_id})
    before = {"$set": {"state": "pending"}, "$unset": {"mail_ids": "", "told": "", "counts": "", "ended_at": ""}}
    await office.post.db["notifications"].update_one({"_id": notice_id}, before)
    assert await start_missing_notices(office.post.db, office.platform.commands) == 0
    assert (await office.notice(notice_id))["state"] == "done"
    assert len(office.mailbox.arrived) == 1


async def test_a_notice_whose_workflow_was_terminated_is_closed(office: Office) -> None:
    office.mailbox.recipient = says("451 not today")
    notice_id = await office.post.invite()
    await start_notices(office.platform, notice_id)
    await office.platform.commands.client.get_workflow_handle(options.notify_workflow(notice_id)).terminate()
    await start_missing_notices(office.post.db, office.platform.commands)
    assert (await office.notice(notice_id))["state"] == "canceled"


async def test_a_temporal_that_does_not_answer_neither_fails_nor_holds_up_the_request(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_commands: Commands, _notice_id: str, _wave: Wave | None) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Commands, "start_notice", hang)
    monkeypatch.setattr("conman.services.notices.START_SECONDS", 0.05)
    async with asyncio.timeout(30):
        await start_notices(office.platform, *(new_id() for _ in range(20)))
