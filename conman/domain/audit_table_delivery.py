"""What `before` and `after` hold for the queue, releases, deployments, environments, profiles and jobs (`api.md` 5).

One dict per entity type, in the order of that section. States are the words of `spec.md` 3.
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
from conman.domain.audit_table_content import IDS, PROFILE_VALUES, TEXTS, Actions

RELEASE_STATE: Final = OneOf(
    (
        "draft_release",
        "assembling",
        "validated",
        "published",
        "deployed_partial",
        "deployed_full",
        "dropped",
        "rolled_back",
    )
)
DEPLOYMENT_STATE: Final = OneOf(("pending", "running", "succeeded", "failed", "canceled"))
PHASE: Final = OneOf(("lock", "schedule", "approvals", "drift", "gate", "migrate", "switch", "verify", "done"))
TEMP_ENV_STATE: Final = OneOf(("provisioning", "active", "expiring", "expired", "deleted", "failed"))
_ROLLBACK_MODE: Final = OneOf(("revert_and_release", "redeploy_prior_tag"))
JOB_STATE: Final = OneOf(("queued", "running", "succeeded", "failed", "canceled"))

_EPOCH: Final = Record({"epoch": COUNT}, {"integration_sha": SHA, "job_ids": IDS})
_ORDER: Final = Record({"ordered_changeset_ids": IDS}, {"version": COUNT})

QUEUE: Final[Actions] = {
    "reordered": Entry(_ORDER, _ORDER),
    "superseded": Entry(_EPOCH, _EPOCH),
}

_RELEASE: Final = Record({"state": RELEASE_STATE}, {"ordered_changeset_ids": IDS})
_SELECTION: Final = Record({"state": RELEASE_STATE, "ordered_changeset_ids": IDS})


def _release(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Entry:
    """A step of a release: its state, and mostly its selection, before and after, with more after."""
    return Entry(
        _RELEASE,
        Record({"state": RELEASE_STATE, **required}, {"ordered_changeset_ids": IDS, **(optional or {})}),
    )


_COMPOSED: Final[Mapping[str, Kind]] = {
    "candidate_sha": SHA,
    "merge_shas": ListOf(SHA),
    "job_id": Nullable(ID),
    "job_ids": IDS,
    "profile_revisions": MapOf(COUNT),
}

RELEASE: Final[Actions] = {
    "created": Entry(
        ABSENT,
        Record(
            {"tag": TEXT, "state": RELEASE_STATE, "ordered_changeset_ids": IDS},
            {"base_sha": Nullable(SHA), "reverts_release_id": Nullable(ID)},
        ),
    ),
    "changesets_modified": Entry(_SELECTION, _SELECTION),
    "reordered": Entry(_SELECTION, _SELECTION),
    "assembled": _release({"base_sha": SHA}, _COMPOSED),
    "assembly_failed": _release(
        {"reason_code": CODE},
        {"changeset_id": Nullable(ID), "paths": TEXTS, "base_sha": Nullable(SHA), "job_id": Nullable(ID)},
    ),
    "validated": _release({"base_sha": SHA}, _COMPOSED),
    "returned_to_draft": _release({"reason": TEXT}, {"changeset_id": Nullable(ID), "integration_sha": SHA}),
    "published": _release(
        {"tag": TEXT},
        {
            "integration_branch": TEXT,
            "base_sha": SHA,
            "published_sha": SHA,
            "published_at": TIME,
            "reverts_release_id": Nullable(ID),
        },
    ),
    "deployment_state_changed": _release({}, {"environment_id": ID, "deployment_id": Nullable(ID), "environment_ids": IDS}),
    "dropped": _release({}),
    "rolled_back": _release(
        {"mode": _ROLLBACK_MODE},
        {"by_release_id": ID, "environment_id": ID, "deployment_id": ID},
    ),
}

_SECRET_DRIFT: Final = Record(
    {"kind": OneOf(("secret",)), "key": TEXT}, {"expected": Nullable(DIGEST), "observed": Nullable(DIGEST), "omitted": FLAG}
)
_PLAIN_DRIFT: Final = Record(
    {"kind": OneOf(("env_var", "base_url", "database", "migration", "emergency_edit", "files"))},
    {"key": Nullable(TEXT), "expected": JSON, "observed": JSON, "omitted": FLAG},
)
DRIFT_REPORT: Final = ListOf(Either(_SECRET_DRIFT, _PLAIN_DRIFT))
"""What differs from the revision last applied (`spec.md` 12); of a secret only digests."""

_DEPLOYMENT: Final = Record(
    {"state": DEPLOYMENT_STATE},
    {
        "phase": PHASE,
        "environment_id": ID,
        "release_id": Nullable(ID),
        "approvals": COUNT,
        "report": DRIFT_REPORT,
        "profile_revision": Nullable(COUNT),
    },
)


def _deployment(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> Entry:
    """A step of a deployment: its state before and after, where and of what, with more after."""
    known = {**_DEPLOYMENT.optional, "fence": COUNT, "job_id": Nullable(ID), **(optional or {})}
    return Entry(
        _DEPLOYMENT,
        Record({"state": DEPLOYMENT_STATE, "environment_id": ID, "release_id": Nullable(ID), **required}, known),
    )


DEPLOYMENT: Final[Actions] = {
    "requested": Entry(
        ABSENT,
        Record(
            {
                "environment_id": ID,
                "release_id": Nullable(ID),
                "kind": OneOf(("deploy", "promote", "rollback", "heal")),
                "state": DEPLOYMENT_STATE,
            },
            {
                "group_id": Nullable(ID),
                "skip_stage": FLAG,
                "override_freeze": FLAG,
                "wait": FLAG,
                "not_before": Nullable(TIME),
                "exceptional_reasons": ListOf(OneOf(("skip_stage", "multiple_environments", "concurrent", "override_freeze"))),
                "approvals_required": COUNT,
                "approvals_expire_at": Nullable(TIME),
                "fence": Nullable(COUNT),
                "job_id": Nullable(ID),
                "previous_deployment_id": Nullable(ID),
            },
        ),
    ),
    "approved": _deployment({"approvals": COUNT}, {"approvals_required": COUNT, "user_id": ID}),
    "approval_expired": _deployment({"approvals": COUNT}, {"approvals_required": COUNT, "approvals_expire_at": TIME}),
    "blocked_by_drift": _deployment({"report": DRIFT_REPORT}, {"waits_until": TIME}),
    "revalidated": _deployment({"overwrite": FLAG}),
    "drift_overwritten": _deployment({"report": DRIFT_REPORT}),
    "superseded": _deployment({"by_deployment_id": ID}, {"reason_code": CODE}),
    "started": _deployment({"fence": COUNT}),
    "succeeded": _deployment({}, {"reason_code": CODE}),
    "failed": _deployment({"reason_code": CODE}),
    "canceled": _deployment({"reason_code": CODE}),
    "promoted": _deployment({}, {"from_environment_id": Nullable(ID)}),
    "rolled_back": _deployment({"mode": _ROLLBACK_MODE}, {"undone_release_id": ID}),
    "healed": _deployment({"report": DRIFT_REPORT}, {"holds": FLAG}),
    "auto_rolled_back": _deployment({"reason_code": CODE}, {"replaced_release_id": ID}),
    "freeze_overridden": _deployment({"windows": TEXTS}, {"frozen_until": Nullable(TIME), "not_before": Nullable(TIME)}),
}

_BAD_RELEASES: Final = Record({"bad_release_ids": IDS})

ENVIRONMENT: Final[Actions] = {
    "drift_detected": Entry(
        Nullable(Record({"report": DRIFT_REPORT})),
        Record({"report": DRIFT_REPORT}, {"profile_revision": COUNT, "job_id": Nullable(ID)}),
    ),
    "drift_cleared": Entry(
        Record({"report": DRIFT_REPORT}),
        Nullable(Record({"cause": OneOf(("mended", "revalidated", "overwritten", "healed"))}, {"deployment_id": Nullable(ID)})),
    ),
    "release_marked_bad": Entry(_BAD_RELEASES, Record({"bad_release_ids": IDS, "release_id": ID}, {"deployment_id": ID})),
    "release_cleared": Entry(_BAD_RELEASES, Record({"bad_release_ids": IDS, "release_id": ID})),
}

_LIFECYCLE: Final = Record({}, {"ttl_idle_hours": Nullable(COUNT), "grace_hours": Nullable(COUNT), "auto_cleanup": FLAG})
_PROFILE_FIELDS: Final[Mapping[str, Kind]] = {
    **PROFILE_VALUES,
    "name": TEXT,
    "kind": OneOf(("persistent_env", "temp_workspace", "temp_changeset")),
    "lifecycle": Nullable(_LIFECYCLE),
}
_REVISION: Final[Mapping[str, Kind]] = {"revision_number": COUNT}
_WHOLE_PROFILE: Final = Record({"name": TEXT, "kind": _PROFILE_FIELDS["kind"], "revision_number": COUNT}, _PROFILE_FIELDS)

RUNTIME_PROFILE: Final[Actions] = {
    "created": Entry(ABSENT, _WHOLE_PROFILE),
    # The last by a deployment that succeeded, whose release brought overrides.
    "updated": changes({**_PROFILE_FIELDS, "received_release_ids": IDS}, both=_REVISION),
    "emergency_edited": changes({**_PROFILE_FIELDS, "runtime_profile_id": ID}, both=_REVISION, after={"environment_ids": IDS}),
    "reverted": changes(_PROFILE_FIELDS, both=_REVISION, after={"reverted_to": COUNT}),
    "key_rotated": Entry(Record({"key_version": COUNT}, _REVISION), Record({"key_version": COUNT, "keys": TEXTS}, _REVISION)),
    "secret_revealed": Entry(ABSENT, Record({"key": TEXT, "revision_number": COUNT})),
    "deleted": Entry(_WHOLE_PROFILE, ABSENT),
}

_TEMP_STATE: Final = Record({"state": TEMP_ENV_STATE})
_DEADLINES: Final[Mapping[str, Kind]] = {
    "expires_at": TIME,
    "extended_until": Nullable(TIME),
    "grace_until": Nullable(TIME),
}
_TEMP_MADE: Final = Record(
    {"kind": OneOf(("workspace", "changeset")), "source_id": ID, "state": TEMP_ENV_STATE},
    {
        "base_profile_id": Nullable(ID),
        "runtime_profile_id": Nullable(ID),
        "url": Nullable(TEXT),
        "branch": Nullable(TEXT),
        "job_id": Nullable(ID),
    },
)

TEMP_ENVIRONMENT: Final[Actions] = {
    "created": Entry(ABSENT, _TEMP_MADE),
    "provisioned": Entry(
        _TEMP_STATE,
        Record(
            {"state": TEMP_ENV_STATE, "url": TEXT, "branch": TEXT, "expires_at": TIME},
            {"db_name": Nullable(TEXT), "runtime_profile_id": ID, "head_sha": SHA, "job_id": ID},
        ),
    ),
    "provision_failed": Entry(_TEMP_STATE, Record({"state": TEMP_ENV_STATE, "reason_code": CODE}, {"job_id": Nullable(ID)})),
    "warned": Entry(ABSENT, Record({"expires_at": TIME})),
    "extended": Entry(
        Record({"expires_at": TIME}, {"extended_until": Nullable(TIME)}),
        Record({"expires_at": TIME, "extended_until": TIME}, {"seconds": COUNT}),
    ),
    "expiring": Entry(_TEMP_STATE, Record({"state": TEMP_ENV_STATE, "grace_until": TIME})),
    "undo_expired": Entry(Record({"state": TEMP_ENV_STATE}, _DEADLINES), Record({"state": TEMP_ENV_STATE, "expires_at": TIME})),
    "expired": Entry(
        _TEMP_STATE,
        Record(
            {"state": TEMP_ENV_STATE, "cause": OneOf(("grace_ended", "delete", "canceled", "app_archived"))},
            {"job_id": Nullable(ID)},
        ),
    ),
    "cleaned_up": Entry(
        Nullable(Record({}, {"db_name": Nullable(TEXT), "branch": Nullable(TEXT)})),
        Record({"database_dropped": FLAG, "branch_deleted": FLAG}, {"job_id": Nullable(ID)}),
    ),
    "recreated": Entry(Record({"temp_env_id": ID}, {"state": TEMP_ENV_STATE}), _TEMP_MADE),
    "deleted": Entry(_TEMP_STATE, _TEMP_STATE),
}

_JOB: Final[Mapping[str, Kind]] = {"job_type": CODE, "entity_type": CODE, "entity_id": TEXT, "attempt": COUNT}

JOB: Final[Actions] = {
    "canceled": Entry(Record({"state": JOB_STATE}), Record({"state": JOB_STATE}, {"reason_code": Nullable(CODE), **_JOB})),
    "retried": Entry(
        Record({"job_id": ID, "state": JOB_STATE}, {"reason_code": Nullable(CODE)}),
        Record({"job_id": ID, "state": JOB_STATE}, _JOB),
    ),
}
