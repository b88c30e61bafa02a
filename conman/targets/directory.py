"""The `directory` target: a release's tree and the rendered profile put in place atomically (`spec.md` 12).

    ENVIRONMENTS/<app>/<environment>/
        current -> deployments/000007-r2026.01.31.1
        deployments/<fence>-<tag>/{files/, profile/profile.env, profile/profile.json, manifest.json}

A reader that resolves `current` once sees one deployment whole. Earlier deployments are kept, as many as the operator says. The
fence is compared just before the switch, and nobody else switches between the two: so an attempt that was given up can't undo a
later deployment, however slow it is.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from conman.domain.profile import env_file
from conman.domain.target import Health, Observation
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.programs.runner_output import Stream
from conman.services.rendering import PROFILE_ENV, RenderedProfile
from conman.targets.base import DeployOrder, ObserveOrder, Placed, TargetError, unreadable
from conman.targets.folder import MANIFEST, observed, text_of, tree_differences

REMOVED = ".removed-"
TRIES, PAUSE_SECONDS = 100, 0.1
"""How often, and after what pauses, an attempt asks whether another one has ended its switch."""


class DirectoryTarget:
    """The environments below one folder of this machine. `keep`: how many earlier deployments stay, 0 for all."""

    def __init__(self, root: Path, git: GitAdapter, *, keep: int) -> None:
        self.root = root
        self.git = git
        self.keep = keep

    async def deploy(self, order: DeployOrder) -> Placed:
        """Write the deployment beside the others, then switch `current` to it; a repeat finds what is done."""
        home = self._home(order)
        folder = _folder(home, order)
        try:
            if not (folder / MANIFEST).exists():
                await self._write(order, home, folder)
            fault_point("switch.sealed")
            async with _alone(home):
                await order.still_holds()
                await _to_its_end(asyncio.create_task(asyncio.to_thread(_switch, home, folder)))
            fault_point("switch.switched")
            await asyncio.to_thread(_clear_scratch, home, order.fence)
            manifest = json.loads(await asyncio.to_thread((folder / MANIFEST).read_text, encoding="utf-8"))
        except OSError as error:
            raise _unusable(error) from error
        await self._prune(order, home)
        return Placed(folder=str(home / "current"), files=manifest["files"])

    async def _write(self, order: DeployOrder, home: Path, folder: Path) -> None:
        scratch = home / f".incoming-{order.fence}-{secrets.token_hex(4)}"
        await asyncio.to_thread((scratch / "files").mkdir, parents=True)
        try:
            try:
                files = await self.git.export(order.repo_path, order.commit_sha, scratch / "files")
                await asyncio.to_thread(_write_profile, scratch / "profile", order.rendered)
            except GitError as error:
                raise unreadable(error) from error
            except ValueError as error:
                raise TargetError(f"The profile can't be written: {error}. Mend the profile.") from error
            fault_point("switch.exported")
            manifest = {
                "deployment_id": order.deployment_id,
                "release_id": order.release_id,
                "tag": order.tag,
                "commit_sha": order.commit_sha,
                "fence": order.fence,
                "profile_revision_id": order.rendered.revision_id,
                "files": files,
            }
            await asyncio.to_thread(_seal, scratch, folder, manifest)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _prune(self, order: DeployOrder, home: Path) -> None:
        """What can't be removed is told and stays: the deployment is in place all the same."""
        try:
            await asyncio.to_thread(_prune, home, order.fence, self.keep)
        except OSError as error:
            await order.tell(Stream.SYSTEM, f"An earlier deployment could not be removed: {error.strerror}.")

    async def observe(self, order: ObserveOrder) -> Observation:
        """What `current` shows, read from the files that are there; see `conman.targets.folder`."""
        home = self.root / order.place.app_id / order.place.environment_id
        try:
            return await observed(self.git, home, order)
        except GitError as error:
            raise unreadable(error) from error
        except OSError as error:
            raise TargetError(f"The environment's folder can't be read: {error.strerror}.", again=True) from error

    async def health(self, order: DeployOrder) -> Health:
        """Healthy when `current` shows this deployment, with every byte of the commit and of the profile."""
        home = self._home(order)
        folder = _folder(home, order)
        try:
            entries = await self.git.list_tree(order.repo_path, order.commit_sha, recursive=True)
            problem = await asyncio.to_thread(_problem, home, folder, order.rendered)
            if problem is None:
                differing = await asyncio.to_thread(tree_differences, folder / "files", entries, 1)
                problem = f"{differing[0]} is not as the release has it" if differing else None
        except GitError as error:
            raise unreadable(error) from error
        except OSError as error:
            raise _unusable(error) from error
        if problem is not None:
            return Health(healthy=False, message=f"The environment does not show the release: {problem}.")
        return Health(healthy=True, message=f"{len(entries)} files are in place.")

    def _home(self, order: DeployOrder) -> Path:
        return self.root / order.place.app_id / order.place.environment_id


def _folder(home: Path, order: DeployOrder) -> Path:
    return home / "deployments" / f"{order.fence:06d}-{order.tag}"


def _unusable(error: OSError) -> TargetError:
    return TargetError(f"The environment's folder can't be used: {error.strerror}.", again=True)


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


@asynccontextmanager
async def _alone(home: Path) -> AsyncIterator[None]:
    """No other attempt of this machine is in this block for the same environment; the death of a process lets go of it."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(PAUSE_SECONDS)
        else:
            raise TargetError("Another attempt is about to switch this environment, and does not end.", again=True)
        yield
    finally:
        os.close(descriptor)


async def _to_its_end(work: asyncio.Task[None]) -> None:
    """A cancel does not end a thread: what it does must be over before others may begin."""
    try:
        await asyncio.shield(work)
    finally:
        await asyncio.wait({work})


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


def _clear_scratch(home: Path, fence: int) -> None:
    """Remove what attempts that died left half written or half removed; never the work of a later deployment."""
    for left in home.glob(".incoming-*"):
        number = left.name.split("-")[1]
        if number.isdecimal() and int(number) <= fence:
            shutil.rmtree(left, ignore_errors=True)
    for left in home.glob(f"{REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prune(home: Path, fence: int, keep: int) -> None:
    """Remove the oldest of the deployments before this one, but the last `keep`; one goes under another name first, so that
    what has its name is whole. Never the one that `current` shows."""
    if keep == 0:
        return
    shown = (home / "current").resolve().name
    earlier = sorted(
        (int(number), folder)
        for folder in (home / "deployments").iterdir()
        if (number := folder.name.partition("-")[0]).isdecimal() and int(number) < fence
    )
    for _, folder in earlier[:-keep]:
        if folder.name != shown:
            doomed = home / f"{REMOVED}{folder.name}"
            folder.rename(doomed)
            shutil.rmtree(doomed)


def _problem(home: Path, folder: Path, rendered: RenderedProfile) -> str | None:
    current = home / "current"
    if current.resolve() != folder.resolve():
        return f"current points to {current.resolve().name}, not to {folder.name}"
    there = text_of(folder / "profile" / PROFILE_ENV)
    return None if there == env_file(rendered.environment) else f"{PROFILE_ENV} is not as it was written"
