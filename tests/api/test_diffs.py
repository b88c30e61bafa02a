"""A changeset's diff over HTTP, raw and semantic (`spec.md` 8, `api.md` 3)."""

from __future__ import annotations

import json

import pytest

from tests.support.conman_stack import World, assert_error, last

PROVIDER = "entities/PaymentProvider.json"


def provider(retries: int) -> str:
    return json.dumps({"url": "https://pay.example.com", "retryCount": retries}, indent=2) + "\n"


async def test_a_draft_is_compared_for_those_who_may_read_its_workspace(world: World) -> None:
    changeset = await world.changeset({PROVIDER: provider(3)})
    raw = await world.ann.get(f"{changeset}/diff")
    assert [row["path"] for row in raw["files"]] == [PROVIDER]
    semantic = await world.eve.get(f"{changeset}/diff", params={"mode": "semantic"})
    assert [each["operation"] for each in semantic["changes"]] == ["added"]
    for person in (world.rob, world.max):
        error = assert_error(await person.send("GET", f"{changeset}/diff"), 404, "not_found")
        assert "submit" in error["message"]
    await world.ann.ok("DELETE", changeset)
    assert_error(await world.ann.send("GET", f"{changeset}/diff"), 404, "not_found")


async def test_revisions_are_compared_with_their_base_and_with_each_other(world: World) -> None:
    changeset = await world.changeset({PROVIDER: provider(3), "README.md": "one\n"})
    workspace = f"{world.path}/workspaces/{(await world.ann.get(changeset))['workspace_id']}"
    reply = await world.ann.post(f"{changeset}/submit")
    first = reply["revision"]
    await world.job(reply["job"]["id"])
    await world.ann.post(f"{changeset}/move-to-draft")
    await world.save(workspace, PROVIDER, provider(5))
    second = (await world.ann.post(f"{changeset}/submit"))["revision"]

    latest = await world.rob.get(f"{changeset}/diff", params={"mode": "semantic"})
    assert set(latest) == {"baseSha", "headSha", "summary", "changes"}
    assert (latest["baseSha"], latest["headSha"]) == (second["base_sha"], second["head_sha"])
    assert latest["summary"]["byConfigType"] == {
        **dict.fromkeys(("page", "queue", "provider", "workflow", "tenant", "menu", "script"), 0),
        "entity": 1,
        "asset": 1,
    }
    between = {"mode": "semantic", "revision": 2, "against": 1}
    told = await world.rob.get(f"{changeset}/diff", params=between)
    assert (told["baseSha"], told["headSha"]) == (first["head_sha"], second["head_sha"])
    [change] = told["changes"]
    assert change["description"] == "`retryCount` of entity `PaymentProvider` changed from 3 to 5"
    assert (change["filePath"], change["lineStart"], change["target"]) == (PROVIDER, 3, "PaymentProvider")
    assert await world.ann.get(f"{changeset}/diff", params=between) == told

    raw = await world.rob.get(f"{changeset}/diff", params={"revision": 2, "against": 1})
    assert raw["stats"] == {"files": 1, "additions": 1, "deletions": 1}
    [row] = raw["files"]
    assert set(row) == {"path", "old_path", "status", "additions", "deletions", "binary", "patch", "truncated"}
    assert '-  "retryCount": 3' in row["patch"]
    assert (await world.rob.get(f"{changeset}/diff", params={"revision": 1}))["head_sha"] == first["head_sha"]

    for mode, rows in (("raw", "files"), ("semantic", "changes")):
        params = {"mode": mode, "page": 2, "limit": 1}
        reply = (await world.rob.send("GET", f"{changeset}/diff", params=params)).json()
        assert reply["pagination"] == {"page": 2, "limit": 1, "total": 2}
        assert len(reply["data"][rows]) == 1


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"revision": 2}, 404, "not_found"),
        ({"against": 2}, 404, "not_found"),
        ({"revision": 0}, 400, "validation_error"),
        ({"against": "x"}, 400, "validation_error"),
        ({"mode": "words"}, 400, "validation_error"),
        ({"limit": 101}, 400, "validation_error"),
        ({"mode": "semantic", "page": 0}, 400, "validation_error"),
    ],
)
async def test_what_there_is_not_is_refused(world: World, params: dict[str, str | int], status: int, code: str) -> None:
    changeset = await world.submitted()
    assert_error(await world.rob.send("GET", f"{changeset}/diff", params=params), status, code)


async def test_only_members_of_the_app_see_it(world: World, other_app: World) -> None:
    changeset = await world.submitted()
    assert_error(await world.stack.client.get(f"{changeset}/diff"), 401, "unauthorized")
    assert_error(await world.stranger.send("GET", f"{changeset}/diff"), 403, "forbidden")
    path = f"{other_app.path}/changesets/{last(changeset)}/diff"
    assert_error(await other_app.ann.send("GET", path), 404, "not_found")
