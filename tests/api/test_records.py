"""Every record has the fields of `api.md` 4."""

from __future__ import annotations

import pytest

from tests.support.conman_stack import World

COMMON = "id created_at updated_at version"
FIELDS = {
    "app": "name repo_path integration_branch integration_sha archived settings my_role created_by",
    "settings": (
        "baseline_mode canonical_env_id commit_mode_default blocked_paths file_size_limit_bytes required_approval_count "
        "runtime_profile_approval_policy queue_gate carry_votes webhook temp_url_domain temp_env_access default_base_profile_id "
        "env_defaults validation_gates review_reminder_hours approval_ttl_hours revalidation_concurrency"
    ),
    "workspace": (
        "app_id owner_user_id branch_name title is_default commit_mode base_ref_type base_ref_value base_sha head_sha "
        "pending_edits "
        "integration_sha behind hotpatch"
    ),
    "changeset": (
        "app_id workspace_id author_user_id title description state base_sha head_sha current_revision approval_count "
        "required_approval_count up_to_date hotpatch gate queue_position queued_at last_revalidation_status "
        "last_revalidation_job_id conflicts release_id waiting_for blockers"
    ),
    "comment": "app_id created_by body file_path line_number revision_number parent_comment_id outdated resolved edited",
    "release": (
        "app_id tag state ordered_changeset_ids base_sha candidate_sha published_sha published_at published_by failure job_id "
        "supersedes reverts_release_id"
    ),
    "environment": (
        "app_id name position is_canonical runtime_profile_id deploy_target current_release_id current_deployment_id deployed_at "
        "deployed_by health drift active_deployment_id waiting_deployment_ids frozen_until folder bad_release_ids"
    ),
    "deployment": (
        "app_id environment_id release_id state phase kind group_id requested_by skip_stage exceptional_reasons approvals "
        "approvals_required approvals_expire_at not_before drift_report profile_revision_id previous_deployment_id "
        "reason_code job_id "
        "fence waiting_for"
    ),
    "job": (
        "app_id job_type state reason_code entity_type entity_id attempt max_attempts queued_at started_at finished_at exit_code "
        "summary progress result"
    ),
    "user": "email name is_platform_admin disabled",
}


def missing(kind: str, record: dict[str, object], common: str = COMMON) -> set[str]:
    return set(f"{FIELDS[kind]} {common}".split()) - set(record)


@pytest.fixture(scope="module")
async def release(world: World) -> str:
    return await world.published()


async def test_every_record_has_its_fields(world: World, release: str) -> None:
    ended = await world.deployed((await world.environments())[0]["id"], release)
    changeset = await world.changeset()
    app = await world.eve.get(world.path)
    shown = {
        "app": app,
        "workspace": (await world.ann.get(f"{world.path}/workspaces"))[0],
        "changeset": await world.ann.get(changeset),
        "comment": await world.ann.post(f"{changeset}/comments", {"body": "a comment"}),
        "release": await world.ann.get(release),
        "environment": (await world.environments())[0],
        "deployment": ended,
        "job": (await world.ann.get(f"{world.path}/jobs"))[0],
        "user": await world.ann.get("/me"),
    }
    assert {kind: missing(kind, record) for kind, record in shown.items()} == {kind: set() for kind in shown}
    assert missing("settings", app["settings"], "") == set()


async def test_times_are_utc_with_z_and_ids_are_uuid7(world: World, release: str) -> None:
    shown = await world.ann.get(release)
    assert shown["created_at"].endswith("Z")
    assert shown["published_at"].endswith("Z")
    assert shown["id"][14] == "7"


async def test_an_audit_event_has_its_fields_and_its_order(world: World, release: str) -> None:
    events = await world.audit()
    fields = set(
        [
            "id",
            "occurred_at",
            "actor_user_id",
            "app_id",
            "entity_type",
            "entity_id",
            "action",
            "before",
            "after",
            "git_sha",
            "context",
        ]
    )
    assert all(fields <= set(event) for event in events)
    assert all(set(event["context"]) == {"ip", "user_agent", "request_id", "workflow_id"} for event in events)
    oldest = await world.eve.get(f"{world.path}/audit", params={"after": "0", "limit": 100})
    assert [event["id"] for event in oldest] == sorted(event["id"] for event in oldest)
    after = await world.eve.get(f"{world.path}/audit", params={"after": oldest[2]["id"], "limit": 2})
    assert [event["id"] for event in after] == [event["id"] for event in oldest[3:5]]


async def test_each_step_of_the_main_job_is_in_the_audit_once(world: World, release: str) -> None:
    record = await world.eve.get(release)
    changeset_id = record["ordered_changeset_ids"][0]
    actions = [event["action"] for event in await world.audit(entity_type="changeset", entity_id=changeset_id)][::-1]
    assert actions == ["created", "submitted", "approved", "queued", "released"]
    steps = [event["action"] for event in await world.audit(entity_type="release", entity_id=record["id"])][::-1]
    assert steps[:4] == ["created", "assembled", "validated", "published"]
