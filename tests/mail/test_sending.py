"""One attempt at one mail, over a real store: who gets it, what is in it, and what a crash leaves (`durability.md` 21)."""

from __future__ import annotations

import re
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from conman.domain.mail import MailEnd, MailReason, MailState, Refusal, SmtpStep
from conman.domain.notification import TOKEN_RECORDS, NoticeKind
from conman.domain.roles import Role
from conman.domain.times import later
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.mail.transport import NotSentError
from conman.services.clock import now
from conman.services.sending import MisconfiguredError
from conman.store.database import Database
from tests.mail.post import PUBLIC, SECRET, Post
from tests.support.crashes import crash_at

SENT = MailEnd(state=MailState.SENT)


@pytest.fixture
def post(db: Database, tmp_path: Path) -> Post:
    return Post(db, tmp_path)


def skipped(reason: MailReason) -> MailEnd:
    return MailEnd(state=MailState.SKIPPED, reason=reason)


def refusal(step: SmtpStep, code: int | None) -> NotSentError:
    return NotSentError(Refusal(step=step, code=code, text="words"))


async def stored(post: Post, notice_id: str) -> dict[str, Any]:
    (row,) = await post.rows(notice_id)
    return row


async def test_an_invite_goes_to_its_address_with_the_link_that_accepts_it(post: Post) -> None:
    notice_id = await post.invite("new@example.com")
    assert await post.send(notice_id) == SENT
    (mail,) = post.way.handed_over
    notice = (await post.db["notifications"].find_one({"_id": notice_id}) or {})["notice"]
    token = make_token(SECRET, TokenPurpose.INVITE, notice["token"]["record_id"], 1)
    assert mail.recipient == "new@example.com"
    assert f"{PUBLIC}/accept-invite?token={token}" in mail.content.decode()
    assert "Shop as reviewer" in mail.content.decode()
    row = await stored(post, notice_id)
    assert (row["state"], row["attempts"], row["via"], row["email"]) == ("sent", 1, "smtp", "new@example.com")
    assert row["sent_at"]


async def test_a_reset_goes_to_the_account_with_the_link_that_sets_a_password(post: Post) -> None:
    user = await post.person("Łukasz")
    assert await post.send(await post.reset(user)) == SENT
    (mail,) = post.way.handed_over
    assert mail.recipient == user["email"]
    assert f"{PUBLIC}/reset-password?token=" in mail.content.decode()


async def test_the_message_id_is_the_row_at_the_public_host(post: Post) -> None:
    notice_id = await post.invite()
    await post.send(notice_id)
    row = await stored(post, notice_id)
    made = message_from_bytes(post.way.handed_over[0].content, policy=policy.SMTP)
    assert made["Message-ID"] == f"<{row['_id']}@conman.test>"


async def test_no_token_is_kept_anywhere(post: Post) -> None:
    notice_id = await post.invite()
    await post.send(notice_id)
    (token,) = set(re.findall(r"token=([A-Za-z0-9_-]{43})", post.way.handed_over[0].content.decode()))
    for collection in await post.db.list_collection_names():
        async for document in post.db[collection].find({}):
            assert token not in str(document), collection


@pytest.mark.parametrize("kind", list(NoticeKind), ids=str)
async def test_a_disabled_account_gets_nothing_ever(post: Post, kind: NoticeKind) -> None:
    user_id = await post.member(Role.APP_ADMIN, disabled=True, disabled_by="admin")
    app = await post.app()
    notice_id = await post.notice(kind, app_id=app["_id"], user_ids=[user_id], data={"role": None})
    assert await post.send(notice_id) == skipped(MailReason.ACCOUNT_DISABLED)
    assert post.way.handed_over == []


async def test_an_invite_to_the_address_of_a_disabled_account_is_not_sent(post: Post) -> None:
    user = await post.person(disabled=True, disabled_by="admin")
    assert await post.send(await post.invite(user["email"])) == skipped(MailReason.ACCOUNT_DISABLED)


async def test_an_account_that_is_gone_gets_nothing(post: Post) -> None:
    notice_id = await post.notice(NoticeKind.ACCOUNT_CREATED, user_ids=["nobody"])
    assert await post.send(notice_id) == skipped(MailReason.ACCOUNT_GONE)


async def test_auth_mails_go_to_who_switched_email_off_and_to_who_is_no_member(post: Post) -> None:
    user = await post.person(email_enabled=False)
    assert await post.send(await post.invite(user["email"])) == SENT
    assert await post.send(await post.reset(user)) == SENT


async def test_who_is_disabled_between_two_attempts_gets_no_second_one(post: Post) -> None:
    user = await post.person()
    notice_id = await post.reset(user)
    post.way.refuses = [refusal(SmtpStep.RECIPIENT, 451)]
    with pytest.raises(NotSentError):
        await post.send(notice_id)
    await post.db["users"].update_one({"_id": user["_id"]}, {"$set": {"disabled": True}})
    assert await post.send(notice_id) == skipped(MailReason.ACCOUNT_DISABLED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"$unset": {"token_hash": ""}}, MailReason.TOKEN_ENDED),
        ({"$set": {"token_number": 2}}, MailReason.TOKEN_REPLACED),
        ({"$set": {"expires_at": "2020-01-01T00:00:00.000Z"}}, MailReason.TOKEN_EXPIRED),
    ],
    ids=["used or revoked", "resent", "expired"],
)
async def test_a_link_that_would_lead_nowhere_is_not_sent(post: Post, change: dict[str, Any], reason: MailReason) -> None:
    notice_id = await post.invite()
    await post.db[TOKEN_RECORDS[TokenPurpose.INVITE]].update_one({}, change)
    assert await post.send(notice_id) == skipped(reason)
    assert post.way.handed_over == []


