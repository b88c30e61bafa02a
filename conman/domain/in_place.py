"""What Conman has put in place last in an environment, as its record says (`spec.md` 12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InPlace:
    """A deployment with its release and the revision of the profile that it applied, and when."""

    deployment_id: str
    release_id: str | None
    revision_id: str | None
    at: str


def in_place(owned: Mapping[str, Any]) -> InPlace | None:
    """What is in place, None before the first deployment.

    `applied_…` is what was put there last, `current_…` the last that succeeded: they differ while one that failed its health
    check stands there. Records from before there were health checks have the second only.
    """
    deployment_id = owned.get("applied_deployment_id") or owned.get("current_deployment_id")
    if deployment_id is None:
        return None
    is_told = owned.get("applied_deployment_id") is not None
    return InPlace(
        deployment_id=deployment_id,
        release_id=owned.get("applied_release_id" if is_told else "current_release_id"),
        revision_id=owned.get("applied_profile_revision_id"),
        at=owned["applied_at" if is_told else "deployed_at"],
    )


def in_place_id(owned: Mapping[str, Any]) -> str | None:
    """The id of the deployment that is in place."""
    found = in_place(owned)
    return found.deployment_id if found is not None else None
