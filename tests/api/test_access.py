"""Every route and who may: generated from the routes and the capability table (`api.md` 2)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from conman.api.access import _dependencies
from conman.api.app import ROUTERS
from conman.domain.roles import Capability, Role, allows
from tests.support.conman_stack import ROLES, World, assert_error

NOWHERE = str(uuid.UUID(int=0))


def routes() -> Iterator[tuple[str, str, str]]:
    """Method, path and access of every route."""
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            access = next(call.access for call in _dependencies(route.dependant) if hasattr(call, "access"))
            for method in sorted(route.methods or ()):
                yield method, route.path, access


ALL = list(routes())
OF_APPS = [(method, path, access) for method, path, access in ALL if path.startswith("/apps/{app}")]
GUARDED = [(method, path) for method, path, access in ALL if access != "public"]


def filled(path: str, app_id: str) -> str:
    """The path with this app and ids that nobody has."""
    return re.sub(r"\{[^}]+\}", NOWHERE, path.replace("{app}", app_id))


@pytest.mark.parametrize(("method", "path"), GUARDED, ids=[f"{method} {path}" for method, path in GUARDED])
async def test_without_a_login_every_route_is_401(world: World, method: str, path: str) -> None:
    assert_error(await world.stack.client.request(method, filled(path, world.app["id"])), 401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for m, p, _ in OF_APPS], ids=[f"{method} {path}" for method, path, _ in OF_APPS]
)
async def test_who_is_no_member_is_refused_everywhere(world: World, method: str, path: str) -> None:
    assert_error(await world.stranger.send(method, filled(path, world.app["id"]), json={}), 403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for m, p, _ in OF_APPS], ids=[f"{method} {path}" for method, path, _ in OF_APPS]
)
async def test_an_unknown_app_is_404_everywhere(world: World, method: str, path: str) -> None:
    assert_error(await world.eve.send(method, filled(path, NOWHERE), json={}), 404, "not_found")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "access"), OF_APPS, ids=[f"{method} {path}" for method, path, _ in OF_APPS])
async def test_a_role_is_refused_exactly_where_the_table_says(
    world: World, method: str, path: str, access: str, role: str
) -> None:
    needed = Capability(access.partition("+")[0])
    reply = await world.members[role].send(method, filled(path, world.app["id"]), json={})
    if allows(Role(role), needed):
        assert reply.status_code != 403, reply.text
    else:
        assert_error(reply, 403, "forbidden")


ONE_RECORD = [(m, p) for m, p, _ in OF_APPS if len(re.findall(r"\{", p)) == 2 and m == "GET"]


@pytest.mark.parametrize(("method", "path"), ONE_RECORD, ids=[f"{method} {path}" for method, path in ONE_RECORD])
async def test_an_unknown_id_is_404(world: World, method: str, path: str) -> None:
    assert_error(await world.eve.send(method, filled(path, world.app["id"])), 404, "not_found")


async def test_an_id_of_another_app_is_404(world: World, other_app: World) -> None:
    theirs = {
        "changesets": (await other_app.changeset()).rpartition("/")[2],
        "workspaces": (await other_app.workspace()).rpartition("/")[2],
    }
    release = (await other_app.max.post(f"{other_app.path}/releases", {}))["id"]
    for group, record_id in {**theirs, "releases": release}.items():
        assert_error(await world.eve.send("GET", f"{world.path}/{group}/{record_id}"), 404, "not_found")
    for verb in ("submit", "queue", "move-to-draft", "review"):
        body = {"action": "approve"} if verb == "review" else {}
        reply = await world.eve.send("POST", f"{world.path}/changesets/{theirs['changesets']}/{verb}", json=body)
        assert_error(reply, 404, "not_found")
    body = {"workspace_id": theirs["workspaces"], "title": "on their workspace"}
    assert_error(await world.eve.send("POST", f"{world.path}/changesets", json=body), 404, "not_found")


async def test_only_the_platform_admin_makes_users_and_apps(world: World) -> None:
    for person in world.members.values():
        new = {"email": "x@example.com", "name": "x", "password": "long enough 1"}
        assert_error(await person.send("POST", "/users", json=new), 403, "forbidden")
        assert_error(await person.send("GET", "/users"), 403, "forbidden")
        assert_error(await person.send("POST", "/apps", json={"name": "x", "repo_path": "x.git"}), 403, "forbidden")
        assert_error(await person.send("GET", "/audit"), 403, "forbidden")


async def test_the_platform_admin_has_no_rights_inside_apps_by_itself(world: World, other_app: World) -> None:
    app = await world.stack.person("plain")
    assert_error(await app.send("GET", other_app.path), 403, "forbidden")


async def test_somebody_elses_workspace_is_refused_but_to_the_app_admin(world: World) -> None:
    workspace = await world.workspace(world.ann)
    for role in ("reviewer", "config_manager"):
        assert_error(await world.members[role].send("GET", workspace), 403, "forbidden")
        assert_error(await world.members[role].send("GET", f"{workspace}/files"), 403, "forbidden")
    await world.eve.get(workspace)
    await world.save(workspace, "entities/by-admin.json", "{}", world.eve)


async def test_somebody_elses_changeset_is_submitted_by_its_author_and_the_app_admin_only(world: World) -> None:
    changeset = await world.changeset()
    for role in ("reviewer", "config_manager"):
        assert_error(await world.members[role].send("POST", f"{changeset}/submit", json={}), 403, "forbidden")
    await world.eve.post(f"{changeset}/submit")
