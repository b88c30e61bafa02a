"""Activities of temp envs: what is made for one, what is removed, when it was used, and what nobody needs any more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.config import Settings
from conman.domain.changeset import TERMINAL, Changeset
from conman.domain.errors import DomainError, Unavailable
from conman.domain.jobs import ReasonCode
from conman.domain.messages import JobProgress
from conman.domain.profile import Profile
from conman.domain.temp_env import TempEnv, TempEnvKind
from conman.domain.temp_env_messages import (
    BranchMade,
    CleanUpReply,
    DatabaseMade,
    ProfileMade,
    TempEnvRef,
    UseQuestion,
    UseReply,
)
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.services import temp_branches, temp_clean_up, temp_databases, temp_orphans, temp_profiles
from conman.services.clock import new_id, now
from conman.services.mongo_connections import CloneError
from conman.services.secrets import Secrets
from conman.services.temp_env_use import COLLECTION
from conman.services.vault import Vault
from conman.store import records
from conman.store.database import Database, Document
from conman.store.job_progress import show_progress

SHOWN_SECONDS: Final = 1.0
"""How often at most a job shows how far a copy is, seconds."""


class TempEnvActivities:
    """Bound to the records, the master keys and Git."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.settings = settings
        self.db = db
        self.git = git
        self.secrets = Secrets(db, vault)

    def all(self) -> list[Any]:
        """The activities to register."""
        return [
            self.provision_branch,
            self.provision_profile,
            self.provision_database,
            self.clean_up_temp_env,
            self.sweep_temp_orphans,
        ]

    @activity.defn
    async def provision_branch(self, ref: TempEnvRef) -> BranchMade:
        """The snapshot branch and the private ref at the commit of the temp env; a second run finds them."""
        async with heartbeating(), _told():
            app, temp = await self._about(ref)
            await temp_branches.put_in_place(self.git, app["repo_path"], ref.temp_env_id, temp)
            fault_point("temp_env.branched")
            limit = self.settings.temp_env_provision_seconds
            return BranchMade(branch=temp.branch, head_sha=temp.head_sha, limit_seconds=limit)

    @activity.defn
    async def provision_profile(self, ref: TempEnvRef) -> ProfileMade:
        """The derived profile; a second run finds it as the first one made it."""
        async with heartbeating(), _told():
            _, temp = await self._about(ref)
            document = await temp_profiles.derive(self.secrets, self.settings, ref.app_id, ref.temp_env_id, temp)
            lifecycle = Profile.model_validate(document["content"]).lifecycle
            return ProfileMade(
                runtime_profile_id=document["_id"],
                ttl_idle_hours=lifecycle.ttl_idle_hours,
                grace_hours=lifecycle.grace_hours,
                auto_cleanup=lifecycle.auto_cleanup,
            )

    @activity.defn
    async def provision_database(self, ref: TempEnvRef) -> DatabaseMade:
        """The database of the derived profile, filled; a second run goes on where the first one stopped."""
        async with heartbeating(), _told():
            _, temp = await self._about(ref)
            profile_id = temp_profiles.derived_id(ref.temp_env_id, temp)
            profile = await records.get(self.db, temp_profiles.PROFILES, profile_id, what="derived profile")
            claim = f"{ref.job_id}:{ref.attempt}:{new_id()}"
            made = await temp_databases.provision(
                self.secrets, self.settings, ref.temp_env_id, profile, claim, _Progress(self.db, ref.job_id).tell
            )
            if made is None:
                return DatabaseMade()
            name, filled = made
            return DatabaseMade(db_name=name, how=filled.how, collections=filled.collections, documents=filled.documents)

    @activity.defn
    async def clean_up_temp_env(self, ref: TempEnvRef) -> CleanUpReply:
        """Remove what the temp env had; what is not there counts as removed, and what can't be removed is named."""
        async with heartbeating(), _told():
            app, temp = await self._about(ref)
            return await temp_clean_up.clean_up(self.secrets, self.git, self.settings, app, ref.temp_env_id, temp)

    @activity.defn
    async def sweep_temp_orphans(self) -> dict[str, int]:
        """Look for what temp envs left and for what they have lost; returns how much was found of each kind."""
        async with heartbeating():
            return await temp_orphans.sweep(self.secrets, self.git, self.settings, now())

    async def _about(self, ref: TempEnvRef) -> tuple[Document, TempEnv]:
        app = await records.get(self.db, "apps", ref.app_id, what="app")
        document = await records.get(self.db, COLLECTION, ref.temp_env_id, app_id=ref.app_id, what="temp env")
        return app, TempEnv.model_validate(document["owned"])


class TempEnvRecordActivities:
    """Bound to the records alone."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.temp_env_use]

    @activity.defn
    async def temp_env_use(self, question: UseQuestion) -> UseReply:
        """When it was used last, and whether its source or its app has ended."""
        document = await records.find(self.db, COLLECTION, question.temp_env_id)
        app = await records.find(self.db, "apps", question.app_id)
        if document is None:
            return UseReply(archived=bool(app and app["archived"]))
        temp = TempEnv.model_validate(document["owned"])
        return UseReply(
            last_activity_at=document.get("last_activity_at"),
            source_ended=await self._has_ended(temp),
            archived=bool(app and app["archived"]),
        )

    async def _has_ended(self, temp: TempEnv) -> bool:
        if temp.kind is TempEnvKind.WORKSPACE:
            workspace = await records.find(self.db, "workspaces", temp.source_id)
            return workspace is None or bool(workspace.get("deleting"))
        changeset = await records.find(self.db, "changesets", temp.source_id)
        return changeset is None or Changeset.model_validate(changeset["owned"]).state in TERMINAL


class _Progress:
    """Shows at the job how far a copy is."""

    def __init__(self, db: Database, job_id: str) -> None:
        self.db = db
        self.job_id = job_id
        self._shown = float("-inf")

    async def tell(self, done: int, total: int, message: str) -> None:
        """Show it, unless the last was shown just now; the end always."""
        at = time.monotonic()
        if done < total and at - self._shown < SHOWN_SECONDS:
            return
        self._shown = at
        progress = JobProgress(job_id=self.job_id, done=done, total=max(done, total), message=message)
        await show_progress(self.db, progress, now())


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """What fails, as a workflow gets it: the type is a reason code, and what must be mended first is not tried again."""
    try:
        yield
    except CloneError as error:
        raise ApplicationError(error.message, type=error.reason.value, non_retryable=not error.again) from None
    except GitError as error:
        reason = ReasonCode.GIT_ERROR.value
        raise ApplicationError(str(error), type=reason, non_retryable=not error.safe_to_repeat) from error
    except Unavailable as error:
        raise ApplicationError(error.message, type=ReasonCode.INFRASTRUCTURE.value) from error
    except (DomainError, LookupError) as error:
        raise ApplicationError(str(error), type=ReasonCode.RUNNER_ERROR.value, non_retryable=True) from error
