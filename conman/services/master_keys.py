"""Master keys against what the store was written with: the check at each start, and of everything on demand (`spec.md` 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from conman.config import SettingsError
from conman.domain.secrets import SecretRef
from conman.services.secrets import DATA_KEYS, SECRET_VALUES, SecretStore, unseal, unwrapped
from conman.services.vault import DataKey, Sealed, VaultError
from conman.store.database import Document

Progress = Callable[[int, int], None]
"""Takes how many are done, and how many there are in all."""


async def check_master_keys(store: SecretStore) -> None:
    """Unwrap one data key of each master key that is in use.

    Raises `SettingsError` in one line: a missing or wrong key is told at the start, never by a request that fails later.
    """
    vault = store.vault
    used = sorted(await store.db[DATA_KEYS].distinct("master_key_id"))
    missing = [master_key_id for master_key_id in used if master_key_id not in vault.master_key_ids]
    if missing:
        raise SettingsError(
            f"CONMAN_MASTER_KEYS: secrets are kept under {', '.join(missing)}, which it does not hold: add what is missing after"
            f" the primary key {vault.primary}, or restore the keyring from a backup"
        )
    for master_key_id in used:
        sample = await store.db[DATA_KEYS].find_one({"master_key_id": master_key_id})
        if sample is None:
            continue  # It was wrapped anew just now.
        try:
            unwrapped(vault, sample)
        except VaultError as error:
            raise SettingsError(f"CONMAN_MASTER_KEYS: {error.message}") from error


@dataclass(frozen=True, slots=True)
class Undecryptable:
    """One thing that does not decrypt; `key` is the name of a value's secret."""

    kind: Literal["data_key", "value"]
    id: str
    profile_id: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at. `unfinished` values belong to calls that never returned: nothing refers to them."""

    data_keys: int
    values: int
    unfinished: int
    problems: list[Undecryptable]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"ok": not self.problems, **asdict(self)}


async def verify(store: SecretStore, progress: Progress) -> Verification:
    """Decrypt every data key and every value; rotations and edits may go on meanwhile."""
    problems: list[Undecryptable] = []
    data_keys: dict[str, DataKey] = {}
    counted = values = unfinished = 0
    total = await store.db[DATA_KEYS].count_documents({}) + await store.db[SECRET_VALUES].count_documents({})
    async for document in store.db[DATA_KEYS].find().sort("_id", 1):
        counted += 1
        progress(counted, total)
        try:
            data_keys[document["_id"]] = unwrapped(store.vault, document)
        except VaultError:
            problems.append(Undecryptable("data_key", document["_id"], document["profile_id"]))
    async for document in store.db[SECRET_VALUES].find().sort("_id", 1):
        progress(counted + values + unfinished + 1, total)
        if "unconfirmed" in document:
            unfinished += 1
            continue
        values += 1
        if not await _opens(store, document, data_keys):
            problems.append(Undecryptable("value", document["_id"], document["profile_id"], document["key"]))
    return Verification(counted, values, unfinished, problems)


async def _opens(store: SecretStore, document: Document, data_keys: dict[str, DataKey]) -> bool:
    data_key = data_keys.get(document["data_key_id"])
    value_id, profile_id, key = document["_id"], document["profile_id"], document["key"]
    try:
        if data_key is not None and data_key.profile_id == profile_id:
            data_key.unseal(key, value_id, Sealed(document["nonce"], document["ciphertext"]))
        else:  # Its key is newer than what was read of the keys, or older: read both again.
            await unseal(store, profile_id, {key: SecretRef(value_id=value_id, mask="")})
    except VaultError:
        return False
    return True
