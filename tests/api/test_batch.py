"""Many changes at once: all or none, with the guardrails of each (`spec.md` 7, `api.md` 3 `files/batch`)."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.api.api_git import git
from tests.support.conman_stack import World, assert_error, b64, last


def write(path: str, text: str | bytes = "1", **more: Any) -> dict[str, Any]:
    return {"action": "write", "path": path, "content": b64(text), **more}


def delete(path: str, **more: Any) -> dict[str, Any]:
    return {"action": "delete", "path": path, **more}


def move(path: str, to: str, **more: Any) -> dict[str, Any]:
    return {"action": "move", "path": path, "to": to, **more}


async def batch(world: World, workspace: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return await world.ann.ok("POST", f"{workspace}/files/batch", json={"changes": list(changes), **more})


async def listed(world: World, workspace: str) -> dict[str, str]:
    rows = await world.ann.get(f"{workspace}/files", params={"recursive": "true"})
    return {row["path"]: row["status"] for row in rows}


@pytest.fixture
async def workspace(world: World) -> str:
    """One with two committed files, and nothing pending."""
    made = await world.workspace()
    await batch(world, made, write("a.json", "a"), write("b.json", "b"))
    await world.ann.post(f"{made}/checkpoints")
    return made


def pending_commits(world: World, workspace: str, branch: str) -> int:
    return len(git(world, "rev-list", f"{branch}..refs/heads/conman/pending/{last(workspace)}").splitlines())


async def test_writes_deletes_and_moves_are_one_pending_edit(world: World, workspace: str) -> None:
    before = await world.ann.get(workspace)
    made = await batch(
        world, workspace, write("new/c.json", "c"), delete("a.json"), move("b.json", "moved/b.json"), message="tidy up"
    )
    assert [(row["action"], row["path"]) for row in made["changes"]] == [
        ("write", "new/c.json"),
        ("delete", "a.json"),
        ("move", "b.json"),
    ]
    assert made["changes"][1]["blob_id"] is None
    assert made["changes"][2]["to"] == "moved/b.json"
    assert (made["commit_sha"], made["pending_edits"]) == (None, 4)
    assert await listed(world, workspace) == {"moved/b.json": "added", "new/c.json": "added"}
    shown = await world.ann.get(workspace)
    assert shown["head_sha"] == before["head_sha"]
    assert pending_commits(world, workspace, shown["branch_name"]) == 1


async def test_each_change_is_audited_and_a_move_as_one(world: World, workspace: str) -> None:
    await batch(world, workspace, write("a.json", "new"), move("b.json", "moved.json", content=b64("changed too")))
    events = (await world.audit(entity_type="file", entity_id=last(workspace)))[:2]
    by_action = {event["action"]: event for event in events}
    assert set(by_action) == {"written", "moved"}
    moved = by_action["moved"]
    assert (moved["before"]["path"], moved["after"]["path"]) == ("b.json", "moved.json")
    assert moved["before"]["blob_id"] != moved["after"]["blob_id"]
    assert moved["git_sha"] == by_action["written"]["git_sha"]


async def test_changes_apply_in_their_order(world: World, workspace: str) -> None:
    await batch(world, workspace, move("a.json", "old.json"), write("a.json", "fresh"), write("x.json"), delete("x.json"))
    assert await listed(world, workspace) == {"a.json": "modified", "b.json": "unchanged", "old.json": "added"}


REFUSED: dict[str, tuple[list[dict[str, Any]], int, str]] = {
    "a blocked path": ([write(".git/config")], 403, "blocked_path"),
    "a hostile path": ([write("../x")], 400, "validation_error"),
    "a move out of a blocked path": ([move(".gitignore", "x.json")], 403, "blocked_path"),
    "a move into a blocked path": ([move("a.json", ".github/x.yml")], 403, "blocked_path"),
    "a move to a hostile path": ([move("a.json", "b/../../x")], 400, "validation_error"),
    "a move onto a file": ([move("a.json", "b.json")], 409, "conflict"),
    "a move below a file": ([move("a.json", "b.json/x")], 409, "conflict"),
    "a move to itself": ([move("a.json", "./a.json")], 400, "validation_error"),
    "a move of nothing": ([move("none.json", "x.json")], 404, "not_found"),
    "a deletion of nothing": ([delete("none.json")], 404, "not_found"),
    "a file below a file": ([write("a.json/below")], 400, "validation_error"),
    "a stale blob id": ([delete("a.json", expected_blob_id="0" * 40)], 409, "stale_write"),
    "a file that must be new": ([write("a.json", "x", expected_blob_id="")], 409, "stale_write"),
    "no base64": ([{"action": "write", "path": "c.json", "content": "%"}], 400, "validation_error"),
    "a write of nothing": ([{"action": "write", "path": "c.json"}], 400, "validation_error"),
    "a write with a target": ([write("c.json", to="d.json")], 400, "validation_error"),
    "a deletion with content": ([{**delete("a.json"), "content": ""}], 400, "validation_error"),
    "a move to nowhere": ([{"action": "move", "path": "a.json"}], 400, "validation_error"),
    "an unknown action": ([{"action": "copy", "path": "a.json"}], 400, "validation_error"),
    "an unknown field": ([write("c.json", colour="red")], 400, "validation_error"),
    "no change": ([], 400, "validation_error"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_one_refused_change_refuses_all(refusing: tuple[World, str], name: str) -> None:
    world, workspace = refusing
    changes, status, code = REFUSED[name]
    sent = [write("before.json"), *changes, write("after.json")] if changes else []
    reply = await world.ann.send("POST", f"{workspace}/files/batch", json={"changes": sent})
    assert_error(reply, status, code)
    assert await listed(world, workspace) == {"a.json": "added", "b.json": "added"}


@pytest.fixture(scope="module")
async def refusing(other_app: World) -> tuple[World, str]:
    made = await other_app.workspace()
    await batch(other_app, made, write("a.json", "a"), write("b.json", "b"))
    return other_app, made


async def test_a_thousand_changes_are_taken_and_one_more_is_not(world: World) -> None:
    workspace = await world.workspace()
    changes = [write(f"many/{number:04}.json") for number in range(1001)]
    reply = await world.ann.send("POST", f"{workspace}/files/batch", json={"changes": changes})
    assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == "changes"
    made = await batch(world, workspace, *changes[:1000])
    assert made["pending_edits"] == 1000


async def test_every_file_of_a_batch_keeps_to_the_limit(world: World, workspace: str) -> None:
    limit = world.app["settings"]["file_size_limit_bytes"]
    body = {"changes": [write("ok.bin"), write("over.bin", b"x" * (limit + 1))]}
    details = assert_error(await world.ann.send("POST", f"{workspace}/files/batch", json=body), 400, "validation_error")
    assert details["details"][0]["field"] == "changes.1.content"
    assert (await world.ann.get(workspace))["pending_edits"] == 0


async def test_a_body_over_the_cap_is_413(world: World, workspace: str) -> None:
    raw = b" " * (10 * 1024 * 1024 + 1)
    reply = await world.ann.send("POST", f"{workspace}/files/batch", content=raw, headers={"Content-Type": "application/json"})
    assert_error(reply, 413, "payload_too_large")


async def test_the_same_writes_again_change_nothing(world: World) -> None:
    workspace = await world.workspace()
    for _ in range(2):
        made = await batch(world, workspace, write("a.json"), write("b.json"))
        assert made["pending_edits"] == 2
    assert len(await world.audit(entity_type="file", entity_id=last(workspace))) == 2


async def test_a_repeated_batch_is_made_once_even_when_a_submit_took_it(world: World, workspace: str) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"changes": [move("a.json", "moved.json"), write("c.json")]}
    replies = await asyncio.gather(
        *(world.ann.send("POST", f"{workspace}/files/batch", json=body, headers=key) for _ in range(5))
    )
    await world.ann.post(f"{workspace}/checkpoints")
    await world.save(workspace, "a.json", "new")
    replies.append(await world.ann.send("POST", f"{workspace}/files/batch", json=body, headers=key))
    assert {reply.status_code for reply in replies} == {200}
    assert [reply.json() for reply in replies] == [replies[0].json()] * 6
    assert await listed(world, workspace) == {
        "a.json": "added",
        "b.json": "unchanged",
        "c.json": "unchanged",
        "moved.json": "unchanged",
    }


async def test_of_batches_on_the_same_blob_at_once_exactly_one_wins_whole(world: World, workspace: str) -> None:
    blob = (await world.ann.get(f"{workspace}/files", params={"path": "a.json"}))["blob_id"]
    bodies = [
        {"changes": [write(f"by/{number}.json"), write("a.json", f"by {number}", expected_blob_id=blob)]} for number in range(6)
    ]
    replies = await asyncio.gather(*(world.ann.send("POST", f"{workspace}/files/batch", json=body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 5
    winner = next(number for number, reply in enumerate(replies) if reply.status_code == 200)
    assert await listed(world, workspace) == {"a.json": "modified", "b.json": "unchanged", f"by/{winner}.json": "added"}
