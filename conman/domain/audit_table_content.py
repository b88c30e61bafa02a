"""What `before` and `after` hold for apps, people, workspaces, files, changesets and comments (`api.md` 5).

One dict per entity type, in the order of that section. `None` halves are `ABSENT`: nothing was there before, or
nothing is left after. States and settings are the words of `spec.md` 3 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from conman.domain.audit_schema import (
    ABSENT,
    CODE,
    COUNT,
    DIGEST,
    FLAG,
    ID,
    JSON,
    MASK,
    SHA,
    TEXT,
    TIME,
    Either,
    Entry,
    Kind,
    ListOf,
    MapOf,
    Nullable,
    OneOf,
    Record,
    changes,
)

Actions = Mapping[str, Entry]

ROLE: Final = OneOf(("user", "reviewer", "config_manager", "app_admin"))
COMMIT_MODE: Final = OneOf(("submit_commit", "manual_checkpoint"))
CHANGESET_STATE: Final = OneOf(
    (
        "draft",
        "submitted",
        "in_review",
        "approved",
        "changes_requested",
        "rejected",
        "queued",
        "needs_revalidation",
        "conflicted",
        "released",
        "withdrawn",
    )
)
IDS: Final = ListOf(ID)
TEXTS: Final = ListOf(TEXT)
TYPED_VALUE: Final = Record({"type": OneOf(("string", "number", "boolean", "json")), "value": JSON})

DATABASE: Final = Record(
    {},
    {
        "engine": OneOf(("mongodb",)),
        "connection_ref": Nullable(TEXT),
        "provisioning_mode": OneOf(("existing", "clone_from_base", "snapshot_restore", "empty")),
        "base_profile_id": Nullable(ID),
    },
)
MIGRATIONS: Final = Record({}, {"repo_paths": TEXTS, "command_ref": Nullable(TEXT), "applied_state_ref": Nullable(TEXT)})
DATA_STRATEGY: Final = Record({}, {"seed_mode": OneOf(("none", "baseline", "snapshot")), "seed_source_ref": Nullable(TEXT)})
PROFILE_VALUES: Final[Mapping[str, Kind]] = {
    "env_vars": MapOf(Nullable(TYPED_VALUE)),
    "secrets": MapOf(Nullable(MASK)),
    "base_url": Nullable(TEXT),
    "database": Nullable(DATABASE),
    "migrations": Nullable(MIGRATIONS),
    "data_strategy": Nullable(DATA_STRATEGY),
}
"""What a profile and an override of one have in common (`spec.md` 6); null stands for a deleted key."""

OVERRIDE: Final = Record({}, {"target_environment_id": ID, "target_profile_id": ID, **PROFILE_VALUES})

_ENVIRONMENT: Final = Record(
    {"id": ID, "name": TEXT, "is_canonical": FLAG},
    {
        "position": COUNT,
        "runtime_profile_id": Nullable(ID),
        "deploy_target": Nullable(TEXT),
        "health_command": Nullable(TEXT),
        "auto_rollback": FLAG,
        "drift_policy": CODE,
        "freeze_windows": ListOf(MapOf(JSON)),
        "required_approvals": Nullable(Record({"count": COUNT, "role": ROLE})),
    },
)
_SETTINGS: Final[Mapping[str, Kind]] = {
    "name": TEXT,
    "integration_branch": TEXT,
    "baseline_mode": OneOf(("canonical_env_release", "integration_head")),
    "canonical_env_id": Nullable(ID),
    "commit_mode_default": COMMIT_MODE,
    "blocked_paths": TEXTS,
    "file_size_limit_bytes": COUNT,
    "required_approval_count": COUNT,
    "runtime_profile_approval_policy": OneOf(("stricter_two_approvals", "same_as_changeset")),
    "queue_gate": OneOf(("up_to_date", "clean_merge")),
    "carry_votes": OneOf(("never", "identical_patch")),
    "webhook": Nullable(Record({"url": TEXT, "events": TEXTS}, {"secret": Nullable(MASK)})),
    "temp_url_domain": Nullable(TEXT),
    "temp_env_access": OneOf(("members", "public")),
    "default_base_profile_id": Nullable(ID),
    "env_defaults": MapOf(TYPED_VALUE),
    "validation_gates": MapOf(JSON),
    "review_reminder_hours": COUNT,
    "approval_ttl_hours": COUNT,
    "revalidation_concurrency": COUNT,
}
_HOLD: Final = Record({"reason": TEXT, "until": Nullable(TIME)})

APP: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"name": TEXT, "repo_path": TEXT, "integration_branch": TEXT},
            {"integration_sha": SHA, "repository_created": FLAG, "environments": ListOf(_ENVIRONMENT)},
        ),
    ),
    "settings_updated": changes(_SETTINGS),
    "environments_updated": Entry(Record({"environments": ListOf(_ENVIRONMENT)}), Record({"environments": ListOf(_ENVIRONMENT)})),
    "archived": Entry(
        Record({"archived": FLAG}),
        Record({"archived": FLAG}, {"canceled_job_ids": IDS, "ended_temp_env_ids": IDS, "revoked_invite_ids": IDS}),
    ),
    "held": Entry(Nullable(_HOLD), _HOLD),
    "released_from_hold": Entry(_HOLD, Nullable(Record({"cause": OneOf(("lifted", "expired"))}))),
}

_MEMBER: Final = Record({"user_id": ID, "role": ROLE}, {"email": TEXT})

MEMBERSHIP: Final[Actions] = {
    "added": Entry(
        ABSENT,
        Record(
            {"user_id": ID, "role": ROLE},
            {"email": TEXT, "via": OneOf(("app_created", "direct", "invite", "reconcile"))},
        ),
    ),
    "role_changed": Entry(_MEMBER, _MEMBER),
    "removed": Entry(_MEMBER, ABSENT),
}

_INVITE: Final = Record({"email": TEXT, "role": Nullable(ROLE)}, {"expires_at": TIME, "token_number": COUNT})
_INVITE_ISSUED: Final = Record({"expires_at": TIME, "token_number": COUNT}, {"email": TEXT})

INVITE: Final[Actions] = {
    "created": Entry(ABSENT, _INVITE),
    "resent": Entry(_INVITE_ISSUED, _INVITE_ISSUED),
    "revoked": Entry(_INVITE, ABSENT),
    "accepted": Entry(_INVITE, Record({"user_id": ID, "account_created": FLAG})),
    "expired": Entry(_INVITE, ABSENT),
}

_SESSIONS_ENDED: Final = Record({"sessions_revoked": FLAG})
_DISABLED: Final = Record({"disabled": FLAG})

USER: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"email": TEXT, "name": TEXT, "is_platform_admin": FLAG},
            {"via": OneOf(("platform_admin", "invite", "command_line", "first_start"))},
        ),
    ),
    "updated": changes({"name": TEXT, "email": TEXT, "is_platform_admin": FLAG}),
    "logged_in": Entry(ABSENT, Record({"expires_at": TIME}, {"session_id": TEXT})),
    "login_failed": Entry(
        ABSENT,
        Record({"email": TEXT, "reason": OneOf(("unknown_email", "wrong_password", "disabled", "cooling_down"))}),
    ),
    "locked_out": Entry(ABSENT, Record({"email": TEXT, "until": TIME}, {"failed_logins": COUNT})),
    "logged_out": Entry(ABSENT, Nullable(Record({}, {"session_id": TEXT}))),
    "password_reset_requested": Entry(ABSENT, Record({"email": TEXT}, {"expires_at": TIME})),
    "password_reset": Entry(ABSENT, _SESSIONS_ENDED),
    "password_changed": Entry(ABSENT, _SESSIONS_ENDED),
    "disabled": Entry(_DISABLED, _DISABLED),
    "enabled": Entry(_DISABLED, _DISABLED),
}

_BRANCH_STATE: Final[Mapping[str, Kind]] = {"head_sha": SHA, "base_sha": Nullable(SHA)}
"""`base_sha` is null where a branch shares no history with the integration branch."""

WORKSPACE: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"owner_user_id": ID, "branch_name": TEXT, "is_default": FLAG, "base_sha": SHA},
            {
                "title": Nullable(TEXT),
                "commit_mode": Nullable(COMMIT_MODE),
                "base_ref_type": CODE,
                "base_ref_value": Nullable(TEXT),
                "head_sha": SHA,
                "hotpatch": FLAG,
                "from_release_id": Nullable(ID),
            },
        ),
    ),
    "updated": changes({"title": Nullable(TEXT), "commit_mode": Nullable(COMMIT_MODE)}),
    "reset": Entry(
        Record(_BRANCH_STATE, {"pending_edits": COUNT, "pending_sha": Nullable(SHA)}),
        Record(_BRANCH_STATE, {"base_ref_type": CODE, "base_ref_value": Nullable(TEXT)}),
    ),
    "synced_integration": Entry(
        Record(_BRANCH_STATE),
        Record(
            {**_BRANCH_STATE, "integration_sha": SHA, "strategy": OneOf(("rebase", "merge"))},
            {"resolved_paths": TEXTS},
        ),
    ),
    "deleted": Entry(
        Record(
            {"owner_user_id": ID, "branch_name": TEXT, "head_sha": SHA},
            {"title": Nullable(TEXT), "pending_edits": COUNT},
        ),
        ABSENT,
    ),
}

_FILE: Final = Record(
    {"workspace_id": ID, "path": TEXT, "blob_id": SHA},
    {"size": COUNT, "commit_sha": Nullable(SHA), "message": Nullable(TEXT)},
)

FILE: Final[Actions] = {
    "written": Entry(Nullable(_FILE), _FILE),
    "deleted": Entry(
        _FILE,
        Nullable(Record({"workspace_id": ID}, {"commit_sha": Nullable(SHA), "message": Nullable(TEXT)})),
    ),
    "moved": Entry(_FILE, _FILE),
    "checkpoint": Entry(
        Record({"workspace_id": ID, "head_sha": SHA}),
        Record({"workspace_id": ID, "head_sha": SHA}, {"message": Nullable(TEXT), "paths": TEXTS, "path_count": COUNT}),
    ),
}

_STATE: Final = Record({"state": CHANGESET_STATE})
_SUBMITTED: Final = Record(
    {"state": CHANGESET_STATE, "revision_number": COUNT, "base_sha": SHA, "head_sha": SHA},
    {
        "job_id": Nullable(ID),
        "overrides": ListOf(OVERRIDE),
        "files_changed": COUNT,
        "votes": OneOf(("none", "voided", "carried")),
    },
)
_BEFORE_SUBMIT: Final = Record(
    {"state": CHANGESET_STATE},
    {"revision_number": Nullable(COUNT), "base_sha": Nullable(SHA), "head_sha": Nullable(SHA)},
)
_REVIEW: Final = Entry(
    Record({"state": CHANGESET_STATE}, {"approval_count": COUNT}),
    Record(
        {"state": CHANGESET_STATE, "revision_number": COUNT},
        {
            "reviewer_user_id": ID,
            "approval_count": COUNT,
            "required_approval_count": COUNT,
            "review_id": ID,
            "comment": Nullable(TEXT),
            # Of an approval, since versions that prove releases: the gate that has succeeded, and what it judged.
            "head_sha": Nullable(SHA),
            "gate_job_id": ID,
        },
    ),
)
_JUDGED: Final[Mapping[str, Kind]] = {
    "integration_sha": Nullable(SHA),
    "head_sha": Nullable(SHA),
    "epoch": COUNT,
    "job_id": Nullable(ID),
    "release_id": Nullable(ID),
    "reason_code": Nullable(CODE),
}
"""What a verdict was judged on (`durability.md` 17)."""

_QUEUE_NEWS: Final[Mapping[str, Kind]] = {
    **_JUDGED,
    "cause": OneOf(("enqueue", "revalidation", "assembly", "override_collision")),
    "status": OneOf(("valid", "conflicted", "failed", "running", "unknown")),
    "paths": TEXTS,
    "collisions": ListOf(Record({"profile_id": ID, "key": TEXT}, {"changeset_id": ID})),
}
_STATE_CHANGED: Final = Record({"state": CHANGESET_STATE}, _QUEUE_NEWS)
_STATUS_CHANGED: Final = Record({"status": _QUEUE_NEWS["status"]}, _QUEUE_NEWS)

CHANGESET: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"workspace_id": ID, "author_user_id": ID, "title": TEXT, "state": CHANGESET_STATE},
            {"description": Nullable(TEXT), "hotpatch": FLAG, "base_sha": Nullable(SHA), "head_sha": Nullable(SHA)},
        ),
    ),
    # The last three by Conman, when somebody who voted may review no more (docs/adr/0012-votes-of-who-may-review-no-more.md).
    "updated": changes(
        {"title": TEXT, "description": Nullable(TEXT), "state": CHANGESET_STATE, "approval_count": COUNT, "voter_user_ids": IDS}
    ),
    "submitted": Entry(_BEFORE_SUBMIT, _SUBMITTED),
    "resubmitted": Entry(_BEFORE_SUBMIT, _SUBMITTED),
    "review_requested": Entry(ABSENT, Record({"reviewer_user_id": ID}, {"revision_number": COUNT})),
    "approved": _REVIEW,
    "changes_requested": _REVIEW,
    "rejected": _REVIEW,
    "queued": Entry(
        _STATE,
        Record(
            {"state": CHANGESET_STATE},
            {
                "head_sha": SHA,
                "base_sha": SHA,
                "integration_sha": SHA,
                "position": COUNT,
                "revision_number": COUNT,
                "hotpatch": FLAG,
            },
        ),
    ),
    "moved_to_draft": Entry(_STATE, _STATE),
    "withdrawn": Entry(_STATE, _STATE),
    "conflicted": Entry(_STATE, _STATE_CHANGED),
    "needs_revalidation": Entry(_STATE, _STATE_CHANGED),
    # Told by the queue, which knows the status, or by the changeset, which knows its state.
    "revalidated": Entry(Either(_STATUS_CHANGED, _STATE_CHANGED), Either(_STATUS_CHANGED, _STATE_CHANGED)),
    "released": Entry(_STATE, Record({"state": CHANGESET_STATE, "release_id": ID}, {"tag": TEXT, "published_sha": SHA})),
    "overrides_updated": Entry(Record({"overrides": ListOf(OVERRIDE)}), Record({"overrides": ListOf(OVERRIDE)})),
}

COMMENT: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"changeset_id": ID, "body": TEXT},
            {
                "file_path": Nullable(TEXT),
                "line_number": Nullable(COUNT),
                "parent_comment_id": Nullable(ID),
                "revision_number": Nullable(COUNT),
            },
        ),
    ),
    "edited": Entry(Record({"changeset_id": ID, "body": TEXT}), Record({"changeset_id": ID, "body": TEXT})),
    "resolved": Entry(Record({"changeset_id": ID, "resolved": FLAG}), Record({"changeset_id": ID, "resolved": FLAG})),
}

SECRETS: Final[Actions] = {
    "master_rotated": Entry(Record({"master_key_ids": TEXTS}), Record({"master_key_id": TEXT, "profiles_rewrapped": COUNT})),
}

NOTIFICATION_PREFERENCE: Final[Actions] = {"updated": changes({"email_enabled": FLAG})}

_SEAL: Final = Record({"sealed_to": COUNT, "hash": DIGEST}, {"count": COUNT})

AUDIT: Final[Actions] = {
    "sealed": Entry(Nullable(_SEAL), _SEAL),
    "repaired": Entry(
        Record({"version": COUNT}, {"state": Nullable(CODE)}),
        Record(
            {"version": COUNT, "entity_type": CODE, "entity_id": TEXT, "truth": OneOf(("workflow", "record"))},
            {"state": Nullable(CODE), "fields": TEXTS},
        ),
    ),
}
