"""Values of secrets in the store, and rotations of their data keys beside everything else (`spec.md` 6)."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from conman import faults
from conman.config import SettingsError
from conman.domain.decision import Actor
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.secrets import SecretRef
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.master_keys import check_master_keys
from conman.services.secret_rotation import finish_rotations, rotate_data_key
from conman.services.secrets import Secrets, reveal, seal, unseal
from conman.services.vault import Vault, VaultError
from conman.settings.vault import generate_keyring
from conman.store.database import Document, connect, ensure_indexes
from tests.support.crashes import Crash, crash_at

EVE = new_id()
PLAIN = {
    "DB_URI": "mongodb://app:correct-horse@db/app",
    "API_TOKEN": "sk_live_0123456789",
    "PIN": "4711",
    "PEM": "-----\nkey\n-----\n",
}
ROTATION = ["recorded", "added", "retired", "value", "emptied", "dropped"]


@dataclass
class Kept:
    """A profile with secrets in a store of its own."""

    uri: str
    database: str
    store: Secrets
    keyring: str
    profile_id: str
    refs: dict[str, SecretRef]

    def call(self, key: str | None = None) -> Call:
        command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
        return Call(command, "2026-01-31T09:30:00.000Z" if key else now(), Actor(user_id=EVE), keyed=key is not None)

    async def seal(self, values: dict[str, str], ids: dict[str, str] | None = None) -> dict[str, SecretRef]:
        return await seal(self.store, self.profile_id, values, ids or {key: new_id() for key in values})

    async def rotate(self, call: Call | None = None) -> Document:
        return await rotate_data_key(self.store, call or self.call(), self.profile_id)

    async def values(self, refs: dict[str, SecretRef] | None = None) -> dict[str, str]:
        return await unseal(self.store, self.profile_id, refs or self.refs)

    async def data_keys(self) -> list[Document]:
        return await self.store.db["data_keys"].find({"profile_id": self.profile_id}).sort("number", 1).to_list()

    async def rotations(self) -> list[Document]:
        query = {"entity_id": self.profile_id, "action": "key_rotated"}
        return [event["after"] async for event in self.store.db["audit"].find(query).sort("_id", 1)]

    async def is_whole(self) -> None:
        """Everything reads, under one key, and nothing is left to do."""
        assert await self.values() == PLAIN
        (key,) = await self.data_keys()
        assert not key["retired"]
        assert await self.store.db["secret_values"].distinct("data_key_id") == [key["_id"]]
        profile = await self.store.db["profiles"].find_one({"_id": self.profile_id})
        assert profile is not None
        assert "rotation" not in profile

    def elsewhere(self, work: Callable[[Kept], Coroutine[Any, Any, object]]) -> None:
        """Do it to its end, as another process would, while this one stands still."""

        async def alone() -> None:
            client = connect(self.uri)
            store = Secrets(client[self.database], Vault.of(self.keyring))
            try:
                await work(Kept(self.uri, self.database, store, self.keyring, self.profile_id, self.refs))
            finally:
                await client.close()

        thread = threading.Thread(target=asyncio.run, args=(alone(),))
        thread.start()
        thread.join()


@pytest.fixture
async def kept(mongo_uri: str) -> AsyncIterator[Kept]:
    client, name, keyring = connect(mongo_uri), f"test_{uuid.uuid4().hex[:12]}", generate_keyring()
    store = Secrets(client[name], Vault.of(keyring))
    await ensure_indexes(store.db)
    made = Kept(mongo_uri, name, store, keyring, new_id(), {})
    made.refs = await made.seal(PLAIN)
    secrets = {key: ref.model_dump() for key, ref in made.refs.items()}
    profile: Document = {"_id": made.profile_id, "app_id": new_id(), "version": 1, "revision_number": 3}
    await store.db["profiles"].insert_one({**profile, "content": {"name": "QA", "secrets": secrets}})
    yield made
    await client.drop_database(name)
    await client.close()


async def test_what_was_sealed_reads_and_shows_only_its_mask(kept: Kept) -> None:
    assert await kept.values() == PLAIN
    assert {key: ref.mask for key, ref in kept.refs.items()} == {
        "DB_URI": "mong****/app",
        "API_TOKEN": "sk_l****6789",
        "PIN": "****",
        "PEM": "----****---\n",
    }
    stored = repr(await kept.store.db["secret_values"].find().to_list())
    assert not any(value in stored for value in PLAIN.values())


async def test_a_repeat_with_the_same_ids_changes_nothing(kept: Kept) -> None:
    ids = {"A": new_id()}
    first = await kept.seal({"A": "one and only"}, ids)
    stored = await kept.store.db["secret_values"].find_one({"_id": ids["A"]})
    again = await asyncio.gather(*(kept.seal({"A": "one and only"}, ids) for _ in range(5)))
    assert again == [first] * 5
    assert await kept.store.db["secret_values"].find_one({"_id": ids["A"]}) == stored


async def test_of_many_first_seals_at_once_one_makes_the_data_key(kept: Kept) -> None:
    profile_id = new_id()
    await asyncio.gather(*(seal(kept.store, profile_id, {"K": f"value {n}"}, {"K": new_id()}) for n in range(20)))
    assert await kept.store.db["data_keys"].count_documents({"profile_id": profile_id}) == 1


async def test_the_same_repeats_at_once_give_one_value(kept: Kept) -> None:
    ids = {"A": new_id()}
    await asyncio.gather(*(kept.seal({"A": "one and only"}, ids) for _ in range(20)))
    assert await kept.values({"A": SecretRef(value_id=ids["A"], mask="")}) == {"A": "one and only"}


async def test_values_swapped_in_the_store_do_not_decrypt(kept: Kept) -> None:
    collection = kept.store.db["secret_values"]
    one = await collection.find_one({"_id": kept.refs["DB_URI"].value_id}, {"nonce": 1, "ciphertext": 1, "_id": 0})
    await collection.update_one({"_id": kept.refs["API_TOKEN"].value_id}, {"$set": one})
    with pytest.raises(VaultError, match="API_TOKEN") as refused:
        await kept.values()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert "correct-horse" not in str(refused.value)


async def test_a_value_opens_for_no_other_profile_and_no_other_key_name(kept: Kept) -> None:
    with pytest.raises(VaultError):
        await unseal(kept.store, new_id(), kept.refs)
    with pytest.raises(VaultError):
        await kept.values({"OTHER": kept.refs["DB_URI"]})


async def test_a_missing_value_and_a_missing_data_key_are_told_by_name(kept: Kept) -> None:
    await kept.store.db["data_keys"].delete_many({})
    with pytest.raises(VaultError, match=r"the data key .* is missing"):
        await kept.values()
    await kept.store.db["secret_values"].delete_many({})
    with pytest.raises(VaultError, match="DB_URI"):
        await kept.values()


async def test_a_rotation_re_encrypts_every_revision_and_drops_the_old_key(kept: Kept) -> None:
    older = await kept.seal({"DB_URI": "what an earlier revision had"})
    before = {row["_id"]: row["ciphertext"] async for row in kept.store.db["secret_values"].find()}
    (old,) = await kept.data_keys()
    profile = await kept.rotate()
    await kept.is_whole()
    assert await kept.values(older) == {"DB_URI": "what an earlier revision had"}
    (new,) = await kept.data_keys()
    assert (old["number"], new["number"]) == (1, 2)
    after = {row["_id"]: row["ciphertext"] async for row in kept.store.db["secret_values"].find()}
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert profile["version"] == 2
    assert await kept.rotations() == [{"key_version": 2, "keys": ["API_TOKEN", "DB_URI", "PEM", "PIN"]}]


async def test_a_repeated_rotation_with_the_same_key_is_one(kept: Kept) -> None:
    first = await kept.rotate(kept.call("a key"))
    assert await kept.rotate(kept.call("a key")) == first
    await kept.rotate()
    await kept.rotate(kept.call("a key"))
    assert [event["key_version"] for event in await kept.rotations()] == [2, 3]


async def test_a_rotation_against_another_version_is_refused(kept: Kept) -> None:
    with pytest.raises(DomainError) as refused:
        await rotate_data_key(kept.store, kept.call(), kept.profile_id, expected_version=9)
    assert refused.value.code is ErrorCode.STALE_WRITE
    assert await kept.rotations() == []


async def test_rotations_and_seals_at_once_lose_nothing(kept: Kept) -> None:
    async def sealed(number: int) -> dict[str, str]:
        refs = await kept.seal({"K": f"value {number}"})
        return await kept.values(refs)

    rotations = [kept.rotate() for _ in range(4)]
    found = await asyncio.gather(*(sealed(number) for number in range(40)), *rotations)
    assert found[:40] == [{"K": f"value {number}"} for number in range(40)]
    await kept.is_whole()
    assert sorted(event["key_version"] for event in await kept.rotations()) == [2, 3, 4, 5]
    assert await kept.store.db["secret_values"].count_documents({"unconfirmed": True}) == 0


async def test_values_read_while_rotations_run(kept: Kept) -> None:
    turning = asyncio.gather(*(kept.rotate() for _ in range(5)))
    while not turning.done():
        assert await kept.values() == PLAIN
    await turning


@pytest.mark.parametrize("point", ROTATION)
async def test_upkeep_finishes_a_rotation_that_died(kept: Kept, point: str) -> None:
    with crash_at(f"rotation.{point}"):
        await kept.rotate()
    assert await kept.values() == PLAIN
    later = await kept.seal({"LATER": "sealed after the crash"})
    assert await finish_rotations(kept.store) == 1
    assert await kept.values(later) == {"LATER": "sealed after the crash"}
    await kept.is_whole()
    assert await finish_rotations(kept.store) == 0
    assert len(await kept.rotations()) == 1


@pytest.mark.parametrize("point", ROTATION)
async def test_a_repeat_finishes_a_rotation_that_died_and_is_no_second_one(kept: Kept, point: str) -> None:
    with crash_at(f"rotation.{point}"):
        await kept.rotate(kept.call("a key"))
    await kept.rotate(kept.call("a key"))
    await kept.is_whole()
    assert [event["key_version"] for event in await kept.rotations()] == [2]


@pytest.mark.parametrize("point", ROTATION)
async def test_another_rotation_finishes_one_that_died_first(kept: Kept, point: str) -> None:
    with crash_at(f"rotation.{point}"):
        await kept.rotate()
    await kept.rotate()
    await kept.is_whole()
    assert [event["key_version"] for event in await kept.rotations()] == [2, 3]


async def test_a_seal_that_stood_still_while_its_key_was_dropped_takes_the_new_key(kept: Kept) -> None:
    faults.arm({"secrets.sealed": 1}, lambda _: kept.elsewhere(Kept.rotate))
    try:
        refs = await kept.seal({"K": "slow and steady"})
    finally:
        faults.arm({})
    assert await kept.values(refs) == {"K": "slow and steady"}
    await kept.is_whole()


async def test_a_value_whose_seal_died_is_sealed_by_the_repeat_although_its_key_is_gone(kept: Kept) -> None:
    ids = {"K": new_id()}
    with crash_at("secrets.sealed"):
        await kept.seal({"K": "twice begun"}, ids)
    # As though the dead process had still been under way with the old key when the rotation was through.
    stored = await kept.store.db["secret_values"].find_one({"_id": ids["K"]})
    await kept.rotate()
    await kept.store.db["secret_values"].replace_one({"_id": ids["K"]}, stored or {})
    refs = await kept.seal({"K": "twice begun"}, ids)
    assert await kept.values(refs) == {"K": "twice begun"}
    await kept.is_whole()


@pytest.mark.parametrize("point", ["rotation.added", "rotation.retired", "rotation.value", "rotation.emptied"])
async def test_a_rotation_that_stood_still_while_two_more_were_done_changes_nothing(kept: Kept, point: str) -> None:
    async def twice(other: Kept) -> None:
        await other.rotate()
        await other.rotate()

    faults.arm({point: 1}, lambda _: _disarmed(lambda: kept.elsewhere(twice)))
    try:
        await kept.rotate()
    finally:
        faults.arm({})
    assert await kept.values() == PLAIN
    await kept.rotate()
    await kept.is_whole()


def _disarmed(work: Callable[[], None]) -> None:
    faults.arm({})
    work()


async def test_a_damaged_value_keeps_its_key_and_stops_no_rotation(kept: Kept) -> None:
    damaged = kept.refs.pop("PIN")
    await kept.store.db["secret_values"].update_one({"_id": damaged.value_id}, {"$set": {"ciphertext": b"damaged"}})
    await kept.rotate()
    old, new = await kept.data_keys()
    assert (old["retired"], new["retired"]) == (True, False)
    assert await kept.values() == {key: value for key, value in PLAIN.items() if key != "PIN"}
    with pytest.raises(VaultError, match="PIN"):
        await kept.values({"PIN": damaged})


async def test_a_rotation_without_the_master_key_changes_nothing(kept: Kept) -> None:
    (before,) = await kept.data_keys()
    poor = Secrets(kept.store.db, Vault.of(generate_keyring()))
    with pytest.raises(VaultError, match="is not in the keyring"):
        await rotate_data_key(poor, kept.call(), kept.profile_id)
    assert await kept.data_keys() == [before]
    assert await kept.rotations() == []


async def test_a_reveal_is_in_the_audit_before_its_value_is_given_out(kept: Kept) -> None:
    profile = await kept.store.db["profiles"].find_one({"_id": kept.profile_id})
    assert profile is not None
    assert await reveal(kept.store, kept.call(), profile, "DB_URI") == PLAIN["DB_URI"]
    (event,) = await kept.store.db["audit"].find({"action": "secret_revealed"}).to_list()
    assert (event["actor_user_id"], event["after"]) == (EVE, {"key": "DB_URI", "revision_number": 3})
    with pytest.raises(Crash):
        faults.arm({"deliver.audited": 1}, _die)
        await reveal(kept.store, kept.call(), profile, "PIN")
    faults.arm({})
    assert await kept.store.db["audit"].count_documents({"action": "secret_revealed", "after.key": "PIN"}) == 1
    unchanged = await kept.store.db["profiles"].find_one({"_id": kept.profile_id})
    assert unchanged is not None
    assert unchanged["version"] == profile["version"], "telling a secret is no change that an editor has to read again"


def _die(_: str) -> None:
    raise Crash


async def test_a_reveal_of_what_is_no_secret_is_not_found_and_not_in_the_audit(kept: Kept) -> None:
    profile = await kept.store.db["profiles"].find_one({"_id": kept.profile_id})
    assert profile is not None
    with pytest.raises(DomainError) as refused:
        await reveal(kept.store, kept.call(), profile, "NOPE")
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert await kept.store.db["audit"].count_documents({}) == 0


async def test_the_start_wants_every_master_key_that_is_in_use(kept: Kept) -> None:
    await check_master_keys(kept.store)
    lost = Secrets(kept.store.db, Vault.of(generate_keyring()))
    with pytest.raises(SettingsError, match="CONMAN_MASTER_KEYS") as refused:
        await check_master_keys(lost)
    key_id = kept.keyring.partition(":")[0]
    assert key_id in str(refused.value)
    assert "\n" not in str(refused.value)
    wrong = Secrets(kept.store.db, Vault.of(f"{key_id}:{generate_keyring().partition(':')[2]}"))
    with pytest.raises(SettingsError, match="holds another key by that id") as refused:
        await check_master_keys(wrong)
    assert "\n" not in str(refused.value)
