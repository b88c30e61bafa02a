"""What leaves a document with a decision (`durability.md` 3), and that the audit table knows all of it (`api.md` 5)."""

from __future__ import annotations

import json
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import (
    AT,
    AUTHOR,
    CHANGESET,
    HEAD,
    MAIN,
    changeset,
    deployment,
    entry,
    member,
    queue,
    release,
    review_facts,
    running,
    sha,
    submit_facts,
    uid,
    vote,
)

from conman.domain import (
    changeset_gate,
    changeset_news,
    changeset_queue,
    changeset_reminders,
    changeset_review,
    changeset_submit,
    deploy_ending,
    deploy_moves,
    publishing,
)
from conman.domain import deployment as deployments
from conman.domain import queue as queues
from conman.domain import release as releases
from conman.domain.audit import entry_of
from conman.domain.changeset import TRANSITIONS, ChangesetState
from conman.domain.changeset import Move as ChangesetMove
from conman.domain.changeset_news import QueueNews
from conman.domain.decision import Actor, Decision, Event, JobEnd, JobProgress, NewJob, NewNotice, Owned, Verdict
from conman.domain.deploy_ending import Ending, Left
from conman.domain.deploy_messages import Blocker, DriftReply, LockReply, StartReply
from conman.domain.deployment import Approval, Kind, Phase, Revalidation
from conman.domain.deployment import Move as DeploymentMove
from conman.domain.drift import DriftItem
from conman.domain.ids import is_uuid, time_of
from conman.domain.jobs import JobState, JobType, ReasonCode
from conman.domain.notification import NoticeKind
from conman.domain.outgoing import audit_entry, job_document, job_end, job_start, outgoing_entries
from conman.domain.queue_records import EntryStatus, Queue, Sweep
from conman.domain.queue_verdicts import EntryVerdict
from conman.domain.release import AssemblyResult, Failure, PublishIntent
from conman.domain.times import later, milliseconds

ACTOR = Actor(user_id=uid("somebody"), ip="192.0.2.7", user_agent="curl", request_id="request-1234")
RELEASE, DEPLOYMENT = uid("release"), uid("deployment")


def made(decision: Decision[Any], *, version: int = 3, at: str = AT, entity: str = "changesets:x") -> list[dict[str, Any]]:
    return outgoing_entries(
        decision, app_id=uid("app"), entity=entity, version=version, actor=ACTOR, at=at, workflow_id="changeset:x"
    )


# -- every decision ----------------------------------------------------------------------------------------------------------

C = ChangesetState
CONFLICTS = [{"path": "a.json", "kind": "content"}, {"path": "b.json", "kind": "content"}]
INTENT = PublishIntent(command_id="c", actor=ACTOR.model_dump(), old_sha=MAIN, new_sha=sha("new"), tag="r2026.03.01.2", at=AT)


def job_ids(changeset_id: str) -> str:
    return uid(f"fresh {changeset_id}")


def found(failure: Failure | None = None, *, head_moved: bool = False) -> AssemblyResult:
    shas = [sha("new")]
    return AssemblyResult(
        job_id=uid("assembly"),
        base_sha=MAIN,
        candidate_sha=shas[0],
        prefix_shas=shas,
        failure=failure,
        head_moved=head_moved,
        gate_job_ids=[uid("suite")],
    )


def swept(status: str, state: str = "queued") -> Decision[Queue] | None:
    given_ = queue(
        running("a", state=state), epoch=2, progress_total=1, sweep=Sweep(epoch=2, integration_sha=MAIN, changeset_ids=[uid("a")])
    )
    verdict = EntryVerdict(
        epoch=2,
        integration_sha=MAIN,
        changeset_id=uid("a"),
        head_sha=sha("a"),
        job_id=uid("job a"),
        status=EntryStatus(status),
        job_state=JobState.FAILED,
        reason_code=ReasonCode.TESTS_FAILED,
        conflicts=CONFLICTS,
    )
    return queues.decide_verdicts(given_, [verdict])


