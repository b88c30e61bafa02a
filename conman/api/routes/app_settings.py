"""What an app's admins decide: its settings, its environments, its end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import data
from conman.api.versions import IfMatch, Versioned, required_version
from conman.domain.app import LARGEST_FILE_SIZE_LIMIT, LONGEST_SUITE_SECONDS, NAME_PATTERN
from conman.domain.environment import MOST_ENVIRONMENTS
from conman.domain.roles import Capability
from conman.services import app_settings, apps, archive, environment_records, environments

router = APIRouter(prefix="/apps/{app}", tags=["apps"])
_C = Capability

Id = Annotated[str, Field(min_length=1, max_length=64)]
CommandName = Annotated[str, Field(min_length=1, max_length=63)]


class Variable(Body):
    """A typed variable; the value must match the type."""

    type: Literal["string", "number", "boolean", "json"]
    value: Any


class Gate(Body):
    """The suite of one gate: the name of a command of the operator's, with which profiles it runs, how long it may take, and
    whether an earlier result of it may be reused for the same tree, profile and command (true; never for `deploy`).
    """

    command: CommandName
    profile_scope: Literal["base", "affected", "all", "target"] | None = None
    timeout_seconds: int | None = Field(default=None, ge=1, le=LONGEST_SUITE_SECONDS)
    reuse: bool = True


class WebhookPatch(Body):
    """Where events are told to; a `secret` that is left out stays, null removes it."""

    url: str = Field(min_length=1, max_length=2048)
    events: list[Annotated[str, Field(max_length=130)]] = Field(min_length=1, max_length=100)
    secret: str | None = Field(default=None, min_length=8, max_length=1024)


class SettingsPatch(Versioned):
    """A flat patch of the settings; what is left out stays. Of `validation_gates` the named ones are replaced."""

    name: str | None = Field(default=None, min_length=1, max_length=100, pattern=NAME_PATTERN)
    integration_branch: str | None = Field(default=None, min_length=1, max_length=200)
    baseline_mode: Literal["canonical_env_release", "integration_head"] | None = None
    canonical_env_id: Id | None = None
    commit_mode_default: Literal["submit_commit", "manual_checkpoint"] | None = None
    blocked_paths: list[Annotated[str, Field(max_length=400)]] | None = Field(default=None, max_length=200)
    file_size_limit_bytes: int | None = Field(default=None, ge=1, le=LARGEST_FILE_SIZE_LIMIT)
    required_approval_count: int | None = Field(default=None, ge=1, le=50)
    runtime_profile_approval_policy: Literal["stricter_two_approvals", "same_as_changeset"] | None = None
    queue_gate: Literal["up_to_date", "clean_merge"] | None = None
    carry_votes: Literal["never", "identical_patch"] | None = None
    webhook: WebhookPatch | None = None
    temp_url_domain: str | None = Field(default=None, min_length=1, max_length=180)
    temp_env_access: Literal["members", "public"] | None = None
    default_base_profile_id: Id | None = None
    env_defaults: dict[str, Variable] | None = Field(default=None, max_length=500)
    validation_gates: dict[Literal["submit", "release", "deploy"], Gate] | None = None
    review_reminder_hours: int | None = Field(default=None, ge=0, le=8760)
    approval_ttl_hours: int | None = Field(default=None, ge=1, le=8760)
    revalidation_concurrency: int | None = Field(default=None, ge=1, le=64)

    def change(self) -> dict[str, Any]:
        """What is asked for."""
        return self.model_dump(exclude_unset=True, exclude={"version"})


class Window(Body):
    """`from` and `to` (RFC 3339), or `cron` and `duration_minutes`; times of a cron are those of `timezone`."""

    name: str = Field(min_length=1, max_length=100)
    timezone: str = Field(min_length=1, max_length=64)
    from_: str | None = Field(default=None, alias="from", max_length=64)
    to: str | None = Field(default=None, max_length=64)
    cron: str | None = Field(default=None, max_length=256)
    duration_minutes: int | None = None


class Approvals(Body):
    """Who must agree to every deployment."""

    count: int = Field(ge=1, le=20)
    role: Literal["reviewer", "config_manager", "app_admin"]


class EnvironmentItem(Body):
    """One environment of the list; with an `id` what is left out stays, without one a new environment is made."""

    id: Id | None = None
    name: str = Field(min_length=1, max_length=60)
    is_canonical: bool
    runtime_profile_id: Id | None = None
    deploy_target: CommandName | None = None
    health_command: CommandName | None = None
    auto_rollback: bool | None = None
    drift_policy: Literal["block", "heal"] | None = None
    freeze_windows: list[Window] | None = Field(default=None, max_length=50)
    required_approvals: Approvals | None = None


class EnvironmentsPatch(Versioned):
    """The whole list, in stage order."""

    environments: list[EnvironmentItem] = Field(min_length=1, max_length=MOST_ENVIRONMENTS)

    def wanted(self) -> list[dict[str, Any]]:
        """The list that is asked for."""
        return [item.model_dump(exclude_unset=True, by_alias=True) for item in self.environments]


@router.patch("/settings")
async def edit_settings(
    caller: Caller = capability(_C.SETTINGS_MANAGE),
    patch: SettingsPatch = body(SettingsPatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change settings, against the version that was read."""
    version = required_version(if_match, patch.version)
    changed = await app_settings.change(caller.platform, caller.call, caller.of_app["_id"], patch.change(), version)
    head = await apps.integration_head_if_any(caller.platform, changed)
    return data(apps.app_record(changed, integration_sha=head, my_role=caller.role.value if caller.role else None))


@router.patch("/environments")
async def replace_environments(
    caller: Caller = capability(_C.ENVIRONMENT_MANAGE),
    patch: EnvironmentsPatch = body(EnvironmentsPatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Replace the list, against the app's version that was read."""
    version = required_version(if_match, patch.version)
    changed = await environments.replace(caller.platform, caller.call, caller.of_app["_id"], patch.wanted(), version)
    shown = await environment_records.environment_records(caller.platform, changed)
    return {"data": shown, "pagination": {"page": 1, "limit": len(shown), "total": len(shown)}}


@router.delete("", status_code=204)
async def archive_app(caller: Caller = capability(_C.APP_ARCHIVE, archived_too=True)) -> None:
    """Archive the app; there is no way back."""
    await archive.archive(caller.platform, caller.call, caller.of_app["_id"])
