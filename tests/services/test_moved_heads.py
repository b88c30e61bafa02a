"""Upkeep sees integration branches that were moved outside Conman, and leaves to a publish what is its own (`spec.md` 10)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from conman.domain.messages import IntegrationMovedCommand
from conman.domain.queue import decide_integration_moved
from conman.domain.queue_records import Queue
from conman.git.adapter import GitError
from conman.services.moved_heads import APPS_AT_ONCE, tell_queues
from conman.services.platform import Platform
from conman.store.database import Database

OLD, NEW, LATER = "a" * 40, "b" * 40, "c" * 40


@dataclass
class Git:
    """Where the integration branches of repositories are; `on_look` is what happens while they are looked at."""

    heads: dict[str, str | None]
    on_look: Any = None

    async def resolve(self, repo: str, _ref: str) -> str | None:
        if repo not in self.heads:
            raise GitError("resolve", f"{repo} is gone", safe_to_repeat=True)
        head = self.heads[repo]
        if self.on_look is not None:
            await self.on_look()
        return head


@dataclass
class Commands:
    """The queues, without their workflows."""

    db: Database
    sent: list[tuple[str, IntegrationMovedCommand]] = field(default_factory=list[tuple[str, IntegrationMovedCommand]])

    def not_after(self) -> str:
        return "2999-01-01T00:00:00.000Z"

    def queue_start(self, app_id: str) -> str:
        return app_id

    async def send(self, app_id: str, _update: str, command: IntegrationMovedCommand) -> dict[str, Any]:
        self.sent.append((app_id, command))
        kept = await self.db["queues"].find_one({"_id": app_id})
        assert kept is not None
        decision = decide_integration_moved(Queue.model_validate(kept["owned"]), command.old_sha, command.new_sha, str)
        await self.db["queues"].update_one({"_id": app_id}, {"$set": {"owned": decision.owned.model_dump(mode="json")}})
        return decision.result


@pytest.fixture
def db(platform: Platform) -> Database:
    return platform.db


@pytest.fixture
def commands(db: Database) -> Commands:
    return Commands(db)


async def app(db: Database, name: str, **fields: Any) -> None:
    made = {"_id": name, "name": name, "repo_path": f"{name}.git", "integration_branch": "main", "archived": False, "ready": True}
    await db["apps"].insert_one({**made, **fields})
    queue = Queue(app_id=name, integration_sha=OLD)
    await db["queues"].insert_one({"_id": name, "app_id": name, "owned": queue.model_dump(mode="json")})


async def told(db: Database, git: Git, commands: Commands) -> list[str]:
    """Of which apps the queues are told in one round."""
    commands.sent.clear()
    await tell_queues(db, git, commands)  # pyright: ignore[reportArgumentType]
    return sorted(app_id for app_id, _ in commands.sent)


async def test_the_queue_of_a_branch_that_was_moved_is_told_once_and_one_broken_app_hides_no_other(
    db: Database, commands: Commands
) -> None:
    for name in ("moved", "still", "broken", "branchless"):
        await app(db, name)
    await app(db, "archived", archived=True)
    await app(db, "moves", closing={"by": "a request"})
    git = Git({"moved.git": NEW, "still.git": OLD, "branchless.git": None, "archived.git": NEW, "moves.git": NEW})
    assert await told(db, git, commands) == ["moved"]
    assert (commands.sent[0][1].old_sha, commands.sent[0][1].new_sha) == (OLD, NEW)
    assert await told(db, git, commands) == []


async def test_a_git_server_that_does_not_answer_holds_a_round_up_for_no_longer_than_its_time(
    db: Database, commands: Commands
) -> None:
    names = [f"app-{number:02d}" for number in range(APPS_AT_ONCE * 3)]
    for name in names:
        await app(db, name)
    asked = 0

    async def answer_late() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.2)

    git = Git({f"{name}.git": OLD for name in names}, answer_late)
    await tell_queues(db, git, commands, seconds=0.1)  # pyright: ignore[reportArgumentType]
    assert asked <= APPS_AT_ONCE


async def test_a_branch_that_is_set_back_and_moved_again_is_told_each_time(db: Database, commands: Commands) -> None:
    await app(db, "app")
    seen: list[str] = []
    for head in (NEW, OLD, NEW):
        assert await told(db, Git({"app.git": head}), commands) == ["app"]
        seen.append(commands.sent[0][1].id)
    assert len(set(seen)) == 3  # the queue remembers a command's id, and would take the third for the first


@pytest.mark.parametrize(
    "owned",
    [{"publishing": {"new_sha": NEW}, "told": True}, {"publishing": None, "published_sha": NEW, "told": False}],
    ids=["the refs are on their way", "the queue is still to be told"],
)
async def test_a_publish_under_way_tells_the_queue_itself(db: Database, commands: Commands, owned: dict[str, Any]) -> None:
    await app(db, "app")
    await db["releases"].insert_one({"_id": "release", "app_id": "app", "owned": owned})
    assert await told(db, Git({"app.git": NEW}), commands) == []
    await db["releases"].update_one({"_id": "release"}, {"$set": {"owned.publishing": None, "owned.told": True}})
    assert await told(db, Git({"app.git": LATER}), commands) == ["app"]


async def test_what_was_seen_before_a_whole_publish_is_old_news_to_the_queue(db: Database, commands: Commands) -> None:
    await app(db, "app")

    async def publish() -> None:
        await db["queues"].update_one({"_id": "app"}, {"$set": {"owned.integration_sha": LATER}})

    assert await told(db, Git({"app.git": NEW}, publish), commands) == ["app"]
    kept = await db["queues"].find_one({"_id": "app"})
    assert kept is not None and kept["owned"]["integration_sha"] == LATER
