"""The diff and the notes of a release over HTTP (`api.md` 3)."""

from __future__ import annotations

import json

import pytest

from tests.support.conman_stack import World, assert_error, last

PROVIDER = "entities/PaymentProvider.json"


def provider(retries: int) -> dict[str, str]:
    return {PROVIDER: json.dumps({"url": "https://pay.example.com", "retryCount": retries}, indent=2) + "\n"}


async def test_a_release_is_compared_with_the_one_before_and_told_in_words(own: World) -> None:
    first = await own.validated(await own.queued(provider(3)))
    await own.max.post(f"{first}/publish")
    second = await own.release(await own.queued(provider(5)))
    error = assert_error(await own.rob.send("GET", f"{second}/diff"), 409, "conflict")
    assert "assemble" in error["message"]
    assert "Not published yet" in (await own.rob.get(f"{second}/notes"))["text"]
    await own.job((await own.max.post(f"{second}/assemble"))["job"]["id"])
    validated = await own.rob.get(f"{second}/diff")
    await own.max.post(f"{second}/publish")
    one, two = await own.max.get(first), await own.max.get(second)

    raw = await own.ann.get(f"{second}/diff")
    assert raw == validated
    assert (raw["base_sha"], raw["head_sha"]) == (one["published_sha"], two["published_sha"])
    assert raw["stats"] == {"files": 1, "additions": 1, "deletions": 1}
    semantic = await own.rob.get(f"{second}/diff", params={"mode": "semantic"})
    told = "`retryCount` of entity `PaymentProvider` changed from 3 to 5"
    assert [each["description"] for each in semantic["changes"]] == [told]
    assert (await own.rob.get(f"{first}/diff"))["base_sha"] == one["base_sha"]
    back = await own.rob.get(f"{first}/diff", params={"against": two["tag"]})
    assert (back["base_sha"], back["head_sha"]) == (raw["head_sha"], raw["base_sha"])
    reply = (await own.rob.send("GET", f"{second}/diff", params={"mode": "semantic", "page": 2, "limit": 1})).json()
    assert (reply["data"]["changes"], reply["pagination"]) == ([], {"page": 2, "limit": 1, "total": 1})

    notes = await own.ann.get(f"{second}/notes")
    assert (notes["tag"], notes["release_before"]) == (two["tag"], one["tag"])
    [changeset] = notes["changesets"]
    assert changeset["changeset_id"] == two["ordered_changeset_ids"][0]
    assert (changeset["author_user_id"], changeset["approved_by"]) == (own.ann.id, [own.rob.id])
    assert changeset["changes"] == [{"file_path": PROVIDER, "description": told}]
    text = await own.ann.send("GET", f"{second}/notes", headers={"Accept": "text/markdown"})
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.text == notes["text"]
    assert f"- {told}\n" in text.text


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"mode": "words"}, 400, "validation_error"),
        ({"page": 0}, 400, "validation_error"),
        ({"limit": 101}, 400, "validation_error"),
        ({"against": "r1999.01.01.1"}, 404, "not_found"),
    ],
)
async def test_what_there_is_not_is_refused(world: World, params: dict[str, str | int], status: int, code: str) -> None:
    release = await world.release()
    assert_error(await world.ann.send("GET", f"{release}/diff", params=params), status, code)


@pytest.mark.parametrize("what", ["diff", "notes"])
async def test_only_members_of_the_app_see_it(world: World, other_app: World, what: str) -> None:
    release = await world.release()
    assert_error(await world.stack.client.get(f"{release}/{what}"), 401, "unauthorized")
    assert_error(await world.stranger.send("GET", f"{release}/{what}"), 403, "forbidden")
    path = f"{other_app.path}/releases/{last(release)}/{what}"
    assert_error(await other_app.ann.send("GET", path), 404, "not_found")
