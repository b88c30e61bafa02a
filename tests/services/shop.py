"""An app with a repository and a workspace, as the services see them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from conman.config import Settings
from conman.domain.app import BRANCHES, journal_ref, pending_ref
from conman.domain.decision import Actor
from conman.git.adapter import Signature, WriteFile
from conman.git.local import LocalGit
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.store.database import Document, connect
from conman.workflows.client import Commands

ResultT = TypeVar("ResultT")
REPO = "team/app.git"
ANN: Document = {"_id": new_id(), "name": "Ann", "email": "ann@example.com"}
OUTSIDER = Signature("outside", "outside@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@dataclass
class Shop:
    """An app, its repository, and one workspace in it."""

    uri: str
    database: str
    folder: Path
    app: Document
    workspace: Document = field(default_factory=dict)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[Platform]:
        """Components that share nothing with any other ones but the stores."""
        client = connect(self.uri)
        git = LocalGit(self.folder, 2)
        try:
            no_workflows = cast("Commands", None)
            yield Platform(settings=Settings(data=self.folder), db=client[self.database], git=git, commands=no_workflows)
        finally:
            git.close()
            await client.close()

    async def apart(self, work: Callable[[Platform], Awaitable[ResultT]]) -> ResultT:
        """Run `work` in a thread and an event loop of its own, as another process would."""

        async def alone() -> ResultT:
            async with self.platform() as platform:
                return await work(platform)

        return await asyncio.to_thread(asyncio.run, alone())

    def call(self, key: str | None = None) -> Call:
        """A request of Ann's; with a key, a repeat of it."""
        command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
        return Call(command_id=command, at=now(), actor=Actor(user_id=ANN["_id"]), user=ANN, keyed=key is not None)

    async def commit_to_main(self, platform: Platform, path: str, text: str) -> str:
        """What a publish, or somebody outside, does to the integration branch."""
        main = await platform.git.resolve(REPO, f"{BRANCHES}main")
        return await platform.git.commit_files(
            REPO,
            ref=f"{BRANCHES}main",
            expected_old=main,
            parent=main,
            changes=[WriteFile(path, text.encode())],
            author=OUTSIDER,
            message="theirs\n",
        )

    async def files(self, platform: Platform) -> dict[str, str]:
        """What the owner sees: path → text."""
        pending = await self.tip(platform, pending_ref(self.workspace["_id"]))
        rows = await platform.git.list_tree(REPO, pending, recursive=True)
        return {row.path: (await platform.git.read_blob(REPO, row.blob_id)).decode() for row in rows}

    async def tip(self, platform: Platform, ref: str) -> str:
        sha = await platform.git.resolve(REPO, ref)
        assert sha is not None, ref
        return sha

    async def head(self, platform: Platform) -> str:
        return await self.tip(platform, BRANCHES + self.workspace["branch_name"])

    async def audit(self, platform: Platform, action: str) -> list[dict[str, Any]]:
        return await platform.db["audit"].find({"app_id": self.app["_id"], "action": action}).sort("_id", 1).to_list()

    async def is_whole(self, platform: Platform) -> None:
        """The three refs agree, nothing is left over, and the repository is sound."""
        head = await self.head(platform)
        pending = await self.tip(platform, pending_ref(self.workspace["_id"]))
        journal = await platform.git.commit(REPO, journal_ref(self.workspace["_id"]))
        assert journal.parents[-1] == head
        assert await platform.git.is_ancestor(REPO, head, pending)
        assert await platform.git.list_refs(REPO, "refs/conman/scratch/") == {}
        repository = str(self.folder / REPO)
        checked = await asyncio.create_subprocess_exec("git", "-C", repository, "fsck", "--strict", "--no-dangling")
        assert await checked.wait() == 0
