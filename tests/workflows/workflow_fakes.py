"""Fake activities by the names of the real ones: the store in memory with the same answers, Git, suites and calls by script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from drift_fakes import Watch
from mail_fakes import Mailroom
from rollback_fakes import Undoing
from temp_env_fakes import TempEnvs
from temporalio import activity
from temporalio.exceptions import ApplicationError
from webhook_fakes import Hook
from workflow_names import sha, uid

from conman.activities.heartbeat import heartbeating
from conman.domain.decision import JobEnd, NewJob, Verdict
from conman.domain.deploy_messages import (
    BeginQuestion,
    BeginReply,
    ClearedEdit,
    DriftQuestion,
    DriftReply,
    Ended,
    LockQuestion,
    LockReply,
    MigrateReply,
    MigrateRequest,
    Outcome,
    Predecessor,
    PriorQuestion,
    PriorReply,
    RaiseFence,
    StartQuestion,
    StartReply,
)
from conman.domain.deployment import DeploymentState, Move
from conman.domain.exclusions import Exclusions
from conman.domain.jobs import ReasonCode, end_state, max_attempts
from conman.domain.messages import (
    Answer,
    AssembleStart,
    ComposeReply,
    DeployFacts,
    DeployQuestion,
    EndDeployment,
    ExclusionsQuestion,
    GateProfile,
    GateProfiles,
    GateProfilesQuestion,
    GateRun,
    GateStart,
    JobEnds,
    LoadRequest,
    MoveRefs,
    MoveRefsReply,
    NewJobs,
    Overtaken,
    OwnedReply,
    PersistReply,
    PersistRequest,
    ProfileQuestion,
    ProfileReply,
    PublishFacts,
    PublishQuestion,
    QueueCall,
    ReminderSetting,
    StartDeployment,
    SwitchReply,
    SwitchRequest,
    TagRequest,
    Telling,
    TrialReply,
    TrialRequest,
)
from conman.domain.outgoing import job_document, job_end
from conman.domain.target import Health

Document = dict[str, Any]
ENDED = ("succeeded", "failed", "canceled")


def gate_profile(environment: str) -> GateProfile:
    """The profile of an environment, as the suite of a release gets it."""
    return GateProfile(
        environment=environment,
        profile_id=uid(f"profile of {environment}"),
        profile_revision_id=uid(f"{environment}-1"),
        waiting=[],
    )


class Held:
    """A place where a fake waits until the test lets it go on."""

    def __init__(self) -> None:
        self.git_is_away = False
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.free.wait()


@dataclass
class Store:
    """Records, jobs and audit as the real store keeps them; `log` is the order in which things were done."""

    records: dict[tuple[str, str], Document] = field(default_factory=dict)
    mirrored: dict[tuple[str, str], Document] = field(default_factory=dict)
    jobs: dict[str, Document] = field(default_factory=dict)
    audit: list[Document] = field(default_factory=list)
    notices: list[Document] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    faults: list[tuple[str, Callable[[], Awaitable[None]], bool]] = field(default_factory=list)

    def insert(self, collection: str, entity_id: str, owned: Document) -> None:
        self.records[collection, entity_id] = owned

    def owned(self, collection: str, entity_id: str) -> Document:
        return self.records[collection, entity_id]

    def actions(self) -> list[str]:
        return [event["action"] for event in self.audit]

    def writes(self, part: str = "") -> list[str]:
        """The commands that were written, in order."""
        return [entry.removeprefix("write ") for entry in self.log if entry.startswith("write ") and part in entry]

    # Faults: each is used once, by the first persist whose command id contains `part`.

    def fail(self, part: str) -> None:
        """The write does not land, and the attempt fails: it is tried again."""
        self.faults.append((part, _raising(ApplicationError("the store is away")), False))

    def lose_reply(self, part: str, *, for_good: bool) -> None:
        """The write lands and the answer does not; `for_good`: it is not asked again."""
        self.faults.append((part, _raising(ApplicationError("the answer was lost", non_retryable=for_good)), True))

    def hold(self, part: str) -> Held:
        """The write waits before it lands."""
        held = Held()
        self.held.append(held)
        self.faults.append((part, held.wait, False))
        return held

    def get_ahead(self, part: str, change: Callable[[Document], Document]) -> None:
        """Somebody else writes first."""

        async def write() -> None:
            for key, owned in self.records.items():
                if key[0] == "changesets":
                    self.records[key] = {**owned, **change(owned), "version": owned["version"] + 1}

        self.faults.append((part, write, False))

    async def write(self, request: PersistRequest) -> PersistReply:
        await self._fault(request, after=False)
        reply = self._write(request)
        await self._fault(request, after=True)
        return reply

    async def _fault(self, request: PersistRequest, *, after: bool) -> None:
        fault = next((fault for fault in self.faults if fault[0] in request.command_id and fault[2] is after), None)
        if fault is not None:
            self.faults.remove(fault)
            await fault[1]()

    def _write(self, request: PersistRequest) -> PersistReply:
        key = (request.collection, request.entity_id)
        present = self.records.get(key)
        if present is None:
            return PersistReply(status="missing")
        if any(entry["id"] == request.command_id for entry in present["commands"]):
            return PersistReply(status="repeat", owned=present)
        if present["version"] != request.expected_version:
            return PersistReply(status="ahead", owned=present)
        self.records[key] = request.owned
        beside = self.mirrored.get(key, {}) | request.mirrored
        self.mirrored[key] = {name: value for name, value in beside.items() if name not in request.unset}
        self.log.append(f"write {request.command_id}")
        for entry in request.outgoing:
            self._deliver(entry)
        return PersistReply(status="saved", owned=request.owned)

    def _deliver(self, entry: Document) -> None:
        match entry["kind"]:
            case "audit":
                self.audit.append(entry["doc"])
                self.log.append(f"audit {entry['doc']['action']}")
            case "notice":
                self.notices.append(entry["doc"]["notice"])
            case "job":
                self.jobs.setdefault(entry["doc"]["_id"], entry["doc"])
            case "job_start" | "job_progress":
                self.jobs[entry["job_id"]] |= entry["doc"]
            case _:
                self.end_job(entry["job_id"], entry["doc"])

    def end_job(self, job_id: str, doc: Document) -> None:
        job = self.jobs.setdefault(job_id, {"state": "queued"})
        if job["state"] not in ENDED:
            job |= doc
            self.log.append(f"job {doc['reason_code']}")


def _raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


Suite = Callable[[GateRun], Awaitable[ReasonCode]]


async def passing(_run: GateRun) -> ReasonCode:
    return ReasonCode.OK


def answer_queue(call: QueueCall) -> Answer:
    """A queue that agrees to everything."""
    if call.update != "reserve":
        return Answer()
    ids = call.payload["changeset_ids"]
    members = [{"changeset_id": i, "head_sha": sha(i), "base_sha": sha("main-1"), "revision_number": 1} for i in ids]
    return Answer(result={"members": members})


@dataclass
class Fakes:
    """What the workflows of one test talk to; a test replaces single answers."""

    store: Store = field(default_factory=Store)
    mailroom: Mailroom = field(default_factory=Mailroom)
    hook: Hook = field(default_factory=Hook)
    watch: Watch = field(default_factory=Watch)
    undoing: Undoing = field(default_factory=Undoing)
    temp_envs: TempEnvs = field(default_factory=TempEnvs)
    suite: Suite = passing
    queue: Callable[[QueueCall], Answer] = answer_queue
    calls: list[QueueCall] = field(default_factory=list)
    progress: list[tuple[int, int, str]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    runs: list[GateRun] = field(default_factory=list)
    switches: list[SwitchRequest] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    conflicts: dict[str, list[Document]] = field(default_factory=dict)
    concurrency: int = 4
    reminders: ReminderSetting = field(default_factory=lambda: ReminderSetting(hours=0))
    head: str = sha("main-1")
    head_after_assembly: str | None = None
    unexplained: list[str] = field(default_factory=list)
    edited_profiles: list[str] = field(default_factory=list)
    published_before: str | None = None
    overtaken: list[Overtaken] = field(default_factory=list)
    tag: str = "r2026.01.01.1"
    tag_made: str | None = None
    refs_move: bool = True
    eligible: Callable[[str], bool] = lambda user_id: True
    judge: Callable[[StartQuestion], Document] = lambda question: {}
    judged: list[StartQuestion] = field(default_factory=list)
    look: Callable[[DriftQuestion], DriftReply] = lambda question: DriftReply(checked_at=question.at)
    line: Callable[[LockQuestion], LockReply] = lambda question: LockReply(fence=8)
    before: Outcome = field(default_factory=lambda: Outcome(state=DeploymentState.SUCCEEDED, name="QA"))
    prior: PriorReply = field(default_factory=PriorReply)
    migrations: MigrateReply = field(default_factory=MigrateReply)
    health: list[Health] = field(default_factory=list)
    began: list[BeginReply] = field(default_factory=list)
    ended: list[EndDeployment] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    holds_lock: bool = True
    prepared: list[ProfileQuestion] = field(default_factory=list)
    goes_out_with: str = uid("profile-1")
    does_not_fit: str | None = None
    overridden: list[list[str]] = field(default_factory=list)
    profiles: list[GateProfile] = field(default_factory=lambda: [gate_profile("Live")])
    lock: str | None = "pending"
    holds: dict[str, Held] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)

    def hold(self, name: str) -> Held:
        """The activity waits, each time, until it is let go."""
        self.holds[name] = Held()
        return self.holds[name]

    async def _reach(self, name: str) -> None:
        self.store.log.append(name)
        if name in self.holds:
            async with heartbeating():
                await self.holds[name].wait()
        if name in self.errors:
            raise self.errors[name]

    # The store

    @activity.defn
    async def load_owned(self, request: LoadRequest) -> OwnedReply:
        self.store.log.append(f"load {request.collection}")
        return OwnedReply(owned=self.store.records.get((request.collection, request.entity_id)))

    @activity.defn
    async def persist(self, request: PersistRequest) -> PersistReply:
        return await self.store.write(request)

    @activity.defn
    async def create_jobs(self, request: NewJobs) -> None:
        for job_id in request.job_ids:
            job = NewJob(job_id, request.job_type, request.entity_type, request.entity_id, max_attempts(request.job_type))
            self.store.jobs.setdefault(job_id, job_document(job, app_id=request.app_id, at=request.at))
        if request.progress is not None:
            self.progress.append((request.progress.done, request.progress.total, request.progress.message))
        await self._reach("create_jobs")

    @activity.defn
    async def end_jobs(self, request: JobEnds) -> None:
        for end in request.ends:
            made = JobEnd.model_validate(end)
            self.store.end_job(made.id, job_end(made, at=request.at))

    @activity.defn
    async def revalidation_concurrency(self, _app_id: str) -> int:
        return self.concurrency

    @activity.defn
    async def review_reminder_hours(self, _app_id: str) -> ReminderSetting:
        self.store.log.append("reminder setting")
        return self.reminders

    @activity.defn
    async def deploy_facts(self, question: DeployQuestion) -> DeployFacts:
        await self._reach("deploy_facts")
        return DeployFacts(
            published_sha=sha("published"),
            tag="r1",
            profile_id=uid("profile"),
            profile_revision_id=uid("profile-1"),
            eligible_approvers=[user_id for user_id in question.approver_ids if self.eligible(user_id)],
        )

    @activity.defn
    async def prepare_profile(self, question: ProfileQuestion) -> ProfileReply:
        await self._reach("prepare_profile")
        self.prepared.append(question)
        return ProfileReply(profile_id=uid("profile"), profile_revision_id=self.goes_out_with, problem=self.does_not_fit)

    @activity.defn
    async def gate_profiles(self, question: GateProfilesQuestion) -> GateProfiles:
        await self._reach("gate_profiles")
        self.overridden.append(question.profile_ids)
        return GateProfiles(profiles=self.profiles)

    @activity.defn
    async def judge_start(self, question: StartQuestion) -> StartReply:
        """All who approved count, unless `eligible` says otherwise; `judge` says what is different from a plain deployment."""
        await self._reach("judge_start")
        self.judged.append(question)
        owned = self.store.owned("deployments", question.deployment_id)
        asked = int(owned["approvals_required"])
        counting = [user_id for user_id in question.approver_ids if self.eligible(user_id)]
        base: Document = {"published_sha": sha("published"), "tag": "r1", "profile_id": uid("profile")}
        base |= {"profile_revision_id": uid("profile-1"), "shown_digest": owned["shown_digest"] or ""}
        base |= {"approvals_required": asked, "approval_role": owned["approval_role"]}
        found = StartReply.model_validate(base | self.judge(question))
        enough = len(counting) >= max(asked, found.approvals_required)
        return found.model_copy(update={"eligible_approvers": counting if enough else []})

    @activity.defn
    async def take_lock(self, question: LockQuestion) -> LockReply:
        await self._reach("take_lock")
        return self.line(question)

    @activity.defn
    async def check_drift(self, question: DriftQuestion) -> DriftReply:
        await self._reach("check_drift")
        return self.look(question)

    @activity.defn
    async def begin_running(self, _question: BeginQuestion) -> BeginReply:
        await self._reach("begin_running")
        reply = self.began.pop(0) if self.began else BeginReply(held=self.holds_lock)
        if reply.held and not reply.moved:
            self.lock = "running"
        return reply

    @activity.defn
    async def clear_edit(self, edit: ClearedEdit) -> None:
        self.cleared.append(edit.profile_revision_id)

    @activity.defn
    async def prior_deployment(self, _question: PriorQuestion) -> PriorReply:
        return self.prior

    @activity.defn
    async def raise_fence(self, raised: RaiseFence) -> int:
        return raised.fence + 1

    @activity.defn
    async def await_deployment(self, _before: Predecessor) -> Outcome:
        await self._reach("await_deployment")
        return self.before

    @activity.defn
    async def tell_the_line(self, _ended: Ended) -> None:
        self.store.log.append("the line is told")

    @activity.defn
    async def run_migrations(self, _request: MigrateRequest) -> MigrateReply:
        await self._reach("run_migrations")
        return self.migrations

    @activity.defn
    async def lock_running(self, _start: StartDeployment) -> bool:
        await self._reach("lock_running")
        if self.holds_lock:
            self.lock = "running"
        return self.holds_lock

    @activity.defn
    async def end_deployment(self, end: EndDeployment) -> PersistReply:
        await self._reach("end_deployment")
        self.ended.append(end)
        if end.ending.move is Move.SUCCEED:
            self.store.log.append("environment shows it")
        reply = await self.store.write(end.persist)
        if reply.status in ("saved", "repeat"):
            self.lock = None
        return reply

    @activity.defn
    async def sweep_outgoing(self) -> int:
        return 3

    @activity.defn
    async def start_missing(self) -> int:
        return 2

    @activity.defn
    async def seal_audit(self) -> int:
        return 5

    @activity.defn
    async def anchor_audit(self) -> int:
        if self.git_is_away:
            raise ApplicationError("no repository answers")
        return 1

    # Git and targets

    @activity.defn
    async def trial_merges(self, request: TrialRequest) -> TrialReply:
        await self._reach("trial_merges")
        ids = [entry.changeset_id for entry in request.entries]
        merged = {i: sha(f"{request.integration_sha}+{i}") for i in ids if i not in self.conflicts}
        return TrialReply(merged=merged, conflicts={i: self.conflicts[i] for i in ids if i in self.conflicts})

    @activity.defn
    async def compose_release(self, start: AssembleStart) -> ComposeReply:
        await self._reach("compose_release")
        prefixes: list[str] = []
        for number, member in enumerate(start.members, start=1):
            if member.changeset_id in self.conflicts:
                found = self.conflicts[member.changeset_id]
                return ComposeReply(base_sha=self.head, prefix_shas=prefixes, conflicted=member.changeset_id, conflicts=found)
            prefixes.append(sha(f"prefix-{number}"))
        return ComposeReply(base_sha=self.head, prefix_shas=prefixes)

    @activity.defn
    async def find_exclusions(self, question: ExclusionsQuestion) -> Exclusions:
        await self._reach("find_exclusions")
        ids = [member.changeset_id for member in question.members]
        alone = [one for one in ids if one in self.conflicts]
        return Exclusions(excludes=[], alone=alone, largest_subset=[one for one in ids if one not in alone], exact=True)

    @activity.defn
    async def integration_head(self, _app_id: str) -> str:
        return self.head_after_assembly or self.head

    @activity.defn
    async def reserve_tag(self, _request: TagRequest) -> str:
        return self.tag

    @activity.defn
    async def publish_facts(self, question: PublishQuestion) -> PublishFacts:
        await self._reach("publish_facts")
        return PublishFacts(
            integration_sha=self.head,
            tag=question.tag,
            unexplained=self.unexplained,
            changed_profiles=[one for one in question.pinned_profiles if one.profile_id in self.edited_profiles],
            supersedes=self.published_before,
        )

    @activity.defn
    async def move_refs(self, request: MoveRefs) -> MoveRefsReply:
        await self._reach(f"move_refs of {request.app_id}")
        await self._reach("move_refs")
        if not self.refs_move:
            return MoveRefsReply(moved=False, integration_sha=sha("elsewhere"))
        self.store.log.append("refs moved")
        return MoveRefsReply(moved=True, integration_sha=request.new_sha, tag=self.tag_made or request.tag)

    @activity.defn
    async def switch_environment(self, request: SwitchRequest) -> SwitchReply:
        await self._reach("switch_environment")
        self.switches.append(request)
        return SwitchReply(folder=f"/environments/{request.environment_id}/current", files=3)

    @activity.defn
    async def verify_environment(self, _request: SwitchRequest) -> Health:
        await self._reach("verify_environment")
        return self.health.pop(0) if self.health else Health(healthy=True)

    # Suites

    @activity.defn
    async def run_gate(self, run: GateRun) -> Verdict:
        self.runs.append(run)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            async with heartbeating():
                reason = await self.suite(run)
        finally:
            self.running -= 1
        return Verdict(job_id=run.gate.job_id, state=end_state(reason), reason_code=reason, attempt=run.attempt)

    # Calls

    @activity.defn
    async def call_queue(self, call: QueueCall) -> Answer:
        await self._reach(f"queue {call.update}")
        self.calls.append(call)
        return self.queue(call)

    @activity.defn
    async def tell_changesets(self, telling: Telling) -> None:
        await self._reach("tell")
        for changeset_id, news in telling.news:
            self.told.append((changeset_id, news.kind))
            self.store.log.append(f"told {changeset_id} {news.kind}")

    @activity.defn
    async def tell_releases(self, overtaken: Overtaken) -> None:
        await self._reach("tell_releases")
        self.overtaken.append(overtaken)

    @activity.defn
    async def await_job(self, gate: GateStart) -> Verdict:
        await self._reach("await_job")
        return Verdict(job_id=gate.job_id, state=end_state(ReasonCode.OK), reason_code=ReasonCode.OK)

    def by_queue(self) -> dict[str, list[Callable[..., Any]]]:
        """The activities as the workers of the product register them."""
        return {
            "main": [
                self.load_owned,
                self.persist,
                self.create_jobs,
                self.end_jobs,
                self.revalidation_concurrency,
                self.review_reminder_hours,
                self.deploy_facts,
                self.judge_start,
                self.take_lock,
                self.begin_running,
                self.clear_edit,
                self.prior_deployment,
                self.raise_fence,
                self.lock_running,
                self.prepare_profile,
                self.gate_profiles,
                self.end_deployment,
                self.sweep_outgoing,
                self.seal_audit,
                *self.mailroom.store(),
                *self.watch.store(),
                *self.undoing.store(),
                *self.temp_envs.store(),
            ],
            "git": [
                self.trial_merges,
                self.anchor_audit,
                self.compose_release,
                self.find_exclusions,
                self.integration_head,
                self.reserve_tag,
                self.publish_facts,
                self.move_refs,
                self.check_drift,
                self.run_migrations,
                self.switch_environment,
                self.verify_environment,
                *self.undoing.git(),
                *self.temp_envs.git(),
            ],
            "msuite": [self.run_gate],
            "calls": [
                self.call_queue,
                self.tell_changesets,
                self.tell_releases,
                self.await_job,
                self.await_deployment,
                self.tell_the_line,
                self.start_missing,
                *self.watch.calls(),
                *self.undoing.calls(),
            ],
            "mail": self.mailroom.way_out(),
            "webhooks": self.hook.way_out(),
        }
