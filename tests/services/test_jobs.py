"""Jobs that are canceled or run again by hand (`spec.md` 9); their processes are played here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobType
from conman.domain.temp_env_messages import CancelProvision
from conman.services import jobs
from conman.services.call import Call
from conman.services.platform import Platform
from conman.store.database import Document
from conman.workflows.client import Commands
from tests.services.people import call

ANN = {"_id": "ann", "email": "ann@example.com", "name": "Ann"}
PROVISION = JobType.TEMP_ENV_PROVISION
GATES = sorted(jobs.WITH_A_PROCESS - {PROVISION})


@dataclass
class Process:
    """One workflow: how it is seen, and how often it was asked to end."""

    status: WorkflowExecutionStatus | None = WorkflowExecutionStatus.RUNNING
    canceled: int = 0
    told: list[tuple[str, CancelProvision]] = field(default_factory=list)

    async def describe(self) -> Process:
        self._must_be()
        return self

    async def cancel(self) -> None:
        self._must_be()
        self.canceled += 1

    async def signal(self, name: str, about: CancelProvision) -> None:
        self._must_be()
        self.told.append((name, about))

    def _must_be(self) -> None:
        if self.status is None:
            raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")


@dataclass
class Temporal:
    """The client of a server that knows one workflow, and the updates that were sent."""

    process: Process = field(default_factory=Process)
    sent: list[str] = field(default_factory=list)

    @property
    def client(self) -> Temporal:
        return self

    def get_workflow_handle(self, workflow_id: str) -> Process:
        assert workflow_id in ("job:one", "temp-env:cs")
        return self.process

    def deployment_start(self, app_id: str, deployment_id: str, summary: str) -> str:
        return f"deployment {deployment_id}"

    async def send(self, start: str, update: str, command: Any) -> dict[str, Any]:
        self.sent.append(f"{update} {start}")
        return {"job_id": f"job-{len(self.sent)}"}

    def queue_start(self, app_id: str) -> str:
        return f"queue of {app_id}"

    def not_after(self) -> str:
        return "2026-01-31T09:30:00.000Z"


@pytest.fixture
def temporal(monkeypatch: pytest.MonkeyPatch) -> Temporal:
    monkeypatch.setattr(jobs, "START_SECONDS", 0.0)
    return Temporal()


@pytest.fixture
def desk(platform: Platform, temporal: Temporal) -> Platform:
    return replace(platform, commands=cast("Commands", temporal))


async def make(desk: Platform, kind: JobType = JobType.MSUITE_SUBMIT, state: str = "running") -> Document:
    job: Document = {"_id": "one", "app_id": "app", "job_type": kind.value, "state": state, "reason_code": None, "attempt": 1}
    job |= {"entity_type": "changeset", "entity_id": "cs", "version": 1}
    await desk.db["jobs"].replace_one({"_id": "one"}, job, upsert=True)
    return job


async def now(desk: Platform) -> Document:
    found = await desk.db["jobs"].find_one({"_id": "one"})
    assert found is not None
    return found


async def events(desk: Platform) -> list[str | None]:
    """Who canceled it, as the audit says."""
    rows = await desk.db["audit"].find({"entity_type": "job", "action": "canceled"}).sort("_id", 1).to_list()
    assert all(row["before"]["state"] in ("queued", "running") for row in rows)
    return [row["actor_user_id"] for row in rows]


async def refused(desk: Platform, by: Call) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await jobs.cancel(desk, by, await now(desk))
    return refusal.value


@pytest.mark.parametrize("kind", GATES)
async def test_a_job_with_a_process_is_canceled(desk: Platform, temporal: Temporal, kind: JobType) -> None:
    await jobs.cancel(desk, call(ANN), await make(desk, kind))
    assert temporal.process.canceled == 1
    assert await events(desk) == ["ann"]


async def test_a_temp_env_is_told_of_its_job_that_is_canceled_and_does_not_end_by_it_when_that_has_ended(
    desk: Platform, temporal: Temporal
) -> None:
    await jobs.cancel(desk, call(ANN), await make(desk, PROVISION))
    assert await jobs.finish_cancels(desk.db, desk.commands) == 1
    assert temporal.process.told == [
        ("cancel_provision", CancelProvision(job_id="one", user_id="ann")),
        ("cancel_provision", CancelProvision(job_id="one")),
    ]
    assert (temporal.process.canceled, await events(desk)) == (0, ["ann"])


async def test_however_often_and_by_whomever_a_cancel_is_asked_the_audit_has_it_once(desk: Platform) -> None:
    await make(desk)
    bob = {**ANN, "_id": "bob"}
    for by in (call(ANN, "key"), call(ANN, "key"), call(ANN), call(bob), call(bob, "other")):
        await jobs.cancel(desk, by, await now(desk))
    assert await events(desk) == ["ann"]


@pytest.mark.parametrize("first", [True, False], ids=["who asked first", "who asked second"])
async def test_a_repeat_with_its_key_succeeds_when_the_job_has_ended_and_a_fresh_request_is_refused(
    desk: Platform, temporal: Temporal, first: bool
) -> None:
    await make(desk)
    if not first:
        await jobs.cancel(desk, call(ANN), await now(desk))
    keyed = replace(call(ANN, "key"), key_id="kept")
    await desk.db["idempotency"].insert_one({"_id": "kept"})  # as the request's first step remembers it
    await jobs.cancel(desk, keyed, await now(desk))
    await desk.db["jobs"].update_one({"_id": "one"}, {"$set": {"state": "canceled"}})
    asked = temporal.process.canceled
    await jobs.cancel(desk, keyed, await now(desk))
    assert temporal.process.canceled == asked
    assert (await refused(desk, call(ANN))).details == {"from": "canceled", "to": "canceled"}
    assert await events(desk) == ["ann"]


@pytest.mark.parametrize("state", jobs.ENDED)
async def test_a_job_that_has_ended_is_not_canceled(desk: Platform, temporal: Temporal, state: str) -> None:
    await make(desk, state=state)
    refusal = await refused(desk, call(ANN))
    assert (refusal.code, refusal.details) == (ErrorCode.INVALID_TRANSITION, {"from": state, "to": "canceled"})
    assert (temporal.process.canceled, await events(desk)) == (0, [])


async def test_a_job_that_ends_while_it_is_canceled_leaves_no_event(desk: Platform) -> None:
    seen = await make(desk)
    await desk.db["jobs"].update_one({"_id": "one"}, {"$set": {"state": "succeeded"}})
    with pytest.raises(DomainError) as refusal:
        await jobs.cancel(desk, call(ANN), seen)
    assert refusal.value.code is ErrorCode.INVALID_TRANSITION
    assert await events(desk) == []


async def test_a_job_that_waits_for_its_turn_is_stopped_as_soon_as_it_has_a_process(desk: Platform, temporal: Temporal) -> None:
    temporal.process.status = None
    await jobs.cancel(desk, call(ANN), await make(desk, JobType.REVALIDATE_QUEUED_CHANGESET, "queued"))
    assert await jobs.finish_cancels(desk.db, desk.commands) == 0
    temporal.process.status = WorkflowExecutionStatus.RUNNING
    assert await jobs.finish_cancels(desk.db, desk.commands) == 1
    await desk.db["jobs"].update_one({"_id": "one"}, {"$set": {"state": "canceled"}})
    assert await jobs.finish_cancels(desk.db, desk.commands) == 0
    assert (temporal.process.canceled, await events(desk)) == (1, ["ann"])


@pytest.mark.parametrize(
    ("kind", "state", "status", "message"),
    [
        (JobType.MSUITE_SUBMIT, "running", None, "cancel what it works for"),
        (JobType.MSUITE_SUBMIT, "running", WorkflowExecutionStatus.COMPLETED, "look at the job again"),
        (JobType.RUNTIME_PROFILE_DRIFT_CHECK, "running", None, "ends by itself"),
        (JobType.TEMP_ENV_EXPIRE, "queued", None, "until nothing is left"),
    ],
)
async def test_what_nothing_can_stop_says_what_to_do_and_leaves_no_trace(
    desk: Platform, temporal: Temporal, kind: JobType, state: str, status: WorkflowExecutionStatus | None, message: str
) -> None:
    made = await make(desk, kind, state)
    temporal.process.status = status
    refusal = await refused(desk, call(ANN))
    assert (refusal.code, message in refusal.message) == (ErrorCode.CONFLICT, True)
    assert await now(desk) == made
    assert await events(desk) == []


async def test_the_job_of_a_deployment_is_canceled_with_the_deployment_which_audits_it(
    desk: Platform, temporal: Temporal
) -> None:
    job = await make(desk, JobType.DEPLOY_RELEASE) | {"entity_type": "deployment", "entity_id": "dep"}
    await desk.db["deployments"].insert_one({"_id": "dep", "app_id": "app", "owned": {}})
    await jobs.cancel(desk, call(ANN), job)
    assert temporal.sent == ["cancel deployment dep"]
    assert (temporal.process.canceled, await events(desk)) == (0, [])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (JobType.MSUITE_MERGE, "assemble the release again"),
        (JobType.RELEASE_ASSEMBLE, "assemble the release again"),
        (JobType.MSUITE_DEPLOY, "deploy again"),
        (JobType.DEPLOY_RELEASE, "deploy again"),
        (JobType.RUNTIME_PROFILE_DRIFT_CHECK, "check for drift again"),
        (JobType.TEMP_ENV_PROVISION, "recreate the temporary environment"),
        (JobType.TEMP_ENV_EXPIRE, "delete the temporary environment"),
    ],
)
async def test_only_gates_of_changesets_are_retried_and_the_others_say_what_to_do(
    desk: Platform, kind: JobType, message: str
) -> None:
    with pytest.raises(DomainError) as refusal:
        await jobs.retry(desk, call(ANN), await make(desk, kind, "failed"))
    assert refusal.value.code is ErrorCode.CONFLICT
    assert message in refusal.value.message


REVALIDATION = JobType.REVALIDATE_QUEUED_CHANGESET


async def ended_revalidation(desk: Platform, state: str, reason: str) -> Document:
    await desk.db["changesets"].insert_one({"_id": "cs", "app_id": "app", "title": "a change"})
    await desk.db["jobs"].insert_many([{"_id": f"job-{number}", "app_id": "app"} for number in (1, 2)])
    return {**await make(desk, REVALIDATION, state), "reason_code": reason}


async def test_a_revalidation_that_passed_is_not_retried(desk: Platform, temporal: Temporal) -> None:
    """`api.md` 3: retry is for a failed or canceled gate."""
    job = await ended_revalidation(desk, "succeeded", "ok")
    with pytest.raises(DomainError) as refusal:
        await jobs.retry(desk, call(ANN), job)
    assert (refusal.value.code, refusal.value.details) == (
        ErrorCode.INVALID_TRANSITION,
        {"from": "succeeded", "to": "queued"},
    )
    assert temporal.sent == []


async def test_a_retry_that_is_repeated_finds_its_job_also_where_the_queue_has_forgotten_it(
    desk: Platform, temporal: Temporal
) -> None:
    """`api.md` 1: one effect for 24 hours; the queue remembers 50 commands, its own among them."""
    job = await ended_revalidation(desk, "failed", "tests_failed")
    keyed = call(ANN, "again")
    await desk.db["idempotency"].insert_one({"_id": keyed.remembered_as})
    made = [(await jobs.retry(desk, keyed, job))["_id"] for _ in range(2)]
    assert (made, temporal.sent) == (["job-1", "job-1"], ["revalidate queue of app"])
    assert (await jobs.retry(desk, call(ANN, "another"), job))["_id"] == "job-2"
