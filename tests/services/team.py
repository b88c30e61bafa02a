"""An app with members, as the services see it: no Git, and workflows that take what they are told."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, cast

from conman.domain.errors import DomainError, ErrorCode, Unavailable
from conman.domain.mail import Wave
from conman.domain.roles import Role
from conman.services.clock import new_id, now
from conman.services.members import add_member
from conman.services.platform import Platform
from conman.store.database import Database, Document
from conman.workflows.client import Commands
from tests.services.people import Office, call


@dataclass
class Told:
    """Commands that workflows were sent, in place of workflows."""

    commands: list[tuple[str, Any]] = field(default_factory=list)
    timeout_seconds: float = 30.0
    silent: set[str] = field(default_factory=set[str])

    def not_after(self) -> str:
        return now()

    def changeset_start(self, _app_id: str, changeset_id: str, _title: str = "") -> str:
        return changeset_id

    async def send(self, entity: str, _update: str, command: Any) -> dict[str, Any]:
        if entity in self.silent:
            raise Unavailable(ErrorCode.OUTCOME_UNKNOWN, "No answer in time.")
        self.commands.append((entity, command))
        return {}

    async def start_notice(self, _notice_id: str, _wave: Wave | None = None) -> None:
        """Mails are no part of these tests."""


@dataclass
class Team:
    """One app, and the people in it by name."""

    office: Office
    app: Document
    people: dict[str, Document]
    told: Told

    def on(self, platform: Platform) -> Platform:
        """The platform with workflows that only take note."""
        platform.commands = cast("Commands", self.told)
        return platform

    async def record(self, db: Database) -> Document:
        found = await db["apps"].find_one({"_id": self.app["_id"]})
        assert found is not None
        return found

    async def roles(self, db: Database) -> dict[str, str]:
        """Name → role, of those who are members."""
        rows = {row["user_id"]: row["role"] async for row in db["memberships"].find({"app_id": self.app["_id"]})}
        return {name: rows[user["_id"]] for name, user in self.people.items() if user["_id"] in rows}


async def make_team(office: Office, platform: Platform, **roles: Role) -> Team:
    """An app with one member of each name and role; `ann` made it."""
    ann = await office.person(platform, "ann")
    app: Document = {
        "_id": new_id(),
        "name": f"app {new_id()}",
        "repo_path": f"{new_id()}.git",
        "archived": False,
        "ready": True,
        "admin_ids": [],
        "settings": {},
        "created_at": now(),
        "version": 1,
        "outgoing": [],
    }
    await platform.db["apps"].insert_one(dict(app))
    team = Team(office, app, {"ann": ann}, Told())
    team.on(platform)
    await add_member(platform, call(ann), app, user=ann, role=Role.APP_ADMIN, via="app_created")
    for name, role in roles.items():
        team.people[name] = await office.person(platform, name)
        await add_member(platform, call(ann), app, user=team.people[name], role=role, via="direct")
    return team


async def outcome(work: Awaitable[Any]) -> str:
    """`done`, or the code of its refusal."""
    try:
        await work
    except DomainError as error:
        return error.code.value
    return "done"
