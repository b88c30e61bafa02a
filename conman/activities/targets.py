"""The `directory` target: a release's tree and the rendered profile put in place atomically (`spec.md` 12).

    ENVIRONMENTS/<app>/<environment>/
        current -> deployments/000007-r2026.01.31.1
        deployments/<fence>-<tag>/{files/, profile/profile.env, profile/profile.json, manifest.json}

A reader that resolves `current` once sees one deployment whole. Earlier deployments are kept. The fence is compared just before
the switch, so that an attempt that was given up can't undo a later deployment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.config import Settings
from conman.domain.deployment import check_target
from conman.domain.environment import DIRECTORY_TARGET
from conman.domain.errors import DomainError
from conman.domain.jobs import ReasonCode
from conman.domain.messages import SwitchReply, SwitchRequest
from conman.faults import fault_point
from conman.git.adapter import EntryType, GitAdapter
from conman.services.rendering import RenderedProfile, render
from conman.services.secrets import Secrets
from conman.services.vault import Vault
from conman.store import locks, records
from conman.store.database import Database, Document

MANIFEST = "manifest.json"


class TargetActivities:
    """Bound to the folder of environments and the master keys."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.root = settings.environments_folder
        self.db = db
        self.git = git
        self.secrets = Secrets(db, vault)

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.switch_environment, self.verify_environment]

    @activity.defn
    async def switch_environment(self, request: SwitchRequest) -> SwitchReply:
        """Write the deployment beside the others, then switch `current` to it; a repeat finds what is done."""
        app = await records.get(self.db, "apps", request.app_id, what="app")
        _check_target(app, request)
        home = self._home(request)
        folder = self._folder(request)
        async with heartbeating():
            if not (folder / MANIFEST).exists():
                scratch = home / f".incoming-{request.fence}-{os.getpid()}-{activity.info().attempt}"
                await asyncio.to_thread(_fresh, scratch)
                try:
                    rendered = await render(self.secrets, app, request.profile_id, request.profile_revision_id)
                    files = await self.git.export(app["repo_path"], request.commit_sha, scratch / "files")
                    await asyncio.to_thread(_write_profile, scratch / "profile", rendered)
                    fault_point("switch.exported")
                    manifest = {
                        "deployment_id": request.deployment_id,
                        "release_id": request.release_id,
                        "tag": request.tag,
                        "commit_sha": request.commit_sha,
                        "fence": request.fence,
                        "profile_revision_id": rendered.revision_id,
                        "files": files,
                    }
                    await asyncio.to_thread(_seal, scratch, folder, manifest)
                finally:
                    await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            fault_point("switch.sealed")
            await self._check_fence(request)
            await asyncio.to_thread(_switch, home, folder)
            fault_point("switch.switched")
            await asyncio.to_thread(_clear_scratch, home, request.fence)
        manifest = json.loads(await asyncio.to_thread((folder / MANIFEST).read_text, encoding="utf-8"))
        return SwitchReply(folder=str(home / "current"), files=manifest["files"])

    async def _check_fence(self, request: SwitchRequest) -> None:
        fence = await locks.current_fence(self.db, request.app_id, request.environment_id)
        if fence > request.fence:
            raise ApplicationError(
                f"A later deployment (fence {fence}) holds this environment; this one (fence {request.fence}) changes nothing.",
                type="fenced",
                non_retryable=True,
            )

    @activity.defn
    async def verify_environment(self, request: SwitchRequest) -> SwitchReply:
        """Look whether `current` shows this deployment and every file has the bytes of its commit."""
        app = await records.get(self.db, "apps", request.app_id, what="app")
        home = self._home(request)
        async with heartbeating():
            entries = await self.git.list_tree(app["repo_path"], request.commit_sha, recursive=True)
            expected = {entry.path: entry.blob_id for entry in entries if entry.type is EntryType.BLOB}
            problem = await asyncio.to_thread(_difference, home, self._folder(request), expected)
        fault_point("verify.looked")
        if problem is not None:
            raise ApplicationError(f"The environment does not show the release: {problem}.", type="verify", non_retryable=True)
        return SwitchReply(folder=str(home / "current"), files=len(expected))

    def _home(self, request: SwitchRequest) -> Path:
        return self.root / request.app_id / request.environment_id

    def _folder(self, request: SwitchRequest) -> Path:
        return self._home(request) / "deployments" / f"{request.fence:06d}-{request.tag}"


def _check_target(app: Document, request: SwitchRequest) -> None:
    """The environment may have got another target since the deployment was asked for."""
    listed = next((one for one in app["environments"] if one["id"] == request.environment_id), None)
    try:
        check_target(listed["deploy_target"] if listed is not None else DIRECTORY_TARGET)
    except DomainError as error:
        raise ApplicationError(error.message, type=ReasonCode.RUNNER_ERROR.value, non_retryable=True) from error


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)


def _write_profile(folder: Path, rendered: RenderedProfile) -> None:
    folder.mkdir(mode=0o700)
    rendered.write(folder)


def _seal(scratch: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """The manifest comes last and the folder's name after it: what has its name is whole."""
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)


def _clear_scratch(home: Path, fence: int) -> None:
    """Remove what attempts that died left half written; never the work of a later deployment."""
    for left in home.glob(".incoming-*"):
        if int(left.name.split("-")[1]) <= fence:
            shutil.rmtree(left, ignore_errors=True)


def _switch(home: Path, folder: Path) -> None:
    """Replace the symlink in one step, and have the folder's entry on disk before anybody is told."""
    fresh = home / f".current-{folder.name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.relative_to(home))
    fresh.replace(home / "current")
    descriptor = os.open(home, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _difference(home: Path, folder: Path, expected: dict[str, str]) -> str | None:
    """The first way in which the environment is not the commit, None when it is."""
    current = home / "current"
    if current.resolve() != folder.resolve():
        return f"current points to {current.resolve().name}, not to {folder.name}"
    files = folder / "files"
    for path, blob_id in expected.items():
        try:
            data = (files / path).read_bytes()
        except OSError as error:
            return f"{path} can't be read ({error.strerror})"
        header = f"blob {len(data)}\0".encode()
        if hashlib.sha1(header + data, usedforsecurity=False).hexdigest() != blob_id:
            return f"{path} has other bytes than the release"
    return None
