"""Apps and their environments (`spec.md` 6)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from conman.domain.app import (
    BRANCHES,
    CANONICAL_DEFAULT,
    DEFAULT_ENVIRONMENTS,
    AppSettings,
    check_branch_name,
    check_repo_path,
)
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.outgoing import audit_entry
from conman.domain.profile import Profile
from conman.domain.queue import Queue
from conman.domain.roles import Role
from conman.domain.times import parse_time
from conman.git.adapter import GitError, RepositoryExists, Signature
from conman.services.call import Call, record
from conman.services.members import add_member
from conman.services.platform import Platform
from conman.store import locks, records
from conman.store.database import Document

log = structlog.get_logger(__name__)

ABANDONED_AFTER_SECONDS = 60
"""An app whose making was cut short this long ago makes room for another of its name."""


def app_record(app: Document, *, integration_sha: str | None, my_role: str | None) -> dict[str, Any]:
    """An app as `api.md` 4 shows it."""
    return record(
        app,
        "name",
        "repo_path",
        "integration_branch",
        "archived",
        "settings",
        integration_sha=integration_sha,
        my_role=my_role,
    )


async def integration_head(platform: Platform, app: Document) -> str:
    """The present head of the integration branch. Raises `git_error` when the branch is gone."""
    head = await platform.git.resolve(app["repo_path"], BRANCHES + app["integration_branch"])
    if head is None:
        raise DomainError(
            ErrorCode.GIT_ERROR, f"The integration branch {app['integration_branch']} is gone from {app['repo_path']}."
        )
    return head


async def integration_head_if_any(platform: Platform, app: Document) -> str | None:
    """As `integration_head`, None where the branch or its repository is gone: one broken app must not hide the others."""
    try:
        return await platform.git.resolve(app["repo_path"], BRANCHES + app["integration_branch"])
    except GitError:
        return None


async def create_app(
    platform: Platform, call: Call, *, name: str, repo_path: str, integration_branch: str, create_repository: bool
) -> Document:
    """Make an app with its environments, profiles and queue; the caller becomes its app_admin.

    The record is inserted first, unready, so that name and repository are taken by one request only; every further step is
    repeatable. Raises `validation_error` or `conflict`.
    """
    check_repo_path(repo_path)
    check_branch_name(integration_branch)
    app_id = call.derived_id("app")
    environment_ids = [call.derived_id("environment", env) for env in DEFAULT_ENVIRONMENTS]
    canonical = environment_ids[DEFAULT_ENVIRONMENTS.index(CANONICAL_DEFAULT)]
    settings = AppSettings(
        canonical_env_id=canonical, default_base_profile_id=call.derived_id("profile", DEFAULT_ENVIRONMENTS[0])
    )
    app: Document = {
        "_id": app_id,
        "name": name,
        "repo_path": repo_path,
        "integration_branch": integration_branch,
        "archived": False,
        "ready": False,
        # Looked at before the record is there, and kept in it: all repeats of this request decide by the first one's look.
        "path_was_free": not await platform.git.repository_exists(repo_path),
        "settings": settings.model_dump(mode="json"),
        "admin_ids": [call.user_id],
        "environment_ids": environment_ids,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "outgoing": [],
    }
    made = await _take_name(platform, app)
    if made["ready"]:
        return made
    try:
        head = await _prepare_repository(platform, call, made, create_repository=create_repository)
    except DomainError:
        await platform.db["apps"].delete_one({"_id": app_id, "ready": False})
        raise
    await _make_environments(platform, call, made)
    queue = Queue(app_id=app_id, integration_sha=head)
    await records.insert_once(
        platform.db,
        "queues",
        {"_id": app_id, "app_id": app_id, "created_at": call.at, "updated_at": call.at, "owned": queue.model_dump(mode="json")},
    )
    await add_member(platform, call, made, user=call.user, role=Role.APP_ADMIN, via="app_created")
    event = Event(
        "app",
        app_id,
        "created",
        after={
            "name": name,
            "repo_path": repo_path,
            "integration_branch": integration_branch,
            "integration_sha": head,
            "repository_created": create_repository,
        },
    )
    return await records.update_part(
        platform.db, "apps", app_id, set_fields={"ready": True}, at=call.at, outgoing=call.audit(event, app_id=app_id)
    )


async def _take_name(platform: Platform, app: Document) -> Document:
    try:
        made, _ = await records.insert_once(platform.db, "apps", app)
        return made
    except DuplicateKeyError:
        pass  # why: one of the two names is taken; which one, and by whom, is told below
    for field in ("name", "repo_path"):
        there = await platform.db["apps"].find_one({field: app[field]})
        if there is None:
            continue
        age = (datetime.now(UTC) - parse_time(there["created_at"])).total_seconds()
        if there["ready"] or age < ABANDONED_AFTER_SECONDS:
            raise DomainError(ErrorCode.CONFLICT, f"Another app has this {field}: choose another one.", {"field": field})
        await platform.db["apps"].delete_one({"_id": there["_id"], "ready": False})
    try:
        made, _ = await records.insert_once(platform.db, "apps", app)
        return made
    except DuplicateKeyError as error:
        raise DomainError(ErrorCode.CONFLICT, "Another app has this name or repository: choose another one.") from error


async def _prepare_repository(platform: Platform, call: Call, app: Document, *, create_repository: bool) -> str:
    """The integration head; an empty repository gets a first commit."""
    repo, branch = app["repo_path"], BRANCHES + app["integration_branch"]
    if create_repository:
        if not app["path_was_free"]:
            raise DomainError(
                ErrorCode.CONFLICT, f"{repo} exists already: register it without create_repository, or choose another path."
            )
        try:
            await platform.git.create_repository(repo, app["integration_branch"])
        except RepositoryExists:
            log.info("repository_made_already", repo=repo)  # by a repeat of this request, or before a crash
    elif not await platform.git.repository_exists(repo):
        raise invalid("repo_path", f"there is no repository at {repo}; pass create_repository: true to make one")
    branches = await platform.git.list_refs(repo, BRANCHES)
    if branch in branches:
        return branches[branch]
    if branches:
        raise invalid("integration_branch", f"{repo} has no branch {app['integration_branch']}")
    author = Signature(call.user["name"], call.user["email"], parse_time(call.at))
    return await platform.git.commit_files(
        repo, ref=branch, expected_old=None, parent=None, changes=[], author=author, message="Start an empty configuration\n"
    )


async def _make_environments(platform: Platform, call: Call, app: Document) -> None:
    for position, name in enumerate(DEFAULT_ENVIRONMENTS):
        profile_id = call.derived_id("profile", name)
        revision_id = call.derived_id("profile-revision", name)
        content = Profile(name=name).model_dump(mode="json")
        common = {
            "app_id": app["_id"],
            "created_at": call.at,
            "updated_at": call.at,
            "created_by": call.user_id,
            "version": 1,
        }
        revision = {"_id": revision_id, "profile_id": profile_id, "revision_number": 1, "content": content, **common}
        await records.insert_once(platform.db, "profile_revisions", revision)
        event = Event(
            "runtime_profile", profile_id, "created", after={"name": name, "kind": "persistent_env", "revision_number": 1}
        )
        profile = {
            "_id": profile_id,
            "content": content,
            "revision_id": revision_id,
            "revision_number": 1,
            "outgoing": [_profile_audit(call, event, app["_id"], name)],
            **common,
        }
        await records.insert_once(platform.db, "profiles", profile)
        environment = {
            "_id": call.derived_id("environment", name),
            "name": name,
            "position": position,
            "runtime_profile_id": profile_id,
            "deploy_target": "directory",
            "archived": False,
            "owned": {"fence": 0, "version": 0, "commands": []},
            **common,
        }
        await records.insert_once(platform.db, "environments", environment)


def _profile_audit(call: Call, event: Event, app_id: str, name: str) -> Document:
    return audit_entry(call.derived_id("audit-profile", name), event, app_id=app_id, actor=call.actor, at=call.at)


async def list_environments(platform: Platform, app: Document) -> list[Document]:
    """The app's environments in stage order."""
    query = {"app_id": app["_id"], "archived": False}
    return await platform.db["environments"].find(query).sort([("position", ASCENDING)]).to_list()


async def environment_records(platform: Platform, app: Document) -> list[dict[str, Any]]:
    """Environments with what is where now (`api.md` 4)."""
    held = await locks.read(platform.db, app["_id"])
    shown: list[dict[str, Any]] = []
    for environment in await list_environments(platform, app):
        owned = environment["owned"]
        holder = held.get(environment["_id"], {}).get("holder")
        folder = platform.settings.environments_folder / app["_id"] / environment["_id"] / "current"
        shown.append(
            record(
                environment,
                "name",
                "position",
                "runtime_profile_id",
                "deploy_target",
                is_canonical=environment["_id"] == app["settings"]["canonical_env_id"],
                current_release_id=owned.get("current_release_id"),
                current_deployment_id=owned.get("current_deployment_id"),
                deployed_at=owned.get("deployed_at"),
                deployed_by=owned.get("deployed_by"),
                health=owned.get("health", "unknown"),
                drift=None,
                active_deployment_id=holder["deployment_id"] if holder else None,
                waiting_deployment_ids=[],
                frozen_until=None,
                folder=str(folder),
                bad_release_ids=[],
            )
        )
    return shown
