"""What overrides change, as it is kept, and the values of their secrets (`spec.md` 6).

`profile_overrides` {_id, app_id, profile_id, content, created_at}: a content under the id made from it, never changed again.
Records and workflows name it; docs/adr/0021-overrides-by-reference.md.

The value of a secret is sealed as one of the profile that it is for, and told from others by a digest. The key of these digests
is a value of the profile too, so that it is as safe as the secrets are and stays the same when keys are rotated.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from conman.domain.overrides import DIGEST_CHARACTERS, FrozenOverride, Override, frozen_of
from conman.domain.secrets import SecretRef
from conman.services.secrets import SecretStore, seal, unseal
from conman.store.database import Database, Document

CONTENTS = "profile_overrides"
DIGEST_KEY = "CONMAN_OVERRIDE_DIGESTS"
"""The name of the digests' key among a profile's values; no secret of a member's can have it."""

_KEY_BYTES = 32


async def digests(store: SecretStore, profile_id: str, values: Mapping[str, str]) -> dict[str, str]:
    """Key name → what tells the value of a secret from others. Raises `VaultError`."""
    if not values:
        return {}
    key = await _digest_key(store, profile_id)
    return {
        name: hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:DIGEST_CHARACTERS]
        for name, value in values.items()
    }


async def _digest_key(store: SecretStore, profile_id: str) -> bytes:
    value_id = f"override-digests:{profile_id}"
    fresh = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    refs = await seal(store, profile_id, {DIGEST_KEY: fresh}, {DIGEST_KEY: value_id})  # one that is there stays
    return base64.b64decode((await unseal(store, profile_id, refs))[DIGEST_KEY])


async def keep_content(db: Database, app_id: str, frozen: FrozenOverride, override: Override, at: str) -> None:
    """Keep what an override changes; a repeat changes nothing."""
    content: Document = {"app_id": app_id, "profile_id": frozen.profile_id, "content": override.content(), "created_at": at}
    await db[CONTENTS].update_one({"_id": frozen.content_id}, {"$setOnInsert": content}, upsert=True)


async def load_contents(db: Database, overrides: Iterable[FrozenOverride]) -> dict[str, Override]:
    """Content id → what the overrides change. Raises `LookupError` naming one that is missing."""
    wanted = sorted({one.content_id for one in overrides})
    if not wanted:
        return {}
    rows = db[CONTENTS].find({"_id": {"$in": wanted}})
    found = {row["_id"]: Override.model_validate(row["content"]) async for row in rows}
    missing = [content_id for content_id in wanted if content_id not in found]
    if missing:
        raise LookupError(f"the content {missing[0]} of an override is missing: restore the collection {CONTENTS} from a backup")
    return found


async def contents_of(db: Database, overrides: Sequence[FrozenOverride]) -> list[Override]:
    """What the overrides change, in their order. Raises `LookupError`."""
    found = await load_contents(db, overrides)
    return [found[one.content_id] for one in overrides]


async def shown_overrides(db: Database, *kept: Sequence[Any]) -> list[list[dict[str, Any]]]:
    """Lists of overrides of records, each as it was given, secrets masked."""
    lists = [frozen_of(one) for one in kept]
    found = await load_contents(db, (one for frozen in lists for one in frozen))
    return [[{**one.target, **found[one.content_id].masked()} for one in frozen] for frozen in lists]


def owners_of(overrides: Sequence[FrozenOverride], contents: Sequence[Override]) -> dict[str, str]:
    """Value id of a secret → the profile under which it is sealed."""
    return {
        ref.value_id: frozen.profile_id
        for frozen, override in zip(overrides, contents, strict=True)
        for ref in override.secrets.values()
        if ref is not None
    }


async def unseal_each(
    store: SecretStore, secrets: Mapping[str, SecretRef], owners: Mapping[str, str], profile_id: str
) -> dict[str, str]:
    """The values of secrets by key name, each sealed under its owner, else under `profile_id`. Raises `VaultError`."""
    by_owner: dict[str, dict[str, SecretRef]] = {}
    for key, ref in secrets.items():
        by_owner.setdefault(owners.get(ref.value_id, profile_id), {})[key] = ref
    values: dict[str, str] = {}
    for owner, refs in by_owner.items():
        values |= await unseal(store, owner, refs)
    return values
