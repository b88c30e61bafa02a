"""Profile overrides: changes of runtime profiles that travel with a changeset (`spec.md` 6).

What people send is strict (`GivenOverride`). What is kept is an `Override`, whose content never changes and stands once, under an
id made from it; records and workflows hold a `FrozenOverride`, which names it and has, of each key, what tells its value from
others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from conman.domain.decision import Model
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.profile import DataStrategy, Profile, ProfileDatabase, ProfileMigrations
from conman.domain.profile_edit import OverridableFields, changed
from conman.domain.secrets import SecretRef
from conman.domain.typed_value import TypedValue, rendered_value

MAX_OVERRIDES = 20
"""The most overrides of one changeset: one per profile."""

MAX_KEYS = 200
"""The most keys that the overrides of one changeset change together: the queue's record names those of all its entries."""

DIGEST_CHARACTERS = 32
"""Length of a digest, hexadecimal characters: 128 bits, which no two values share by chance."""

_KEYED = ("env_vars", "secrets")
_WHOLE = ("base_url", "database", "migrations", "data_strategy")
_TARGETS = ("target_environment_id", "target_profile_id")


class GivenOverride(OverridableFields):
    """An override in a request: exactly one target, and at least one change."""

    target_environment_id: str | None = Field(default=None, min_length=1, max_length=64)
    target_profile_id: str | None = Field(default=None, min_length=1, max_length=64)


class OverrideSecret(SecretRef):
    """A secret's value in an override; `digest` is keyed, and tells whether two values are equal, nothing else."""

    digest: str


class Override(Model):
    """What an override changes. Only what was given counts: null deletes a key or clears a field."""

    env_vars: dict[str, TypedValue | None] = Field(default_factory=dict[str, TypedValue | None])
    secrets: dict[str, OverrideSecret | None] = Field(default_factory=dict[str, OverrideSecret | None])
    base_url: str | None = None
    database: ProfileDatabase | None = None
    migrations: ProfileMigrations | None = None
    data_strategy: DataStrategy | None = None

    @property
    def given(self) -> list[str]:
        """The fields that it changes, in their order."""
        return [field for field in (*_KEYED, *_WHOLE) if field in self.model_fields_set]

    def content(self) -> dict[str, Any]:
        """What is kept of it."""
        return {field: _plain(getattr(self, field)) for field in self.given}

    def masked(self) -> dict[str, Any]:
        """As everybody may see it: each secret as its mask."""
        shown = self.content()
        if "secrets" in shown:
            shown["secrets"] = {key: None if ref is None else ref.mask for key, ref in self.secrets.items()}
        return shown

    def digests(self) -> dict[str, str | None]:
        """Of each key the digest of its typed value, None for one that is deleted or cleared. A key is `env_vars.NAME`,
        `secrets.NAME`, or the name of a field that is replaced as a whole.
        """
        found: dict[str, str | None] = {}
        for name, value in self.env_vars.items():
            found[f"env_vars.{name}"] = None if value is None else _digest(f"{value.type}\0{rendered_value(value)}")
        for name, ref in self.secrets.items():
            found[f"secrets.{name}"] = None if ref is None else ref.digest
        for field in _WHOLE:
            if field in self.model_fields_set:
                value = _plain(getattr(self, field))
                found[field] = None if value is None else _digest(_canonical(value))
        return found

    def change(self) -> dict[str, Any]:
        """What it changes, as `profile_edit.changed` takes it."""
        change = {field: _plain(getattr(self, field)) for field in _WHOLE if field in self.model_fields_set}
        if "env_vars" in self.model_fields_set:
            change["env_vars"] = self.env_vars
        if "secrets" in self.model_fields_set:
            change["secrets"] = {
                key: None if ref is None else SecretRef(value_id=ref.value_id, mask=ref.mask) for key, ref in self.secrets.items()
            }
        return change