def of_changesets() -> dict[str, Any]:
    """The rule's name, and which case of it → the decision."""
    news = [
        ("queued", "released", []),
        ("needs_revalidation", "released", []),
        ("conflicted", "released", []),
        ("queued", "conflicted", CONFLICTS),
        ("needs_revalidation", "conflicted", []),
        ("queued", "needs_revalidation", []),
        ("needs_revalidation", "revalidated", []),
    ]
    states = [state for state, move in TRANSITIONS if move is ChangesetMove.WITHDRAW]
    back = [state for state, move in TRANSITIONS if move is ChangesetMove.MOVE_TO_DRAFT]
    reviewable = [C.SUBMITTED, C.IN_REVIEW, C.CHANGES_REQUESTED]
    votes = [(state, action) for state in reviewable for action in ("approve", "request_changes", "reject")]
    verdict = Verdict(job_id=uid("gate 1"), state=JobState.SUCCEEDED, reason_code=ReasonCode.OK)
    return {
        "decide_submit first": changeset_submit.decide_submit(CHANGESET, changeset(C.DRAFT), submit_facts(), AUTHOR, again=False),
        **{
            f"decide_submit again, {state.value}": changeset_submit.decide_submit(
                CHANGESET, changeset(state, gate="running"), submit_facts(), AUTHOR, again=True
            )
            for state in reviewable
        },
        **{
            f"decide_review {action}, {state.value}": changeset_review.decide_review(
                CHANGESET, changeset(state), review_facts(action), uid("ann")
            )
            for state, action in [*votes, (C.APPROVED, "request_changes"), (C.APPROVED, "reject")]
        },
        "decide_review not enough": changeset_review.decide_review(CHANGESET, changeset(), review_facts(required=2), uid("ann")),
        "decide_gate_verdict": changeset_gate.decide_gate_verdict(CHANGESET, changeset(gate="queued"), verdict),
        "decide_gate_verdict after votes that were carried": changeset_gate.decide_gate_verdict(
            CHANGESET, changeset(gate="queued", votes=[vote("ann")]), verdict
        ),
        "decide_retry": changeset_gate.decide_retry(
            CHANGESET, changeset(gate="canceled"), uid("gate 1"), uid("gate 1 again"), AUTHOR
        ),
        "decide_request_review": changeset_review.decide_request_review(CHANGESET, changeset(), uid("ann"), AUTHOR, AT),
        "decide_take_back": changeset_review.decide_take_back(CHANGESET, changeset(votes=[vote("ann")]), uid("ann"), None),
        "decide_reminder": changeset_reminders.decide_reminder(CHANGESET, changeset(), 1, later(AT, timedelta(hours=1))),
        "decide_queued": changeset_queue.decide_queued(CHANGESET, changeset(C.APPROVED), AT),
        **{f"decide_move_to_draft {s.value}": changeset_queue.decide_move_to_draft(CHANGESET, changeset(s)) for s in back},
        **{f"decide_withdraw {s.value}": changeset_queue.decide_withdraw(CHANGESET, changeset(s)) for s in states},
        **{
            f"decide_news {kind}, {state}": changeset_news.decide_news(
                CHANGESET,
                changeset(C(state)),
                QueueNews(kind=kind, head_sha=HEAD, job_id=uid("job"), release_id=RELEASE, conflicts=conflicts),
            )
            for state, kind, conflicts in news
        },
        "decide_news without a job": changeset_news.decide_news(
            CHANGESET, changeset(C.QUEUED), QueueNews(kind="conflicted", head_sha=HEAD, conflicts=CONFLICTS)
        ),
    }


