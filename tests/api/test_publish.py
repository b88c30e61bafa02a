"""Selections, publishing and what refuses it, over HTTP (`spec.md` 11, `api.md` 3)."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import httpx

from tests.support.conman_stack import Person, World, assert_error, last, wait_for


async def at_once(person: Person, *requests: tuple[str, Any]) -> list[httpx.Response]:
    return await asyncio.gather(*(person.send("POST", path, json=body) for path, body in requests))


def git(world: World, *arguments: str) -> str:
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    return subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, text=True, check=True).stdout.strip()


async def again(world: World, release: str) -> dict[str, Any]:
    """Assemble a release that was refused, and publish it."""
    reply = await world.max.post(f"{release}/assemble")
    assert (await world.job(reply["job"]["id"]))["state"] == "succeeded"
    return (await world.max.post(f"{release}/publish"))["release"]


async def refused(world: World, release: str, reason: str) -> dict[str, Any]:
    """The publish is refused, re-assembly is offered, and nothing has moved."""
    before = git(world, "rev-parse", "main")
    error = assert_error(await world.max.send("POST", f"{release}/publish", json={}), 409, "conflict")
    assert "assemble" in error["message"]
    assert error["details"]["reason_code"] == reason
    shown = await world.max.get(release)
    assert (shown["state"], shown["failure"]["reason_code"], shown["candidate_sha"]) == ("draft_release", reason, None)
    assert git(world, "rev-parse", "main") == before
    return error


async def test_a_profile_that_was_edited_since_the_gate_used_it_refuses_the_publish(own: World) -> None:
    release = await own.validated(await own.queued())
    canonical = next(one for one in await own.environments() if one["is_canonical"])
    path = f"{own.path}/runtime-profiles/{canonical['runtime_profile_id']}"
    version = (await own.eve.get(path))["version"]
    change = {"env_vars": {"MODE": {"type": "string", "value": "edited"}}, "version": version}
    await own.eve.ok("PATCH", path, json=change)
    error = await refused(own, release, "profile_changed")
    assert [(one["environment"], one["profile_id"]) for one in error["details"]["profiles"]] == [
        (canonical["name"], canonical["runtime_profile_id"])
    ]
    assert (await again(own, release))["state"] == "published"


async def a_draft_again(world: World, release: str) -> dict[str, Any]:
    """The release, once it has returned to draft by itself."""

    async def look() -> Any:
        shown = await world.max.get(release)
        return shown if shown["state"] == "draft_release" else None

    return await wait_for(look, "the return to draft")


async def test_what_overtakes_a_validated_release_returns_it_to_draft_before_anybody_publishes_it(own: World) -> None:
    """`spec.md` 3: another head after a publish, then a profile that its gate rendered."""
    one, two = await own.queued(), await own.queued()
    first, second = await own.validated(one), await own.validated(two)
    await own.max.post(f"{first}/publish")
    shown = await a_draft_again(own, second)
    assert shown["failure"]["reason_code"] == "head_moved"
    reply = await own.max.post(f"{second}/assemble")
    await own.job(reply["job"]["id"])
    canonical = next(one for one in await own.environments() if one["is_canonical"])
    path = f"{own.path}/runtime-profiles/{canonical['runtime_profile_id']}"
    change = {"base_url": "https://changed.example.com", "version": (await own.eve.get(path))["version"]}
    await own.eve.ok("PATCH", path, json=change)
    shown = await a_draft_again(own, second)
    assert shown["failure"]["reason_code"] == "profile_changed"


async def test_a_second_release_is_refused_until_it_is_assembled_on_the_first_and_supersedes_it(own: World) -> None:
    one, two = await own.queued(), await own.queued()
    first, second = await own.validated(one), await own.validated(two)
    published = (await own.max.post(f"{first}/publish"))["release"]
    assert published["supersedes"] is None
    error = await refused(own, second, "head_moved")
    assert error["details"]["integration_sha"] == published["published_sha"]
    assert (await again(own, second))["supersedes"] == published["id"]


async def test_a_tag_made_outside_costs_its_number_only(own: World) -> None:
    release = await own.validated(await own.queued())
    tag = (await own.max.get(release))["tag"]
    head = git(own, "rev-parse", "main")
    git(own, "tag", tag, head)
    published = (await own.max.post(f"{release}/publish"))["release"]
    assert published["tag"] == tag.removesuffix(".1") + ".2"
    assert git(own, "rev-parse", tag, published["tag"]).split() == [head, published["published_sha"]]
    assert (await own.max.post(f"{own.path}/releases", {}))["tag"] == tag.removesuffix(".1") + ".3"


async def test_twenty_drafts_at_once_are_numbered_without_holes(own: World) -> None:
    replies = await at_once(own.max, *[(f"{own.path}/releases", {})] * 20)
    tags = [reply.json()["data"]["tag"] for reply in replies]
    assert sorted(int(tag.rpartition(".")[2]) for tag in tags) == list(range(1, 21))


async def test_of_two_overlapping_releases_one_gets_all_and_the_other_nothing(own: World) -> None:
    one, two, three = [last(await own.queued()) for _ in range(3)]
    drafts = [f"{own.path}/releases/{(await own.max.post(f'{own.path}/releases', {}))['id']}" for _ in range(2)]
    wanted = [[one, two], [two, three]]
    replies = await at_once(
        own.max, *[(f"{draft}/changesets", {"changeset_ids": ids}) for draft, ids in zip(drafts, wanted, strict=True)]
    )
    assert sorted(reply.status_code for reply in replies) == [200, 409]
    winner = next(number for number, reply in enumerate(replies) if reply.status_code == 200)
    error = assert_error(replies[1 - winner], 409, "conflict")
    assert error["details"] == [{"changeset_id": two, "state": "queued", "release_id": last(drafts[winner])}]
    shown = [(await own.max.get(draft))["ordered_changeset_ids"] for draft in drafts]
    assert (shown[winner], shown[1 - winner]) == (wanted[winner], [])


async def test_what_is_added_and_removed_at_the_same_moment_is_all_done(own: World) -> None:
    gone, *more = [last(await own.queued()) for _ in range(4)]
    path = f"{own.path}/releases/{(await own.max.post(f'{own.path}/releases', {'changeset_ids': [gone]}))['id']}"
    edits = [{"add": [one]} for one in more] + [{"remove": [gone]}]
    replies = await at_once(own.max, *[(f"{path}/changesets", edit) for edit in edits])
    assert [reply.status_code for reply in replies] == [200] * 4
    assert sorted((await own.max.get(path))["ordered_changeset_ids"]) == sorted(more)


async def test_an_edit_that_says_nothing_or_two_things_is_refused(own: World) -> None:
    one = last(await own.queued())
    path = f"{own.path}/releases/{(await own.max.post(f'{own.path}/releases', {}))['id']}"
    bodies: list[dict[str, Any]] = [
        {},
        {"add": [one], "remove": [one]},
        {"add": [one, one]},
        {"changeset_ids": [one], "add": [one]},
        {"changeset_ids": [one, one]},
    ]
    for body in bodies:
        assert_error(await own.max.send("POST", f"{path}/changesets", json=body), 400, "validation_error")
    order = {"ordered_changeset_ids": [one]}
    assert_error(await own.max.send("POST", f"{path}/reorder", json=order), 400, "validation_error")


async def test_a_stale_version_stops_every_command_of_a_release(own: World) -> None:
    path = f"{own.path}/releases/{(await own.max.post(f'{own.path}/releases', {}))['id']}"
    version = (await own.max.get(path))["version"]
    commands: list[tuple[str, str, Any]] = [
        ("POST", f"{path}/changesets", {"changeset_ids": []}),
        ("POST", f"{path}/reorder", {"ordered_changeset_ids": []}),
        ("POST", f"{path}/publish", {}),
        ("DELETE", path, None),
    ]
    for method, route, body in commands:
        stale = {"If-Match": str(version + 1)}
        assert_error(await own.max.send(method, route, json=body, headers=stale), 409, "stale_write")
    read = {"If-Match": str(version)}
    assert (await own.max.send("POST", f"{path}/changesets", json={"changeset_ids": []}, headers=read)).status_code == 200


async def test_every_command_on_a_published_release_is_refused_and_its_record_stays(own: World) -> None:
    member, other = await own.queued(), last(await own.queued())
    release = await own.validated(member)
    await own.max.post(f"{release}/publish")
    before = await own.max.get(release)
    bodies: list[tuple[str, Any]] = [
        ("changesets", {"changeset_ids": [other]}),
        ("changesets", {"add": [other]}),
        ("changesets", {"remove": [last(member)]}),
        ("reorder", {"ordered_changeset_ids": [last(member)]}),
        ("assemble", {}),
        ("publish", {}),
    ]
    for verb, body in bodies:
        assert_error(await own.max.send("POST", f"{release}/{verb}", json=body), 409, "invalid_transition")
    assert_error(await own.max.send("DELETE", release), 409, "invalid_transition")
    assert await own.max.get(release) == before
    assert (await own.ann.get(f"{own.path}/changesets/{other}"))["release_id"] is None
