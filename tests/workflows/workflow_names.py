"""Ids and Git object ids by name, in the shapes that the audit checks."""

from __future__ import annotations

import hashlib

from conman.domain.ids import derived_uuid7


def uid(name: str) -> str:
    """The id that a name always has."""
    return derived_uuid7(1_772_357_400_000, name)


def sha(name: str) -> str:
    """The Git object id that a name always has."""
    return hashlib.sha1(name.encode()).hexdigest()
