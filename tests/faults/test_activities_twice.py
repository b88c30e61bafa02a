"""Each activity crashes at each of its fault points and is run again, as Temporal does: it ends as if it had run once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from faults_app import App
from faults_direct import Direct, fresh_id

from conman.activities import resync
from conman.domain.changeset_news import QueueNews
from conman.domain.jobs import JobType, ReasonCode
from conman.domain.messages import (
    AssembleStart,
    DeployQuestion,
    ExclusionsQuestion,
    GateProfilesQuestion,
    GateRun,
    GateStart,
    JobEnds,
    LoadRequest,
    MoveRefs,
    NewJobs,
    Overtaken,
    ProfileQuestion,
    PublishQuestion,
    QueueCall,
    ReminderSetting,
    StartDeployment,
    SwitchRequest,
    TagRequest,
    Telling,
    TrialRequest,
)
from conman.domain.overrides import FrozenOverride, Override
from conman.domain.queue import Entry
from conman.domain.release import Member
from conman.git.adapter import RefUpdate
from conman.services.clock import now
from conman.services.override_contents import keep_content
from conman.store import locks
from tests.support.crashes import crash_at

COVERED = {
    "load_owned": "test_a_load_delivers_once_what_a_crash_left",
    "persist": "test_a_guarded_write_lands_once",
    "create_jobs": "test_jobs_of_a_workflow_are_made_and_ended_once",
    "end_jobs": "test_jobs_of_a_workflow_are_made_and_ended_once",
    "revalidation_concurrency": "test_what_only_reads_changes_nothing",
    "review_reminder_hours": "test_what_only_reads_changes_nothing",
    "deploy_facts": "test_what_only_reads_changes_nothing",
    "lock_running": "test_a_lock_starts_running_once",
    "gate_profiles": "test_what_only_reads_changes_nothing",
    "prepare_profile": "test_what_a_release_brings_to_a_profile_is_prepared_once",
    "end_deployment": "test_a_deployment_ends_once",
    "sweep_outgoing": "test_a_sweep_delivers_once_what_a_crash_left",
    "trial_merges": "test_trial_merges_make_the_same_commits_again",
    "compose_release": "test_a_composition_makes_the_same_commits_again",
    "integration_head": "test_what_only_reads_changes_nothing",
    "find_exclusions": "test_what_only_reads_changes_nothing",
    "reserve_tag": "test_a_release_takes_one_number",
    "publish_facts": "test_a_number_whose_tag_exists_is_skipped_once",
    "move_refs": "test_branch_and_tag_move_once",
    "run_gate": "test_a_gate_leaves_one_log_per_attempt_and_no_folder",
    "call_queue": "test_the_queue_carries_out_a_command_once",
    "tell_changesets": "test_a_changeset_takes_its_news_once",
    "tell_releases": "test_what_only_tells_changes_nothing_twice",
    "await_job": "test_a_verdict_can_be_awaited_again",
    "switch_environment": "test_an_environment_is_switched_once",
    "verify_environment": "test_what_only_reads_changes_nothing",
    "start_missing": "test_a_missing_workflow_is_started_once",
}
"""Activity → the test in which it crashes after its write."""

DEPLOYING = {
    "take_lock": "test_a_deployment_in_line_gets_its_lock_once",
    "judge_start": "test_what_only_looks_before_a_deployment_changes_nothing",
    "begin_running": "test_a_deployment_begins_to_run_once",
    "clear_edit": "test_an_emergency_edit_is_cleared_once",
    "prior_deployment": "test_what_only_looks_before_a_deployment_changes_nothing",
    "raise_fence": "test_a_fence_is_raised_once",
    "await_deployment": "test_what_only_looks_before_a_deployment_changes_nothing",
    "tell_the_line": "test_the_line_may_be_told_again",
    "drift_places": "test_what_only_looks_before_a_deployment_changes_nothing",
    "begin_drift_check": "test_a_check_begins_once_and_a_lost_one_does_not_begin_again",
}
"""The same in `test_deploy_activities_twice.py`."""

ELSEWHERE = {
    "seal_audit": "services/test_sealing.py:test_a_sealer_that_died_anywhere_leaves_no_gap_and_no_place_twice",
    "anchor_audit": "services/test_sealing.py:test_the_anchor_follows_the_chain_and_carries_the_platforms_along",
    "check_drift": "services/test_drift.py:test_a_look_that_died_when_it_had_written_is_told_once",
    "heal_environment": "services/test_heals.py:test_a_healing_whose_start_died_is_made_once",
    "run_migrations": "services/test_migrations.py:test_a_worker_that_dies_between_two_goes_on_with_the_next",
    "compose_revert": "services/test_rollback_records.py:test_the_commit_that_undoes_a_release_is_made_once",
    "undo_release": "services/test_rollback_records.py:test_a_release_is_rolled_back_once",
    "begin_revert": "faults/test_deployment_steps_killed.py:test_a_deployment_survives_the_death_of_its_worker_at_each_step",
    "watch_revert": "faults/test_deployment_steps_killed.py:test_a_deployment_survives_the_death_of_its_worker_at_each_step",
    "step_revert": "faults/test_deployment_steps_killed.py:test_a_deployment_survives_the_death_of_its_worker_at_each_step",
    "tell_deployment": "faults/test_deployment_steps_killed.py:test_a_deployment_survives_the_death_of_its_worker_at_each_step",
    "send_webhooks": "services/test_webhooks.py:test_a_worker_that_dies_in_an_attempt_sends_the_same_message_again",
    "cancel_webhooks": "services/test_webhooks.py:test_everything_that_is_left_is_canceled_once",
    "expand_notice": "mail/test_rows.py:test_a_crash_after_the_rows_were_made_makes_no_others",
    "end_notice": "mail/test_rows.py:test_a_notice_ends_once",
    "give_up_mail": "mail/test_rows.py:test_a_mail_that_has_ended_stays_as_it_is",
    "provision_branch": "services/test_temp_provisioning.py:test_a_branch_whose_making_died_is_made_once",
    "provision_profile": "services/test_temp_profiles.py:"
    "test_a_profile_whose_making_died_is_made_once_from_what_its_base_is_by_then",
    "provision_database": "services/test_temp_provisioning.py:test_a_database_whose_making_died_is_made_once",
    "clean_up_temp_env": "services/test_temp_provisioning.py:"
    "test_a_clean_up_that_died_is_finished_and_leaves_what_makes_it_again",
    "temp_env_use": "services/test_temp_provisioning.py:test_the_last_use_is_told_with_whether_source_and_app_have_ended",
    "sweep_temp_orphans": "services/test_temp_orphans.py:test_what_has_no_record_goes_an_hour_after_it_was_first_seen",
    "send_mail": "mail/test_sending.py:test_a_crash_between_handing_over_and_the_note_of_it_sends_the_same_mail_again",
}
"""The same in a file of `tests/`."""


async def test_every_activity_has_a_test_for_a_crash_after_its_write(direct: Direct) -> None:
    assert sorted(direct.activities()) == sorted([*COVERED, *DEPLOYING, *ELSEWHERE])
    assert set(COVERED.values()) <= set(globals())
    places = {f"faults/test_deploy_activities_twice.py:{name}" for name in DEPLOYING.values()} | set(ELSEWHERE.values())
    for place in places:
        file, _, name = place.partition(":")
        text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text, place


WRITES = ("persist.begun.changesets", "persist.written.changesets", "persist.delivered.changesets")
DELIVERS = ("feed.told", "deliver.audited", "deliver.put")


@pytest.mark.parametrize("crash", [*WRITES, *DELIVERS])
async def test_a_guarded_write_lands_once(direct: Direct, crash: str) -> None:
    request = await direct.submission()
    first, second = await direct.twice(direct.store.persist, request, crash=crash)
    assert first.status == ("saved" if crash.startswith("persist.begun") else "repeat")
    assert second.status == "repeat"
    await _went_out_once(direct, request.entity_id, "submitted")


async def _went_out_once(direct: Direct, changeset: str, action: str) -> None:
    row = await direct.row("changesets", changeset)
    assert (row["owned"]["state"], row["owned"]["version"], row["outgoing"]) == ("submitted", 1, [])
    assert await direct.db["audit"].count_documents({"entity_id": changeset, "action": action}) == 1
    assert await direct.db["jobs"].count_documents({"entity_id": changeset}) == 1
    told = [row["action"] async for row in direct.db["feed"].find({"$or": [{"entity_id": changeset}, {"subject.id": changeset}]})]
    assert sorted(told) == ["created", "queued", action]


@pytest.mark.parametrize("crash", DELIVERS)
async def test_a_load_delivers_once_what_a_crash_left(direct: Direct, crash: str) -> None:
    request = await direct.submission()
    with crash_at("persist.written.changesets"):
        await direct.run(direct.store.persist, request)
    load = LoadRequest(collection="changesets", entity_id=request.entity_id)
    first, second = await direct.twice(direct.store.load_owned, load, crash=crash)
    assert first.owned == second.owned == request.owned
    await _went_out_once(direct, request.entity_id, "submitted")


@pytest.mark.parametrize("crash", DELIVERS)
async def test_a_sweep_delivers_once_what_a_crash_left(direct: Direct, crash: str) -> None:
    request = await direct.submission()
    with crash_at("persist.written.changesets"):
        await direct.run(direct.store.persist, request)
    assert await direct.twice(direct.store.sweep_outgoing, crash=crash) == (3, 0)  # the event, its job, and who is told
    await _went_out_once(direct, request.entity_id, "submitted")


async def test_jobs_of_a_workflow_are_made_and_ended_once(direct: Direct) -> None:
    job = fresh_id()
    made = NewJobs(
        app_id=direct.app.id,
        job_type=JobType.MSUITE_MERGE,
        entity_type="release",
        entity_id=fresh_id(),
        job_ids=[job],
        at=now(),
    )
    await direct.twice(direct.store.create_jobs, made, crash="jobs.created")
    ends = JobEnds(ends=[{"id": job, "state": "succeeded", "reason_code": "ok"}], at=now())
    await direct.twice(direct.store.end_jobs, ends, crash="jobs.ended")
    await direct.run(direct.store.create_jobs, made)
    row = await direct.row("jobs", job)
    assert (row["state"], row["version"]) == ("succeeded", 2)


async def test_a_lock_starts_running_once(direct: Direct) -> None:
    deployment, owned = await direct.deployment()
    start = StartDeployment(app_id=direct.app.id, environment_id=owned.environment_id, deployment_id=deployment)
    with crash_at("lock.running"):
        await direct.run(direct.store.lock_running, start)
    assert await direct.run(direct.store.lock_running, start)
    held = await locks.read(direct.db, direct.app.id)
    assert held[owned.environment_id]["holder"]["state"] == "running"
    await locks.release(direct.db, direct.app.id, owned.environment_id, deployment, now())
    assert not await direct.run(direct.store.lock_running, start), "an attempt that was given up takes no lock back"
    await direct.db["deployments"].delete_one({"_id": deployment})


async def test_what_a_release_brings_to_a_profile_is_prepared_once(direct: Direct) -> None:
    deployment, owned = await direct.deployment()
    question = ProfileQuestion(
        app_id=direct.app.id,
        environment_id=owned.environment_id,
        release_id=owned.release_id,
        deployment_id=deployment,
        at=now(),
    )
    profile_id = (await direct.run(direct.store.prepare_profile, question)).profile_id
    override = Override.model_validate({"base_url": "https://prepared.example.com"})
    frozen = FrozenOverride(profile_id=profile_id, content_id=fresh_id(), target_profile_id=profile_id, keys=override.digests())
    await keep_content(direct.db, direct.app.id, frozen, override, now())
    kept = {"owned.members.0.overrides": [frozen.model_dump(mode="json")]}
    await direct.db["releases"].update_one({"_id": owned.release_id}, {"$set": kept})
    first, second = await direct.twice(direct.store.prepare_profile, question, crash="arrival.kept")
    assert first == second
    assert (await direct.row("profile_revisions", first.profile_revision_id))["content"]["base_url"] == override.base_url
    assert (await direct.row("profiles", profile_id))["revision_id"] != first.profile_revision_id
    await direct.db["releases"].update_one({"_id": owned.release_id}, {"$set": {"owned.members.0.overrides": []}})
    await locks.release(direct.db, direct.app.id, owned.environment_id, deployment, now())
    await direct.db["deployments"].delete_one({"_id": deployment})


@pytest.mark.parametrize("crash", ["end.profile", "end.environment", "end.written", *DELIVERS, "end.release", "end.unlocked"])
@pytest.mark.parametrize("finisher", ["the activity again", "the sweep"])
async def test_a_deployment_ends_once(direct: Direct, crash: str, finisher: str) -> None:
    """Whoever finishes it: the release shows it and the lock is free before the job ends."""
    end = await direct.ending()
    job = end.persist.owned["job_id"]
    with crash_at(crash):
        await direct.run(direct.store.end_deployment, end)
    if crash != "deliver.put":
        assert (await direct.row("jobs", job))["state"] == "running"
    if finisher == "the sweep":
        await direct.run(direct.store.sweep_outgoing)
    await direct.twice(direct.store.end_deployment, end)
    assert (await direct.row("deployments", end.deployment_id))["owned"]["state"] == "succeeded"
    assert (await direct.row("releases", end.release_id))["owned"]["state"] == "deployed_partial"
    assert (await direct.row("environments", end.environment_id))["owned"]["current_deployment_id"] == end.deployment_id
    assert (await locks.read(direct.db, direct.app.id))[end.environment_id]["holder"] is None
    assert (await direct.row("jobs", job))["state"] == "succeeded"
    assert await direct.db["audit"].count_documents({"entity_id": end.deployment_id, "action": "succeeded"}) == 1
    changed = await direct.db["audit"].count_documents({"entity_id": end.release_id, "action": "deployment_state_changed"})
    assert changed == 1, "it changed once, with the first of these deployments"


async def _entries(direct: Direct) -> list[Entry]:
    row = await direct.row("queues", direct.app.id)
    return [Entry.model_validate(entry) for entry in row["owned"]["entries"]]


async def test_trial_merges_make_the_same_commits_again(direct: Direct) -> None:
    entries = await _entries(direct)
    request = TrialRequest(app_id=direct.app.id, integration_sha=direct.released.published_sha or "", entries=entries)
    first, second = await direct.twice(direct.on_git.trial_merges, request, crash="trial.merged")
    assert first == second
    assert sorted(first.merged) == sorted(direct.queued)


async def test_a_composition_makes_the_same_commits_again(direct: Direct) -> None:
    start = AssembleStart(
        app_id=direct.app.id, release_id=fresh_id(), job_id=fresh_id(), tag="r1", members=await direct.members()
    )
    first, second = await direct.twice(direct.composing.compose_release, start, crash="compose.merged")
    assert first == second
    assert len(first.prefix_shas) == len(direct.queued)


async def test_a_release_takes_one_number(direct: Direct) -> None:
    request = TagRequest(app_id=direct.app.id, release_id=await direct.draft_release())
    first, second = await direct.twice(direct.publishing.reserve_tag, request, crash="tag.reserved")
    assert first == second
    assert await direct.db["release_tags"].count_documents({"release_id": request.release_id}) == 1
    await direct.db["releases"].delete_one({"_id": request.release_id})


@pytest.mark.parametrize("crash", ["tag.skipped", "tag.reserved"])
async def test_a_number_whose_tag_exists_is_skipped_once(direct: Direct, crash: str) -> None:
    head = direct.released.published_sha or ""
    wanted = TagRequest(app_id=direct.app.id, release_id=await direct.draft_release())
    tag = await direct.run(direct.publishing.reserve_tag, wanted)
    members = (await direct.members())[:1]
    start = AssembleStart(app_id=direct.app.id, release_id=wanted.release_id, job_id=fresh_id(), tag=tag, members=members)
    composed = await direct.run(direct.composing.compose_release, start)
    await direct.git.update_refs(direct.repo, [RefUpdate(f"refs/tags/{tag}", None, head)])  # by somebody else
    question = PublishQuestion(
        app_id=direct.app.id,
        release_id=wanted.release_id,
        tag=tag,
        base_sha=head,
        candidate_sha=composed.prefix_shas[-1],
        members=members,
    )
    first, second = await direct.twice(direct.publishing.publish_facts, question, crash=crash)
    assert first == second
    assert first.tag != tag
    held = await direct.db["release_tags"].find({"release_id": wanted.release_id}).to_list()
    assert [row["tag"] for row in held] == [first.tag]
    await direct.git.update_refs(direct.repo, [RefUpdate(f"refs/tags/{tag}", head, None)])
    await direct.db["releases"].delete_one({"_id": wanted.release_id})


@pytest.mark.parametrize("crash", ["tag.skipped", "tag.reserved", "refs.moved"])
async def test_a_number_whose_tag_was_made_since_the_publish_began_is_skipped_once(direct: Direct, crash: str) -> None:
    """And back again, so that the other tests find the head that they know."""
    old = await direct.git.resolve(direct.repo, "refs/heads/main") or ""
    release = await direct.draft_release()
    tag = await direct.run(direct.publishing.reserve_tag, TagRequest(app_id=direct.app.id, release_id=release))
    members: list[Member] = (await direct.members())[:1]
    start = AssembleStart(app_id=direct.app.id, release_id=release, job_id=fresh_id(), tag=tag, members=members)
    new = (await direct.run(direct.composing.compose_release, start)).prefix_shas[-1]
    await direct.git.update_refs(direct.repo, [RefUpdate(f"refs/tags/{tag}", None, old)])  # by somebody else
    request = MoveRefs(app_id=direct.app.id, old_sha=old, new_sha=new, tag=tag, release_id=release)
    first, second = await direct.twice(direct.publishing.move_refs, request, crash=crash)
    assert first == second
    assert first.moved
    assert first.tag not in (None, tag)
    refs = await direct.git.list_refs(direct.repo, "refs/")
    assert (refs["refs/heads/main"], refs[f"refs/tags/{first.tag}"], refs[f"refs/tags/{tag}"]) == (new, new, old)
    assert [name for name, sha in refs.items() if name.startswith("refs/tags/") and sha == new] == [f"refs/tags/{first.tag}"]
    back = [RefUpdate("refs/heads/main", new, old), RefUpdate(f"refs/tags/{first.tag}", new, None)]
    await direct.git.update_refs(direct.repo, [*back, RefUpdate(f"refs/tags/{tag}", old, None)])
    await direct.db["releases"].delete_one({"_id": release})


@pytest.mark.parametrize("crash", ["refs.begun", "refs.moved"])
async def test_branch_and_tag_move_once(direct: Direct, crash: str) -> None:
    """And back again, so that the other tests find the head that they know."""
    old = await direct.git.resolve(direct.repo, "refs/heads/main") or ""
    members: list[Member] = (await direct.members())[:1]
    start = AssembleStart(app_id=direct.app.id, release_id=fresh_id(), job_id=fresh_id(), tag="r2", members=members)
    composed = await direct.run(direct.composing.compose_release, start)
    tag = f"r-{uuid4().hex[:8]}"
    request = MoveRefs(app_id=direct.app.id, old_sha=old, new_sha=composed.prefix_shas[-1], tag=tag)
    first, second = await direct.twice(direct.publishing.move_refs, request, crash=crash)
    assert first == second
    assert first.moved
    refs = await direct.git.list_refs(direct.repo, "refs/")
    assert refs["refs/heads/main"] == refs[f"refs/tags/{tag}"] == request.new_sha
    back = [RefUpdate("refs/heads/main", request.new_sha, old), RefUpdate(f"refs/tags/{tag}", request.new_sha, None)]
    await direct.git.update_refs(direct.repo, back)


@pytest.mark.parametrize("crash", ["gate.started", "gate.ended", "gate.kept"])
async def test_a_gate_leaves_one_log_per_attempt_and_no_folder(direct: Direct, crash: str) -> None:
    job = fresh_id()
    gate = GateStart(
        job_id=job,
        app_id=direct.app.id,
        job_type=JobType.MSUITE_SUBMIT,
        entity_type="changeset",
        entity_id=direct.queued[0],
        commit_sha=direct.released.published_sha or "",
        scope="submit",
        fresh=True,
    )
    made = NewJobs(
        app_id=direct.app.id,
        job_type=gate.job_type,
        entity_type=gate.entity_type,
        entity_id=gate.entity_id,
        job_ids=[job],
        at=now(),
    )
    await direct.run(direct.store.create_jobs, made)
    with crash_at(crash):
        await direct.run(direct.gates.run_gate, GateRun(gate=gate, attempt=1, max_attempts=4, timeout_seconds=60))
    logs: list[str] = []
    for attempt in (2, 3, 3):
        run = GateRun(gate=gate, attempt=attempt, max_attempts=4, timeout_seconds=60)
        verdict = await direct.run(direct.gates.run_gate, run)
        assert (verdict.reason_code, verdict.reused_from) == (ReasonCode.OK, None)
        chunks = await direct.db["job_logs"].find({"job_id": job, "attempt": attempt}).to_list()
        (line,) = [line["text"] for chunk in chunks for line in chunk["lines"]]
        logs.append(line)
    row = await direct.row("jobs", job)
    assert (row["state"], row["attempt"]) == ("running", 3), "its end is written by who asked for it"
    whose = 1 if crash == "gate.kept" else 2
    assert [f"attempt {whose} of this job" in line for line in logs] == [whose == 1, True, True]
    assert logs[0] == "checking submit" or whose == 1
    assert not list(direct.gates.scratch.glob(f"{job}*"))


async def test_the_queue_carries_out_a_command_once(direct: Direct) -> None:
    worker = await direct.app.cell.worker()
    entry = (await _entries(direct))[0].model_copy(update={"changeset_id": fresh_id()})
    call = QueueCall(
        app_id=direct.app.id, update="enqueue", command_id=fresh_id(), payload={"entry": entry.model_dump(mode="json")}
    )
    first, second = await direct.twice(direct.calls.call_queue, call, crash="queue.answered")
    assert first == second
    assert [one.changeset_id for one in await _entries(direct)] == [*direct.queued, entry.changeset_id]
    remove = QueueCall(app_id=direct.app.id, update="remove", command_id=fresh_id(), payload={"changeset_id": entry.changeset_id})
    first, second = await direct.twice(direct.calls.call_queue, remove, crash="queue.answered")
    assert first == second
    assert first.result == {"removed": True}, "the first run's answer, also to a repeat that finds nothing"
    await worker.kill()


async def test_a_changeset_takes_its_news_once(direct: Direct) -> None:
    worker = await direct.app.cell.worker()
    entry = (await _entries(direct))[0]
    told = [
        (entry.changeset_id, QueueNews(kind=kind, head_sha=entry.head_sha, job_id=fresh_id()))
        for kind in ("needs_revalidation", "revalidated")
    ]
    for one in told:
        telling = Telling(app_id=direct.app.id, by="queue:test", news=[one])
        await direct.twice(direct.calls.tell_changesets, telling, crash="tell.one")
    assert (await direct.row("changesets", entry.changeset_id))["owned"]["state"] == "queued"
    for action in ("needs_revalidation", "revalidated"):
        assert await direct.db["audit"].count_documents({"entity_id": entry.changeset_id, "action": action}) == 1
    await worker.kill()


async def test_what_only_tells_changes_nothing_twice(direct: Direct) -> None:
    before = await direct.db["releases"].find({}).to_list()
    for _ in range(2):
        await direct.run(direct.calls.tell_releases, Overtaken(app_id=direct.app.id, integration_sha="0" * 40))
    assert await direct.db["releases"].find({}).to_list() == before


async def test_a_verdict_can_be_awaited_again(direct: Direct) -> None:
    revision = (await direct.row("changesets", direct.queued[0]))["owned"]["revisions"][-1]
    gate = GateStart(
        job_id=revision["job_id"],
        app_id=direct.app.id,
        job_type=JobType.MSUITE_SUBMIT,
        entity_type="changeset",
        entity_id=direct.queued[0],
        commit_sha=revision["head_sha"],
        scope="submit",
    )
    first, second = await direct.twice(direct.calls.await_job, gate)
    assert first == second
    assert first.reason_code is ReasonCode.OK
    lost = await direct.run(direct.calls.await_job, gate.model_copy(update={"job_id": fresh_id()}))
    assert lost.reason_code is ReasonCode.INFRASTRUCTURE


def _switch(direct: Direct, app: App, *, fence: int, environment: int) -> SwitchRequest:
    return SwitchRequest(
        app_id=app.id,
        environment_id=app.environments[environment]["id"],
        deployment_id=fresh_id(),
        release_id=app.releases[0],
        tag=direct.released.tag or "",
        commit_sha=direct.released.published_sha or "",
        profile_id=app.environments[environment]["runtime_profile_id"],
        fence=fence,
    )


@pytest.mark.parametrize("crash", ["switch.exported", "switch.sealed", "switch.switched"])
async def test_an_environment_is_switched_once(direct: Direct, crash: str) -> None:
    numbers = {"switch.exported": 1, "switch.sealed": 2, "switch.switched": 3}
    request = _switch(direct, direct.app, fence=numbers[crash], environment=1)
    home = direct.app.cell.data / "environments" / request.app_id / request.environment_id
    before = len(list((home / "deployments").iterdir())) if home.exists() else 0
    left = home / f".incoming-{request.fence}-1-1"
    left.mkdir(parents=True)  # of a process that was killed while it wrote
    first, second = await direct.twice(direct.targets.switch_environment, request, crash=crash)
    assert first == second
    assert len(list((home / "deployments").iterdir())) == before + 1
    assert (home / "current").resolve().name.startswith(f"{request.fence:06d}-")
    assert sorted(path.name for path in home.iterdir()) == ["current", "deployments"]
    assert (await direct.run(direct.targets.verify_environment, request)).healthy


async def test_a_missing_workflow_is_started_once(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "PATIENCE", timedelta(milliseconds=100))  # no worker answers here
    deployment, owned = await direct.deployment()
    with crash_at("missing.started"):
        await direct.run(direct.reconcile.start_missing)
    await direct.run(direct.reconcile.start_missing)
    assert await direct.run(direct.reconcile.start_missing) == 0
    handle = direct.platform.commands.client.get_workflow_handle(f"deployment:{deployment}")
    await handle.terminate("the test is over")
    await locks.release(direct.db, direct.app.id, owned.environment_id, deployment, now())
    await direct.db["deployments"].delete_one({"_id": deployment})


async def test_what_only_reads_changes_nothing(direct: Direct) -> None:
    assert await direct.twice(direct.store.revalidation_concurrency, direct.app.id) == (4, 4)
    setting = ReminderSetting(hours=48)
    assert await direct.twice(direct.store.review_reminder_hours, direct.app.id) == (setting, setting)
    head = direct.released.published_sha
    assert await direct.twice(direct.composing.integration_head, direct.app.id) == (head, head)
    members = await direct.members()
    selection = ExclusionsQuestion(app_id=direct.app.id, base_sha=head or "", members=members)
    first, second = await direct.twice(direct.composing.find_exclusions, selection)
    assert first == second
    assert first.largest_subset == [member.changeset_id for member in members]
    question = DeployQuestion(
        app_id=direct.app.id,
        environment_id=direct.app.environments[0]["id"],
        release_id=direct.app.releases[0],
        deployment_id=fresh_id(),
    )
    first, second = await direct.twice(direct.store.deploy_facts, question)
    assert first == second
    suites = GateProfilesQuestion(app_id=direct.app.id, profile_ids=[])
    first, second = await direct.twice(direct.store.gate_profiles, suites)
    assert first == second
    request = _switch(direct, direct.app, fence=1, environment=2)
    await direct.run(direct.targets.switch_environment, request)
    with crash_at("verify.looked"):
        await direct.run(direct.targets.verify_environment, request)
    first, second = await direct.twice(direct.targets.verify_environment, request)
    assert first == second
    assert first.healthy
