"""The record that a path names, and whose it is: refused before the body is read (`api.md` 1: membership, capability, body).

A parameter that stands here is looked up in the app of the route; one of another app is not found, whatever the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from conman.domain.errors import not_found
from conman.services import invites, jobs, members, profiles, releases, temp_envs, workspaces
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document

Look = Callable[[Platform, Document, str], Awaitable[Document]]
Owner = Callable[[Platform, Document], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Subject:
    """How a path's parameter finds its record, which raises `not_found`, and who made it, for what can be one's own.

    `within`: the parameter before it that it belongs to, and the field in which its record says so.
    """

    look: Look
    owner: Owner | None = None
    within: tuple[str, str] | None = None

    async def find(self, platform: Platform, app: Document, params: Mapping[str, str], name: str) -> Document:
        """The record that the parameter `name` of a path stands for. Raises `not_found`."""
        found = await self.look(platform, app, params[name])
        if self.within is not None and found[self.within[1]] != params[self.within[0]]:
            raise not_found(name)
        return found


def _record(collection: str, what: str) -> Look:
    async def look(platform: Platform, app: Document, record_id: str) -> Document:
        return await records.get(platform.db, collection, record_id, app_id=app["_id"], what=what)

    return look


async def _environment(platform: Platform, app: Document, environment_id: str) -> Document:
    found = await records.get(platform.db, "environments", environment_id, app_id=app["_id"], what="environment")
    if found["archived"]:
        raise not_found("environment")
    return found


async def _workspace_owner(_: Platform, workspace: Document) -> str:
    return workspace["owner_user_id"]


async def _author(_: Platform, changeset: Document) -> str:
    return changeset["owned"]["author_user_id"]


SUBJECTS: Mapping[str, Subject] = {
    "ws": Subject(workspaces.find, _workspace_owner),
    "cs": Subject(_record("changesets", "changeset"), _author),
    "comment": Subject(_record("comments", "comment"), within=("cs", "changeset_id")),
    "j": Subject(_record("jobs", "job"), jobs.author_of),
    "r": Subject(releases.find),
    "env": Subject(_environment),
    "d": Subject(_record("deployments", "deployment")),
    "p": Subject(profiles.find),
    "t": Subject(temp_envs.find, temp_envs.owner_of),
    "user": Subject(members.member_of),
    "invite": Subject(invites.find),
}
"""Parameter → subject."""
