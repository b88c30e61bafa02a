"""The overrides of a changeset: setting and showing them, and what they mean for its approvals (`spec.md` 6).

The present overrides are the services' own part of the changeset's record: `overrides`, written where its state is one in which
they are edited. A submit freezes them with its revision; one that was asked for just before a change of them freezes those of
before, and the change stays for the next revision, as a file's does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from conman.domain.changeset import ChangesetState
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, not_found
from conman.domain.overrides import (
    FrozenOverride,
    GivenOverride,
    Override,
    OverrideSecret,
    check_given,
    freeze,
    frozen_of,
    made_of,
    overlaid,
    overridden_names,
)
from conman.domain.profile import Profile, effective_variables
from conman.domain.profile_edit import merge, refuse_masks
from conman.domain.secrets import mask
from conman.faults import fault_point
from conman.services import profiles
from conman.services.call import Call, has_happened, keep, recall
from conman.services.environments import list_environments
from conman.services.override_contents import contents_of, digests, keep_content, load_contents, shown_overrides
from conman.services.platform import Platform
from conman.services.profile_changes import check_references
from conman.services.secrets import seal
from conman.store import records
from conman.store.database import Document

EDITED_IN = (ChangesetState.DRAFT, ChangesetState.CHANGES_REQUESTED)
"""The states in which overrides are edited (`spec.md` 6)."""


# -- Showing


async def shown(platform: Platform, app: Document, document: Document) -> dict[str, Any]:
    """The present overrides as they were given, secrets masked; and the variables of each profile with them, each with where it
    comes from.
    """
    frozen = frozen_of(document.get("overrides", []))
    contents = await contents_of(platform.db, frozen)
    given = [{**one.target, **override.masked()} for one, override in zip(frozen, contents, strict=True)]
    effective = [await _effective(platform, app, one, override) for one, override in zip(frozen, contents, strict=True)]
    return {"overrides": given, "version": document["version"], "effective": effective}


async def _effective(platform: Platform, app: Document, frozen: FrozenOverride, override: Override) -> dict[str, Any]:
    document = await records.get(platform.db, profiles.PROFILES, frozen.profile_id, what="runtime profile")
    profile = overlaid(Profile.model_validate(document["content"]), [override])
    variables = effective_variables(app["settings"]["env_defaults"], profile, overridden_names([override]))
    return {"profile_id": frozen.profile_id, "variables": [variable.record() for variable in variables]}


# -- Setting


async def set_overrides(
    platform: Platform, call: Call, app: Document, document: Document, given: Sequence[GivenOverride], version: int | None
) -> Document:
    """Replace the overrides of a changeset; returns its record as this call left it.

    Raises `validation_error`, `stale_write`, and `invalid_transition` where its state is none in which they are edited.
    """
    while True:
        answer = await recall(platform.db, call)
        if answer is not None and (answer["changes_nothing"] or await has_happened(platform.db, call, document)):
            return {**document, "overrides": answer["overrides"], "version": answer["version"]}
        planned = await _plan(platform, call, app, document, given, version)
        present = frozen_of(document.get("overrides", []))
        kept = [one.model_dump(mode="json") for one in planned]
        if planned == present:
            await keep(platform.db, call, {"overrides": kept, "version": document["version"], "changes_nothing": True})
            return document
        # Kept before the write: a repeat that finds this change in the audit finds its answer too.
        await keep(platform.db, call, {"overrides": kept, "version": document["version"] + 1, "changes_nothing": False})
        fault_point("overrides.kept")
        before, after = await shown_overrides(platform.db, present, planned)
        event = Event("changeset", document["_id"], "overrides_updated", {"overrides": before}, {"overrides": after})
        states = [state.value for state in EDITED_IN]
        query = {"_id": document["_id"], "version": document["version"], "owned.state": {"$in": states}}
        change = {"$set": {"overrides": kept, "updated_at": call.at}, "$inc": {"version": 1}}
        outgoing = call.audit(event, app_id=app["_id"])
        written = await records.write_where(platform.db, "changesets", query, change, outgoing=outgoing)
        if written is not None:
            return written
        document = await records.get(platform.db, "changesets", document["_id"], app_id=app["_id"], what="changeset")


async def _plan(
    platform: Platform, call: Call, app: Document, document: Document, given: Sequence[GivenOverride], version: int | None
) -> list[FrozenOverride]:
    """The overrides to be, their contents and secrets kept already. Raises as `set_overrides`."""
    check_given(given)
    targets = await _targets(platform, app, given)
    present = {one.profile_id: one for one in frozen_of(document.get("overrides", []))}
    known = await load_contents(platform.db, present.values())
    secrets: list[dict[str, OverrideSecret]] = []
    for number, (one, target) in enumerate(zip(given, targets, strict=True)):
        there = present.get(target["_id"])
        before = known[there.content_id].secrets if there is not None else {}
        with _within(f"overrides.{number}"):
            refs = await _secrets(platform, call, one, target, before)
            await _check(platform, app, one, target, refs)
            secrets.append(refs)
    _check_writable(document, version)
    planned: list[FrozenOverride] = []
    for one, target, refs in zip(given, targets, secrets, strict=True):
        values = one.new_secrets()
        await seal(platform, target["_id"], values, {key: ref.value_id for key, ref in refs.items()})
        override = made_of(one, refs)
        frozen = freeze(one, target["_id"], override)
        await keep_content(platform.db, app["_id"], frozen, override, call.at)
        planned.append(frozen)
    return planned


def _check_writable(document: Document, version: int | None) -> None:
    if version not in (None, document["version"]):
        raise records.stale(document["version"])
    state = ChangesetState(document["owned"]["state"])
    if state not in EDITED_IN:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"The overrides of a changeset that is {state.value} can't be changed: return it to draft first.",
            {"from": state.value, "to": ChangesetState.DRAFT.value},
        )


async def _secrets(
    platform: Platform, call: Call, given: GivenOverride, target: Document, before: Mapping[str, OverrideSecret | None]
) -> dict[str, OverrideSecret]:
    """What becomes of the secrets that are set: a value that the override has already stays the one that it is.

    Raises `validation_error` for a mask.
    """
    values = given.new_secrets()
    there = {key: ref for key, ref in before.items() if ref is not None}
    refuse_masks(Profile(name="", secrets=dict(there)), given)
    refuse_masks(Profile.model_validate(target["content"]), given)
    found = await digests(platform, target["_id"], values)
    return {
        key: there[key]
        if key in there and there[key].digest == found[key]
        else OverrideSecret(value_id=call.derived_id("secret", target["_id"], key), mask=mask(value), digest=found[key])
        for key, value in values.items()
    }


async def _check(
    platform: Platform, app: Document, given: GivenOverride, target: Document, refs: Mapping[str, OverrideSecret]
) -> None:
    """The target's profile as it is now would be sound with the override. Raises `validation_error`."""
    profile = Profile.model_validate(target["content"])
    await check_references(platform, app, target["_id"], profile, merge(profile, given, refs))