class FrozenOverride(Model):
    """An override as records and workflows hold it: which profile it changes, and which content it has."""

    profile_id: str
    content_id: str
    target_environment_id: str | None = None
    target_profile_id: str | None = None
    keys: dict[str, str | None] = Field(default_factory=dict[str, str | None])

    @property
    def bare(self) -> FrozenOverride:
        """What renders a profile with it: without the digests, which are for comparing."""
        return FrozenOverride(profile_id=self.profile_id, content_id=self.content_id)

    @property
    def target(self) -> dict[str, str]:
        """The target as it was given."""
        return {name: value for name in _TARGETS if (value := getattr(self, name)) is not None}


def freeze(given: GivenOverride, profile_id: str, override: Override) -> FrozenOverride:
    """The override of a profile, named by its content: equal ones have equal ids."""
    return frozen(profile_id, override).model_copy(update={name: getattr(given, name) for name in _TARGETS})


def frozen(profile_id: str, override: Override) -> FrozenOverride:
    """An override that Conman makes itself, for a profile and not for an environment."""
    content_id = hashlib.sha256(f"{profile_id}\0{_canonical(override.content())}".encode()).hexdigest()
    return FrozenOverride(profile_id=profile_id, content_id=content_id, target_profile_id=profile_id, keys=override.digests())


def made_of(given: GivenOverride, refs: Mapping[str, OverrideSecret]) -> Override:
    """What is kept of an override that was sent; `refs` has the values of the secrets that it sets."""
    return Override.model_validate(given.change(refs))


def frozen_of(kept: Sequence[Any]) -> list[FrozenOverride]:
    """The overrides of a record."""
    return [FrozenOverride.model_validate(one) for one in kept]


def check_given(given: Sequence[GivenOverride]) -> None:
    """What must hold of overrides before anybody looks for their targets. Raises `validation_error` with all that does not."""
    problems: list[dict[str, str]] = []
    for number, one in enumerate(given):
        targets = [name for name in _TARGETS if getattr(one, name) is not None]
        if len(targets) != 1:
            message = "needs exactly one of target_environment_id and target_profile_id"
            problems.append({"field": f"overrides.{number}", "message": message})
        changes = one.model_fields_set - set(_TARGETS)
        if not any(getattr(one, field) or field in _WHOLE for field in changes):
            problems.append({"field": f"overrides.{number}", "message": "changes nothing: leave it out"})
    keys = sum(len(one.env_vars) + len(one.secrets) + len(one.model_fields_set & set(_WHOLE)) for one in given)
    if keys > MAX_KEYS:
        problems.append({"field": "overrides", "message": f"change {keys} keys together, and may change {MAX_KEYS}"})
    if problems:
        named = "; ".join(f"{one['field']}: {one['message']}" for one in problems[:3])
        raise DomainError(ErrorCode.VALIDATION_ERROR, f"Mend the overrides: {named}.", problems)


def overridden(profile: Profile, overrides: Sequence[Override]) -> Profile:
    """The profile with overrides that were made for it, one after the other; whether the result is sound is the caller's to
    check, by `profile_edit.check_sound`.
    """
    for override in overrides:
        profile = changed(profile, override.change())
    return profile


def overlaid(profile: Profile, overrides: Sequence[Override]) -> Profile:
    """Any profile with overrides laid over it, as the submit gate sees its base profile (`spec.md` 9). A variable takes the place
    of a secret of its name, and the reverse: what the overrides set is what a process gets.
    """
    for override in overrides:
        set_variables = _set(override.env_vars)
        set_secrets = _set(override.secrets)
        room = {
            "env_vars": {key: value for key, value in profile.env_vars.items() if key not in set_secrets},
            "secrets": {key: ref for key, ref in profile.secrets.items() if key not in set_variables},
        }
        profile = changed(profile.model_copy(update=room), override.change())
    return profile


def overridden_names(overrides: Sequence[Override]) -> frozenset[str]:
    """The variables and secrets that the overrides set."""
    return frozenset(name for override in overrides for name in (*_set(override.env_vars), *_set(override.secrets)))


def _set(values: Mapping[str, Any]) -> Collection[str]:
    return [name for name, value in values.items() if value is not None]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]
