"""The audit table and the making of events (`api.md` 4 and 5, `spec.md` 14)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest

from conman.domain.audit import ACTIONS, WITHOUT_APP, AuditContext, entry_of, make_event
from conman.domain.audit_schema import (
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
    Absent,
    Either,
    Kind,
    ListOf,
    MapOf,
    Nullable,
    OneOf,
    Record,
    is_json,
)
from conman.domain.audit_table_content import CHANGESET_STATE, ROLE
from conman.domain.audit_table_delivery import DEPLOYMENT_STATE, JOB_STATE, PHASE, RELEASE_STATE
from conman.domain.changeset import ChangesetState
from conman.domain.deployment import DeploymentState, Phase
from conman.domain.ids import derived_uuid7
from conman.domain.jobs import JobState
from conman.domain.release import ReleaseState
from conman.domain.roles import Role
from conman.domain.times import milliseconds

SECTION_5 = """
app: created, settings_updated, environments_updated, archived, held, released_from_hold
membership: added, role_changed, removed
invite: created, resent, revoked, accepted, expired
user: created, updated, logged_in, login_failed, locked_out, logged_out, password_reset_requested, password_reset,
 password_changed, disabled, enabled
workspace: created, updated, reset, synced_integration, deleted
file: written, deleted, moved, checkpoint
changeset: created, updated, submitted, resubmitted, review_requested, approved, changes_requested, rejected, queued,
 moved_to_draft, withdrawn, conflicted, needs_revalidation, revalidated, released, overrides_updated
comment: created, edited, resolved
queue: reordered, superseded
release: created, changesets_modified, reordered, assembled, assembly_failed, validated, returned_to_draft, published,
 deployment_state_changed, dropped, rolled_back
deployment: requested, approved, approval_expired, blocked_by_drift, revalidated, drift_overwritten, superseded, started,
 succeeded, failed, canceled, promoted, rolled_back, healed, auto_rolled_back, freeze_overridden
environment: drift_detected, drift_cleared, release_marked_bad, release_cleared
runtime_profile: created, updated, emergency_edited, reverted, key_rotated, secret_revealed, deleted
secrets: master_rotated
temp_environment: created, provisioned, provision_failed, warned, extended, expiring, undo_expired, expired, cleaned_up,
 recreated, deleted
