"""Apps: making and showing them (`spec.md` 6)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from pymongo.errors import DuplicateKeyError

from conman.domain.app import (
    BRANCHES,
    CANONICAL_DEFAULT,
    DEFAULT_ENVIRONMENTS,
    AppSettings,
    check_branch_name,
    check_repo_path,
)
from conman.domain.app_settings import shown_settings
from conman.domain.decision import Event
from conman.domain.environment import EnvironmentDefinition
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.queue import Queue
from conman.domain.roles import Role
from conman.domain.times import parse_time
from conman.git.adapter import GitError, RepositoryExists, Signature
from conman.services.call import Call, record
from conman.services.environments import make_defaults
from conman.services.members import add_member
from conman.services.platform import Platform
from conman.store import records
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
        settings=shown_settings(AppSettings.model_validate(app["settings"])),
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
    environments = [
        EnvironmentDefinition(
            id=call.derived_id("environment", env), name=env, runtime_profile_id=call.derived_id("profile", env)
        )
        for env in DEFAULT_ENVIRONMENTS
    ]
    settings = AppSettings(
        canonical_env_id=environments[DEFAULT_ENVIRONMENTS.index(CANONICAL_DEFAULT)].id,
        default_base_profile_id=environments[0].runtime_profile_id,
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
        "environments": [environment.document() for environment in environments],
        "environment_ids": [environment.id for environment in environments],
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
    await make_defaults(platform, call, made)
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
