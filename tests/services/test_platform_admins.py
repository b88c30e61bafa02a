"""A platform admin who may log in always stays (`spec.md` 5, `durability.md` 3)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import SecretStr

from conman.config import SettingsError
from conman.domain.errors import DomainError, ErrorCode
from conman.services.call import system_call
from conman.services.platform import Platform
from conman.services.platform_admins import (
    Flags,
    change_flags,
    ensure_platform_admin,
    ensure_record,
    make_platform_admin,
    settle,
)
from conman.services.upkeep import finish_and_forget
from conman.store.database import Document
from tests.services.people import PASSWORD, Office, call, refused
from tests.support.crashes import crash_at

AT = "2026-01-31T09:30:00.000Z"
DEMOTE, DISABLE, ENABLE = Flags(is_platform_admin=False), Flags(disabled=True), Flags(disabled=False)


async def admins(office: Office, platform: Platform, number: int) -> list[Document]:
    """So many platform admins, in a database whose record is made from them."""
    made = [await office.person(platform, "admin", is_platform_admin=True) for _ in range(number)]
    await ensure_record(platform.db)
    return made


async def who_may(platform: Platform) -> list[str]:
    """The platform admins who may log in, as the accounts say; the record says the same."""
    flagged = platform.db["users"].find({"is_platform_admin": True, "disabled": False})
    found = sorted([user["_id"] async for user in flagged])
    assert sorted((await settle(platform.db))["user_ids"]) == found
    return found


async def test_a_database_of_before_there_was_a_record_gets_it_from_the_accounts(office: Office, platform: Platform) -> None:
    one, two = await admins(office, platform, 2)
    await office.person(platform, "gone", is_platform_admin=True, disabled=True)
    await office.person(platform)
    record = await ensure_record(platform.db)
    assert sorted(record["user_ids"]) == sorted([one["_id"], two["_id"]])
    assert await ensure_record(platform.db) == record


@pytest.mark.parametrize("wanted", [DEMOTE, DISABLE, Flags(is_platform_admin=False, disabled=True)])
async def test_the_last_one_can_be_neither_demoted_nor_disabled(office: Office, platform: Platform, wanted: Flags) -> None:
    one, two = await admins(office, platform, 2)
    await change_flags(platform.db, call(one), two["_id"], wanted)
    assert await refused(change_flags(platform.db, call(one), one["_id"], wanted)) is ErrorCode.CONFLICT
    assert await who_may(platform) == [one["_id"]]
    assert (await office.again(platform, one))["version"] == one["version"]


async def test_who_is_disabled_does_not_count_and_counts_again_when_enabled(office: Office, platform: Platform) -> None:
    one, two = await admins(office, platform, 2)
    await change_flags(platform.db, call(one), two["_id"], DISABLE)
    assert await refused(change_flags(platform.db, call(one), one["_id"], DEMOTE)) is ErrorCode.CONFLICT
    await change_flags(platform.db, call(one), two["_id"], ENABLE)
    await change_flags(platform.db, call(one), one["_id"], DEMOTE)
    assert await who_may(platform) == [two["_id"]]


async def test_of_all_admins_demoted_and_disabled_at_once_by_several_processes_one_stays(
    office: Office, platform: Platform
) -> None:
    people = await admins(office, platform, 4)

    async def take(number: int) -> str:
        async def alone(process: Platform) -> str:
            try:
                await change_flags(process.db, call(people[0]), people[number]["_id"], DEMOTE if number % 2 else DISABLE)
            except DomainError as error:
                return error.code.value
            return "taken"

        return await office.apart(alone)

    found = await asyncio.gather(*(take(number) for number in range(4)))
    assert Counter(found) == {"taken": 3, "conflict": 1}
    assert await who_may(platform) == [people[found.index("conflict")]["_id"]]


async def test_a_stale_version_is_refused_and_nothing_is_written(office: Office, platform: Platform) -> None:
    one, _ = await admins(office, platform, 2)
    ann = await office.person(platform)
    changed = await change_flags(platform.db, call(one), ann["_id"], DISABLE, expected_version=ann["version"])
    assert changed["version"] == ann["version"] + 1
    stale = change_flags(platform.db, call(one), ann["_id"], ENABLE, expected_version=ann["version"])
    assert await refused(stale) is ErrorCode.STALE_WRITE
    assert (await office.again(platform, ann))["disabled"]


async def test_of_two_changes_of_one_version_at_once_one_is_refused(office: Office, platform: Platform) -> None:
    one, _ = await admins(office, platform, 2)
    ann = await office.person(platform)

    async def change(wanted: Flags) -> str:
        try:
            await change_flags(platform.db, call(one), ann["_id"], wanted, expected_version=ann["version"])
        except DomainError as error:
            return error.code.value
        return "changed"

    found = await asyncio.gather(change(DISABLE), change(Flags(is_platform_admin=True)))
    assert sorted(found) == ["changed", "stale_write"]


async def test_an_unknown_account_is_not_found(platform: Platform) -> None:
    assert await refused(change_flags(platform.db, call(), "nobody", DISABLE)) is ErrorCode.NOT_FOUND


async def test_what_is_so_already_changes_nothing(office: Office, platform: Platform) -> None:
    one, _ = await admins(office, platform, 2)
    again = await change_flags(platform.db, call(one), one["_id"], Flags(is_platform_admin=True, disabled=False))
    assert again["version"] == one["version"]
    assert await office.actions(platform, one["_id"]) == ["user.created"]


@pytest.mark.parametrize("point", ["admins.recorded", "deliver.audited", "deliver.put", "admins.shown"])
async def test_a_change_that_was_cut_short_is_finished_once(office: Office, platform: Platform, point: str) -> None:
    one, two = await admins(office, platform, 2)
    request = call(one, "key")
    with crash_at(point):
        await change_flags(platform.db, request, two["_id"], DISABLE)
    assert await refused(change_flags(platform.db, call(one), one["_id"], DISABLE)) is ErrorCode.CONFLICT
    await finish_and_forget(platform.db, AT)
    there = await office.again(platform, two)
    assert (there["disabled"], there["session_epoch"], there["version"]) == (True, 1, two["version"] + 1)
    repeated = await change_flags(platform.db, request, two["_id"], DISABLE, expected_version=two["version"])
    assert repeated["version"] == there["version"]
    assert await who_may(platform) == [one["_id"]]
    assert (await office.actions(platform, two["_id"])).count("user.disabled") == 1


async def test_a_late_hand_does_not_undo_what_came_after(office: Office, platform: Platform) -> None:
    """Somebody who read an open change and stalls finishes it long after it was finished, and changed back."""
    one, two = await admins(office, platform, 2)
    with crash_at("admins.recorded"):
        await change_flags(platform.db, call(one), two["_id"], DISABLE)
    open_then = await ensure_record(platform.db)
    await change_flags(platform.db, call(one), two["_id"], ENABLE)
    as_read = {"change": open_then["change"]}
    await platform.db["platform"].update_one({"_id": "admins"}, {"$set": as_read})
    await settle(platform.db)
    assert await who_may(platform) == sorted([one["_id"], two["_id"]])
    assert not (await office.again(platform, two))["disabled"]


async def test_the_first_start_makes_one_admin_however_many_processes_start(office: Office, platform: Platform) -> None:
    async def start() -> None:
        async with office.process(admin_email="admin@example.com", admin_password=SecretStr(PASSWORD)) as process:
            await ensure_platform_admin(process)

    await asyncio.gather(*(start() for _ in range(4)))
    made = await platform.db["users"].find({}).to_list()
    assert [(user["email"], user["is_platform_admin"]) for user in made] == [("admin@example.com", True)]
    assert await office.actions(platform, made[0]["_id"]) == ["user.created", "user.updated"]
    assert await who_may(platform) == [made[0]["_id"]]


async def test_a_start_that_was_cut_short_is_finished_by_the_next(office: Office, platform: Platform) -> None:
    async with office.process(admin_email="admin@example.com", admin_password=SecretStr(PASSWORD)) as process:
        with crash_at("admins.recorded"):
            await ensure_platform_admin(process)
        await ensure_platform_admin(process)
    assert len(await who_may(platform)) == 1


@pytest.mark.parametrize(("email", "password"), [("admin@example.com", "too short"), ("no address", PASSWORD)])
async def test_a_first_admin_that_can_not_be_stops_the_start_in_one_line(
    office: Office, platform: Platform, email: str, password: str
) -> None:
    async with office.process(admin_email=email, admin_password=SecretStr(password)) as process:
        with pytest.raises(SettingsError, match="CONMAN_ADMIN_PASSWORD"):
            await ensure_platform_admin(process)


async def test_the_command_line_makes_accounts_and_promotes_those_that_are_there(office: Office, platform: Platform) -> None:
    async def make(email: str) -> str:
        return await make_platform_admin(platform.db, system_call("t"), email, "New", PASSWORD, via="command_line")

    ann = await office.person(platform)
    assert await make("new@example.com") == "new@example.com is a platform admin now."
    assert await make("new@example.com") == "new@example.com is a platform admin already."
    assert await make(ann["email"]) == f"{ann['email']} had an account and is a platform admin now."
    assert len(await who_may(platform)) == 2