async def _targets(platform: Platform, app: Document, given: Sequence[GivenOverride]) -> list[Document]:
    """The profile that each override changes. Raises `validation_error` for a target that is none, or two for one profile."""
    environments = {one["_id"]: one for one in await list_environments(platform, app)}
    found: list[Document] = []
    for number, one in enumerate(given):
        field = f"overrides.{number}"
        try:
            target = await _target(platform, app, environments, one.target_environment_id, one.target_profile_id)
        except DomainError as error:
            name = "target_profile_id" if one.target_environment_id is None else "target_environment_id"
            raise _invalid([{"field": f"{field}.{name}", "message": "is none of this app's"}]) from error
        same = next((earlier for earlier, other in enumerate(found) if other["_id"] == target["_id"]), None)
        if same is not None:
            message = f"is for the same profile as overrides.{same}: put both into one"
            raise _invalid([{"field": field, "message": message}])
        found.append(target)
    return found


async def _target(
    platform: Platform, app: Document, environments: Mapping[str, Document], environment_id: str | None, profile_id: str | None
) -> Document:
    if environment_id is not None:
        if environment_id not in environments:
            raise not_found("environment")
        profile_id = environments[environment_id]["runtime_profile_id"]
    return await profiles.find(platform, app, profile_id or "")


@contextmanager
def _within(field: str) -> Iterator[None]:
    """Problems are of the override at `field`."""
    try:
        yield
    except DomainError as error:
        if error.code is not ErrorCode.VALIDATION_ERROR:
            raise
        details = [{"field": f"{field}.{one['field']}", "message": one["message"]} for one in error.details]
        raise _invalid(details) from error


def _invalid(details: list[dict[str, str]]) -> DomainError:
    named = "; ".join(f"{one['field']}: {one['message']}" for one in details[:3])
    return DomainError(ErrorCode.VALIDATION_ERROR, f"Mend the overrides: {named}.", details)


# -- Submitting


async def to_freeze(platform: Platform, app: Document, document: Document) -> list[dict[str, Any]]:
    """The present overrides, for a submit to freeze.

    Raises `conflict` where a target is gone, or is another profile than when the overrides were set.
    """
    frozen = frozen_of(document.get("overrides", []))
    environments = {one["_id"]: one for one in await list_environments(platform, app)} if frozen else {}
    for number, one in enumerate(frozen, start=1):
        try:
            target = await _target(platform, app, environments, one.target_environment_id, one.target_profile_id)
        except DomainError:
            target = None
        if target is None or target["_id"] != one.profile_id:
            raise DomainError(
                ErrorCode.CONFLICT,
                f"The target of override {number} {'is gone' if target is None else 'has another profile now'}: set the"
                " changeset's overrides again, then submit.",
                one.target,
            )
    return [one.model_dump(mode="json") for one in frozen]


def overrides_canonical(app: Document, overrides: Sequence[Any]) -> bool:
    """Whether overrides change the profile of the canonical environment: under `stricter_two_approvals` they need two approvals
    at least (`spec.md` 6).
    """
    frozen = frozen_of(overrides)
    if not frozen or app["settings"]["runtime_profile_approval_policy"] != "stricter_two_approvals":
        return False
    canonical = app["settings"]["canonical_env_id"]
    linked = [one["runtime_profile_id"] for one in app["environments"] if one["id"] == canonical]
    return any(one.profile_id in linked for one in frozen)


def overrides_in_force(document: Document) -> list[dict[str, Any]]:
    """The overrides of a changeset that its approvals are about: those of its current revision, of a draft those that a submit
    would freeze.
    """
    owned = document["owned"]
    frozen = owned["state"] != ChangesetState.DRAFT.value and owned["revisions"]
    return owned["revisions"][-1]["overrides"] if frozen else document.get("overrides", [])