def of_queues() -> dict[str, Any]:
    """As `of_changesets`."""
    busy = queue(running("a"), entry("b"), sweep=Sweep(epoch=0, integration_sha=MAIN, changeset_ids=[uid("a")]), progress_total=1)
    held = queue(running("a", reserved_by=RELEASE), entry("b"))
    judged = swept("failed")
    assert judged is not None
    return {
        "decide_enqueue": queues.decide_enqueue(busy, entry("c", judged_sha=sha("older")), job_ids),
        "decide_remove": queues.decide_remove(busy, uid("a")),
        "decide_reorder": queues.decide_reorder(busy, [uid("b"), uid("a")], 0),
        "decide_reserve": queues.decide_reserve(busy, RELEASE, [uid("b")]),
        "decide_published": queues.decide_published(busy, RELEASE, sha("new"), job_ids),
        "decide_integration_moved": queues.decide_integration_moved(busy, busy.integration_sha, sha("new"), job_ids),
        "decide_revalidate": queues.decide_revalidate(busy, uid("b"), job_ids),
        "decide_eject": queues.decide_eject(held, RELEASE, uid("a"), conflicted=False, job_id=uid("j")),
        "decide_delivered": queues.decide_delivered(judged.owned, judged.owned.undelivered),
        "decide_sweep_told": queues.decide_sweep_told(busy.model_copy(update={"sweep_started": False}), 0),
        **{
            f"decide_verdicts {status}, {state}": swept(status, state)
            for state in ("queued", "needs_revalidation")
            for status in ("valid", "failed", "conflicted", "unknown")
        },
    }


def of_releases() -> dict[str, Any]:
    """As `of_changesets`."""
    failures = [
        Failure(reason_code="conflict", changeset_id=uid("a"), paths=["a.json"]),
        Failure(reason_code="tests_failed", changeset_id=uid("b"), message="why"),
        *(Failure(reason_code=code) for code in ("inconclusive", "baseline_failing", "canceled", "timeout", "infrastructure")),
    ]
    return {
        "decide_selected created": releases.decide_selected(
            RELEASE, release(created=False, tag=None, members=[]), [member("a")], "r2026.03.01.1"
        ),
        "decide_selected reordered": releases.decide_selected(RELEASE, release(), [member(name) for name in "cba"], None),
        "decide_selected modified": releases.decide_selected(RELEASE, release(), [member("a")], None),
        "decide_selected emptied": releases.decide_selected(RELEASE, release(), [], None),
        "decide_selected validated": releases.decide_selected(RELEASE, release("validated"), [member("a")], None),
        "decide_assemble": releases.decide_assemble(RELEASE, release(), uid("job"), uid("manager")),
        "decide_reverting": releases.decide_reverting(
            RELEASE, release(reverts_release_id=uid("bad")), "r2026.03.01.2", uid("job"), uid("manager")
        ),
        "decide_assembly_result passed": releases.decide_assembly_result(RELEASE, release("assembling"), found()),
        "decide_assembly_result moved": releases.decide_assembly_result(RELEASE, release("assembling"), found(head_moved=True)),
        **{
            f"decide_assembly_result {failure.reason_code}": releases.decide_assembly_result(
                RELEASE, release("assembling"), found(failure)
            )
            for failure in failures
        },
        "decide_returned": releases.decide_returned(RELEASE, release("validated"), failures[0], "why"),
        "decide_refused": publishing.decide_refused(
            RELEASE, release("validated"), publishing.head_moved(release("validated"), sha("moved"))
        ),
        "decide_overtaken": publishing.decide_overtaken(
            RELEASE, release("validated"), publishing.head_moved(release("validated"), sha("moved"))
        ),
        "decide_publishing": publishing.decide_publishing(release("validated"), INTENT),
        "decide_published": publishing.decide_published(RELEASE, release("validated", publishing=INTENT), "r2026.03.01.2"),
        **{
            f"decide_dropped {state}": releases.decide_dropped(RELEASE, release(state))
            for state in ("draft_release", "validated")
        },
    }


