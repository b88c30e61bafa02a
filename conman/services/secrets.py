"""Values of secrets in the store: sealing and unsealing, safe beside a rotation of their key (`spec.md` 6).

`data_keys` {_id, profile_id, number, master_key_id, wrapped, retired}: a profile's keys. The one with the highest number seals; a
rotation retires those before it, re-encrypts what they sealed, and drops them.
`secret_values` {_id, profile_id, key, data_key_id, nonce, ciphertext, unconfirmed?}: a value, to which revisions refer by its id.

A value is written `unconfirmed`, and confirmed once its data key, looked at after the write, was still not retired. A rotation
looks for values after it has retired their key: it sees every confirmed one, and none is left under a key that it drops. What was
never confirmed belongs to a call that never returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Event
from conman.domain.errors import not_found
from conman.domain.secrets import SecretRef, mask
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.clock import new_id
from conman.services.vault import DataKey, Sealed, Vault, VaultError, WrappedKey
from conman.store import records
from conman.store.database import Database, Document

DATA_KEYS = "data_keys"
SECRET_VALUES = "secret_values"
PROFILES = "profiles"


class SecretStore(Protocol):
    """What holds the encrypted values and the keys to them: a `Platform`, or an activity's own."""

    @property
    def db(self) -> Database:
        """Where the encrypted values are."""
        ...

    @property
    def vault(self) -> Vault:
        """The master keys."""
        ...


@dataclass(frozen=True, slots=True)
class Secrets:
    """The store of what has no `Platform`: activities and commands."""

    db: Database
    vault: Vault


async def seal(
    store: SecretStore, profile_id: str, values: Mapping[str, str], value_ids: Mapping[str, str]
) -> dict[str, SecretRef]:
    """Encrypt and keep values by key name, each under the id that `value_ids` has for it.

    A repeat with the same ids changes nothing. Raises `VaultError` when the profile's data key does not unwrap.
    """
    for key, value in values.items():
        await _seal_one(store, profile_id, key, value_ids[key], value)
    return {key: SecretRef(value_id=value_ids[key], mask=mask(value)) for key, value in values.items()}


async def _seal_one(store: SecretStore, profile_id: str, key: str, value_id: str, value: str) -> None:
    collection = store.db[SECRET_VALUES]
    while True:
        kept = await collection.find_one({"_id": value_id})
        if kept is not None and "unconfirmed" not in kept:
            return
        data_key = unwrapped(store.vault, await newest_data_key(store, profile_id))
        written = sealed_fields(data_key, key, value_id, value)
        if kept is None:
            try:
                await collection.insert_one(
                    {"_id": value_id, "profile_id": profile_id, "key": key, "unconfirmed": True, **written}
                )
            except DuplicateKeyError:
                continue  # A repeat of the same call was faster.
        else:
            await collection.update_one({"_id": value_id, "unconfirmed": True}, {"$set": written})
        fault_point("secrets.sealed")
        if await store.db[DATA_KEYS].find_one({"_id": data_key.id, "retired": False}, {"_id": 1}) is None:
            continue
        # Just what was written here: a repeat may have put its own encryption, under another key, in its place.
        mine = {"_id": value_id, "nonce": written["nonce"]}
        confirmed = await collection.update_one(mine, {"$unset": {"unconfirmed": ""}})
        if confirmed.matched_count:
            return


async def reveal(store: SecretStore, call: Call, profile: Document, key: str) -> str:
    """One secret of the profile's present revision, told to a person; the audit has it before the value is given out.

    Raises `not_found` for a key that is none of its secrets, and `VaultError`.
    """
    ref = profile["content"]["secrets"].get(key)
    if ref is None:
        raise not_found(f"secret {key} in this profile")
    values = await unseal(store, profile["_id"], {key: SecretRef.model_validate(ref)})
    after = {"key": key, "revision_number": profile["revision_number"]}
    event = Event("runtime_profile", profile["_id"], "secret_revealed", after=after)
    outgoing = call.audit(event, app_id=profile["app_id"])
    if await records.write_where(store.db, PROFILES, {"_id": profile["_id"]}, {}, outgoing=outgoing) is None:
        raise not_found("runtime profile")
    return values[key]


async def unseal(store: SecretStore, profile_id: str, refs: Mapping[str, SecretRef]) -> dict[str, str]:
    """The values that a revision refers to, by key name. Raises `VaultError` naming the first that can't be had."""
    data_keys: dict[str, DataKey] = {}
    return {key: await _unseal_one(store, profile_id, key, ref.value_id, data_keys) for key, ref in refs.items()}


async def _unseal_one(store: SecretStore, profile_id: str, key: str, value_id: str, data_keys: dict[str, DataKey]) -> str:
    missing: str | None = None
    while True:
        kept = await store.db[SECRET_VALUES].find_one({"_id": value_id, "profile_id": profile_id})
        if kept is None:
            raise VaultError(f"the value {value_id} of the secret {key} of profile {profile_id} is missing: set the secret anew")
        data_key_id = kept["data_key_id"]
        if data_key_id == missing:
            raise VaultError(
                f"the data key {data_key_id} of profile {profile_id} is missing: restore the collection {DATA_KEYS} from a backup"
            )
        if data_key_id not in data_keys:
            document = await store.db[DATA_KEYS].find_one({"_id": data_key_id, "profile_id": profile_id})
            if document is None:
                missing = data_key_id  # A rotation may have re-encrypted the value meanwhile; then it names another key now.
                continue
            data_keys[data_key_id] = unwrapped(store.vault, document)
        return data_keys[data_key_id].unseal(key, value_id, Sealed(kept["nonce"], kept["ciphertext"]))


async def newest_data_key(store: SecretStore, profile_id: str) -> Document:
    """The record of the key that seals the profile's values; the first one is made here."""
    while True:
        document = await store.db[DATA_KEYS].find_one({"profile_id": profile_id}, sort=[("number", DESCENDING)])
        if document is not None:
            return document
        await add_data_key(store, profile_id, new_id(), 1)


async def add_data_key(store: SecretStore, profile_id: str, data_key_id: str, number: int) -> bool:
    """Make a data key; False when there is one by that id or number."""
    made = store.vault.new_data_key(profile_id, data_key_id)
    document: Document = {"_id": data_key_id, "profile_id": profile_id, "number": number, "retired": False}
    try:
        await store.db[DATA_KEYS].insert_one({**document, "master_key_id": made.master_key_id, "wrapped": made.wrapped})
    except DuplicateKeyError:
        return False
    return True


def wrapped_key(document: Document) -> WrappedKey:
    """The wrapped key of a record of `data_keys`."""
    return WrappedKey(document["master_key_id"], document["wrapped"])


def unwrapped(vault: Vault, document: Document) -> DataKey:
    """The data key of its record. Raises `VaultError`."""
    return vault.unwrap(document["profile_id"], document["_id"], wrapped_key(document))


def sealed_fields(data_key: DataKey, key: str, value_id: str, value: str) -> Document:
    """What changes in a value's record when it is encrypted under `data_key`."""
    sealed = data_key.seal(key, value_id, value)
    return {"data_key_id": data_key.id, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext}
