"""A change of the master key, and `conman secrets` (`spec.md` 6 and 15)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner, Result

from conman import faults
from conman.cli import cli
from conman.domain.secrets import SecretRef
from conman.services.call import system_call
from conman.services.clock import new_id
from conman.services.master_keys import Undecryptable, check_master_keys, verify
from conman.services.master_rotation import MasterRotation, rotate_master
from conman.services.secret_rotation import rotate_data_key
from conman.services.secrets import Secrets, seal, unseal
from conman.services.vault import Vault, VaultError
from conman.settings.vault import generate_keyring
from conman.store.database import Document, connect, ensure_indexes
from tests.support.crashes import Crash, crash_at

PROFILES = 5
SECRET = "correct horse battery staple"


def nothing_shown(done: int, total: int) -> None:
    assert 0 <= done <= total


@dataclass
class Keyrings:
    """Secrets of several profiles, kept under `old`; `both` has a new primary key before the old one."""

    uri: str
    store: Secrets
    old: str
    new: str
    refs: dict[str, dict[str, SecretRef]]

    @property
    def both(self) -> str:
        return f"{self.new},{self.old}"

    @property
    def old_id(self) -> str:
        return self.old.partition(":")[0]

    @property
    def new_id(self) -> str:
        return self.new.partition(":")[0]

    def under(self, keyring: str) -> Secrets:
        return Secrets(self.store.db, Vault.of(keyring))

    async def rotate(self) -> MasterRotation:
        return await rotate_master(self.under(self.both), system_call("test"), nothing_shown)

    async def reads_with(self, keyring: str) -> None:
        for profile_id, refs in self.refs.items():
            assert await unseal(self.under(keyring), profile_id, refs) == {"KEY": SECRET}

    async def audit(self) -> list[Document]:
        return await self.store.db["audit"].find({"action": "master_rotated"}).to_list()

    async def conman(self, keyring: str, *arguments: str) -> Result:
        """The command, as an operator runs it."""
        env = {
            "CONMAN_MONGO_URI": self.uri,
            "CONMAN_MONGO_DATABASE": self.store.db.name,
            "CONMAN_MASTER_KEYS": keyring,
            "COLUMNS": "400",
        }
        return await asyncio.to_thread(CliRunner().invoke, cli, ["secrets", *arguments], env=env)


@pytest.fixture
async def keyrings(mongo_uri: str) -> AsyncIterator[Keyrings]:
    client = connect(mongo_uri)
    old = generate_keyring()
    store = Secrets(client[f"test_{new_id()[-12:]}"], Vault.of(old))
    await ensure_indexes(store.db)
    made = Keyrings(mongo_uri, store, old, generate_keyring(), {})
    for _ in range(PROFILES):
        profile_id = new_id()
        made.refs[profile_id] = await seal(store, profile_id, {"KEY": SECRET}, {"KEY": new_id()})
        await store.db["profiles"].insert_one({"_id": profile_id, "app_id": new_id(), "version": 1})
    yield made
    await client.drop_database(store.db.name)
    await client.close()


async def test_after_it_the_old_key_may_leave_and_all_reads_without_it(keyrings: Keyrings) -> None:
    done = await keyrings.rotate()
    assert done == MasterRotation(keyrings.new_id, PROFILES, [keyrings.old_id], [])
    await keyrings.reads_with(keyrings.new)
    await check_master_keys(keyrings.under(keyrings.new))
    with pytest.raises(VaultError):
        await keyrings.reads_with(keyrings.old)
    (event,) = await keyrings.audit()
    assert event["before"] == {"master_key_ids": [keyrings.old_id]}
    assert event["after"] == {"master_key_id": keyrings.new_id, "profiles_rewrapped": PROFILES}
    assert event["app_id"] is None


async def test_where_nothing_is_to_do_nothing_is_done_and_nothing_audited(keyrings: Keyrings) -> None:
    await keyrings.rotate()
    before = await keyrings.store.db["data_keys"].find().sort("_id", 1).to_list()
    assert await keyrings.rotate() == MasterRotation(keyrings.new_id, 0, [keyrings.old_id], [])
    assert await keyrings.store.db["data_keys"].find().sort("_id", 1).to_list() == before
    assert len(await keyrings.audit()) == 1


async def test_a_key_may_become_primary_again(keyrings: Keyrings) -> None:
    await keyrings.rotate()
    back = keyrings.under(f"{keyrings.old},{keyrings.new}")
    assert (await rotate_master(back, system_call("test"), nothing_shown)).may_leave == [keyrings.new_id]
    assert (await keyrings.rotate()).may_leave == [keyrings.old_id]
    assert [event["after"]["profiles_rewrapped"] for event in await keyrings.audit()] == [PROFILES] * 3
    assert len({event["entity_id"] for event in await keyrings.audit()}) == 3


@pytest.mark.parametrize("at", [f"rewrapped:{n}" for n in range(1, PROFILES + 1)] + ["recorded:1", "ending:1"])
async def test_one_that_died_is_taken_up_and_is_one_event_of_all_profiles(keyrings: Keyrings, at: str) -> None:
    point, _, count = at.partition(":")
    faults.arm({f"master.{point}": int(count)}, _die)
    with pytest.raises(Crash):
        await keyrings.rotate()
    faults.arm({})
    await keyrings.reads_with(keyrings.both)
    done = await keyrings.rotate()
    assert done.may_leave == [keyrings.old_id]
    await keyrings.reads_with(keyrings.new)
    (event,) = await keyrings.audit()
    assert event["after"]["profiles_rewrapped"] == PROFILES


def _die(_: str) -> None:
    raise Crash


async def test_one_that_died_after_its_last_write_is_delivered_by_the_next(keyrings: Keyrings) -> None:
    with crash_at("deliver.audited"):
        await keyrings.rotate()
    await keyrings.rotate()
    assert len(await keyrings.audit()) == 1


async def test_several_at_once_are_one(keyrings: Keyrings) -> None:
    done = await asyncio.gather(*(keyrings.rotate() for _ in range(4)))
    assert all(each.may_leave == [keyrings.old_id] for each in done)
    assert sum(each.rewrapped for each in done) == PROFILES
    await keyrings.reads_with(keyrings.new)
    assert len(await keyrings.audit()) == 1


async def test_edits_and_rotations_of_data_keys_go_on_beside_it(keyrings: Keyrings) -> None:
    async def edit(profile_id: str, keyring: str) -> None:
        store = keyrings.under(keyring)
        refs = await seal(store, profile_id, {"MORE": SECRET}, {"MORE": new_id()})
        await rotate_data_key(store, system_call("test"), profile_id)
        assert await unseal(keyrings.under(keyrings.both), profile_id, refs) == {"MORE": SECRET}

    edits = [edit(profile_id, keyrings.both) for profile_id in keyrings.refs]
    await asyncio.gather(keyrings.rotate(), *edits)
    done = await keyrings.rotate()
    assert done.may_leave == [keyrings.old_id]
    await keyrings.reads_with(keyrings.new)


async def test_a_data_key_that_a_process_with_the_old_keyring_makes_meanwhile_is_taken_along(keyrings: Keyrings) -> None:
    profile_id = new_id()

    async def seals_late() -> None:
        # Where the rotation is between the making of the key and its use, that process is told to get the new keyring.
        with suppress(VaultError):
            keyrings.refs[profile_id] = await seal(keyrings.store, profile_id, {"KEY": SECRET}, {"KEY": new_id()})

    done, _ = await asyncio.gather(keyrings.rotate(), seals_late())
    assert done.may_leave in ([], [keyrings.old_id])
    # What came after the last look, as only a process can make that was not restarted before, is taken along by the next one.
    assert (await keyrings.rotate()).may_leave == [keyrings.old_id]
    await keyrings.reads_with(keyrings.new)


async def test_a_data_key_that_does_not_unwrap_is_named_and_keeps_its_master_key_in_the_ring(keyrings: Keyrings) -> None:
    broken = next(iter(keyrings.refs))
    await keyrings.store.db["data_keys"].update_one({"profile_id": broken}, {"$set": {"wrapped": b"damaged"}})
    done = await keyrings.rotate()
    assert (done.rewrapped, done.may_leave) == (PROFILES - 1, [])
    assert [problem.profile_id for problem in done.problems] == [broken]
    assert await keyrings.audit() == []


async def test_verify_looks_at_everything_and_tells_what_does_not_decrypt(keyrings: Keyrings) -> None:
    found = await verify(keyrings.store, nothing_shown)
    assert (found.data_keys, found.values, found.unfinished, found.problems) == (PROFILES, PROFILES, 0, [])
    one, two, three, *_ = keyrings.refs
    keys, values = keyrings.store.db["data_keys"], keyrings.store.db["secret_values"]
    await keys.update_one({"profile_id": one}, {"$set": {"wrapped": b"damaged"}})
    (key_id,) = await keys.distinct("_id", {"profile_id": one})
    await values.update_one({"profile_id": two}, {"$set": {"key": "RENAMED"}})
    await values.update_one({"profile_id": three}, {"$set": {"data_key_id": "gone"}})
    found = await verify(keyrings.store, nothing_shown)
    assert found.problems == [
        Undecryptable("data_key", key_id, one),
        Undecryptable("value", keyrings.refs[one]["KEY"].value_id, one, "KEY"),
        Undecryptable("value", keyrings.refs[two]["KEY"].value_id, two, "RENAMED"),
        Undecryptable("value", keyrings.refs[three]["KEY"].value_id, three, "KEY"),
    ]


async def test_verify_is_not_misled_by_rotations_and_seals_that_go_on(keyrings: Keyrings) -> None:
    async def turn(profile_id: str) -> None:
        for _ in range(3):
            await seal(keyrings.store, profile_id, {"MORE": SECRET}, {"MORE": new_id()})
            await rotate_data_key(keyrings.store, system_call("test"), profile_id)

    turning = asyncio.gather(*(turn(profile_id) for profile_id in keyrings.refs))
    while not turning.done():
        assert (await verify(keyrings.store, lambda _done, _total: None)).problems == []
    await turning


async def test_a_value_whose_seal_died_is_counted_and_is_no_problem(keyrings: Keyrings) -> None:
    with crash_at("secrets.sealed"):
        await seal(keyrings.store, new_id(), {"KEY": SECRET}, {"KEY": new_id()})
    found = await verify(keyrings.store, nothing_shown)
    assert (found.unfinished, found.problems) == (1, [])


async def test_the_command_verifies_with_an_exit_code_and_json(keyrings: Keyrings) -> None:
    well = await keyrings.conman(keyrings.old, "verify")
    assert well.exit_code == 0
    assert well.stdout.strip() == f"{PROFILES} data keys and {PROFILES} values were looked at, 0 do not decrypt"
    lost = await keyrings.conman(keyrings.new, "verify", "--json")
    assert lost.exit_code == 1
    told = json.loads(lost.stdout)
    assert (told["ok"], told["data_keys"], len(told["problems"])) == (False, PROFILES, 2 * PROFILES)
    value = told["problems"][-1]
    (ref,) = keyrings.refs[value["profile_id"]].values()
    assert value == {"kind": "value", "id": ref.value_id, "profile_id": value["profile_id"], "key": "KEY"}
    listed = await keyrings.conman(keyrings.new, "verify")
    assert listed.exit_code == 1
    assert listed.stderr.count("does not decrypt: data key") == PROFILES
    assert SECRET not in lost.output + listed.output + well.output


async def test_the_command_changes_the_master_key_and_says_which_key_may_leave(keyrings: Keyrings) -> None:
    done = await keyrings.conman(keyrings.both, "rotate-master")
    assert done.exit_code == 0
    assert f"{PROFILES} data keys were wrapped anew under {keyrings.new_id}" in done.stdout
    assert f"may leave CONMAN_MASTER_KEYS: {keyrings.old_id}" in done.stdout
    again = await keyrings.conman(keyrings.both, "rotate-master", "--json")
    assert json.loads(again.stdout) == {
        "ok": True,
        "master_key_id": keyrings.new_id,
        "rewrapped": 0,
        "may_leave": [keyrings.old_id],
        "problems": [],
    }
    for shown in (done.output, again.output):
        assert keyrings.new.partition(":")[2] not in shown
    await keyrings.reads_with(keyrings.new)


async def test_the_command_without_the_old_key_fails_and_lists_what_stays(keyrings: Keyrings) -> None:
    refused = await keyrings.conman(keyrings.new, "rotate-master")
    assert refused.exit_code == 1
    assert refused.stderr.count("does not decrypt: data key") == PROFILES
    await keyrings.reads_with(keyrings.old)