def of_deployments() -> dict[str, Any]:
    """As `of_changesets`."""
    asked = deployment(approvals_required=2, approvals=[Approval(user_id=uid("manager"), at=AT)])
    reasons = {
        DeploymentMove.SUCCEED: ReasonCode.OK,
        DeploymentMove.FAIL: ReasonCode.TIMEOUT,
        DeploymentMove.CANCEL: ReasonCode.CANCELED,
    }
    ends = [
        (state, move, kind)
        for state, move in deployments.TRANSITIONS
        if move is not DeploymentMove.START
        for kind in (Kind.DEPLOY, Kind.PROMOTE)
    ]
    blocked = DriftReply(report=[TOUCHED], checked_at=AT)
    waiting = deployment(phase=Phase.DRIFT, drift_report=[TOUCHED], drift_waits_until=AT)
    judged = StartReply(
        published_sha=sha("a"),
        tag="r1",
        profile_id=uid("profile"),
        profile_revision_id=uid("revision"),
        exceptional_reasons=["skip_stage", "override_freeze"],
        freeze_windows=["season"],
        frozen_until=AT,
    )
    frozen = Blocker(code="environment_frozen", message="Live is frozen.", who="time")
    return {
        "decide_approve": deployments.decide_approve(DEPLOYMENT, asked, uid("reviewer"), AT),
        "decide_pending_phase": deploy_moves.decide_pending_phase(deployment(), Phase.DRIFT),
        "decide_locked": deploy_moves.decide_locked(DEPLOYMENT, deployment(fence=None), LockReply(fence=8, concurrent=True), AT),
        "decide_judged": deploy_moves.decide_judged(DEPLOYMENT, deployment(), judged, AT),
        "decide_warning": deploy_moves.decide_warning(DEPLOYMENT, deployment(), [frozen]),
        "decide_drift": deploy_moves.decide_drift(DEPLOYMENT, deployment(), blocked, None, AT),
        "decide_drift overwrite": deploy_moves.decide_drift(DEPLOYMENT, waiting, blocked, Revalidation.OVERWRITE, AT),
        "decide_revalidate": deploy_moves.decide_revalidate(DEPLOYMENT, waiting, overwrite=True),
        "decide_release_ready": deploy_moves.decide_release_ready(deployment(release_id=None), uid("release")),
        "decide_start": deploy_moves.decide_start(
            DEPLOYMENT, deployment(), gate_job_id=uid("gate"), profile_revision_id=uid("revision")
        ),
        "decide_step": deploy_moves.decide_step(
            DEPLOYMENT, deployment("running", overwrites=True, drift_report=[TOUCHED]), Phase.SWITCH
        ),
        "decide_putting_back": deploy_moves.decide_putting_back(deployment("running"), 8, "why"),
        "decide_end approvals expired": deploy_ending.decide_end(
            DEPLOYMENT,
            asked,
            Ending(move=DeploymentMove.CANCEL, reason_code=ReasonCode.CANCELED, message="why", approval_expired=True),
        ),
        "decide_end superseded": deploy_ending.decide_end(
            DEPLOYMENT,
            waiting,
            Ending(move=DeploymentMove.CANCEL, reason_code=ReasonCode.SUPERSEDED, superseded_by=uid("newer")),
        ),
        "decide_end rolled back": deploy_ending.decide_end(
            DEPLOYMENT,
            deployment("running", phase=Phase.VERIFY),
            Ending(
                move=DeploymentMove.FAIL,
                reason_code=ReasonCode.TESTS_FAILED,
                left=Left(restored=uid("before"), marks_bad=True),
            ),
        ),
        **{
            f"decide_end {kind.value}, {state.value} --{move.value}": deploy_ending.decide_end(
                DEPLOYMENT, deployment(state, kind=kind), Ending(move=move, reason_code=reasons[move], message="why", folder="f")
            )
            for state, move, kind in ends
        },
    }


TOUCHED = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")
DEPLOYMENTS = (deployments, deploy_moves, deploy_ending)
CHANGESETS = (changeset_submit, changeset_gate, changeset_review, changeset_reminders, changeset_queue, changeset_news)


def short_name(modules: tuple[ModuleType, ...]) -> str:
    """What modules of one entity are called here."""
    return modules[0].__name__.rpartition(".")[2].partition("_")[0]


