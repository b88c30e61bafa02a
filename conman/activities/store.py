"""Activities of the store: guarded writes, reads, jobs, locks, and the record of a deployment's end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity

from conman.activities.deployments import profile_id_of
from conman.activities.heartbeat import heartbeating
from conman.domain.decision import JobEnd, NewJob
from conman.domain.deployment import Deployment, Move
from conman.domain.errors import DomainError
from conman.domain.feed import Standing
from conman.domain.jobs import max_attempts
from conman.domain.messages import (
    DeployFacts,
    DeployQuestion,
    EndDeployment,
    GateProfiles,
    GateProfilesQuestion,
    JobEnds,
    LoadRequest,
    NewJobs,
    OwnedReply,
    PersistReply,
    PersistRequest,
    ProfileQuestion,
    ProfileReply,
    ReminderSetting,
    StartDeployment,
)
from conman.domain.outgoing import job_document, job_end
from conman.domain.override_travel import PublishedRelease
from conman.domain.release import Release
from conman.domain.roles import Capability, allows
from conman.domain.times import later
from conman.faults import fault_point
from conman.services import arrivals, deployed, drift, mails
from conman.services.clock import now
from conman.services.expiry import forget_logs
from conman.services.notices import NoticeStarter
from conman.services.upkeep import finish_and_forget
from conman.settings.streams import FEED_HOURS
from conman.store import feed, locks, memberships, records
from conman.store.database import Database
from conman.store.job_progress import show_progress
from conman.store.outgoing import TERMINAL_JOB_STATES, Written, deliver, deployment_ended, sweep, write_owned


class StoreActivities:
    """Bound to one database. What is told by mail is started by `notices`, without one by upkeep; job logs are kept for
    `job_log_days` and what is known of mails for `mail_keep_days`, 0 for ever."""

    def __init__(
        self,
        db: Database,
        job_log_days: int = 0,
        notices: NoticeStarter | None = None,
        feed_hours: int = FEED_HOURS,
        mail_keep_days: int = 0,
    ) -> None:
        self.db = db
        self.mail_keep_days = mail_keep_days
        self.job_log_days = job_log_days
        self.feed_hours = feed_hours
        self.notices = notices

    def all(self) -> list[Any]:
        """The activities to register."""
        return [
            self.load_owned,
            self.persist,
            self.create_jobs,
            self.end_jobs,
            self.revalidation_concurrency,
            self.review_reminder_hours,
            self.deploy_facts,
            self.lock_running,
            self.prepare_profile,
            self.gate_profiles,
            self.end_deployment,
            self.sweep_outgoing,
        ]

    @activity.defn
    async def load_owned(self, request: LoadRequest) -> OwnedReply:
        """What a workflow owns of a record; what a crash left undelivered there is delivered first."""
        document = await records.find(self.db, request.collection, request.entity_id)
        if document is None:
            return OwnedReply()
        await deliver(self.db, request.collection, document)
        return OwnedReply(owned=document["owned"])

    @activity.defn
    async def persist(self, request: PersistRequest) -> PersistReply:
        """One guarded write and its delivery; a second run finds the first (`durability.md` 3 and 4)."""
        fault_point(f"persist.begun.{request.collection}")
        written = await self._write(request)
        fault_point(f"persist.written.{request.collection}")
        await self._deliver(request, written)
        fault_point(f"persist.delivered.{request.collection}")
        return _reply(written)

    async def _deliver(self, request: PersistRequest, written: Written) -> None:
        if written.document is None:
            return
        told = [entry["id"] for entry in written.document.get("outgoing") or [] if entry["kind"] == "notice"]
        await deliver(self.db, request.collection, written.document, _standing(request, written))
        if self.notices is not None:
            self.notices.start_soon(told)

    async def _write(self, request: PersistRequest) -> Written:
        return await write_owned(
            self.db,
            request.collection,
            request.entity_id,
            owned=request.owned,
            expected_version=request.expected_version,
            command_id=request.command_id,
            outgoing=request.outgoing,
            at=request.at,
            mirrored=request.mirrored,
            unset=request.unset,
        )

    @activity.defn
    async def create_jobs(self, request: NewJobs) -> None:
        """Jobs that a workflow starts by itself."""
        for job_id in request.job_ids:
            job = NewJob(job_id, request.job_type, request.entity_type, request.entity_id, max_attempts(request.job_type))
            await records.insert_once(self.db, "jobs", job_document(job, app_id=request.app_id, at=request.at))
        await feed.tell_jobs(self.db, request.job_ids)
        if request.progress is not None:
            await show_progress(self.db, request.progress, request.at)
        fault_point("jobs.created")

    @activity.defn
    async def end_jobs(self, request: JobEnds) -> None:
        """Jobs that end with no other record to write."""
        ends = [JobEnd.model_validate(end) for end in request.ends]
        for made in ends:
            await self.db["jobs"].update_one(
                {"_id": made.id, "state": {"$nin": TERMINAL_JOB_STATES}},
                {"$set": job_end(made, at=request.at), "$inc": {"version": 1}},
            )
        await feed.tell_jobs(self.db, [made.id for made in ends])
        fault_point("jobs.ended")

    @activity.defn
    async def revalidation_concurrency(self, app_id: str) -> int:
        """How many revalidations of the app may run at once."""
        app = await records.get(self.db, "apps", app_id)
        return int(app["settings"]["revalidation_concurrency"])

    @activity.defn
    async def review_reminder_hours(self, app_id: str) -> ReminderSetting:
        """After how many hours without a review the app's reviewers are told again now."""
        app = await records.get(self.db, "apps", app_id)
        return ReminderSetting(hours=int(app["settings"]["review_reminder_hours"]), archived=bool(app["archived"]))

    @activity.defn
    async def deploy_facts(self, question: DeployQuestion) -> DeployFacts:
        """The release, the profile as it is now, and which approvers hold reviewer or higher now."""
        release = Release.model_validate((await records.get(self.db, "releases", question.release_id))["owned"])
        environment = await records.get(self.db, "environments", question.environment_id)
        profile = await records.get(self.db, "profiles", await profile_id_of(self.db, question.app_id, environment))
        eligible: list[str] = []
        for user_id in question.approver_ids:
            if allows(await memberships.role_now(self.db, question.app_id, user_id), Capability.DEPLOYMENT_APPROVE):
                eligible.append(user_id)
        return DeployFacts(
            published_sha=release.published_sha or "",
            tag=release.tag or "",
            profile_id=profile["_id"],
            profile_revision_id=profile["revision_id"],
            eligible_approvers=eligible,
        )

    @activity.defn
    async def lock_running(self, start: StartDeployment) -> bool:
        """The lock's holder becomes `running`; False when this deployment does not hold it.

        It is then counted at the profile: a change of that looks at the locks first, and is written only if no deployment has
        begun to run since.
        """
        held = await locks.mark_running(self.db, start.app_id, start.environment_id, start.deployment_id)
        environment = await records.get(self.db, "environments", start.environment_id)
        profile_id = await profile_id_of(self.db, start.app_id, environment)
        await self.db["profiles"].update_one({"_id": profile_id}, {"$inc": {"pins": 1}})
        fault_point("lock.running")
        return held

    @activity.defn
    async def prepare_profile(self, question: ProfileQuestion) -> ProfileReply:
        """The revision with which a deployment goes out: with the overrides that the release brings (`spec.md` 6), or the one
        that it returns to.
        """
        if question.pinned_revision_id is not None:
            pinned = await records.get(self.db, "profile_revisions", question.pinned_revision_id, what="revision")
            return ProfileReply(profile_id=pinned["profile_id"], profile_revision_id=pinned["_id"])
        environment = await records.get(self.db, "environments", question.environment_id)
        profile_id = await profile_id_of(self.db, question.app_id, environment)
        try:
            revision_id = await arrivals.prepare(
                self.db,
                profile_id,
                release_id=question.release_id,
                deployment_id=question.deployment_id,
                by=question.requested_by,
                at=question.at,
            )
        except DomainError as error:
            return ProfileReply(profile_id=profile_id, profile_revision_id="", problem=arrivals.problem_of(error))
        return ProfileReply(profile_id=profile_id, profile_revision_id=revision_id)

    @activity.defn
    async def gate_profiles(self, question: GateProfilesQuestion) -> GateProfiles:
        """With which profiles the suite of a release runs."""
        undoing = None
        if question.reverts_release_id is not None:
            undoing = PublishedRelease(question.release_id or "", question.overrides, question.reverts_release_id)
        return GateProfiles(profiles=await arrivals.gate_profiles(self.db, question.app_id, question.profile_ids, undoing))

    @activity.defn
    async def end_deployment(self, end: EndDeployment) -> PersistReply:
        """Environment, deployment, release, lock, job: each step repeatable, in the order that a reader relies on.

        What follows the deployment's own record is an entry of that record, so that whoever delivers it keeps the order.
        """
        async with heartbeating():
            if end.ending.move is Move.SUCCEED:
                await self._profile_receives(end)
                fault_point("end.profile")
            await deployed.environment_shows(self.db, end)
            if end.ending.move is Move.SUCCEED:
                placed = Deployment.model_validate(end.persist.owned)
                await drift.deployed(self.db, end.environment_id, end.deployment_id, placed, end.persist.at)
            fault_point("end.environment")
            written = await self._write(
                end.persist.model_copy(update={"outgoing": [*end.persist.outgoing, deployment_ended(end)]})
            )
            fault_point("end.written")
            await self._deliver(end.persist, written)
        return _reply(written)

    async def _profile_receives(self, end: EndDeployment) -> None:
        """What the release brought is the profile's own, before anybody is told that it was deployed."""
        revision_id = end.persist.owned.get("profile_revision_id")
        if revision_id is not None:
            await arrivals.receive(self.db, revision_id, deployment_id=end.deployment_id, by=end.requested_by, at=end.persist.at)

    @activity.defn
    async def sweep_outgoing(self) -> int:
        """Deliver what crashes left behind; returns how many. Keys that have had their time are forgotten on the way."""
        async with heartbeating():
            await finish_and_forget(self.db, now())
            await forget_logs(self.db, now(), self.job_log_days)
            await mails.forget_old(self.db, now(), self.mail_keep_days)
            await feed.forget(self.db, later(now(), -timedelta(hours=self.feed_hours)))
            return await sweep(self.db)


def _standing(request: PersistRequest, written: Written) -> Standing | None:
    if written.status == "ahead":
        return None
    return Standing(request.collection, request.entity_id, request.owned, request.at)


def _reply(written: Written) -> PersistReply:
    """The workflow knows what it has saved; only what somebody else wrote goes into its history."""
    if written.status == "saved" or written.document is None:
        return PersistReply(status=written.status)
    return PersistReply(status=written.status, owned=written.document["owned"])
