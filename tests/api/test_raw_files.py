"""Raw bytes over HTTP: ranges, versions, safe headers; and folders with many files (`spec.md` 7, `api.md` 3)."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.api.api_git import commit_outside, git
from tests.support.conman_stack import World, assert_error

DATA = random.Random(7).randbytes(200_000)


@pytest.fixture(scope="module")
async def workspace(world: World) -> str:
    made = await world.workspace()
    await world.save(made, "assets/logo.png", DATA)
    await world.save(made, "assets/empty.txt", b"")
    await world.save(made, "pages/index.html", "<script>alert(1)</script>")
    return made


async def raw(world: World, workspace: str, path: str = "assets/logo.png", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.ann.send("GET", f"{workspace}/files/raw", params={"path": path}, headers=named)


async def test_raw_bytes_come_as_they_went_in_and_safe(world: World, workspace: str) -> None:
    reply = await raw(world, workspace)
    assert (reply.status_code, reply.content) == (200, DATA)
    blob = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA, usedforsecurity=False).hexdigest()
    assert reply.headers["etag"] == f'"{blob}"'
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-length"] == str(len(DATA))
    page = await raw(world, workspace, "pages/index.html")
    assert page.headers["content-disposition"] == "attachment; filename*=UTF-8''index.html"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in page.headers["content-security-policy"]


async def test_names_in_headers_are_encoded(world: World) -> None:
    workspace = await world.workspace()
    await world.save(workspace, 'assets/ä "x";.bin', b"1")
    reply = await raw(world, workspace, 'assets/ä "x";.bin')
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20%22x%22%3B.bin"


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=0-99": (0, 100),
    "bytes=199999-": (199_999, 200_000),
    "bytes=65530-65550": (65_530, 65_551),
    "bytes=-5": (199_995, 200_000),
    "bytes=-999999": (0, 200_000),
    "bytes=100-999999999": (100, 200_000),
}


@pytest.mark.parametrize("asked", RANGES)
async def test_a_range_is_206_with_its_place(world: World, workspace: str, asked: str) -> None:
    start, end = RANGES[asked]
    reply = await raw(world, workspace, range=asked)
    assert (reply.status_code, reply.content) == (206, DATA[start:end])
    assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=999999999-9999999999", "bytes=-0"])
async def test_a_range_beyond_the_end_is_416_and_says_how_long_the_file_is(world: World, workspace: str, asked: str) -> None:
    reply = await raw(world, workspace, range=asked)
    assert_error(reply, 416, "validation_error")
    assert reply.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=5-1", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=" + "9" * 30 + "-"])
async def test_a_range_that_can_not_be_read_is_the_whole(world: World, workspace: str, asked: str) -> None:
    reply = await raw(world, workspace, range=asked)
    assert (reply.status_code, reply.content) == (200, DATA)


async def test_what_the_client_has_already_is_304_and_a_range_of_another_version_is_the_whole(
    world: World, workspace: str
) -> None:
    etag = (await raw(world, workspace)).headers["etag"]
    for given in (etag, f'"x", W/{etag}', "*"):
        reply = await raw(world, workspace, if_none_match=given)
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    assert (await raw(world, workspace, if_none_match='"x"')).status_code == 200
    assert (await raw(world, workspace, range="bytes=0-1", if_range=etag)).status_code == 206
    assert (await raw(world, workspace, range="bytes=0-1", if_range='"x"')).status_code == 200


async def test_an_empty_file_has_no_range(world: World, workspace: str) -> None:
    reply = await raw(world, workspace, "assets/empty.txt")
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")
    assert_error(await raw(world, workspace, "assets/empty.txt", range="bytes=0-"), 416, "validation_error")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("none.json", 404, "not_found"),
        ("assets", 404, "not_found"),
        ("", 400, "validation_error"),
        ("../x", 400, "validation_error"),
    ],
)
async def test_what_is_no_file_is_refused(world: World, workspace: str, path: str, status: int, code: str) -> None:
    assert_error(await raw(world, workspace, path), status, code)


async def test_a_blob_id_opens_the_versions_of_this_path_and_no_other_blob(own: World) -> None:
    await commit_outside(own, {"a.json": "base", "secret.json": "elsewhere"})
    workspace = await own.workspace()
    await own.save(workspace, "a.json", "first save")
    await own.save(workspace, "a.json", "second save")
    await own.ann.post(f"{workspace}/checkpoints")
    await own.save(workspace, "a.json", "pending")
    await commit_outside(own, {"a.json": "theirs"})
    other = await own.workspace(own.rob)
    await own.save(other, "a.json", "another's", own.rob)

    async def opened(text: str, path: str = "a.json") -> int:
        blob = hashlib.sha1(b"blob %d\0" % len(text) + text.encode(), usedforsecurity=False).hexdigest()
        reply = await own.ann.send("GET", f"{workspace}/files/raw", params={"path": path, "blob_id": blob})
        assert reply.status_code == 404 or reply.text == text
        return reply.status_code

    for text in ("base", "second save", "pending", "theirs"):
        assert await opened(text) == 200, text
    for text in ("elsewhere", "another's", "no such text"):
        assert await opened(text) == 404, text
    assert await opened("elsewhere", "secret.json") == 200
    for blob in ("x", "../../config", "0" * 40, git(own, "rev-parse", "main"), git(own, "rev-parse", "main^{tree}")):
        reply = await own.ann.send("GET", f"{workspace}/files/raw", params={"path": "a.json", "blob_id": blob})
        assert_error(reply, 404, "not_found")


async def test_a_symbolic_link_is_shown_and_never_followed(own: World) -> None:
    await commit_outside(own, {"secret.json": "secret"})
    tree = git(own, "rev-parse", "main^{tree}")
    target = git(own, "hash-object", "-w", "--stdin", text="secret.json")
    linked = git(own, "mktree", text=git(own, "ls-tree", tree) + f"\n120000 blob {target}\tlink.json\n")
    identity = ["-c", "user.name=o", "-c", "user.email=o@example.com"]
    commit = git(own, *identity, "commit-tree", linked, "-p", "main", "-m", "link")
    git(own, "update-ref", "refs/heads/main", commit)
    workspace = await own.workspace()
    rows = {row["path"]: row["type"] for row in await own.ann.get(f"{workspace}/files")}
    assert rows == {"link.json": "symlink", "secret.json": "blob"}
    assert (await raw(own, workspace, "link.json")).text == "secret.json"
    assert (await own.ann.get(f"{workspace}/files", params={"path": "link.json"}))["content"] == "secret.json"
    assert_error(await raw(own, workspace, "link.json/x"), 404, "not_found")


async def test_a_file_of_the_largest_size_is_written_and_read_whole(own: World) -> None:
    await own.set(file_size_limit_bytes=12 * 1024 * 1024)
    workspace = await own.workspace()
    data = random.Random(3).randbytes(12 * 1024 * 1024)
    await own.save(workspace, "assets/large.bin", data)
    assert (await raw(own, workspace, "assets/large.bin")).content == data
    part = await raw(own, workspace, "assets/large.bin", range="bytes=6000000-6099999")
    assert part.content == data[6_000_000:6_100_000]


async def test_many_files_in_many_folders_are_listed_page_by_page_in_order(own: World) -> None:
    files: dict[str, str | bytes | None] = {
        f"entities/f{folder:03}/e{number:02}.json": f"{folder}.{number}" for folder in range(500) for number in range(20)
    }
    await commit_outside(own, files)
    workspace = await own.workspace()
    await own.save(workspace, "entities/f250/e05.json", "changed")
    await own.save(workspace, "entities/f250/new.json", "new")
    expected = sorted([*files, "entities/f250/new.json"])
    rows, pagination = await own.ann.listed(f"{workspace}/files", recursive="true", page=1, limit=100)
    assert [row["path"] for row in rows] == expected[:100]
    assert pagination == {"page": 1, "limit": 100, "total": 10_001}
    place = expected.index("entities/f250/e05.json")
    rows, _ = await own.ann.listed(f"{workspace}/files", recursive="true", page=place // 100 + 1, limit=100)
    assert [row["path"] for row in rows] == expected[place // 100 * 100 :][:100]
    assert {row["path"]: row["status"] for row in rows if row["status"] != "unchanged"} == {
        "entities/f250/e05.json": "modified",
        "entities/f250/new.json": "added",
    }
    rows, _ = await own.ann.listed(f"{workspace}/files", recursive="true", page=102, limit=100)
    assert rows == []
    reply = (await own.ann.send("GET", f"{workspace}/files", params={"path": "entities", "page": 3})).json()
    folders, pagination = reply["data"], reply["pagination"]
    assert pagination["total"] == 500
    assert {row["path"]: row["status"] for row in folders if row["status"] != "unchanged"} == {"entities/f250": "modified"}
    assert {(row["type"], row["size"]) for row in folders} == {("tree", None)}
