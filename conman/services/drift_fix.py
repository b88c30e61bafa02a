"""A changeset that takes over what has drifted in an environment: workspace, changeset and overrides, each as a person makes them
(`spec.md` 12).

Each is made under an id of its own that a repeat of the request makes again, from what the first one kept of the report: one
that was cut short is finished by its repeat.
"""

from __future__ import annotations

from dataclasses import replace

from conman.domain.drift import DriftItem
from conman.domain.drift_fix import DriftFix, description, drift_fix, title
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.in_place import in_place
from conman.domain.profile import Profile
from conman.domain.profile_edit import merge
from conman.faults import fault_point
from conman.services import changesets, overrides, profiles
from conman.services.applied import profile_id_of
from conman.services.call import Call, has_happened, keep, recall
from conman.services.deployments import owned
from conman.services.drift import drift_view, record_of
from conman.services.platform import Platform
from conman.services.profile_changes import check_references
from conman.services.workspaces import workspace_at_head
from conman.store import records
from conman.store.database import Document


async def create(platform: Platform, call: Call, app: Document, environment: Document, deployment_id: str | None) -> Document:
    """The draft, with the overrides that the report of a blocked deployment, or of the last look, calls for.

    Raises `conflict` when there is nothing to take over, and `validation_error` for another environment's deployment.
    """
    kept = await recall(platform.db, call)
    if kept is not None:
        fix = DriftFix.model_validate(kept["fix"])
    else:
        report, applied_id = await _reported(platform, app, environment, deployment_id)
        fix = await _fix(platform, app, environment, report, applied_id)
        await keep(platform.db, call, {"fix": fix.model_dump(mode="json", exclude_unset=True)})
    name = environment["name"]
    workspace = await workspace_at_head(platform, _part(call, "workspace"), app, title=title(name))
    fault_point("takeover.workspace")
    changeset = await changesets.create(platform, call, app, workspace, title=title(name), description=description(name, fix))
    fault_point("takeover.changeset")
    setting = _part(call, "overrides")
    if fix.override is None or await has_happened(platform.db, setting, changeset):
        return changeset
    return await overrides.set_overrides(platform, setting, app, changeset, [fix.override], None)


def _part(call: Call, name: str) -> Call:
    """The call of one of the request's parts: its events have ids of their own, and what it keeps a place of its own."""
    return replace(call, command_id=f"{call.command_id}:{name}", key_id=f"{call.remembered_as}:{name}")


async def _reported(
    platform: Platform, app: Document, environment: Document, deployment_id: str | None
) -> tuple[list[DriftItem], str | None]:
    """What differs, and the revision that was applied."""
    there = in_place(environment["owned"])
    applied_id = there.revision_id if there is not None else None
    if deployment_id is not None:
        found = await records.find(platform.db, "deployments", deployment_id, app_id=app["_id"])
        if found is None or found["owned"]["environment_id"] != environment["_id"]:
            raise invalid("deployment_id", "is no deployment to this environment")
        report = owned(found).drift_report or []
    else:
        report = record_of(environment).report if drift_view(environment)["state"] == "drifted" else []
    if not [item for item in report if item.kind != "emergency_edit"]:
        raise _nothing_drifted(environment, report)
    return report, applied_id


def _nothing_drifted(environment: Document, report: list[DriftItem]) -> DomainError:
    if report:
        text = "Only the profile was edited by hand, which it holds already: revalidate the deployment that it blocks."
    else:
        text = f"No drift is known of {environment['name']}: check for drift first, there is nothing to take over."
    return DomainError(ErrorCode.CONFLICT, text, {"environment_id": environment["_id"]})


async def _fix(
    platform: Platform, app: Document, environment: Document, report: list[DriftItem], applied_id: str | None
) -> DriftFix:
    """What can be taken over by the profile as it is now; where it would not be sound with that, all is left to a person."""
    revision = await records.find(platform.db, profiles.REVISIONS, applied_id) if applied_id is not None else None
    applied = Profile.model_validate(revision["content"]) if revision is not None else Profile(name="none")
    fix = drift_fix(environment["_id"], report, applied)
    if fix.override is None:
        return fix
    target = await profiles.find(platform, app, profile_id_of(app, environment))
    present = Profile.model_validate(target["content"])
    try:
        await check_references(platform, app, target["_id"], present, merge(present, fix.override, {}))
    except DomainError as error:
        if error.code is not ErrorCode.VALIDATION_ERROR:
            raise
        return DriftFix(left=[item for item in report if item.kind != "emergency_edit"])
    return fix