async def test_a_link_whose_record_is_gone_is_not_sent(post: Post) -> None:
    notice_id = await post.invite()
    await post.db[TOKEN_RECORDS[TokenPurpose.INVITE]].delete_many({})
    assert await post.send(notice_id) == skipped(MailReason.TOKEN_ENDED)


async def test_a_reset_that_a_later_password_voided_is_not_sent(post: Post) -> None:
    user = await post.person(session_epoch=1)
    notice_id = await post.reset(user, user_id=user["_id"], session_epoch=0)
    assert await post.send(notice_id) == skipped(MailReason.TOKEN_ENDED)


async def test_a_resent_invite_goes_out_with_its_new_token_and_the_old_mail_does_not(post: Post) -> None:
    old = await post.invite()
    ref = (await post.db["notifications"].find_one({"_id": old}) or {})["notice"]["token"]
    token = make_token(SECRET, TokenPurpose.INVITE, ref["record_id"], 2)
    renewed = {"token_number": 2, "token_hash": token_hash(token), "expires_at": later(now(), timedelta(days=7))}
    await post.db["invites"].update_one({"_id": ref["record_id"]}, {"$set": renewed})
    fresh = await post.notice(NoticeKind.INVITE, emails=["new@example.com"], token={**ref, "number": 2})
    assert await post.send(old) == skipped(MailReason.TOKEN_REPLACED)
    assert await post.send(fresh) == SENT
    assert token in post.way.handed_over[0].content.decode()


@pytest.mark.parametrize("secret", [None, "another secret, of 32 bytes or more"], ids=["missing", "another"])
async def test_a_worker_without_the_api_s_secret_sends_no_dead_link_and_leaves_the_mail_to_another(
    post: Post, secret: str | None
) -> None:
    notice_id = await post.invite()
    (mail_id,) = await post.mails(notice_id)
    with pytest.raises(MisconfiguredError, match="CONMAN_SECRET"):
        await post.sending(secret=secret).attempt(mail_id)
    assert post.way.handed_over == []
    assert (await stored(post, notice_id))["state"] == "pending"
    assert await post.send(notice_id) == SENT


async def test_a_refusal_for_good_ends_the_mail_with_the_server_s_code(post: Post) -> None:
    notice_id = await post.invite()
    post.way.refuses = [refusal(SmtpStep.RECIPIENT, 550)]
    assert await post.send(notice_id) == MailEnd(state=MailState.FAILED, reason=MailReason.REFUSED, code=550)
    row = await stored(post, notice_id)
    assert {name: row["refusal"][name] for name in ("step", "code", "text")} == {
        "step": "recipient",
        "code": 550,
        "text": "words",
    }
    assert await post.send(notice_id) == MailEnd(state=MailState.FAILED, reason=MailReason.REFUSED, code=550)
    assert post.way.handed_over == []


async def test_a_refusal_for_now_stays_on_the_row_until_a_later_attempt_succeeds(post: Post) -> None:
    notice_id = await post.invite()
    post.way.refuses = [refusal(SmtpStep.CONNECT, None), refusal(SmtpStep.RECIPIENT, 451)]
    for step in ("connect", "recipient"):
        with pytest.raises(NotSentError):
            await post.send(notice_id)
        row = await stored(post, notice_id)
        assert (row["state"], row["refusal"]["step"]) == ("sending", step)
    assert await post.send(notice_id) == SENT
    assert (await stored(post, notice_id))["attempts"] == 3


async def test_an_address_that_no_mail_can_be_written_to_fails_at_once(post: Post) -> None:
    assert await post.send(await post.invite("a b@example.com")) == MailEnd(state=MailState.FAILED, reason=MailReason.BAD_ADDRESS)


async def test_a_crash_between_handing_over_and_the_note_of_it_sends_the_same_mail_again(post: Post) -> None:
    """At least once: two deliveries at most, one Message-ID, one row."""
    notice_id = await post.invite()
    await post.mails(notice_id)
    with crash_at("mail.given"):
        await post.send(notice_id)
    assert (await stored(post, notice_id))["state"] == "sending"
    assert await post.send(notice_id) == SENT
    first, second = post.way.handed_over
    assert first == second
    assert len(await post.rows(notice_id)) == 1


async def test_a_crash_before_handing_over_sends_it_once(post: Post) -> None:
    notice_id = await post.invite()
    await post.mails(notice_id)
    with crash_at("mail.begun"):
        await post.send(notice_id)
    assert await post.send(notice_id) == SENT
    assert len(post.way.handed_over) == 1


async def test_a_mail_that_was_sent_is_not_sent_again(post: Post) -> None:
    notice_id = await post.invite()
    assert await post.send(notice_id) == SENT
    assert await post.send(notice_id) == SENT
    assert len(post.way.handed_over) == 1
