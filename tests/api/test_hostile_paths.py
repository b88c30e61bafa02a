"""Every route that takes a path answers each hostile one with a clear refusal, and nothing is written (`spec.md` 7)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pygit2
import pytest
from pygit2.enums import FileMode

from tests.paths.hostile import ACCEPTED, GROUPS, ROWS, Row
from tests.support.conman_stack import Stack, World, assert_error, b64, make_world
from tests.support.sizes import some_of

STATUS = {"validation_error": 400, "blocked_path": 403, "not_found": 404}
HEX_ONLY_IN_JSON = "not UTF-8"
"""The group whose paths no address can hold; a server sees replacement characters there."""
ONLY_WRITES_ARE_BLOCKED = "what an app blocks"
Send = Callable[[str], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
async def workspace(world: World) -> str:
    """A workspace with one file, `kept.json`."""
    workspace = await world.workspace()
    await world.save(workspace, "kept.json", "{}")
    return workspace


def _send(world: World, method: str, path: str, body: Any) -> Awaitable[httpx.Response]:
    """With every character escaped, since half a surrogate pair has no other form in JSON."""
    return world.ann.send(method, path, content=json.dumps(body), headers={"content-type": "application/json"})


def _address(path: str) -> str:
    return quote(path, safe="", errors="surrogatepass")


def _rows(group: str) -> Sequence[Row]:
    """Over HTTP some of the group; `tests/unit/test_path_corpus.py` judges each path."""
    return some_of([row for row in ROWS if row.group == group], one_in=4)


async def _check_writes(group: str, send: Send) -> None:
    refused = [row for row in _rows(group) if row.outcome != ACCEPTED]
    for row in refused:
        reply = await send(row.path)
        error = assert_error(reply, STATUS[row.outcome], row.outcome)
        assert error["details"], row.id


async def _check_reads(group: str, send: Send) -> None:
    for row in _rows(group):
        reply = await send(row.path)
        if row.as_folder == ACCEPTED or group == ONLY_WRITES_ARE_BLOCKED:
            assert reply.status_code == 200 or assert_error(reply, 404, "not_found"), row.id
        elif group == HEX_ONLY_IN_JSON:
            assert reply.status_code in (400, 404), row.id
            assert_error(reply, reply.status_code, reply.json()["error"]["code"])
        else:
            assert_error(reply, STATUS[row.as_folder], row.as_folder)


def _is_for_writing(group: str) -> bool:
    return any(row.outcome != ACCEPTED for row in _rows(group))


WRITING = [group for group in GROUPS if _is_for_writing(group)]


@pytest.mark.parametrize("group", WRITING)
async def test_a_hostile_path_is_not_written(world: World, workspace: str, group: str) -> None:
    body = {"content": b64("x")}
    await _check_writes(group, lambda path: _send(world, "PUT", f"{workspace}/files", {"path": path, **body}))
    assert (await world.ann.get(workspace))["pending_edits"] == 1


@pytest.mark.parametrize("group", WRITING)
async def test_a_hostile_path_is_not_deleted(world: World, workspace: str, group: str) -> None:
    await _check_writes(group, lambda path: _send(world, "DELETE", f"{workspace}/files", {"path": path}))
    if group != HEX_ONLY_IN_JSON:
        await _check_writes(group, lambda path: world.ann.send("DELETE", f"{workspace}/files?path={_address(path)}"))
    assert (await world.ann.get(workspace))["pending_edits"] == 1


@pytest.mark.parametrize("group", GROUPS)
async def test_a_hostile_path_is_not_read(world: World, workspace: str, group: str) -> None:
    await _check_reads(group, lambda path: world.ann.send("GET", f"{workspace}/files?path={_address(path)}"))
    await _check_reads(group, lambda path: world.ann.send("GET", f"{workspace}/files?recursive=true&path={_address(path)}"))


@pytest.mark.parametrize("group", WRITING)
async def test_a_hostile_path_in_a_batch_refuses_the_whole_batch(world: World, workspace: str, group: str) -> None:
    def batch(**change: str) -> Send:
        fine = {"action": "write", "path": "fine.json", "content": b64("1")}
        return lambda path: _send(
            world,
            "POST",
            f"{workspace}/files/batch",
            {"changes": [fine, {name: value or path for name, value in change.items()}]},
        )

    await _check_writes(group, batch(action="write", path="", content=b64("x")))
    await _check_writes(group, batch(action="delete", path=""))
    await _check_writes(group, batch(action="move", path="", to="moved.json"))
    await _check_writes(group, batch(action="move", path="kept.json", to=""))
    listed = await world.ann.get(f"{workspace}/files", params={"recursive": "true"})
    assert [row["path"] for row in listed] == ["kept.json"]


@pytest.mark.parametrize("group", GROUPS)
async def test_the_bytes_at_a_hostile_path_are_not_read(world: World, workspace: str, group: str) -> None:
    for row in _rows(group):
        reply = await world.ann.send("GET", f"{workspace}/files/raw?path={_address(row.path)}")
        assert reply.status_code in (400, 403, 404), row.id
        error = assert_error(reply, reply.status_code, reply.json()["error"]["code"])
        if group != HEX_ONLY_IN_JSON and row.outcome != ACCEPTED and group != ONLY_WRITES_ARE_BLOCKED:
            assert error["code"] == row.outcome, row.id


def _repository(world: World) -> Path:
    return world.stack.data / "repositories" / world.app["repo_path"]


def _git(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_an_odd_path_that_is_accepted_is_read_back_and_checked_out_by_git(world: World, tmp_path: Path) -> None:
    workspace = await world.workspace()
    odd = [row.path for row in ROWS if row.outcome == ACCEPTED]
    saved = [(await world.save(workspace, path, f"# {number}\n"))["path"] for number, path in enumerate(odd)]
    for number, path in enumerate(odd):
        shown = await world.ann.get(f"{workspace}/files?path={_address(path)}")
        assert (shown["path"], shown["content"]) == (saved[number], f"# {number}\n")
    repository = _repository(world)
    assert _git(repository, "fsck", "--strict", "--no-dangling") == b""
    newest = _git(repository, "for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(refname)", "--contains=main")
    _git(tmp_path, "init", "--quiet", "clone")
    _git(tmp_path / "clone", "fetch", "--quiet", os.fspath(repository), newest.decode().strip())
    _git(tmp_path / "clone", "checkout", "--quiet", "FETCH_HEAD")
    assert _git(tmp_path / "clone", "status", "--porcelain") == b""
    assert set(_git(tmp_path / "clone", "ls-files", "-z").split(b"\0")) == {path.encode() for path in saved} | {b""}


async def test_nothing_is_read_or_written_through_a_link(stack: Stack) -> None:
    world = await make_world(stack)
    repository = pygit2.Repository(str(_repository(world)))
    head = repository.references["refs/heads/main"]
    index = pygit2.Index()
    for name, target in {"a": b"../..", "git": b".git", "root": b"/"}.items():
        index.add(pygit2.IndexEntry(name, repository.create_blob(target), FileMode.LINK))
    me = pygit2.Signature("Ann", "ann@example.org")
    repository.create_commit(head.name, me, me, "links", index.write_tree(repository), [head.target])
    workspace = await world.workspace()
    beside = sorted(_repository(world).parent.iterdir())
    for path in ("a/x", "a/hooks/post-checkout", "git/config", "root/tmp/x"):
        reply = await world.ann.send("PUT", f"{workspace}/files", json={"path": path, "content": b64("x")})
        assert_error(reply, 400, "validation_error")
        assert_error(await world.ann.send("DELETE", f"{workspace}/files", json={"path": path}), 404, "not_found")
        assert_error(await world.ann.send("GET", f"{workspace}/files?path={_address(path)}"), 404, "not_found")
    shown = await world.ann.get(f"{workspace}/files?path=a")
    assert shown["content"] == "../.."
    assert (await world.ann.get(workspace))["pending_edits"] == 0
    assert sorted(_repository(world).parent.iterdir()) == beside
