"""What differs between two revisions of profiles, secrets masked (`spec.md` 6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from conman.domain.profile import Profile
from conman.domain.typed_value import is_same

_PLAIN = ("name", "kind", "base_url")
_NESTED = ("database", "migrations", "data_strategy", "lifecycle")


class Difference(StrEnum):
    """How a field or key differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One field, or one key of it, that differs; null is what is not there, and of a secret the masks are shown."""

    field: str
    key: str | None
    before: Any
    after: Any

    @property
    def difference(self) -> Difference:
        """Added, removed or changed."""
        if self.before is None:
            return Difference.ADDED
        return Difference.REMOVED if self.after is None else Difference.CHANGED

    def record(self) -> dict[str, Any]:
        """As it is shown."""
        return {
            "field": self.field,
            "key": self.key,
            "change": self.difference.value,
            "before": self.before,
            "after": self.after,
        }


def secrets_to_compare(one: Profile, other: Profile) -> list[str]:
    """The secrets of which only their values can tell whether they are equal: both have them, as different encrypted values."""
    both = sorted(one.secrets.keys() & other.secrets.keys())
    return [key for key in both if one.secrets[key].value_id != other.secrets[key].value_id]


def changes(one: Profile, other: Profile, *, same_secrets: Collection[str] = ()) -> list[Change]:
    """What differs, in the order of the fields and then of the keys; `same_secrets` were compared and found equal."""
    before, after = one.masked(), other.masked()
    found = [Change(field, None, before[field], after[field]) for field in _PLAIN if before[field] != after[field]]
    changed_variables = [
        key
        for key in _keys(one.env_vars, other.env_vars)
        if not (key in one.env_vars and key in other.env_vars and is_same(one.env_vars[key], other.env_vars[key]))
    ]
    differing = set(secrets_to_compare(one, other)) - set(same_secrets)
    changed_secrets = [
        key for key in _keys(one.secrets, other.secrets) if key in differing or (key in one.secrets) != (key in other.secrets)
    ]
    for field, keys in (("env_vars", changed_variables), ("secrets", changed_secrets)):
        found.extend(Change(field, key, before[field].get(key), after[field].get(key)) for key in keys)
    for field in _NESTED:
        was, now = _fields(before[field]), _fields(after[field])
        found.extend(Change(field, key, was.get(key), now.get(key)) for key in _keys(was, now) if was.get(key) != now.get(key))
    return found


def _keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(one.keys() | other.keys())


def _fields(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if value is not None else {}
