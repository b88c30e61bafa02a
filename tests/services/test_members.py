"""Members under races and crashes, over real records (`spec.md` 5; `durability.md` 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from conman import faults
from conman.domain.errors import ErrorCode
from conman.domain.roles import Role
from conman.services import disabling, members, votes
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.platform_admins import Flags, change_flags
from conman.store import memberships
from conman.store.database import Database, Document
from tests.services.people import Office, call, refused
from tests.services.team import Team, make_team, outcome


class Killed(BaseException):
    """The process dies here; nothing catches it."""


@pytest.fixture
def dies_at() -> Iterator[Any]:
    def die(name: str) -> None:
        raise Killed(name)

    yield lambda point: faults.arm({point: 1}, die)
    faults.arm({})


def audited(rows: list[Document]) -> list[tuple[str, str | None, str | None]]:
    return [(row["action"], (row["before"] or {}).get("role"), (row["after"] or {}).get("role")) for row in rows]


async def events(db: Database, team: Team) -> list[Document]:
    return await db["audit"].find({"app_id": team.app["_id"], "entity_type": "membership"}).sort("_id", 1).to_list()


async def test_a_member_joins_changes_and_goes_each_with_its_event(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.USER)
    ann, bob = team.people["ann"], team.people["bob"]
    changed = await members.change_role(platform, call(ann), team.app, bob, Role.APP_ADMIN, version=1)
    assert (changed["role"], changed["version"]) == ("app_admin", 2)
    assert (await team.record(platform.db))["admin_ids"] == [ann["_id"], bob["_id"]]
    await members.remove_member(platform, call(ann), team.app, bob, version=None)
    record = await team.record(platform.db)
    assert (record["admin_ids"], record["member_change"], record["version"]) == ([ann["_id"]], None, 1)
    assert await team.roles(platform.db) == {"ann": "app_admin"}
    assert audited(await events(platform.db, team)) == [
        ("added", None, "app_admin"),
        ("added", None, "user"),
        ("role_changed", "user", "app_admin"),
        ("removed", "app_admin", None),
    ]


async def test_who_has_gone_answers_no_query_and_may_join_again(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.REVIEWER)
    bob, db = team.people["bob"], platform.db
    for _ in range(2):
        await members.remove_member(platform, call(team.people["ann"]), team.app, bob, version=None)
        assert await db["memberships"].find_one({"user_id": bob["_id"]}) is None
        assert await memberships.of_user(db, bob["_id"]) == []
        assert await memberships.role_now(db, team.app["_id"], bob["_id"]) is None
        assert await db["memberships"].count_documents({"app_id": team.app["_id"]}) == 1
        await members.add_member(platform, call(team.people["ann"]), team.app, user=bob, role=Role.USER, via="direct")
        assert await memberships.role_now(db, team.app["_id"], bob["_id"]) is Role.USER


async def test_the_last_app_admin_can_be_neither_removed_nor_demoted(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.CONFIG_MANAGER)
    ann = team.people["ann"]
    assert await refused(members.remove_member(platform, call(ann), team.app, ann, version=None)) is ErrorCode.CONFLICT
    demoting = members.change_role(platform, call(ann), team.app, ann, Role.USER, version=None)
    assert await refused(demoting) is ErrorCode.CONFLICT
    assert await team.roles(platform.db) == {"ann": "app_admin", "bob": "config_manager"}


async def test_a_stale_version_and_who_is_no_member_are_refused(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.USER)
    ann, bob = team.people["ann"], team.people["bob"]
    stranger = await office.person(platform, "sam")
    stale = members.change_role(platform, call(ann), team.app, bob, Role.REVIEWER, version=7)
    assert await refused(stale) is ErrorCode.STALE_WRITE
    assert await refused(members.remove_member(platform, call(ann), team.app, bob, version=7)) is ErrorCode.STALE_WRITE
    assert await refused(members.remove_member(platform, call(ann), team.app, stranger, version=None)) is ErrorCode.NOT_FOUND
    again = members.add_member(platform, call(ann), team.app, user=bob, role=Role.USER, via="direct")
    assert await refused(again) is ErrorCode.CONFLICT


async def test_of_twenty_removals_and_demotions_of_the_last_two_app_admins_one_is_carried_out(
    office: Office, platform: Platform
) -> None:
    team = await make_team(office, platform, bob=Role.APP_ADMIN)

    def end(number: int) -> Any:
        who = team.people["ann" if number % 2 else "bob"]

        async def work(apart: Platform) -> str:
            team.on(apart)
            if number % 4 < 2:
                return await outcome(members.remove_member(apart, call(who), team.app, who, version=None))
            return await outcome(members.change_role(apart, call(who), team.app, who, Role.USER, version=None))

        return office.apart(work)

    outcomes = await asyncio.gather(*(end(number) for number in range(20)))
    roles = await team.roles(platform.db)
    (left,) = [name for name, role in roles.items() if role == "app_admin"]
    assert (await team.record(platform.db))["admin_ids"] == [team.people[left]["_id"]]
    assert set(outcomes) <= {"done", "conflict", "not_found"}
    ends = [row for row in await events(platform.db, team) if row["action"] != "added"]
    assert {row["before"]["user_id"] for row in ends} == {team.people["bob" if left == "ann" else "ann"]["_id"]}


async def test_of_twenty_requests_to_add_one_person_one_adds_them(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform)
    sam = await office.person(platform, "sam")

    async def work(apart: Platform) -> str:
        team.on(apart)
        return await outcome(
            members.add_member(apart, call(team.people["ann"]), team.app, user=sam, role=Role.APP_ADMIN, via="direct")
        )

    outcomes = await asyncio.gather(*(office.apart(work) for _ in range(20)))
    assert sorted(outcomes) == ["conflict"] * 19 + ["done"]
    assert (await team.record(platform.db))["admin_ids"] == [team.people["ann"]["_id"], sam["_id"]]
    assert len([row for row in await events(platform.db, team) if row["after"]["user_id"] == sam["_id"]]) == 1


async def test_repeats_of_one_request_have_one_effect_and_one_answer(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.USER)
    ann, bob = team.people["ann"], team.people["bob"]
    at = now()

    def same(key: str) -> Call:
        made = call(ann, key)
        return Call(made.command_id, at, made.actor, ann, keyed=True)

    for _ in range(2):
        changed = await members.change_role(platform, same("change"), team.app, bob, Role.REVIEWER, version=1)
        assert (changed["role"], changed["version"]) == ("reviewer", 2)
    for _ in range(2):
        await members.remove_member(platform, same("remove"), team.app, bob, version=2)
    first = await members.add_member(platform, same("add"), team.app, user=bob, role=Role.USER, via="direct")
    await members.remove_member(platform, call(ann), team.app, bob, version=None)
    again = await members.add_member(platform, same("add"), team.app, user=bob, role=Role.USER, via="direct")
    assert again["_id"] == first["_id"] and again["user_id"] == bob["_id"]
    assert await team.roles(platform.db) == {"ann": "app_admin"}


@pytest.mark.parametrize("point", ["members.recorded", "members.shown"])
@pytest.mark.parametrize("finisher", ["the next reader", "upkeep"])
async def test_a_removal_that_was_cut_short_is_finished(
    office: Office, platform: Platform, dies_at: Any, point: str, finisher: str
) -> None:
    team = await make_team(office, platform, bob=Role.APP_ADMIN)
    bob, db = team.people["bob"], platform.db
    dies_at(point)
    with pytest.raises(Killed):
        await members.remove_member(platform, call(team.people["ann"]), team.app, bob, version=None)
    faults.arm({})
    if finisher == "upkeep":
        assert await memberships.settle_all(db) == 1
    else:
        assert await memberships.of_user(db, bob["_id"]) == []
    assert await team.roles(db) == {"ann": "app_admin"}
    record = await team.record(db)
    assert (record["member_change"], record["admin_ids"]) == (None, [team.people["ann"]["_id"]])
    assert [entry["doc"]["action"] for entry in record["outgoing"] if entry["kind"] == "audit"] == ["removed"]


async def test_a_step_that_comes_late_brings_nobody_back(office: Office, platform: Platform, dies_at: Any) -> None:
    team = await make_team(office, platform)
    sam, db = await office.person(platform, "sam"), platform.db
    ann = team.people["ann"]
    dies_at("members.recorded")
    with pytest.raises(Killed):
        await members.add_member(platform, call(ann), team.app, user=sam, role=Role.APP_ADMIN, via="direct")
    faults.arm({})
    stalled = await team.record(db)  # a reader that stops here and goes on at the end
    await memberships.settle_all(db)
    await members.remove_member(platform, call(ann), team.app, sam, version=None)
    await memberships.settle(db, stalled)
    assert await memberships.of_user(db, sam["_id"]) == []
    assert (await team.record(db))["admin_ids"] == [ann["_id"]]


# -- Accounts ----------------------------------------------------------------------------------------------------------------


async def test_the_last_app_admin_can_not_be_disabled_and_nothing_is_left_of_the_try(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.APP_ADMIN)
    ann, bob, db = team.people["ann"], team.people["bob"], platform.db
    await change_flags(db, call(), bob["_id"], Flags(disabled=True))
    assert (await team.record(db))["admin_ids"] == [ann["_id"]]
    assert await refused(change_flags(db, call(), ann["_id"], Flags(disabled=True))) is ErrorCode.CONFLICT
    assert not (await office.again(platform, ann))["disabled"]
    assert await memberships.disabled_by(db, ann["_id"]) is None
    assert await refused(members.remove_member(platform, call(bob), team.app, ann, version=None)) is ErrorCode.CONFLICT
    await change_flags(db, call(), bob["_id"], Flags(disabled=False))
    assert sorted((await team.record(db))["admin_ids"]) == sorted([ann["_id"], bob["_id"]])
    await members.remove_member(platform, call(bob), team.app, ann, version=None)


async def test_of_twenty_disablings_and_removals_of_the_last_two_app_admins_one_person_stays(
    office: Office, platform: Platform
) -> None:
    team = await make_team(office, platform, bob=Role.APP_ADMIN)

    def end(number: int) -> Any:
        who = team.people["ann" if number % 2 else "bob"]

        async def work(apart: Platform) -> str:
            team.on(apart)
            if number % 4 < 2:
                return await outcome(members.remove_member(apart, call(who), team.app, who, version=None))
            return await outcome(change_flags(apart.db, call(), who["_id"], Flags(disabled=True)))

        return office.apart(work)

    await asyncio.gather(*(end(number) for number in range(20)))
    people = {name: await office.again(platform, user) for name, user in team.people.items()}
    roles = await team.roles(platform.db)
    left = [name for name, role in roles.items() if role == "app_admin" and not people[name]["disabled"]]
    assert len(left) == 1
    assert (await team.record(platform.db))["admin_ids"] == [people[left[0]]["_id"]]


@pytest.mark.parametrize("point", ["disabling.suspended", "admins.recorded"])
async def test_a_disabling_that_was_cut_short_is_carried_out_or_given_up(
    office: Office, platform: Platform, dies_at: Any, point: str
) -> None:
    team = await make_team(office, platform, bob=Role.APP_ADMIN)
    bob, db = team.people["bob"], platform.db
    dies_at(point)
    with pytest.raises(Killed):
        await change_flags(db, call(), bob["_id"], Flags(disabled=True))
    faults.arm({})
    assert (await team.record(db))["admin_ids"] == [team.people["ann"]["_id"]]
    await change_flags(db, call(), team.people["ann"]["_id"], Flags(is_platform_admin=True))  # finishes what is recorded
    await disabling.give_up_cut_short(db, "9999-01-01T00:00:00.000Z")
    is_disabled = (await office.again(platform, bob))["disabled"]
    assert is_disabled is (point == "admins.recorded")
    assert (bob["_id"] in (await team.record(db))["admin_ids"]) is not is_disabled


async def test_who_becomes_app_admin_while_disabled_counts_only_when_enabled_again(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.USER)
    ann, bob, db = team.people["ann"], team.people["bob"], platform.db
    await change_flags(db, call(), bob["_id"], Flags(disabled=True))
    await members.change_role(platform, call(ann), team.app, bob, Role.APP_ADMIN, version=None)
    assert (await team.record(db))["admin_ids"] == [ann["_id"]]
    await change_flags(db, call(), bob["_id"], Flags(disabled=False))
    assert sorted((await team.record(db))["admin_ids"]) == sorted([ann["_id"], bob["_id"]])


# -- Votes -------------------------------------------------------------------------------------------------------------------


async def changeset(db: Database, team: Team, state: str, voter: Document, at: str) -> str:
    vote = {"id": new_id(), "reviewer_user_id": voter["_id"], "action": "approve", "revision_number": 1, "at": at}
    revision = {"revision_number": 1, "head_sha": "a", "base_sha": "b", "integration_sha": "b", "job_id": "j", "created_at": at}
    owned = {
        "app_id": team.app["_id"],
        "author_user_id": "author",
        "workspace_id": "workspace",
        "state": state,
        "revisions": [revision],
        "votes": [vote],
    }
    changeset_id = new_id()
    document = {"_id": changeset_id, "app_id": team.app["_id"], "title": "change", "owned": owned}
    await db["changesets"].insert_one(document)
    return changeset_id


async def test_changesets_not_yet_queued_are_told_of_votes_that_count_no_more(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.REVIEWER, cid=Role.REVIEWER)
    ann, bob, cid, db = *(team.people[name] for name in ("ann", "bob", "cid")), platform.db
    open_one = await changeset(db, team, "approved", bob, now())
    await changeset(db, team, "queued", bob, now())
    await changeset(db, team, "approved", cid, now())
    await members.change_role(platform, call(ann), team.app, bob, Role.USER, version=None)
    ((told, command),) = team.told.commands
    assert (told, command.reviewer_user_id, command.until, command.actor.user_id) == (open_one, bob["_id"], None, ann["_id"])


async def test_a_round_long_after_ends_the_matter_and_leaves_what_was_voted_after_a_return(
    office: Office, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = await make_team(office, platform, bob=Role.REVIEWER)
    ann, bob, db = team.people["ann"], team.people["bob"], platform.db
    await members.remove_member(platform, call(ann), team.app, bob, version=None)
    (lost,) = (await team.record(db))["lost_votes"]
    await members.add_member(platform, call(ann), team.app, user=bob, role=Role.REVIEWER, via="direct")
    sent_before = await changeset(db, team, "in_review", bob, lost["at"])
    await changeset(db, team, "in_review", bob, "9998-01-01T00:00:00.000Z")
    await votes.take_back_all(db, platform.commands)
    ((told, command),) = team.told.commands
    assert (told, command.until) == (sent_before, lost["at"])
    assert (await team.record(db))["lost_votes"] == [lost], "a vote that was sent before may still arrive"
    monkeypatch.setattr(votes, "now", lambda: "9999-01-01T00:00:00.000Z")
    await votes.take_back_all(db, platform.commands)
    assert (await team.record(db))["lost_votes"] == []


async def test_a_round_that_was_cut_short_is_made_again(office: Office, platform: Platform, dies_at: Any) -> None:
    team = await make_team(office, platform, bob=Role.REVIEWER)
    ann, bob, db = team.people["ann"], team.people["bob"], platform.db
    both = {await changeset(db, team, "approved", bob, now()) for _ in range(2)}
    dies_at("votes.told")
    with pytest.raises(Killed):
        await members.remove_member(platform, call(ann), team.app, bob, version=None)
    faults.arm({})
    assert await team.roles(db) == {"ann": "app_admin"}
    team.told.commands.clear()
    await votes.take_back_all(db, platform.commands)
    assert {told for told, _ in team.told.commands} == both


async def test_a_changeset_whose_workflow_does_not_answer_keeps_no_other_one_waiting(office: Office, platform: Platform) -> None:
    team = await make_team(office, platform, bob=Role.REVIEWER)
    ann, bob, db = team.people["ann"], team.people["bob"], platform.db
    silent, other = [await changeset(db, team, "approved", bob, now()) for _ in range(2)]
    team.told.silent.add(silent)
    await members.remove_member(platform, call(ann), team.app, bob, version=None)
    assert [told for told, _ in team.told.commands] == [other]
    team.told.silent.clear()
    await votes.take_back_all(db, platform.commands)
    assert silent in {told for told, _ in team.told.commands}


async def test_who_is_disabled_loses_votes_in_every_app(office: Office, platform: Platform) -> None:
    first = await make_team(office, platform, bob=Role.REVIEWER)
    second = await make_team(office, platform)
    bob, db = first.people["bob"], platform.db
    await members.add_member(platform, call(second.people["ann"]), second.app, user=bob, role=Role.REVIEWER, via="direct")
    both = {await changeset(db, team, "in_review", bob, now()) for team in (first, second)}
    disabled = await change_flags(db, call(), bob["_id"], Flags(disabled=True))
    await votes.take_back_soon(platform, "users", disabled)
    assert {told for told, _ in second.told.commands} == both
