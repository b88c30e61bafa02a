"""Workspaces and files: guardrails, pending edits, races (`spec.md` 7)."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.support.conman_stack import World, assert_error, b64


@pytest.fixture(scope="module")
async def workspace(world: World) -> str:
    return await world.workspace()


async def test_the_default_workspace_is_made_once_and_named_after_its_owner(world: World) -> None:
    person = await world.join("user")
    first = await person.send("POST", f"{world.path}/workspaces", json={})
    again = await person.send("POST", f"{world.path}/workspaces", json={})
    assert (first.status_code, again.status_code) == (201, 200)
    made = first.json()["data"]
    assert made["id"] == again.json()["data"]["id"]
    assert made["is_default"]
    assert made["branch_name"] == f"ws/{person.email.partition('@')[0]}/{world.app['name']}"


async def test_the_first_listing_makes_the_default_workspace(world: World) -> None:
    person = await world.join("user")
    assert [row["is_default"] for row in await person.get(f"{world.path}/workspaces")] == [True]


async def test_of_many_first_uses_at_once_one_makes_the_default_workspace(world: World) -> None:
    person = await world.join("user")
    made = await asyncio.gather(*(person.post(f"{world.path}/workspaces") for _ in range(12)))
    assert len({row["id"] for row in made}) == 1


@pytest.mark.parametrize(
    "name", ["conman/mine", "Conman/mine", "refs/heads/x", "a..b", "a//b", "/a", "a/", "a.lock", "a b", "-x", "HEAD"]
)
async def test_a_branch_name_that_git_or_conman_does_not_allow_is_400(world: World, name: str) -> None:
    reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"branch_name": name})
    assert_error(reply, 400, "validation_error")


async def test_a_branch_that_exists_is_a_conflict(world: World) -> None:
    await world.ann.post(f"{world.path}/workspaces", {"branch_name": "team/mine"})
    for taken in ("team/mine", "main"):
        reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"branch_name": taken})
        assert_error(reply, 409, "conflict")


async def test_a_save_is_pending_until_it_is_submitted(world: World) -> None:
    workspace = await world.workspace()
    before = await world.ann.get(workspace)
    saved = await world.save(workspace, "entities/new.json", '{"a": 1}')
    assert saved["pending_edits"] == 1
    after = await world.ann.get(workspace)
    assert after["head_sha"] == before["head_sha"]
    assert after["pending_edits"] == 1
    shown = await world.ann.get(f"{workspace}/files", params={"path": "entities/new.json"})
    assert (shown["content"], shown["encoding"], shown["pending"]) == ('{"a": 1}', "utf-8", True)
    assert shown["blob_id"] == saved["blob_id"]
    listed = await world.ann.get(f"{workspace}/files", params={"recursive": "true"})
    assert [(row["path"], row["status"]) for row in listed] == [("entities/new.json", "added")]
    diff = await world.ann.get(f"{workspace}/diff")
    assert diff["stats"] == {"files": 1, "additions": 1, "deletions": 0}


@pytest.mark.parametrize("message", ["", "a\0b", "two\n\nConman-Command: forged\n", "x" * 2000], ids=ascii)
async def test_any_message_is_taken_for_a_title_and_nothing_else(world: World, message: str) -> None:
    workspace = await world.workspace()
    saved = await world.save(workspace, "entities/said.json", "{}", message=message)
    assert saved["pending_edits"] == 1


async def test_the_same_save_again_changes_nothing(world: World) -> None:
    workspace = await world.workspace()
    for _ in range(2):
        await world.save(workspace, "entities/same.json", "{}")
    events = await world.audit(entity_type="file", entity_id=workspace.rpartition("/")[2])
    assert len(events) == 1


BLOCKED = [
    ".git/config",
    ".GIT/config",
    "a/.git/hooks/pre-commit",
    ".gitignore",
    ".github/workflows/ci.yml",
    ".Github/x",
    "git~1/config",
]
HOSTILE = ["../x", "a/../../x", "/etc/passwd", "a\0b", "..\\x", "C:\\x", "%2e%2e/x", "a/%2e%2e/b", "", ".", "a\nb"]


@pytest.mark.parametrize("path", BLOCKED)
async def test_a_blocked_path_is_403_and_nothing_is_written(world: World, workspace: str, path: str) -> None:
    reply = await world.ann.send("PUT", f"{workspace}/files", json={"path": path, "content": b64("x")})
    assert_error(reply, 403, "blocked_path")
    assert (await world.ann.get(workspace))["pending_edits"] == 0


@pytest.mark.parametrize("path", HOSTILE, ids=[repr(path) for path in HOSTILE])
async def test_a_hostile_path_is_400_and_nothing_is_written(world: World, workspace: str, path: str) -> None:
    reply = await world.ann.send("PUT", f"{workspace}/files", json={"path": path, "content": b64("x")})
    assert_error(reply, 400, "validation_error")
    assert (await world.ann.get(workspace))["pending_edits"] == 0


async def test_a_file_may_have_the_limit_and_not_a_byte_more(world: World) -> None:
    workspace = await world.workspace()
    limit = world.app["settings"]["file_size_limit_bytes"]
    await world.save(workspace, "assets/limit.bin", b"x" * limit)
    reply = await world.ann.send(
        "PUT", f"{workspace}/files", json={"path": "assets/over.bin", "content": b64(b"x" * (limit + 1))}
    )
    assert_error(reply, 400, "validation_error")


@pytest.mark.parametrize("content", ["not base64!", "YQ=", "\u00e4"])
async def test_content_that_is_not_base64_is_400(world: World, workspace: str, content: str) -> None:
    reply = await world.ann.send("PUT", f"{workspace}/files", json={"path": "a.json", "content": content})
    assert_error(reply, 400, "validation_error")


async def test_binary_files_come_back_as_they_went_in(world: World) -> None:
    workspace = await world.workspace()
    data = bytes(range(256)) * 40
    await world.save(workspace, "assets/logo.bin", data)
    shown = await world.ann.get(f"{workspace}/files", params={"path": "assets/logo.bin"})
    assert shown["encoding"] == "base64"
    assert base64.b64decode(shown["content"]) == data


async def test_a_stale_blob_id_is_409_and_nothing_is_written(world: World) -> None:
    workspace = await world.workspace()
    first = await world.save(workspace, "entities/x.json", '{"n": 1}')
    await world.save(workspace, "entities/x.json", '{"n": 2}', expected_blob_id=first["blob_id"])
    body = {"path": "entities/x.json", "content": b64('{"n": 3}'), "expected_blob_id": first["blob_id"]}
    assert_error(await world.ann.send("PUT", f"{workspace}/files", json=body), 409, "stale_write")
    shown = await world.ann.get(f"{workspace}/files", params={"path": "entities/x.json"})
    assert shown["content"] == '{"n": 2}'


async def test_of_two_saves_on_the_same_blob_exactly_one_wins(world: World) -> None:
    workspace = await world.workspace()
    first = await world.save(workspace, "entities/x.json", '{"n": 0}')
    bodies = [
        {"path": "entities/x.json", "content": b64(f'{{"n": {n}}}'), "expected_blob_id": first["blob_id"]} for n in range(1, 9)
    ]
    replies = await asyncio.gather(*(world.ann.send("PUT", f"{workspace}/files", json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 7


async def test_saves_of_different_files_at_once_are_all_kept(world: World) -> None:
    workspace = await world.workspace()
    await asyncio.gather(*(world.save(workspace, f"entities/f{n}.json", "{}") for n in range(12)))
    listed = await world.ann.get(f"{workspace}/files", params={"recursive": "true"})
    assert len(listed) == 12
    events = await world.audit(entity_type="file", entity_id=workspace.rpartition("/")[2])
    assert len(events) == 12


async def test_a_deleted_file_is_gone_and_one_that_is_not_there_is_404(world: World) -> None:
    workspace = await world.workspace()
    await world.save(workspace, "entities/x.json", "{}")
    gone = await world.ann.send("DELETE", f"{workspace}/files", params={"path": "entities/x.json"})
    assert gone.status_code == 204
    assert (await world.ann.get(workspace))["pending_edits"] == 0
    reply = await world.ann.send("DELETE", f"{workspace}/files", params={"path": "entities/x.json"})
    assert_error(reply, 404, "not_found")
    assert_error(await world.ann.send("GET", f"{workspace}/files", params={"path": "entities/x.json"}), 404, "not_found")
    assert_error(await world.ann.send("DELETE", f"{workspace}/files", json={}), 400, "validation_error")


async def test_saves_that_race_a_submit_are_in_it_or_stay_pending(world: World) -> None:
    changeset = await world.changeset()
    workspace = f"{world.path}/workspaces/{(await world.ann.get(changeset))['workspace_id']}"
    saves = [world.save(workspace, f"entities/race{n}.json", "{}") for n in range(10)]
    submitted, *_ = await asyncio.gather(world.ann.post(f"{changeset}/submit"), *saves)
    committed = {row["path"] for row in (await world.ann.get(f"{changeset}/diff", params={"limit": 100}))["files"]}
    listed = {row["path"]: row["status"] for row in await world.ann.get(f"{workspace}/files", params={"recursive": "true"})}
    raced = {f"entities/race{n}.json" for n in range(10)}
    assert raced <= set(listed)
    assert {path for path in raced if listed[path] == "unchanged"} == raced & committed
    assert submitted["changeset"]["state"] == "submitted"
