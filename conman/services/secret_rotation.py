"""A new data key for a profile: recorded in one write with its audit event, then done in repeatable steps (`spec.md` 6).

A crash after the first write leaves the field `rotation` in the profile's record; upkeep, or the next rotation, goes on there.
Only forward: values under the old key and under the new one are readable all the time.
"""

from __future__ import annotations

import structlog

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.faults import fault_point
from conman.services.call import Call, has_happened
from conman.services.secrets import (
    DATA_KEYS,
    PROFILES,
    SECRET_VALUES,
    SecretStore,
    add_data_key,
    newest_data_key,
    sealed_fields,
    unwrapped,
)
from conman.services.vault import DataKey, Sealed, VaultError
from conman.store import records
from conman.store.database import Document

log = structlog.get_logger(__name__)


async def rotate_data_key(store: SecretStore, call: Call, profile_id: str, *, expected_version: int | None = None) -> Document:
    """Re-encrypt all values of a profile, in all its revisions, under a new data key; gives the profile's record.

    Safe beside values that are sealed meanwhile. Raises `stale_write`, `not_found`, and `VaultError` when a key of the profile
    does not unwrap: then nothing was changed.
    """
    while True:
        profile = await records.get(store.db, PROFILES, profile_id, what="runtime profile")
        happened = await has_happened(store.db, call, profile)
        if "rotation" in profile:
            await _finish(store, profile)
        elif not happened:
            try:
                profile = await _begin(store, call, profile, expected_version)
            except DomainError as refused:
                if refused.code is ErrorCode.STALE_WRITE and expected_version is None:
                    continue  # Somebody changed the profile in between, which is no reason to refuse a rotation.
                raise
            await _finish(store, profile)
            happened = True
        if happened:
            return await records.get(store.db, PROFILES, profile_id, what="runtime profile")


async def finish_rotations(store: SecretStore, limit: int = 100) -> int:
    """Finish the rotations that crashes left; returns how many are. One whose new key does not unwrap waits, with a log line."""
    found = await store.db[PROFILES].find({"rotation.data_key_id": {"$exists": True}}).limit(limit).to_list()
    finished = 0
    for profile in found:
        try:
            await _finish(store, profile)
            finished += 1
        except VaultError as error:
            log.error("rotation_not_finished", profile_id=profile["_id"], error=error.message)
    return finished


async def _begin(store: SecretStore, call: Call, profile: Document, expected_version: int | None) -> Document:
    """Record the intent, with its audit event, in the profile's record."""
    profile_id = profile["_id"]
    if expected_version not in (None, profile["version"]):
        raise records.stale(profile["version"])
    newest = await newest_data_key(store, profile_id)
    for document in await store.db[DATA_KEYS].find({"profile_id": profile_id}).to_list():
        unwrapped(store.vault, document)
    number = newest["number"] + 1
    keys = sorted(await store.db[SECRET_VALUES].distinct("key", {"profile_id": profile_id}))
    event = Event(
        "runtime_profile",
        profile_id,
        "key_rotated",
        before={"key_version": newest["number"]},
        after={"key_version": number, "keys": keys},
    )
    return await records.update_part(
        store.db,
        PROFILES,
        profile_id,
        set_fields={"rotation": {"data_key_id": call.derived_id("data_key"), "number": number}},
        at=call.at,
        outgoing=call.audit(event, app_id=profile["app_id"]),
        expected_version=profile["version"],
    )


async def _finish(store: SecretStore, profile: Document) -> None:
    """Carry out the recorded intent. What does not decrypt stays as it is, and keeps its key for `conman secrets verify`."""
    profile_id, new_id, number = profile["_id"], profile["rotation"]["data_key_id"], profile["rotation"]["number"]
    fault_point("rotation.recorded")
    await add_data_key(store, profile_id, new_id, number)
    fault_point("rotation.added")
    older: Document = {"profile_id": profile_id, "number": {"$lt": number}}
    await store.db[DATA_KEYS].update_many(older, {"$set": {"retired": True}})
    fault_point("rotation.retired")
    document = await store.db[DATA_KEYS].find_one({"_id": new_id})
    if document is not None:  # Else a later rotation has dropped it, and finished this one.
        new_key = unwrapped(store.vault, document)
        for old in await store.db[DATA_KEYS].find(older).to_list():
            if await _empty(store, old, new_key):
                fault_point("rotation.emptied")
                await store.db[DATA_KEYS].delete_one({"_id": old["_id"]})
    fault_point("rotation.dropped")
    await store.db[PROFILES].update_one({"_id": profile_id, "rotation.data_key_id": new_id}, {"$unset": {"rotation": ""}})


async def _empty(store: SecretStore, old: Document, new_key: DataKey) -> bool:
    """Whether nothing is left under the old key."""
    try:
        old_key = unwrapped(store.vault, old)
    except VaultError as error:
        log.error("data_key_not_rotated", data_key_id=old["_id"], profile_id=old["profile_id"], error=error.message)
        return False
    damaged: list[str] = []
    while True:
        query = {"profile_id": old["profile_id"], "data_key_id": old["_id"], "_id": {"$nin": damaged}}
        values = await store.db[SECRET_VALUES].find(query).limit(100).to_list()
        if not values:
            return not damaged
        for value in values:
            try:
                plain = old_key.unseal(value["key"], value["_id"], Sealed(value["nonce"], value["ciphertext"]))
            except VaultError as error:
                log.error("secret_not_rotated", value_id=value["_id"], profile_id=old["profile_id"], error=error.message)
                damaged.append(value["_id"])
                continue
            # Just what was read: a repeat of the call that seals it may have put another encryption in its place.
            await store.db[SECRET_VALUES].update_one(
                {"_id": value["_id"], "data_key_id": old["_id"], "nonce": value["nonce"]},
                {"$set": sealed_fields(new_key, value["key"], value["_id"], plain)},
            )
            fault_point("rotation.value")
