"""The rows of a notice's mails, over a real store: one per event and recipient, each ended once (`durability.md` 21)."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest
from pymongo.errors import DuplicateKeyError
from pymongo.results import DeleteResult
from typer.testing import CliRunner, Result

from conman.cli import cli
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.mail import MailEnd, MailReason, MailState, Refusal, SmtpStep
from conman.domain.notification import NoticeKind, NoticeState
from conman.domain.roles import Role
from conman.domain.times import later
from conman.services import mail_reports, mails
from conman.services.clock import new_id, now
from conman.services.mail_reports import Wanted
from conman.store.database import Database, Document
from tests.mail.post import Post
from tests.support.crashes import crash_at

ACCOUNT_CREATED = NoticeKind.ACCOUNT_CREATED


@pytest.fixture
def post(db: Database, tmp_path: Path) -> Post:
    return Post(db, tmp_path)


async def notice_state(post: Post, notice_id: str) -> str:
    return (await post.db["notifications"].find_one({"_id": notice_id}) or {})["state"]


async def test_each_recipient_has_one_row_however_often_the_notice_is_expanded(post: Post) -> None:
    ann, bob = await post.person(), await post.person()
    notice_id = await post.notice(ACCOUNT_CREATED, user_ids=[ann["_id"], bob["_id"], ann["_id"]], emails=["new@example.com"])
    first = await post.mails(notice_id)
    assert await post.mails(notice_id) == first
    assert [row["recipient"] for row in await post.rows(notice_id)] == sorted([ann["_id"], bob["_id"], "new@example.com"])


async def test_two_expansions_at_once_make_one_set_of_rows(post: Post) -> None:
    people = [await post.person() for _ in range(10)]
    notice_id = await post.notice(ACCOUNT_CREATED, user_ids=[person["_id"] for person in people])
    waves = await asyncio.gather(*(mails.next_wave(post.db, notice_id) for _ in range(5)))
    assert len(await post.rows(notice_id)) == 10
    assert all(len(wave.mail_ids) == 10 for wave in waves)


@pytest.mark.parametrize("point", ["notice.settled", "notice.expanded"])
async def test_who_joins_after_a_crash_is_not_told_of_what_was_before(post: Post, point: str) -> None:
    first = await post.member(Role.REVIEWER)
    app = await post.app()
    notice_id = await post.notice(NoticeKind.CHANGESET_SUBMITTED, app_id=app["_id"])
    with crash_at(point):
        await post.mails(notice_id)
    await post.member(Role.REVIEWER)
    assert len(await post.mails(notice_id)) == 1
    assert [row["recipient"] for row in await post.rows(notice_id)] == [first]


async def test_a_notice_ends_with_its_last_mail_and_counts_them_all(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com"])
    first, second = await post.mails(notice_id)
    assert (await post.sending().attempt(first)).notice is None
    assert await notice_state(post, notice_id) == NoticeState.PENDING
    with crash_at("notice.ended"):
        await post.sending().attempt(second)
    end = await post.sending().attempt(second)  # the second run of the step sends nothing, and tells the same
    assert end.notice == {"sent": 2, "failed": 0, "skipped": 0}
    assert len(post.way.handed_over) == 2
    assert await notice_state(post, notice_id) == NoticeState.DONE


async def test_where_there_are_many_mails_they_do_not_each_look_through_the_others(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "FEW", 1)
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com"])
    ends = [await post.sending().attempt(mail) for mail in await post.mails(notice_id)]
    assert [end.notice for end in ends] == [None, None]
    assert (await mails.next_wave(post.db, notice_id)).ended == {"sent": 2, "failed": 0, "skipped": 0}


async def test_a_notice_that_an_earlier_version_expanded_is_sent_by_its_rows(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com"])
    (mail,) = await post.mails(notice_id)
    await mails.failed(post.db, mail, MailReason.GAVE_UP)
    await mails.end_notice(post.db, notice_id, canceled=False)
    await post.db["notifications"].update_one({"_id": notice_id}, {"$unset": {"told": "", "mail_ids": ""}})
    await mails.reopen(post.db, mail)
    assert await post.mails(notice_id) == [mail]


async def test_a_crash_after_the_rows_were_made_makes_no_others(post: Post) -> None:
    bob = await post.person()
    notice_id = await post.notice(ACCOUNT_CREATED, user_ids=[bob["_id"]])
    with crash_at("notice.expanded"):
        await post.mails(notice_id)
    before = await post.rows(notice_id)
    assert await post.mails(notice_id) == [row["_id"] for row in before]
    assert len(await post.rows(notice_id)) == 1


async def test_the_index_refuses_a_second_row_of_a_recipient(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["new@example.com"])
    await post.mails(notice_id)
    (row,) = await post.rows(notice_id)
    with pytest.raises(DuplicateKeyError):
        await post.db["mails"].insert_one({**row, "_id": new_id()})


async def test_an_address_of_an_account_that_is_told_already_gets_one_mail(post: Post) -> None:
    bob = await post.person()
    notice_id = await post.notice(ACCOUNT_CREATED, user_ids=[bob["_id"]], emails=[bob["email"], "new@example.com"])
    await post.mails(notice_id)
    assert [row["recipient"] for row in await post.rows(notice_id)] == sorted([bob["_id"], "new@example.com"])


async def test_a_notice_that_is_not_there_is_said_not_to_be(post: Post) -> None:
    assert not (await mails.next_wave(post.db, new_id())).found


async def test_a_wave_holds_what_has_not_ended_and_no_more_than_it_may(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mails, "WAVE", 2)
    notice_id = await post.notice(ACCOUNT_CREATED, emails=[f"new-{number}@example.com" for number in range(3)])
    first = await post.mails(notice_id)
    assert len(first) == 2
    for mail in first:
        await mails.failed(post.db, mail, MailReason.GAVE_UP)
    (last,) = await post.mails(notice_id)
    await mails.skipped(post.db, last, MailReason.EMAIL_OFF)
    assert await post.mails(notice_id) == []


@pytest.mark.parametrize(
    "end",
    [mails.failed, mails.skipped],
    ids=["failed", "skipped"],
)
async def test_a_mail_that_has_ended_stays_as_it_is(post: Post, end: object) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["new@example.com"])
    (mail,) = await post.mails(notice_id)
    await mails.begin(post.db, mail, "new@example.com")
    await mails.sent(post.db, mail, "smtp")
    late = await end(post.db, mail, MailReason.GAVE_UP)  # type: ignore[operator]
    assert late == MailEnd(state=MailState.SENT)
    assert await mails.begin(post.db, mail, "new@example.com") is None
    assert (await post.rows(notice_id))[0]["state"] == "sent"


async def test_a_mail_is_sent_only_after_an_attempt_began(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["new@example.com"])
    (mail,) = await post.mails(notice_id)
    assert (await mails.sent(post.db, mail, "smtp")).state is MailState.PENDING


async def test_a_notice_ends_with_how_its_mails_ended(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com"])
    first, second = await post.mails(notice_id)
    await mails.begin(post.db, first, "a@example.com")
    await mails.sent(post.db, first, "smtp")
    await mails.failed(post.db, second, MailReason.GAVE_UP)
    for _ in range(2):
        assert await mails.end_notice(post.db, notice_id, canceled=False) == {
            "sent": 1,
            "failed": 1,
            "skipped": 0,
            "failed: gave_up": 1,
        }
    assert await notice_state(post, notice_id) == NoticeState.DONE


async def test_a_canceled_notice_skips_what_has_not_left(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com"])
    first, _ = await post.mails(notice_id)
    await mails.begin(post.db, first, "a@example.com")
    await mails.sent(post.db, first, "smtp")
    assert await mails.end_notice(post.db, notice_id, canceled=True) == {
        "sent": 1,
        "failed": 0,
        "skipped": 1,
        "skipped: canceled": 1,
    }
    assert await notice_state(post, notice_id) == NoticeState.CANCELED


async def test_a_notice_ends_once(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED)
    assert await mails.close_notice(post.db, notice_id, NoticeState.DONE)
    assert not await mails.close_notice(post.db, notice_id, NoticeState.CANCELED)
    assert await notice_state(post, notice_id) == NoticeState.DONE


# -- Tried again, counted, forgotten


async def test_a_mail_that_failed_may_be_tried_again_and_no_other(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com", "b@example.com", "c@example.com"])
    failed, sent, skipped = await post.mails(notice_id)
    await mails.failed(post.db, failed, MailReason.GAVE_UP)
    await mails.begin(post.db, sent, "b@example.com")
    await mails.sent(post.db, sent, "smtp")
    await mails.skipped(post.db, skipped, MailReason.EMAIL_OFF)
    await mails.end_notice(post.db, notice_id, canceled=False)
    for _ in range(2):  # who repeats it finds it open
        assert (await mails.reopen(post.db, failed))["state"] == "pending"
    assert await post.mails(notice_id) == [failed]
    for ended in (sent, skipped):
        with pytest.raises(DomainError, match="only one that failed"):
            await mails.reopen(post.db, ended)
    await mails.begin(post.db, failed, "a@example.com")
    await mails.sent(post.db, failed, "smtp")
    counts = await mails.end_notice(post.db, notice_id, canceled=False)
    assert counts == {"sent": 2, "failed": 0, "skipped": 1, "skipped: email_off": 1}
    notice = await post.db["notifications"].find_one({"_id": notice_id}) or {}
    assert (notice["state"], notice["counts"]) == ("done", counts)


async def test_what_has_ended_is_forgotten_after_its_days_and_what_is_open_never(post: Post) -> None:
    """With what is open its notice stays, whatever that says of itself."""
    ended, reopened, pending = [await post.notice(ACCOUNT_CREATED, emails=["a@example.com"]) for _ in range(3)]
    for notice_id in (ended, reopened):
        (mail,) = await post.mails(notice_id)
        await mails.failed(post.db, mail, MailReason.GAVE_UP)
        await mails.end_notice(post.db, notice_id, canceled=False)
    await mails.reopen(post.db, (await post.rows(reopened))[0]["_id"])
    assert await mails.forget_old(post.db, later(now(), timedelta(days=89)), 90) == 0
    late = later(now(), timedelta(days=91))
    assert await mails.forget_old(post.db, late, 0) == 0
    assert await mails.forget_old(post.db, late, 90) == 2
    assert {row["_id"] async for row in post.db["notifications"].find({})} == {reopened, pending}
    assert [len(await post.rows(one)) for one in (ended, reopened, pending)] == [0, 1, 0]


async def test_a_mail_that_is_reopened_while_old_ones_are_forgotten_keeps_its_notice(post: Post) -> None:
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["a@example.com"])
    (mail,) = await post.mails(notice_id)
    await mails.failed(post.db, mail, MailReason.GAVE_UP)
    await mails.end_notice(post.db, notice_id, canceled=False)

    async def delete_many(query: Document) -> DeleteResult:
        await mails.reopen(post.db, mail)
        return await post.db["mails"].delete_many(query)

    collections = {"notifications": post.db["notifications"], "mails": Mock(find=post.db["mails"].find, delete_many=delete_many)}
    assert await mails.forget_old(cast("Database", collections), later(now(), timedelta(days=91)), 90) == 0
    assert await post.mails(notice_id) == [mail]


async def test_operators_find_mails_by_what_they_know_of_them(post: Post) -> None:
    ann = await post.person("Ann", email="ann@example.com")
    notice_id = await post.notice(ACCOUNT_CREATED, user_ids=[ann["_id"]], emails=["new@example.com"])
    first, second = await post.mails(notice_id)
    await mails.note_refusal(post.db, first, Refusal(step=SmtpStep.RECIPIENT, code=550, text="no such mailbox"))
    await mails.failed(post.db, first, MailReason.REFUSED)
    everything = await mail_reports.listed(post.db, Wanted(), 10)
    assert {row["to"] for row in everything} == {"ann@example.com", "new@example.com"}
    assert [row["id"] for row in everything] == sorted([first, second], reverse=True)
    assert [row["id"] for row in await mail_reports.listed(post.db, Wanted(state=MailState.FAILED), 10)] == [first]
    (anns,) = await mail_reports.listed(post.db, Wanted(to=" Ann@example.com", notice_id=notice_id), 10)
    assert (anns["user_id"], anns["kind"]) == (ann["_id"], "account_created")
    assert await mail_reports.listed(post.db, Wanted(kind="invite"), 10) == []
    shown = await mail_reports.found(post.db, first)
    assert (shown["reason"], shown["entity_type"]) == ("refused", "user")
    with pytest.raises(DomainError) as missing:
        await mail_reports.found(post.db, new_id())
    assert missing.value.code is ErrorCode.NOT_FOUND


async def test_the_command_line_lists_and_shows_them(post: Post, mongo_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONMAN_MONGO_URI", mongo_uri)
    monkeypatch.setenv("CONMAN_MONGO_DATABASE", post.db.name)
    notice_id = await post.notice(ACCOUNT_CREATED, emails=["new@example.com"])
    (mail,) = await post.mails(notice_id)
    await mails.failed(post.db, mail, MailReason.GAVE_UP)

    async def conman(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli, ["mails", *arguments, "--data", str(post.folder)])

    listed = await conman("list", "--state", "failed", "--to", "new@example.com", "--json")
    assert [(row["id"], row["reason"]) for row in json.loads(listed.stdout)] == [(mail, "gave_up")]
    assert notice_id in (await conman("show", mail)).stdout
    assert (await conman("list")).exit_code == 0
    missing = await conman("show", new_id())
    assert (missing.exit_code, "mail" in missing.stderr) == (1, True)
