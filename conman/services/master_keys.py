"""Master keys against what the store was written with: the check at each start (`spec.md` 6)."""

from __future__ import annotations

from conman.config import SettingsError
from conman.services.secrets import DATA_KEYS, SecretStore, unwrapped
from conman.services.vault import VaultError


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