job: canceled, retried
notification_preference: updated
audit: sealed, repaired
"""
UUID = "018bcfe5-6800-7919-8d66-3e7ddc9fc00d"
OTHER_UUID = "018bcfe5-6800-7919-8d66-3e7ddc9fc00e"
BLOB = "a" * 40
NOW = "2026-03-01T09:30:00.000Z"
EVENT = derived_uuid7(milliseconds(NOW), "an event")
SAMPLES: dict[int, Any] = {
    id(TEXT): "text",
    id(FLAG): True,
    id(COUNT): 3,
    id(CODE): "some_word",
    id(SHA): BLOB,
    id(DIGEST): "sha256:" + "0" * 64,
    id(ID): UUID,
    id(TIME): NOW,
    id(MASK): "abcd****wxyz",
    id(JSON): {"deep": [1, 2.5, None, True]},
}
PAIRS = [(entity, action) for entity, actions in ACTIONS.items() for action in actions]
NAMES = [f"{entity}.{action}" for entity, action in PAIRS]


def sample(kind: Kind, *, full: bool) -> Any:
    """A value of the kind: with `full` every optional field, else only what is required."""
    match kind:
        case Absent():
            return None
        case OneOf(words):
            return words[0]
        case Nullable(inner):
            return sample(inner, full=full)
        case ListOf(item):
            return [sample(item, full=full)] if full else []
        case MapOf(item):
            return {"KEY": sample(item, full=full)} if full else {}
        case Either(first, _):
            return sample(first, full=full)
        case Record():
            fields = {**kind.optional, **kind.required} if full else kind.required
            return {name: sample(item, full=full) for name, item in fields.items()}
        case _:
            return SAMPLES[id(kind)]


def event(entity: str, action: str, **fields: Any) -> Any:
    base: dict[str, Any] = {"event_id": EVENT, "occurred_at": NOW, "entity_id": OTHER_UUID, "app_id": UUID}
    return make_event(entity_type=entity, action=action, **{**base, **fields})


def kinds_by_name(kind: Kind, name: str = "") -> Iterator[tuple[str, Kind]]:
    """Every kind in a schema with the name of the field that it stands under."""
    yield name, kind
    match kind:
        case Nullable(inner) | ListOf(inner) | MapOf(inner):
            yield from kinds_by_name(inner, name)
        case Either(first, second):
            yield from kinds_by_name(first, name)
            yield from kinds_by_name(second, name)
        case Record():
            for field, item in {**kind.optional, **kind.required}.items():
                yield from kinds_by_name(item, field)
        case _:
            return


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != name}


def test_the_table_has_the_actions_of_the_contract_and_no_others():
    expected: dict[str, set[str]] = {}
    for line in SECTION_5.strip().replace(",\n ", ", ").splitlines():
        entity, actions = line.split(": ")
        expected[entity] = set(actions.split(", "))
    assert {entity: set(actions) for entity, actions in ACTIONS.items()} == expected


@pytest.mark.parametrize(("entity", "action"), PAIRS, ids=NAMES)
def test_each_action_takes_what_its_schema_says(entity: str, action: str):
    entry = entry_of(entity, action)
    names_a_change = entry.mirrored and isinstance(entry.before, Record) and not entry.before.required
    for full in (True,) if names_a_change else (True, False):
        before, after = sample(entry.before, full=full), sample(entry.after, full=full)
        made = event(entity, action, before=before, after=after)
        assert (made.before, made.after) == (before, after)
        json.dumps(made.document())


@pytest.mark.parametrize(("entity", "action"), PAIRS, ids=NAMES)
def test_each_action_refuses_a_field_that_it_does_not_name(entity: str, action: str):
    entry = entry_of(entity, action)
    halves = {"before": sample(entry.before, full=True), "after": sample(entry.after, full=True)}
    for half in halves:
        extra = {**(halves[half] or {}), "not_a_field": 1}
        with pytest.raises(ValueError, match=f"{half}"):
            event(entity, action, **{**halves, half: extra})


@pytest.mark.parametrize(("entity", "action"), PAIRS, ids=NAMES)
def test_each_action_refuses_to_lack_a_required_field(entity: str, action: str):
    entry = entry_of(entity, action)
    halves = {"before": sample(entry.before, full=True), "after": sample(entry.after, full=True)}
    for half, kind in (("before", entry.before), ("after", entry.after)):
        if isinstance(kind, Record):
            for name in kind.required:
                with pytest.raises(ValueError, match=f"{half}.{name}: is missing"):
                    event(entity, action, **{**halves, half: without(halves[half], name)})


@pytest.mark.parametrize(("entity", "action"), PAIRS, ids=NAMES)
def test_no_schema_has_room_for_a_secret(entity: str, action: str):
    entry = entry_of(entity, action)
    for half in (entry.before, entry.after):
        for name, kind in kinds_by_name(half):
            if any(word in name for word in ("secret", "password", "token", "credential")):
                leaf = not isinstance(kind, (Nullable, MapOf))
                assert not leaf or kind is MASK or name == "token_number", name


def test_a_secret_in_the_clear_is_refused_and_its_mask_taken():
    change = {"revision_number": 1, "secrets": {"KEY": None}}
    for mask in ("****", "****cdef", "abcd****wxyz"):
        event("runtime_profile", "updated", before=change, after={"revision_number": 2, "secrets": {"KEY": mask}})
    for plain in ("hunter2hunter2", "", "***", "abcde****wxyz", "abcd****vwxyz"):
        after = {"revision_number": 2, "secrets": {"KEY": plain}}
        with pytest.raises(ValueError, match=r"after\.secrets\.KEY: needs a secret's mask") as caught:
            event("runtime_profile", "updated", before=change, after=after)
        assert not plain or plain not in str(caught.value)


def test_a_drift_report_shows_secrets_by_digest_only():
    def detected(item: dict[str, Any]) -> None:
        event("environment", "drift_detected", after={"report": [item]})

    detected({"kind": "secret", "key": "KEY", "expected": "0123456789ab", "observed": None})
    detected({"kind": "env_var", "key": "MODE", "expected": "a", "observed": "b"})
    with pytest.raises(ValueError, match=r"after\.report"):
        detected({"kind": "secret", "key": "KEY", "expected": None, "observed": "correct horse"})


@pytest.mark.parametrize(("entity", "action"), [("nothing", "created"), ("app", "exploded"), ("", ""), ("app", "sealed")])
def test_an_unknown_action_is_a_programming_error(entity: str, action: str):
    with pytest.raises(ValueError, match="known are"):
        event(entity, action)


def test_a_change_names_the_same_fields_before_and_after_and_at_least_one():
    event("app", "settings_updated", before={"queue_gate": "up_to_date"}, after={"queue_gate": "clean_merge"})
    with pytest.raises(ValueError, match="same changed fields"):
        event("app", "settings_updated", before={"queue_gate": "up_to_date"}, after={"required_approval_count": 2})
    with pytest.raises(ValueError, match="no changed field"):
        event("app", "settings_updated", before={}, after={})


def test_a_revert_to_equal_content_is_a_change_of_the_revision_alone():
    event("runtime_profile", "reverted", before={"revision_number": 2}, after={"revision_number": 3, "reverted_to": 1})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"event_id": "1"}, "event_id: needs a UUIDv7"),
        ({"event_id": UUID}, "event_id: is of another time"),
        ({"occurred_at": "2026-03-01T09:30:00.000+01:00"}, "occurred_at"),
        ({"occurred_at": "2026-03-01"}, "occurred_at"),
        ({"entity_id": ""}, "entity_id"),
        ({"app_id": None}, "app_id"),
        ({"git_sha": "a" * 39}, "git_sha"),
        ({"git_sha": "main"}, "git_sha"),
    ],
    ids=str,
)
def test_what_surrounds_an_event_is_checked_too(fields: dict[str, Any], problem: str):
    shape: dict[str, Any] = {"before": {"state": "approved"}, "after": {"state": "queued"}}
    event("changeset", "queued", **shape)
    event("changeset", "queued", **shape, git_sha="a" * 64)
    with pytest.raises(ValueError, match=problem):
        event("changeset", "queued", **shape, **fields)


@pytest.mark.parametrize("entity", sorted(ACTIONS))
def test_only_what_belongs_to_no_app_may_lack_one(entity: str):
    action, entry = next(iter(ACTIONS[entity].items()))
    halves = {"before": sample(entry.before, full=True), "after": sample(entry.after, full=True)}
    if entity in WITHOUT_APP:
        assert event(entity, action, **halves, app_id=None).app_id is None
    else:
        with pytest.raises(ValueError, match="app_id: is missing"):
            event(entity, action, **halves, app_id=None)


def test_an_event_keeps_its_own_copy_in_plain_json():
    class State(StrEnum):
        QUEUED = "queued"

    paths = ["a.yaml"]
    after = {"state": State.QUEUED, "paths": tuple(paths), "job_id": UUID}
    made = event("changeset", "conflicted", before={"state": "queued"}, after=after)
    after["job_id"] = OTHER_UUID
    assert made.after == {"state": "queued", "paths": ["a.yaml"], "job_id": UUID}
    assert type(made.after["state"]) is str


@pytest.mark.parametrize("value", [b"bytes", ..., float("nan"), float("inf"), {1}], ids=repr)
def test_what_is_not_json_is_refused(value: Any):
    with pytest.raises(ValueError, match="is not a JSON value"):
        event("app", "settings_updated", before={"env_defaults": value}, after={"env_defaults": {}})


def test_json_is_judged_to_its_depth():
    assert is_json({"a": [1, 1.5, "x", None, True, {}]})
    assert not is_json({"a": [{"b": float("nan")}]})
    assert not is_json({1: "key is no text"})
    assert not is_json((1, 2))


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (COUNT, [0, 1, 2**53], [-1, True, 1.0, "1", None]),
        (FLAG, [True, False], [0, 1, "true", None]),
        (SHA, ["0" * 40, "f" * 64], ["0" * 39, "0" * 41, "0" * 63, "A" * 40, "g" * 40, "0" * 40 + "\n"]),
        (CODE, ["ok", "git_error"], ["", "Ok", "git-error", "1st", "a b"]),
        (TIME, ["2026-01-31T00:00:00Z", NOW], ["2026-01-31", "2026-01-31T00:00:00", "2026-01-31T00:00:00+00:00"]),
        (ID, [UUID], [UUID.upper(), UUID[:-1], "", None]),
        (DIGEST, ["0" * 12, "sha256:" + "a" * 64], ["0" * 11, "word", "0" * 129]),
        (ROLE, ["user", "app_admin"], ["owner", None]),
    ],
    ids=["count", "flag", "sha", "code", "time", "id", "digest", "role"],
)
def test_each_scalar_draws_its_line(kind: Kind, right: list[Any], wrong: list[Any]):
    assert [value for value in right if list(kind.problems(value, "it"))] == []
    assert [value for value in wrong if not list(kind.problems(value, "it"))] == []


def test_a_list_and_a_map_name_the_place_of_what_is_wrong():
    assert list(ListOf(COUNT).problems([1, "x"], "it")) == ["it[1]: needs a whole number from 0, not str"]
    assert list(MapOf(COUNT).problems({"a": None}, "it")) == ["it.a: needs a whole number from 0, not NoneType"]
    assert list(ListOf(COUNT).problems("x", "it")) == ["it: needs a list, not str"]
    assert list(MapOf(COUNT).problems([], "it")) == ["it: needs an object, not list"]
    assert list(Record().problems([], "it")) == ["it: needs an object, not list"]


def test_a_document_has_the_fields_of_the_contract():
    made = event(
        "changeset",
        "withdrawn",
        before={"state": "draft"},
        after={"state": "withdrawn"},
        ip="192.0.2.1",
        user_agent="agent",
        request_id="request-1",
        workflow_id="changeset:1",
    )
    assert made.context == AuditContext(ip="192.0.2.1", user_agent="agent", request_id="request-1", workflow_id="changeset:1")
    assert set(made.document()) == {
        "_id",
        *("occurred_at", "actor_user_id", "app_id", "entity_type", "entity_id", "action"),
        *("before", "after", "git_sha", "context"),
    }
    assert made.document()["context"] == {
        "ip": "192.0.2.1",
        "user_agent": "agent",
        "request_id": "request-1",
        "workflow_id": "changeset:1",
    }


def test_the_words_of_the_table_are_those_of_the_rules():
    for kind, words in (
        (CHANGESET_STATE, ChangesetState),
        (RELEASE_STATE, ReleaseState),
        (DEPLOYMENT_STATE, DeploymentState),
        (PHASE, Phase),
        (JOB_STATE, JobState),
        (ROLE, Role),
    ):
        assert set(kind.words) == {word.value for word in words}
