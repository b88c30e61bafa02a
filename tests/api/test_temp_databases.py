"""A temp env with a database of its own, over HTTP (`spec.md` 13)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.conman_stack import World, assert_error, last


@pytest.fixture
async def base(own: World) -> AsyncIterator[tuple[str, str]]:
    """A profile's path, and the database that it names."""
    uri, name = own.stack.ready["mongo_uri"], f"shop_{uuid.uuid4().hex[:8]}"
    host = uri.removeprefix("mongodb://").partition("/")[0]
    client: Any = own.stack.db.client
    await client[name]["goods"].insert_many([{"_id": number, "sku": f"s{number}"} for number in range(5)])
    await client[name]["goods"].create_index("sku", name="sku", unique=True)
    profile = await own.eve.post(
        f"{own.path}/runtime-profiles",
        {
            "name": "with data",
            "env_vars": {"MODE": {"type": "string", "value": "base"}},
            "secrets": {"DB": f"mongodb://{host}/{name}?directConnection=true"},
            "database": {"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "existing"},
        },
    )
    yield f"{own.path}/runtime-profiles/{profile['id']}", name
    await client.drop_database(name)


async def test_a_temp_env_has_a_clone_of_its_base_s_database_and_takes_it_along(own: World, base: tuple[str, str]) -> None:
    workspace, (path, name) = await own.workspace(), base
    reply = await own.ann.post(
        f"{own.path}/temp-envs", {"kind": "workspace", "source_id": last(workspace), "base_profile_id": last(path)}
    )
    job = await own.job(reply["job"]["id"])
    assert job["state"] == "succeeded", job
    temp_env = await own.ann.get(f"{own.path}/temp-envs/{reply['temp_env']['id']}")
    client: Any = own.stack.db.client
    goods = client[temp_env["db_name"]]["goods"]
    assert await goods.count_documents({}) == 5
    assert "sku" in await goods.index_information()

    derived = f"{own.path}/runtime-profiles/{temp_env['runtime_profile_id']}"
    shown = await own.ann.get(f"{derived}/effective")
    sources = {row["key"]: row["source"] for row in shown["variables"]}
    assert (sources["MODE"], sources["DB"]) == ("profile", "override")
    assert shown["base_url"] == {"value": temp_env["url"], "source": "override"}
    profile = await own.ann.get(derived)
    assert profile["kind"] == "temp_workspace"
    assert_error(await own.eve.send("DELETE", derived), 409, "conflict")

    ended = await own.ann.ok("DELETE", f"{own.path}/temp-envs/{temp_env['id']}")
    assert (await own.job(ended["job"]["id"]))["state"] == "succeeded"
    assert temp_env["db_name"] not in await client.list_database_names()
    assert_error(await own.ann.send("GET", derived), 404, "not_found")
    assert await client[name]["goods"].count_documents({}) == 5
