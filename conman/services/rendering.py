"""A runtime profile as a process or an environment gets it, its secrets in (`spec.md` 6, 9 and 12).

Secrets are decrypted here, inside the activity that needs them: no message to or from a workflow ever holds one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conman.domain.overrides import FrozenOverride, overlaid
from conman.domain.profile import Profile, effective, env_file, environment_variables
from conman.services.override_contents import contents_of, owners_of, unseal_each
from conman.services.secrets import SecretStore
from conman.services.vault import Vault
from conman.store import records
from conman.store.database import Document

PROFILE_ENV = "profile.env"
PROFILE_JSON = "profile.json"
_PRIVATE = 0o600
_DIGEST = "conman rendered profile v1"


@dataclass(frozen=True, slots=True)
class RenderedProfile:
    """A profile with its effective variables and the values of its secrets."""

    profile: Profile
    revision_id: str | None
    variables: dict[str, str] = field(repr=False)
    secrets: dict[str, str] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """All that a process gets: variables and secrets. A secret wins over an app's default of the same name."""
        return {**self.variables, **self.secrets}

    def write(self, folder: Path) -> None:
        """`profile.env` and `profile.json` in the folder, for its owner only. Raises `OSError`."""
        _write_private(folder / PROFILE_ENV, env_file(self.environment))
        _write_private(folder / PROFILE_JSON, json.dumps(self._content, indent=2, sort_keys=True))

    def digest(self, vault: Vault) -> str:
        """What tells it from each that a process would see otherwise; nobody without the master key learns a value from it."""
        return vault.digest(_DIGEST, json.dumps([self._content, self.environment], sort_keys=True))

    @property
    def _content(self) -> dict[str, Any]:
        return {**self.profile.model_dump(mode="json"), "secrets": self.secrets}


async def render(
    store: SecretStore,
    app: Document,
    profile_id: str | None,
    revision_id: str | None,
    overrides: Sequence[FrozenOverride] = (),
) -> RenderedProfile:
    """The profile as it was at the revision that is pinned, else as it is now, with the overrides laid over it in their order;
    without a profile, the app's defaults alone.

    Raises `VaultError` when a secret can't be read, `not_found` when the profile or its pinned revision is gone,
    and `LookupError` when the content of an override is.
    """
    document: Document | None = None
    if revision_id is not None:
        document = await records.get(store.db, "profile_revisions", revision_id, what="revision of the runtime profile")
        profile_id = document["profile_id"]
    elif profile_id is not None:
        document = await records.get(store.db, "profiles", profile_id, what="runtime profile")
        revision_id = document["revision_id"]
    profile = Profile(name="none") if document is None else Profile.model_validate(document["content"])
    contents = await contents_of(store.db, overrides)
    profile = overlaid(profile, contents)
    variables = environment_variables(effective(app["settings"]["env_defaults"], profile))
    secrets = await unseal_each(store, profile.secrets, owners_of(overrides, contents), profile_id or "")
    return RenderedProfile(profile, revision_id, variables, secrets)


def _write_private(path: Path, text: str) -> None:
    """Never readable by others, not for a moment; a repeat writes it anew."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:
        file.write(text)
