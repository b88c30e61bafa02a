"""Setting a password by a mailed token (`spec.md` 5)."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.notification import Notice, NoticeKind
from conman.domain.times import later
from conman.domain.tokens import make_token, token_hash
from conman.services import failed_logins, password_resets, platform_admins, sessions, users
from conman.services.clock import now
from conman.services.expiry import forget_expired
from conman.services.failed_logins import Attempt
from conman.services.platform import Platform
from conman.services.platform_admins import Flags
from conman.services.upkeep import finish_and_forget
from conman.store.database import Document
from tests.services.people import PASSWORD, WRONG, Office, call, refused
from tests.support.crashes import crash_at

NEW = "a new password 1"


async def ask(platform: Platform, email: str) -> Document:
    return await password_resets.ask(platform, call(), email)


async def mailed(platform: Platform, email: str) -> str:
    """The token that somebody gets who asks for one."""
    notice_id = await password_resets.issue(platform.db, await ask(platform, email))
    assert notice_id is not None
    return await token_of(platform, notice_id)


async def token_of(platform: Platform, notice_id: str) -> str:
    row = await platform.db["notifications"].find_one({"_id": notice_id})
    assert row is not None
    ref = Notice.model_validate(row["notice"]).token
    assert ref is not None
    return make_token(platform.secret, ref.purpose, ref.record_id, ref.number)


async def reset(platform: Platform, token: str, password: str = NEW) -> Document:
    return await password_resets.reset(platform, call(), token, password)


async def test_a_request_is_recorded_alike_for_every_email(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    kept = [await ask(platform, email) for email in (ann["email"], "nobody@example.com", "no address")]
    assert len({frozenset(request) for request in kept}) == 1
    assert await platform.db["notifications"].count_documents({}) == 0


async def test_only_an_account_that_may_log_in_gets_a_mail(office: Office, platform: Platform) -> None:
    ann, gone = await office.person(platform), await office.person(platform, disabled=True)
    requests = [await ask(platform, email) for email in (ann["email"].upper(), gone["email"], "nobody@example.com", "no address")]
    issued = [await password_resets.issue(platform.db, request) for request in requests]
    assert [notice_id is not None for notice_id in issued] == [True, False, False, False]
    rows = await platform.db["notifications"].find({}).to_list()
    assert [(row["notice"]["kind"], row["notice"]["user_ids"]) for row in rows] == [(NoticeKind.PASSWORD_RESET, [ann["_id"]])]
    assert "user.password_reset_requested" in await office.actions(platform, ann["_id"])


async def test_a_token_is_kept_as_its_hash_only(office: Office, platform: Platform) -> None:
    token = await mailed(platform, (await office.person(platform))["email"])
    for name in await platform.db.list_collection_names():
        assert token not in str(await platform.db[name].find({}).to_list()), name
    assert await platform.db["password_resets"].find_one({"token_hash": token_hash(token)}) is not None


async def test_a_token_sets_the_password_once_and_ends_all_sessions(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    session = await sessions.log_in(platform, call(), ann["email"], PASSWORD)
    token = await mailed(platform, ann["email"])
    await reset(platform, token)
    assert await refused(sessions.who(platform, session.token)) is ErrorCode.UNAUTHORIZED
    assert await refused(sessions.log_in(platform, call(), ann["email"], PASSWORD)) is ErrorCode.INVALID_CREDENTIALS
    await sessions.log_in(platform, call(), ann["email"], NEW)
    assert await refused(reset(platform, token, "yet another one 1")) is ErrorCode.TOKEN_INVALID
    await sessions.log_in(platform, call(), ann["email"], NEW)


@pytest.mark.parametrize("token", ["", "unknown", "x" * 43, "ä" * 43])
async def test_an_unknown_token_is_invalid(platform: Platform, token: str) -> None:
    assert await refused(reset(platform, token)) is ErrorCode.TOKEN_INVALID


async def test_a_token_is_good_for_an_hour(office: Office, platform: Platform) -> None:
    token = await mailed(platform, (await office.person(platform))["email"])
    found = await platform.db["password_resets"].find_one({"token_hash": token_hash(token)})
    assert found is not None
    assert found["expires_at"] == later(found["created_at"], timedelta(hours=1))
    await platform.db["password_resets"].update_one({"_id": found["_id"]}, {"$set": {"expires_at": now()}})
    assert await refused(reset(platform, token)) is ErrorCode.TOKEN_EXPIRED


async def test_a_password_that_is_none_leaves_the_token_good(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    token = await mailed(platform, ann["email"])
    for password in ("too short", "password1234", ann["email"]):
        assert await refused(reset(platform, token, password)) is ErrorCode.VALIDATION_ERROR
    await reset(platform, token)


@pytest.mark.parametrize("tokens", [1, 3])
async def test_of_many_uses_at_once_exactly_one_sets_the_password(office: Office, platform: Platform, tokens: int) -> None:
    ann = await office.person(platform)
    mails = [await mailed(platform, ann["email"]) for _ in range(tokens)]

    async def use(number: int) -> str:
        async def alone(process: Platform) -> str:
            try:
                await reset(process, mails[number % tokens], f"{NEW} {number}")
            except DomainError as error:
                return error.code.value
            return "set"

        return await office.apart(alone)

    found = await asyncio.gather(*(use(number) for number in range(6)))
    assert Counter(found) == {"set": 1, "token_invalid": 5}
    await sessions.log_in(platform, call(), ann["email"], f"{NEW} {found.index('set')}")
    assert (await office.actions(platform, ann["_id"])).count("user.password_reset") == 1


async def test_a_change_of_the_account_voids_tokens_of_before(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    token = await mailed(platform, ann["email"])
    for disabled in (True, False):
        await platform_admins.change_flags(platform.db, call(), ann["_id"], Flags(disabled=disabled))
        assert await refused(reset(platform, token)) is ErrorCode.TOKEN_INVALID


async def test_no_mailbox_is_filled(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    issued = [await password_resets.issue(platform.db, await ask(platform, ann["email"])) for _ in range(7)]
    assert [notice_id is not None for notice_id in issued] == [True] * password_resets.MOST_OPEN + [False] * 2
    assert issued[0] is not None
    await reset(platform, await token_of(platform, issued[0]))
    await mailed(platform, ann["email"])


async def test_a_reset_ends_the_cool_down_of_its_owner(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    for _ in range(5):
        await refused(sessions.log_in(platform, call(), ann["email"], WRONG))
    await reset(platform, await mailed(platform, ann["email"]))
    await sessions.log_in(platform, call(), ann["email"], NEW)
    counter = await platform.db[failed_logins.COLLECTION].find_one({"_id": Attempt(ann["email"]).key})
    assert counter is not None
    assert counter["failures"] == 0


@pytest.mark.parametrize("point", ["reset.recorded", "deliver.audited", "deliver.put", "reset.issued", None])
async def test_what_a_process_that_died_had_recorded_is_carried_out_once(
    office: Office, platform: Platform, monkeypatch: pytest.MonkeyPatch, point: str | None
) -> None:
    ann = await office.person(platform)
    request = await ask(platform, ann["email"])
    if point is not None:
        with crash_at(point):
            await password_resets.issue(platform.db, request)
    await finish_and_forget(platform.db, now())
    assert await platform.db["password_resets"].count_documents({"asked": {"$exists": True}}) == 1, "it may still be at work"
    monkeypatch.setattr(password_resets, "LEFT_BEHIND", timedelta(seconds=-1))
    await finish_and_forget(platform.db, now())
    await finish_and_forget(platform.db, now())
    rows = await platform.db["notifications"].find({}).to_list()
    assert len(rows) == 1
    assert (await office.actions(platform, ann["_id"])).count("user.password_reset_requested") == 1
    await reset(platform, await token_of(platform, rows[0]["_id"]))


async def test_a_reset_that_died_after_its_write_is_done(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    first, second = await mailed(platform, ann["email"]), await mailed(platform, ann["email"])
    with crash_at("reset.done"):
        await reset(platform, first)
    await sessions.log_in(platform, call(), ann["email"], NEW)
    for token in (first, second):
        assert await refused(reset(platform, token, "yet another one 1")) is ErrorCode.TOKEN_INVALID


async def test_old_tokens_are_forgotten_after_a_month(office: Office, platform: Platform) -> None:
    token = await mailed(platform, (await office.person(platform))["email"])
    await forget_expired(platform.db, later(now(), timedelta(days=30)))
    assert await platform.db["password_resets"].find_one({"token_hash": token_hash(token)}) is not None
    await forget_expired(platform.db, later(now(), timedelta(days=31)))
    assert await platform.db["password_resets"].count_documents({}) == 0


async def test_an_account_without_a_password_gets_its_first_one_by_mail(
    office: Office, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    async def start(_: Platform, *notice_ids: str) -> None:
        started.extend(notice_ids)

    monkeypatch.setattr(users, "start_notices", start)
    admin = await office.person(platform, "admin")
    request = call(admin, "key")
    made = await users.add_user(platform, request, email="new@example.com", name="New", password=None)
    again = await users.add_user(platform, request, email="new@example.com", name="New", password=None)
    assert made["_id"] == again["_id"]
    assert await refused(sessions.log_in(platform, call(), "new@example.com", "None")) is ErrorCode.INVALID_CREDENTIALS
    rows = await platform.db["notifications"].find({}).to_list()
    assert [(row["_id"], row["notice"]["kind"]) for row in rows] == [(started[0], NoticeKind.ACCOUNT_CREATED)]
    await reset(platform, await token_of(platform, rows[0]["_id"]))
    await sessions.log_in(platform, call(), "new@example.com", NEW)


async def test_an_email_that_is_taken_is_a_conflict_and_sends_nothing(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    admin = await office.person(platform, "admin")
    code = await refused(users.add_user(platform, call(admin), email=ann["email"], name="Twice", password=None))
    assert code is ErrorCode.CONFLICT
    assert await platform.db["notifications"].count_documents({}) == 0