DECISIONS = {
    f"{short_name(modules)}.{name}": decision
    for modules, decisions in (
        (CHANGESETS, of_changesets()),
        ((queues,), of_queues()),
        ((releases, publishing), of_releases()),
        (DEPLOYMENTS, of_deployments()),
    )
    for name, decision in decisions.items()
}
EMITTED = """
changeset: submitted, resubmitted, review_requested, updated, approved, changes_requested, rejected, queued, moved_to_draft,
 withdrawn, conflicted, needs_revalidation, revalidated, released
job: retried
queue: reordered, superseded
release: created, changesets_modified, reordered, assembled, assembly_failed, validated, returned_to_draft, published, dropped
deployment: approved, approval_expired, blocked_by_drift, revalidated, drift_overwritten, superseded, started, succeeded, failed,
 canceled, auto_rolled_back, promoted, freeze_overridden
"""


@pytest.mark.parametrize("name", DECISIONS)
def test_every_event_of_every_decision_is_one_that_the_audit_table_knows(name: str) -> None:
    """`api.md` 5: what a decision emits can be written; a wrong shape would stop its workflow."""
    decision = DECISIONS[name]
    assert decision is not None
    entries = made(decision)
    audit = [item["doc"] for item in entries if item["kind"] == "audit"]
    assert [(doc["entity_type"], doc["action"]) for doc in audit] == [(e.entity_type, e.action) for e in decision.events]
    left = (decision.events, decision.jobs, decision.job_starts, decision.progress, decision.job_ends, decision.notices)
    assert len(entries) == sum(len(part) for part in left)
    assert json.loads(json.dumps(entries)) == entries


@pytest.mark.parametrize("modules", [CHANGESETS, (queues,), (releases, publishing), DEPLOYMENTS], ids=short_name)
def test_every_rule_that_decides_is_tried_here(modules: tuple[ModuleType, ...]) -> None:
    """Whoever adds a rule adds its decision above. `decide_queue` only refuses: what it lets through is `decide_queued`."""
    short = short_name(modules)
    rules = {name for module in modules for name in vars(module) if name.startswith("decide_")} - {"decide_queue"}
    assert rules == {name.removeprefix(f"{short}.").split()[0] for name in DECISIONS if name.startswith(f"{short}.")}


def test_the_decisions_above_emit_every_action_that_these_rules_have() -> None:
    """`api.md` 5: the other actions of these entities are emitted by services, or by later versions of the rules."""
    rows = [line.split(": ") for line in EMITTED.strip().replace("\n ", " ").split("\n")]
    wanted = {(entity, action) for entity, actions in rows for action in actions.split(", ")}
    assert {(event.entity_type, event.action) for decision in DECISIONS.values() for event in decision.events} == wanted
    for entity, action in sorted(wanted):
        entry_of(entity, action)


# -- ids and order -----------------------------------------------------------------------------------------------------------

END = JobEnd(id=uid("ended"), state=JobState.CANCELED, reason_code=ReasonCode.SUPERSEDED)
FULL = Decision(
    Owned(),
    events=(
        Event("queue", uid("app"), "superseded", {"epoch": 1}, {"epoch": 2}),
        Event("queue", uid("app"), "superseded", {"epoch": 2}, {"epoch": 3}),
    ),
    jobs=(NewJob(uid("new"), JobType.MSUITE_SUBMIT, "changeset", CHANGESET, 4, created_by=AUTHOR),),
    job_starts=(uid("started"),),
    progress=(JobProgress(id=uid("started"), done=1, total=4, message="runs the migrations"),),
    job_ends=(END, END.model_copy(update={"id": uid("other")})),
    notices=(NewNotice(NoticeKind.REVIEW_REQUESTED, "changeset", CHANGESET, user_ids=(uid("ann"),), data={"title": "t"}),),
)


def test_entries_leave_in_the_order_audit_new_jobs_starts_progress_ends_notices() -> None:
    """`durability.md` 3: a job is made before it starts, and starts before it ends."""
    jobs = ["job", "job_start", "job_progress", "job_end", "job_end"]
    assert [item["kind"] for item in made(FULL)] == ["audit", "audit", *jobs, "notice"]
    assert made(Decision(Owned())) == []


