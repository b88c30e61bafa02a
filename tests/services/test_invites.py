"""Invites under races and crashes, over real records (`spec.md` 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from conman import faults
from conman.domain.decision import Actor
from conman.domain.errors import ErrorCode
from conman.domain.roles import Role
from conman.domain.times import later
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.services import invites, members
from conman.services.call import Call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.store.database import Database, Document
from tests.services.people import PASSWORD, WRONG, Office, call, refused
from tests.services.team import Team, make_team, outcome

ZOE = "zoe@example.com"
A_WEEK_ON = timedelta(days=7, seconds=1)


class Killed(BaseException):
    """The process dies here; nothing catches it."""


@pytest.fixture
def dies() -> Iterator[None]:
    def die(name: str) -> None:
        raise Killed(name)

    faults.arm({"invite.accepted": 1}, die)
    yield
    faults.arm({})


def token_of(platform: Platform, invite: Document) -> str:
    """What the mail says."""
    return make_token(platform.secret, TokenPurpose.INVITE, invite["_id"], invite["token_number"])


def after_a_week(made: Call) -> Call:
    return replace(made, at=later(made.at, A_WEEK_ON))


async def invite(platform: Platform, team: Team, email: str = ZOE, role: Role = Role.REVIEWER) -> Document:
    return await invites.create(platform, call(team.people["ann"]), team.app, email=email, role=role)


async def accept(platform: Platform, token: str, password: str = PASSWORD, by: Call | None = None) -> Document:
    return (await invites.accept(platform, by or call(), token=token, name="Zoe", password=password)).user


async def actions(db: Database, invite_id: str) -> list[str]:
    return [row["action"] async for row in db["audit"].find({"entity_id": invite_id}).sort("_id", 1)]


async def stored(db: Database, made: Document) -> Document:
    found = await db["invites"].find_one({"_id": made["_id"]})
    assert found is not None
    return found


async def test_an_invite_makes_an_account_and_a_member_with_its_role(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    user = await accept(platform, token_of(platform, made))
    assert (user["email"], user["name"], user["is_platform_admin"]) == (ZOE, "Zoe", False)
    member = await members.member_of(platform, team.app, user["_id"])
    assert (member["role"], member["created_by"]) == ("reviewer", team.people["ann"]["_id"])
    assert await actions(platform.db, made["_id"]) == ["created", "accepted"]
    assert sorted(await actions(platform.db, user["_id"])) == ["created", "logged_in"]  # within one millisecond, perhaps
    (event,) = await platform.db["audit"].find({"entity_id": made["_id"], "action": "accepted"}).to_list()
    assert (event["actor_user_id"], event["after"]) == (user["_id"], {"user_id": user["_id"], "account_created": True})


async def test_neither_the_record_nor_the_reply_holds_a_token(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    token = token_of(platform, made)
    assert token not in str(await stored(platform.db, made))
    assert token not in str(await platform.db["notifications"].find().to_list())
    shown = str(invites.invite_record(made))
    assert token not in shown and token_hash(token) not in shown


async def test_a_token_is_good_once(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    await accept(platform, token_of(platform, made))
    assert await refused(accept(platform, token_of(platform, made))) is ErrorCode.INVITE_INVALID
    assert await refused(accept(platform, "x" * 43)) is ErrorCode.INVITE_INVALID


async def test_of_twenty_acceptances_at_once_one_is_good(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    token = token_of(platform, made)
    outcomes = await asyncio.gather(*(office.apart(lambda apart: outcome(accept(apart, token))) for _ in range(20)))
    assert sorted(outcomes) == ["done"] + ["invite_invalid"] * 19
    assert await platform.db["users"].count_documents({"email": ZOE}) == 1
    assert await platform.db["memberships"].count_documents({"app_id": team.app["_id"]}) == 2
    assert await actions(platform.db, made["_id"]) == ["created", "accepted"]


async def test_with_an_account_its_password_must_match_and_failures_count_as_those_of_logins(
    office: Office, platform: Platform
) -> None:
    team = await make_team(office, platform)
    sam = await office.person(platform, "sam")
    made = await invite(platform, team, sam["email"], Role.USER)
    token = token_of(platform, made)
    for _ in range(4):
        assert await refused(accept(platform, token, WRONG)) is ErrorCode.INVALID_CREDENTIALS
    user = await accept(platform, token)
    assert (user["_id"], user["name"]) == (sam["_id"], "sam")
    again = await invite(platform, await make_team(office, platform), sam["email"])
    for _ in range(5):
        await refused(accept(platform, token_of(platform, again), WRONG))
    assert await refused(accept(platform, token_of(platform, again))) is ErrorCode.RATE_LIMITED


async def test_a_new_accounts_password_is_held_to_the_rule_and_the_token_stays_good(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    assert await refused(accept(platform, token_of(platform, made), "short")) is ErrorCode.VALIDATION_ERROR
    await accept(platform, token_of(platform, made))


async def test_after_seven_days_it_has_expired_and_that_is_noted_once(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    token = token_of(platform, made)
    for _ in range(2):
        assert await refused(accept(platform, token, by=after_a_week(call()))) is ErrorCode.INVITE_EXPIRED
    await invites.finish(platform.db, later(now(), A_WEEK_ON))
    assert await actions(platform.db, made["_id"]) == ["created", "expired"]
    assert invites.invite_record(await stored(platform.db, made))["state"] == "expired"


async def test_upkeep_notes_what_nobody_comes_back_for(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    assert await invites.finish(platform.db, now()) == 0
    assert await invites.finish(platform.db, later(now(), A_WEEK_ON)) == 1
    assert await actions(platform.db, made["_id"]) == ["created", "expired"]


async def test_to_send_it_again_voids_the_token_before_and_renews_what_has_expired(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    ann = team.people["ann"]
    made = await invite(platform, team)
    first = token_of(platform, made)
    await invites.finish(platform.db, later(now(), A_WEEK_ON))
    expired = await stored(platform.db, made)
    sent = await invites.resend(platform, call(ann), team.app, expired, version=expired["version"])
    assert (sent["state"], sent["token_number"]) == ("pending", 2)
    assert await refused(accept(platform, first)) is ErrorCode.INVITE_INVALID
    await accept(platform, token_of(platform, sent))
    assert await refused(invites.resend(platform, call(ann), team.app, sent, version=None)) is ErrorCode.CONFLICT
    assert sorted(await actions(platform.db, made["_id"])) == ["accepted", "created", "expired", "resent"]


async def test_a_repeat_of_a_request_invites_and_sends_once(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    at, ann = now(), team.people["ann"]

    def same(key: str) -> Call:
        return replace(call(ann, key), at=at)

    made = [await invites.create(platform, same("new"), team.app, email=ZOE, role=Role.USER) for _ in range(2)]
    assert made[0]["_id"] == made[1]["_id"]
    for _ in range(2):
        sent = await invites.resend(platform, same("again"), team.app, await stored(platform.db, made[0]), version=None)
        assert sent["token_number"] == 2
    for _ in range(2):
        await invites.revoke(platform, same("away"), team.app, await stored(platform.db, made[0]), version=None)
    assert await platform.db["notifications"].count_documents({}) == 2
    assert await actions(platform.db, made[0]["_id"]) == ["created", "resent", "revoked"]


async def test_twenty_invites_of_one_email_at_once_are_one(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)

    async def work(apart: Platform) -> str:
        return await outcome(invite(team.on(apart), team))

    outcomes = await asyncio.gather(*(office.apart(work) for _ in range(20)))
    assert sorted(outcomes) == ["conflict"] * 19 + ["done"]


async def test_a_second_invite_waits_for_the_first_to_end(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    ann, db = team.people["ann"], platform.db
    first = await invite(platform, team)
    assert await refused(invite(platform, team, "ZOE@example.com ")) is ErrorCode.CONFLICT
    await invites.revoke(platform, call(ann), team.app, first, version=None)
    second = await invite(platform, team)
    overdue = after_a_week(call(ann))
    third = await invites.create(platform, overdue, team.app, email=ZOE, role=Role.USER)
    assert await actions(db, second["_id"]) == ["created", "expired"]
    late = invites.resend(platform, call(ann), team.app, await stored(db, second), version=None)
    assert await refused(late) is ErrorCode.CONFLICT
    await accept(platform, token_of(platform, third))
    assert await refused(invite(platform, team)) is ErrorCode.CONFLICT, "they are a member now"


async def test_what_was_revoked_is_good_for_nothing(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    stale = invites.revoke(platform, call(team.people["ann"]), team.app, made, version=7)
    assert await refused(stale) is ErrorCode.STALE_WRITE
    await invites.revoke(platform, call(team.people["ann"]), team.app, made, version=1)
    assert await refused(accept(platform, token_of(platform, made))) is ErrorCode.INVITE_INVALID
    assert await refused(invites.find(platform, team.app, made["_id"])) is ErrorCode.NOT_FOUND


async def test_an_archived_apps_invites_are_good_for_nothing_and_end(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    await platform.db["apps"].update_one({"_id": team.app["_id"]}, {"$set": {"archived": True}})
    assert await refused(accept(platform, token_of(platform, made))) is ErrorCode.INVITE_INVALID
    assert await invites.finish(platform.db, now()) == 1
    assert await invites.revoke_all(platform.db, team.app["_id"], actor=Actor(), at=now()) == []
    assert await actions(platform.db, made["_id"]) == ["created", "revoked"]


@pytest.mark.usefixtures("dies")
async def test_an_acceptance_that_was_cut_short_is_finished_and_stays_single(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    made = await invite(platform, team)
    with pytest.raises(Killed):
        await accept(platform, token_of(platform, made))
    faults.arm({})
    assert await refused(accept(platform, token_of(platform, made))) is ErrorCode.INVITE_INVALID
    assert await invites.finish(platform.db, now()) == 1
    user = await platform.db["users"].find_one({"email": ZOE})
    assert user is not None
    assert (await members.member_of(platform, team.app, user["_id"]))["role"] == "reviewer"
    assert await invites.finish(platform.db, now()) == 0


async def test_who_was_made_a_member_meanwhile_keeps_that_role(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    sam = await office.person(platform, "sam")
    made = await invite(platform, team, sam["email"], Role.USER)
    await members.add_member(platform, call(team.people["ann"]), team.app, user=sam, role=Role.CONFIG_MANAGER, via="direct")
    await accept(platform, token_of(platform, made))
    assert (await members.member_of(platform, team.app, sam["_id"]))["role"] == "config_manager"
