"""One record of each kind that paths name, by the segment before its id."""

from __future__ import annotations

import asyncio
import re
import uuid

from tests.api.api_routes import Route
from tests.support.conman_stack import Person, World, last

NOWHERE = "00000000-0000-7000-8000-000000000000"
"""An id that nothing has."""
KINDS = (
    "users",
    "members",
    "invites",
    "workspaces",
    "changesets",
    "comments",
    "jobs",
    "releases",
    "environments",
    "deployments",
    "runtime-profiles",
    "secrets",
    "temp-envs",
)
SECRET_NAME = "TOKEN"

Things = dict[str, str]
"""Kind → id, and the changeset's `state` and `version`."""


def kinds_of(path: str) -> list[tuple[str, str]]:
    """Name and kind of each id of a path, without the app's: a kind is the segment before the id."""
    return [(name, kind) for kind, name in re.findall(r"([\w-]+)/\{(\w+)\}", path) if name != "app"]


async def things_of(world: World, person: Person) -> Things:
    """What this person made."""
    changeset = await world.submitted(person=person)
    shown = await person.get(changeset)
    comment = await person.post(f"{changeset}/comments", {"body": "mine"})
    source = {"kind": "changeset", "source_id": shown["id"]}
    temp_env = (await person.post(f"{world.path}/temp-envs", source))["temp_env"]
    await world.job(temp_env["job_id"])
    return {
        "users": person.id,
        "members": person.id,
        "workspaces": shown["workspace_id"],
        "changesets": shown["id"],
        "comments": comment["id"],
        "jobs": shown["gate"]["job_id"],
        "temp-envs": temp_env["id"],
        "state": shown["state"],
        "version": str(shown["version"]),
    }


async def app_things(world: World) -> Things:
    """What is nobody's own: a release, where it is deployed, a profile with a secret, an invite."""
    release = await world.published()
    environment = (await world.environments())[0]["id"]
    deployment = await world.deployed(environment, release)
    things = {"releases": last(release), "environments": environment, "deployments": deployment["id"], "secrets": SECRET_NAME}
    new = {"name": "matrix", "kind": "persistent_env", "secrets": {SECRET_NAME: "a secret of the matrix"}}
    things["runtime-profiles"] = (await world.eve.post(f"{world.path}/runtime-profiles", new))["id"]
    invited = {"email": f"invited-{uuid.uuid4().hex}@example.com", "role": "user"}
    things["invites"] = (await world.eve.post(f"{world.path}/invites", invited))["id"]
    return things


async def all_things(world: World) -> Things:
    """What every path may name; all of it the platform admin's, who may do anything with it, but for a changeset to review."""
    own, of_app, reviewed = await asyncio.gather(things_of(world, world.stack.admin), app_things(world), world.submitted())
    return own | of_app | {"reviewed": last(reviewed)}


def path_of(route: Route, world: World, things: Things) -> str:
    """The route's path to these things."""
    ids = {name: things[kind] for name, kind in kinds_of(route.path)}
    if route.path.endswith("/review"):  # nobody reviews their own
        ids["cs"] = things["reviewed"]
    return route.at(world.app["id"], ids)
