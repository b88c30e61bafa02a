"""Every route and who may: generated from the routes and the capability table (`api.md` 2)."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from conman.domain.roles import Role, allows, owned
from tests.api.api_routes import GUARDED, NOWHERE, OF_APPS, ROUTES, WITH_IDS, Route, sound_body
from tests.support.conman_stack import ROLES, Person, World, assert_error, last

each_of_apps = pytest.mark.parametrize("route", OF_APPS, ids=str)


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_without_a_login_every_route_is_401(world: World, route: Route) -> None:
    assert_error(await world.stack.client.request(route.method, route.at(world.app["id"])), 401, "unauthorized")


@each_of_apps
async def test_who_is_no_member_is_refused_everywhere(world: World, route: Route) -> None:
    assert_error(await world.stranger.send(route.method, route.at(world.app["id"]), json={}), 403, "forbidden")


@each_of_apps
async def test_an_unknown_app_is_404_everywhere(world: World, route: Route) -> None:
    assert_error(await world.eve.send(route.method, route.at(NOWHERE), json={}), 404, "not_found")


@pytest.mark.parametrize("role", ROLES)
@each_of_apps
async def test_a_role_is_refused_exactly_where_the_table_says(world: World, route: Route, role: str) -> None:
    reply = await world.members[role].send(route.method, route.at(world.app["id"]), json={"no": "field of any body"})
    if allows(Role(role), route.capabilities[0]):
        assert reply.status_code != 403, reply.text
    else:
        assert_error(reply, 403, "forbidden")


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
async def test_an_unknown_id_is_404(world: World, route: Route) -> None:
    reply = await world.eve.send(route.method, route.at(world.app["id"]), json=sound_body(route))
    assert_error(reply, 404, "not_found")


@pytest_asyncio.fixture(scope="module")
async def theirs(other_app: World) -> dict[str, str]:
    """One record of each kind in another app, by the name of its id in paths."""
    release = await other_app.published()
    changeset = await other_app.changeset()
    environment = (await other_app.environments())[0]["id"]
    deployment = await other_app.deployed(environment, release)
    return {
        "ws": (await other_app.ann.get(changeset))["workspace_id"],
        "cs": last(changeset),
        "r": last(release),
        "env": environment,
        "d": deployment["id"],
        "j": deployment["job_id"],
    }


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
async def test_an_id_of_another_app_is_404(world: World, theirs: dict[str, str], route: Route) -> None:
    assert set(route.ids) <= set(theirs)
    reply = await world.eve.send(route.method, route.at(world.app["id"], theirs), json=sound_body(route))
    assert_error(reply, 404, "not_found")


async def test_another_apps_ids_in_a_body_are_not_found_either(world: World, other_app: World, theirs: dict[str, str]) -> None:
    body = {"workspace_id": theirs["ws"], "title": "on their workspace"}
    assert_error(await world.eve.send("POST", f"{world.path}/changesets", json=body), 404, "not_found")
    environment = (await world.environments())[0]["id"]
    reply = await world.max.send("POST", f"{world.path}/environments/{environment}/deploy", json={"release_id": theirs["r"]})
    assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == "release_id"
    queued = last(await other_app.queued())
    reply = await world.max.send("POST", f"{world.path}/releases", json={"changeset_ids": [queued]})
    assert_error(reply, 409, "conflict")


OWN = [route for route in WITH_IDS if any(wanted.value.endswith(".own") for wanted in route.capabilities)]


def test_a_route_declares_others_things_as_the_table_does() -> None:
    for route in [route for route in ROUTES if route.access.partition("+")[0].endswith(".own")]:
        own, *others = route.capabilities
        wanted = owned(own, is_own=False)
        assert others == ([wanted] if wanted is not None else []), route


@pytest_asyncio.fixture(scope="module")
async def anns(world: World) -> dict[str, str]:
    """A changeset of the plain user, its workspace, and its gate."""
    changeset = await world.submitted()
    shown = await world.ann.get(changeset)
    return {"ws": shown["workspace_id"], "cs": last(changeset), "j": shown["gate"]["job_id"]}


@pytest_asyncio.fixture(scope="module")
async def others(world: World) -> dict[str, Person]:
    """Members who have made nothing; the plain one is not the one who owns it all."""
    return {**world.members, "user": await world.join("user")}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", OWN, ids=str)
async def test_what_others_made_is_refused_exactly_where_the_table_says(
    world: World, anns: dict[str, str], others: dict[str, Person], route: Route, role: str
) -> None:
    wanted = owned(route.capabilities[0], is_own=False)
    reply = await others[role].send(route.method, route.at(world.app["id"], anns), json=sound_body(route))
    if wanted is not None and allows(Role(role), wanted):
        assert reply.status_code != 403, reply.text
    else:
        assert_error(reply, 403, "forbidden")


@pytest.mark.parametrize("route", OWN, ids=str)
async def test_what_one_made_oneself_is_never_forbidden(world: World, anns: dict[str, str], route: Route) -> None:
    reply = await world.ann.send(route.method, route.at(world.app["id"], anns), json=sound_body(route))
    assert reply.status_code != 403, reply.text


async def test_only_the_app_admin_lists_other_peoples_workspaces(world: World) -> None:
    workspace = await world.workspace(world.ann)
    listing = f"{world.path}/workspaces"
    for role in ("reviewer", "config_manager"):
        person = world.members[role]
        reply = await person.send("GET", listing, params={"owner": world.ann.id})
        assert_error(reply, 403, "forbidden")
        assert {row["owner_user_id"] for row in await person.get(listing)} == {person.id}
    shown = await world.eve.get(listing, params={"owner": world.ann.id, "limit": 100})
    assert last(workspace) in [row["id"] for row in shown]
    assert {row["owner_user_id"] for row in shown} == {world.ann.id}


async def test_only_the_platform_admin_makes_users_and_apps(world: World) -> None:
    for person in world.members.values():
        new = {"email": "x@example.com", "name": "x", "password": "long enough 1"}
        assert_error(await person.send("POST", "/users", json=new), 403, "forbidden")
        assert_error(await person.send("GET", "/users"), 403, "forbidden")
        assert_error(await person.send("POST", "/apps", json={"name": "x", "repo_path": "x.git"}), 403, "forbidden")
        assert_error(await person.send("GET", "/audit"), 403, "forbidden")


async def test_the_platform_admin_has_no_rights_inside_apps_by_itself(world: World) -> None:
    plain = await world.stack.person("platform")
    await world.stack.db["users"].update_one({"_id": plain.id}, {"$set": {"is_platform_admin": True}})
    await plain.get("/users")
    replies = await asyncio.gather(*(plain.send(route.method, route.at(world.app["id"]), json={}) for route in OF_APPS))
    for reply in replies:
        assert_error(reply, 403, "forbidden")


async def test_a_member_who_is_removed_is_refused_at_once(world: World) -> None:
    person = await world.join("app_admin")
    await person.get(world.path)
    await world.stack.db["memberships"].delete_one({"app_id": world.app["id"], "user_id": person.id})
    assert_error(await person.send("GET", world.path), 403, "forbidden")


async def test_a_disabled_account_is_refused_at_once(world: World) -> None:
    person = await world.join("user")
    await world.stack.db["users"].update_one({"_id": person.id}, {"$set": {"disabled": True}})
    assert_error(await person.send("GET", world.path), 401, "unauthorized")
    body = {"email": person.email, "password": "a password for tests 1"}
    assert_error(await world.stack.client.post("/auth/login", json=body), 401, "invalid_credentials")