def test_a_second_run_of_a_write_makes_the_same_entries() -> None:
    """`durability.md` 3: so that it changes nothing."""
    assert made(FULL) == made(FULL)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(["queues:a", "queues:b"]))
def test_ids_are_distinct_within_a_write_and_between_versions_entities_and_times(version: int, entity: str) -> None:
    """`durability.md` 3: `{entity}:{part}:{version}:{n}` and the event's time."""
    other = "queues:a" if entity == "queues:b" else "queues:b"
    ids = [
        item["id"]
        for entries in (
            made(FULL, version=version, entity=entity),
            made(FULL, version=version + 1, entity=entity),
            made(FULL, version=version, entity=other),
            made(FULL, version=version, entity=entity, at="2026-03-01T09:30:00.001Z"),
        )
        for item in entries
    ]
    assert len(set(ids)) == len(ids) == 32
    assert all(is_uuid(item) for item in ids)


def test_the_time_in_an_id_is_the_events() -> None:
    """`durability.md` 3."""
    assert {time_of(item["id"]) for item in made(FULL)} == {milliseconds(AT)}


def test_an_audit_entry_says_who_from_where_when_and_by_which_workflow() -> None:
    """`api.md` 4, audit event."""
    doc = made(FULL)[0]["doc"]
    assert doc["_id"] == made(FULL)[0]["id"]
    assert (doc["occurred_at"], doc["actor_user_id"], doc["app_id"]) == (AT, ACTOR.user_id, uid("app"))
    assert doc["context"] == {
        "ip": "192.0.2.7",
        "user_agent": "curl",
        "request_id": "request-1234",
        "workflow_id": "changeset:x",
    }


@pytest.mark.parametrize(
    "event",
    [
        Event("queue", uid("app"), "burnt", None, None),
        Event("dragon", uid("app"), "created", None, None),
        Event("queue", uid("app"), "superseded", {"epoch": 1}, {"epoch": "2"}),
        Event("queue", uid("app"), "superseded", {"epoch": 1}, {"epoch": 2, "secret": "x"}),
    ],
    ids=["unknown action", "unknown entity", "wrong type", "unknown field"],
)
def test_what_the_audit_table_does_not_know_is_not_written(event: Event) -> None:
    """`spec.md` 14: schema-checked per action."""
    with pytest.raises(ValueError, match="audit"):
        audit_entry(uid("entry"), event, app_id=uid("app"), actor=ACTOR, at=AT)


# -- jobs --------------------------------------------------------------------------------------------------------------------


def test_a_new_job_is_queued_and_has_every_field_of_the_contract() -> None:
    """`api.md` 4, job."""
    doc = job_document(FULL.jobs[0], app_id=uid("app"), at=AT)
    fields = """_id app_id created_at updated_at version created_by job_type state reason_code entity_type entity_id attempt
    max_attempts queued_at started_at finished_at exit_code summary progress result"""
    assert sorted(doc) == sorted(fields.split())
    assert (doc["_id"], doc["state"], doc["attempt"], doc["max_attempts"]) == (uid("new"), "queued", 0, 4)
    assert (doc["queued_at"], doc["started_at"], doc["finished_at"]) == (AT, None, None)


def test_a_started_job_runs_its_first_attempt() -> None:
    """`spec.md` 9."""
    assert job_start(AT) == {"state": "running", "started_at": AT, "updated_at": AT, "attempt": 1}


def test_an_ended_job_says_how_and_when() -> None:
    """`spec.md` 9, terminal payload."""
    end = END.model_copy(update={"exit_code": 2, "summary": {"failed": 1}, "result": {"x": 1}})
    assert job_end(end, at=AT) == {
        "state": "canceled",
        "reason_code": "superseded",
        "exit_code": 2,
        "summary": {"failed": 1},
        "result": {"x": 1},
        "finished_at": AT,
        "updated_at": AT,
    }
