"""Login, its cool-down, and the end of sessions (`spec.md` 5)."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from conman.domain.cooldown import MOST_FAILURES
from conman.domain.errors import DomainError, ErrorCode, RateLimited
from conman.domain.times import later
from conman.services import failed_logins, me, password_resets, passwords, platform_admins, sessions
from conman.services.clock import now
from conman.services.expiry import forget_expired
from conman.services.me import NewPassword
from conman.services.platform import Platform
from conman.services.platform_admins import Flags
from conman.store.database import Document
from tests.services.people import PASSWORD, WRONG, Office, call, refused


async def log_in(platform: Platform, email: str, password: str = PASSWORD) -> sessions.Session:
    return await sessions.log_in(platform, call(), email, password)


async def fail(platform: Platform, email: str, times: int) -> list[ErrorCode]:
    return [await refused(log_in(platform, email, WRONG)) for _ in range(times)]


async def is_logged_in(platform: Platform, session: sessions.Session) -> bool:
    try:
        await sessions.who(platform, session.token)
    except DomainError as error:
        assert error.code is ErrorCode.UNAUTHORIZED
        return False
    return True


async def wait_out(platform: Platform, email: str) -> None:
    """Let the quarter of an hour be over."""
    key = hashlib.sha256(email.encode()).hexdigest()
    past = later(now(), timedelta(seconds=-1))
    counter = await platform.db[failed_logins.COLLECTION].find_one({"_id": key})
    assert counter is not None
    fields = {"forget_at": past, "cooling_until": past if counter["cooling_until"] else None}
    await platform.db[failed_logins.COLLECTION].update_one({"_id": key}, {"$set": fields})


@pytest.mark.parametrize("who", ["known", "unknown@example.com", "no address"])
async def test_after_five_failed_logins_even_the_right_password_is_refused(office: Office, platform: Platform, who: str) -> None:
    email = (await office.person(platform))["email"] if who == "known" else who
    assert await fail(platform, email, MOST_FAILURES) == [ErrorCode.INVALID_CREDENTIALS] * MOST_FAILURES
    with pytest.raises(RateLimited) as cooling:
        await log_in(platform, email.upper())
    assert 0 < cooling.value.retry_after <= 15 * 60


async def test_four_failures_and_a_success_and_four_more_close_nothing(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    await fail(platform, ann["email"], MOST_FAILURES - 1)
    await log_in(platform, ann["email"])
    await fail(platform, ann["email"], MOST_FAILURES - 1)
    assert (await log_in(platform, ann["email"])).user["_id"] == ann["_id"]


async def test_after_the_cool_down_five_failures_are_free_again(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    await fail(platform, ann["email"], MOST_FAILURES)
    await wait_out(platform, ann["email"])
    assert await fail(platform, ann["email"], MOST_FAILURES + 1) == [
        *[ErrorCode.INVALID_CREDENTIALS] * MOST_FAILURES,
        ErrorCode.RATE_LIMITED,
    ]
    await wait_out(platform, ann["email"])
    await log_in(platform, ann["email"])


async def test_a_quiet_quarter_of_an_hour_forgets_failures(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    await fail(platform, ann["email"], MOST_FAILURES - 1)
    await wait_out(platform, ann["email"])
    await fail(platform, ann["email"], MOST_FAILURES - 1)
    await log_in(platform, ann["email"])


async def test_of_many_failures_at_once_in_several_processes_exactly_five_are_answered(
    office: Office, platform: Platform
) -> None:
    ann = await office.person(platform)

    async def try_ten(process: Platform) -> list[ErrorCode]:
        return list(await asyncio.gather(*(refused(log_in(process, ann["email"], WRONG)) for _ in range(10))))

    found = Counter(code for codes in await asyncio.gather(*(office.apart(try_ten) for _ in range(3))) for code in codes)
    assert found == {ErrorCode.INVALID_CREDENTIALS: MOST_FAILURES, ErrorCode.RATE_LIMITED: 30 - MOST_FAILURES}
    events = await platform.db["audit"].find({"entity_id": ann["_id"]}).to_list()
    reasons = Counter(event["after"].get("reason", event["action"]) for event in events if event["action"] != "created")
    assert reasons == {"wrong_password": MOST_FAILURES, "cooling_down": 30 - MOST_FAILURES, "locked_out": 1}


async def test_a_right_password_that_was_looked_at_when_the_cool_down_began_is_refused(
    office: Office, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await office.person(platform)
    real = sessions.password_matches

    async def slow(stored: str | None, password: str) -> bool:
        if password == PASSWORD:
            monkeypatch.setattr(sessions, "password_matches", real)
            await fail(platform, ann["email"], MOST_FAILURES)
        return await real(stored, password)

    monkeypatch.setattr(sessions, "password_matches", slow)
    assert await refused(log_in(platform, ann["email"])) is ErrorCode.RATE_LIMITED
    assert Counter(await office.actions(platform, ann["_id"])) == {
        "user.created": 1,
        "user.login_failed": MOST_FAILURES + 1,
        "user.locked_out": 1,
    }


async def test_the_audit_names_the_reason_and_whose_account_it_is(office: Office, platform: Platform) -> None:
    ann, gone = await office.person(platform), await office.person(platform, disabled=True)
    await fail(platform, ann["email"], 1)
    assert await refused(log_in(platform, gone["email"])) is ErrorCode.INVALID_CREDENTIALS
    await fail(platform, "nobody@example.com", 1)
    events = await platform.db["audit"].find({"action": "login_failed"}).sort("_id", 1).to_list()
    assert [(event["after"]["email"], event["after"]["reason"]) for event in events] == [
        (ann["email"], "wrong_password"),
        (gone["email"], "disabled"),
        ("nobody@example.com", "unknown_email"),
    ]
    assert [event["entity_id"] for event in events[:2]] == [ann["_id"], gone["_id"]]


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords were compared with."""
    compared: list[str] = []

    class Counting:
        def verify(self, stored: str, password: str) -> bool:
            compared.append(stored)
            return real.verify(stored, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

    real = passwords.HASHER
    monkeypatch.setattr(passwords, "HASHER", Counting())
    return compared


async def test_every_login_verifies_exactly_one_hash_whoever_it_is(
    office: Office, platform: Platform, verifications: list[str]
) -> None:
    ann = await office.person(platform)
    disabled = await office.person(platform, disabled=True)
    without = await office.person(platform, password_hash=None)
    for email in (ann["email"], disabled["email"], without["email"], "nobody@example.com", "no address", ""):
        assert await fail(platform, email, 1) == [ErrorCode.INVALID_CREDENTIALS]
    own = [ann["password_hash"], disabled["password_hash"]]
    assert verifications == [*own, *[passwords.NOBODYS] * 4]


def test_the_hash_of_nobody_costs_what_every_hash_costs() -> None:
    assert not passwords.HASHER.check_needs_rehash(passwords.NOBODYS)
    parameters = (passwords.HASHER.memory_cost, passwords.HASHER.time_cost, passwords.HASHER.parallelism)
    assert parameters == (19456, 2, 1)


def share_of_longer(ones: list[float], others: list[float]) -> float:
    """How often one of `ones` is longer than one of `others`: 0.5 for the same distribution (Mann and Whitney's U, scaled)."""
    return sum((one > other) + (one == other) / 2 for one in ones for other in others) / (len(ones) * len(others))


async def test_the_time_of_a_refusal_does_not_tell_whether_an_email_has_an_account(office: Office, platform: Platform) -> None:
    """40 of each by turns: for equal distributions the share lies within 0.5 ± 0.3 all but once in 200,000 runs; without the
    verification for nobody it is 1."""
    people = [await office.person(platform) for _ in range(10)]
    emails = {"known": [user["email"] for user in people], "unknown": [f"nobody{number}@example.com" for number in range(10)]}
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    for number in range(40):
        for kind in ("known", "unknown") if number % 2 else ("unknown", "known"):
            started = time.perf_counter()
            assert await fail(platform, emails[kind][number % 10], 1) == [ErrorCode.INVALID_CREDENTIALS]
            times[kind].append(time.perf_counter() - started)
    assert 0.2 < share_of_longer(times["known"], times["unknown"]) < 0.8


async def test_the_time_of_a_request_for_a_reset_does_not_tell_either(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    emails = {"known": ann["email"], "unknown": "nobody@example.com"}
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    for number in range(40):
        for kind in ("known", "unknown") if number % 2 else ("unknown", "known"):
            started = time.perf_counter()
            await password_resets.ask(platform, call(), emails[kind])
            times[kind].append(time.perf_counter() - started)
    assert 0.2 < share_of_longer(times["known"], times["unknown"]) < 0.8


async def test_many_logins_at_once_leave_other_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    held, busy = threading.Event(), set[str]()

    class Holding:
        def verify(self, stored: str, password: str) -> bool:
            busy.add(threading.current_thread().name)
            return held.wait(60)

    monkeypatch.setattr(passwords, "HASHER", Holding())
    logins = asyncio.gather(*(passwords.password_matches(passwords.NOBODYS, PASSWORD) for _ in range(50)))
    try:
        elsewhere = await asyncio.to_thread(threading.current_thread)
        assert not logins.done()
    finally:
        held.set()
        assert await logins == [True] * 50
    assert elsewhere.name not in busy
    assert len(busy) <= 4


async def test_a_login_while_the_account_is_being_disabled_gets_no_session(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    await platform_admins.change_flags(platform.db, call(), ann["_id"], Flags(disabled=True))
    assert await refused(sessions.open_session(platform, call(), ann)) is ErrorCode.INVALID_CREDENTIALS


async def test_a_logged_out_session_stays_so_and_the_others_live_on(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    one, two = await log_in(platform, ann["email"]), await log_in(platform, ann["email"])
    login = await sessions.who(platform, one.token)
    for _ in range(2):
        await sessions.log_out(platform, call(login.user), login.session_id, login.expires_at)
    assert [await is_logged_in(platform, session) for session in (one, two)] == [False, True]
    assert (await office.actions(platform, ann["_id"])).count("user.logged_out") == 1


async def test_disabling_ends_all_sessions_for_ever(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    session = await log_in(platform, ann["email"])
    await platform_admins.change_flags(platform.db, call(), ann["_id"], Flags(disabled=True))
    assert not await is_logged_in(platform, session)
    await platform_admins.change_flags(platform.db, call(), ann["_id"], Flags(disabled=False))
    assert not await is_logged_in(platform, session)
    assert await is_logged_in(platform, await log_in(platform, ann["email"]))


async def change_password(platform: Platform, session: sessions.Session, password: NewPassword, **more: Any) -> Document:
    login = await sessions.who(platform, session.token)
    change = {"name": None, "expected_version": None, **more}
    return await me.change_me(platform, call(login.user), login.session_id, password=password, **change)


async def test_a_new_password_ends_all_sessions_but_the_one_that_set_it(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    here, there = await log_in(platform, ann["email"]), await log_in(platform, ann["email"])
    await change_password(platform, here, NewPassword(PASSWORD, "another password 1"))
    assert [await is_logged_in(platform, session) for session in (here, there)] == [True, False]
    await change_password(platform, here, NewPassword("another password 1", "another password 2"))
    assert await is_logged_in(platform, here)
    assert await refused(log_in(platform, ann["email"])) is ErrorCode.INVALID_CREDENTIALS
    assert await is_logged_in(platform, await log_in(platform, ann["email"], "another password 2"))


async def test_the_present_password_is_asked_for_and_guessing_it_counts_as_failed_logins(
    office: Office, platform: Platform
) -> None:
    ann = await office.person(platform)
    session = await log_in(platform, ann["email"])
    wrong = NewPassword(WRONG, "another password 1")
    for _ in range(MOST_FAILURES):
        assert await refused(change_password(platform, session, wrong)) is ErrorCode.INVALID_CREDENTIALS
    right = NewPassword(PASSWORD, "another password 1")
    assert await refused(change_password(platform, session, right)) is ErrorCode.RATE_LIMITED
    assert (await office.again(platform, ann))["password_hash"] == ann["password_hash"]


async def test_of_two_changes_of_the_password_at_once_one_wins(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    here, there = await log_in(platform, ann["email"]), await log_in(platform, ann["email"])

    async def change(session: sessions.Session, new: str) -> str:
        try:
            await change_password(platform, session, NewPassword(PASSWORD, new))
        except DomainError as error:
            return error.code.value
        return "changed"

    found = await asyncio.gather(change(here, "another password 1"), change(there, "another password 2"))
    assert sorted(found) == ["changed", "invalid_credentials"]
    survivor = here if found[0] == "changed" else there
    assert await is_logged_in(platform, survivor)
    assert not await is_logged_in(platform, there if survivor is here else here)


async def test_an_account_of_before_there_were_epochs_logs_in_and_changes_its_password(
    office: Office, platform: Platform
) -> None:
    ann = await office.person(platform)
    old = dict.fromkeys(("session_epoch", "kept_session", "email_enabled"), "")
    await platform.db["users"].update_one({"_id": ann["_id"]}, {"$unset": old})
    here, there = await log_in(platform, ann["email"]), await log_in(platform, ann["email"])
    await change_password(platform, here, NewPassword(PASSWORD, "another password 1"))
    assert [await is_logged_in(platform, session) for session in (here, there)] == [True, False]


async def test_what_has_had_its_time_is_forgotten_and_nothing_else(office: Office, platform: Platform) -> None:
    ann = await office.person(platform)
    await fail(platform, ann["email"], MOST_FAILURES)
    session = await log_in(platform, (await office.person(platform))["email"])
    login = await sessions.who(platform, session.token)
    await sessions.log_out(platform, call(login.user), login.session_id, login.expires_at)
    assert await forget_expired(platform.db, now()) == 0
    assert await forget_expired(platform.db, later(now(), timedelta(minutes=21))) == 1
    assert await platform.db[failed_logins.COLLECTION].count_documents({}) == 0
    assert await forget_expired(platform.db, later(now(), timedelta(hours=25))) == 1
    assert await platform.db["revoked_sessions"].count_documents({}) == 0
