"""Activities of a deployment's own process: it begins to run, looks what was there before, and takes a higher fence."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.domain.deploy_messages import (
    BeginQuestion,
    BeginReply,
    ClearedEdit,
    PriorQuestion,
    PriorReply,
    RaiseFence,
    StartQuestion,
)
from conman.domain.deployment import Deployment
from conman.domain.errors import DomainError
from conman.domain.release import Release
from conman.faults import fault_point
from conman.services import arrivals, deploy_start
from conman.store import locks, records
from conman.store.database import Database, Document


async def profile_id_of(db: Database, app_id: str, environment: Document) -> str:
    """The profile that the app's list links now; the environment's own record may lag behind, or be of one that left it."""
    app = await records.get(db, "apps", app_id, what="app")
    listed = (one["runtime_profile_id"] for one in app["environments"] if one["id"] == environment["_id"])
    return next(listed, environment["runtime_profile_id"])


class DeploymentActivities:
    """Bound to one database."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.begin_running, self.clear_edit, self.prior_deployment, self.raise_fence]

    @activity.defn
    async def begin_running(self, question: BeginQuestion) -> BeginReply:
        """The lock's holder becomes `running`, with the very revision of the profile that its checks were about.

        It is then counted at the profile: a change of that looks at the locks first, and is written only if no deployment has
        begun to run since. A profile that was changed before, or anything else that has come in the way since it was judged,
        sends the deployment back to its checks: a look at the environment in between may have taken minutes.
        """
        place = (question.app_id, question.environment_id, question.deployment_id)
        attempt = activity.info().attempt
        if not await locks.mark_running(self.db, *place, at=question.at, attempt=attempt):
            there = await locks.read(self.db, question.app_id)
            holder = there.get(question.environment_id, {}).get("holder")
            return BeginReply(held=False, holder_id=holder["deployment_id"] if holder is not None else None)
        environment = await records.get(self.db, "environments", question.environment_id)
        profile_id = await profile_id_of(self.db, question.app_id, environment)
        await self.db["profiles"].update_one({"_id": profile_id}, {"$inc": {"pins": 1}})
        fault_point("begin.running")
        same = question.pinned or await self._revision(profile_id, question) == question.profile_revision_id
        if same and await self._may_still_start(question):
            return BeginReply(previous_deployment_id=environment["owned"].get("current_deployment_id"))
        await locks.mark_pending(self.db, *place, at=question.at, attempt=attempt)
        return BeginReply(moved=True)

    async def _may_still_start(self, question: BeginQuestion) -> bool:
        """By the deciders that judged it before; what comes after the mark of the lock comes too late for it."""
        deployment = await records.get(self.db, "deployments", question.deployment_id, what="deployment")
        found = await deploy_start.judge(
            self.db,
            StartQuestion(
                app_id=question.app_id,
                environment_id=question.environment_id,
                release_id=question.release_id,
                deployment_id=question.deployment_id,
                at=question.starts_at or question.at,
                approver_ids=[approval["user_id"] for approval in deployment["owned"]["approvals"]],
            ),
        )
        return not found.blockers and (not found.approvals_required or bool(found.eligible_approvers))

    async def _revision(self, profile_id: str, question: BeginQuestion) -> str | None:
        try:
            return await arrivals.prepare(
                self.db,
                profile_id,
                release_id=question.release_id,
                deployment_id=question.deployment_id,
                by=question.requested_by,
                at=question.at,
            )
        except DomainError:
            return None  # the profile can't take what the release brings any more: the checks say so

    @activity.defn
    async def clear_edit(self, edit: ClearedEdit) -> None:
        """The environment's record of its drift knows up to which revision no emergency edit blocks."""
        field = "owned.drift.cleared_revision_id"
        await self.db["environments"].update_one(
            {"_id": edit.environment_id, field: {"$ne": edit.profile_revision_id}},
            {"$set": {field: edit.profile_revision_id}, "$inc": {"owned.drift.version": 1}},
        )

    @activity.defn
    async def prior_deployment(self, question: PriorQuestion) -> PriorReply:
        """What the environment's record names: the last deployment that succeeded there, and with which profile."""
        environment = await records.get(self.db, "environments", question.environment_id)
        deployment_id = environment["owned"].get("current_deployment_id")
        if deployment_id is None or deployment_id == question.deployment_id:
            return PriorReply()
        document = await records.get(self.db, "deployments", deployment_id, what="deployment")
        prior = Deployment.model_validate(document["owned"])
        if prior.release_id is None:
            return PriorReply()
        release = Release.model_validate((await records.get(self.db, "releases", prior.release_id, what="release"))["owned"])
        return PriorReply(
            deployment_id=deployment_id,
            release_id=prior.release_id,
            tag=release.tag or "",
            published_sha=release.published_sha or "",
            profile_id=await self._profile_of(question.app_id, environment, prior.profile_revision_id),
            profile_revision_id=prior.profile_revision_id,
        )

    async def _profile_of(self, app_id: str, environment: Document, revision_id: str | None) -> str:
        if revision_id is None:
            return await profile_id_of(self.db, app_id, environment)
        revision = await records.get(self.db, "profile_revisions", revision_id, what="revision of the runtime profile")
        return revision["profile_id"]

    @activity.defn
    async def raise_fence(self, raised: RaiseFence) -> int:
        """A fence one above, while this deployment holds the environment; a repeat finds it raised."""
        fence = await locks.raise_fence(self.db, raised.app_id, raised.environment_id, raised.deployment_id, fence=raised.fence)
        if fence is None:
            raise ApplicationError("The environment's lock was lost.", type="fenced", non_retryable=True)
        return fence
