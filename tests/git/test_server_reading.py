"""CommitService, BlobService and DiffService of the Git server, over the wire."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from server_harness import MAIN, MISSING, REPOSITORY, SECONDS, Calls, calling_with_repository, code, everything, git

from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import CHUNK_BYTES
from conman.git.server_messages import MAX_TEXT_BYTES

LINK, EXECUTABLE, SUBMODULE = 0o120000, 0o100755, 0o160000


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


async def listed(calls: Calls, *revisions: str, **given: Any) -> list[str]:
    request = pb.ListCommitsRequest(repository=REPOSITORY, revisions=revisions, **given)
    return [commit.id for page in await everything(calls.commits.ListCommits(request)) for commit in page.commits]


async def entries(calls: Calls, path: bytes = b"", **given: Any) -> list[pb.TreeEntry]:
    request = pb.GetTreeEntriesRequest(repository=REPOSITORY, revision=b"main", path=path, **given)
    return [entry for page in await everything(calls.commits.GetTreeEntries(request)) for entry in page.entries]


def entry_at(calls: Calls, path: bytes, **given: int) -> Any:
    return calls.commits.TreeEntry(pb.TreeEntryRequest(repository=REPOSITORY, revision=b"main", path=path, **given))


async def test_a_commit_is_found_by_any_revision_with_all_that_it_says(calls: Calls) -> None:
    base = calls.put({"a": b"1"})
    sha = calls.put({"a": b"2"}, [base], ref=MAIN)
    git(calls.folder, "-c", "user.name=T", "-c", "user.email=t@e", "tag", "-a", "-m", "m", "v1", sha)
    for revision in (sha, sha[:10], "main", MAIN, "v1", "refs/tags/v1", "HEAD"):
        request = pb.FindCommitRequest(repository=REPOSITORY, revision=revision.encode())
        commit = (await calls.commits.FindCommit(request)).commit
        assert commit.id == sha
    assert (commit.subject, commit.body) == (b"change ['a']", b"change ['a']\n\nMore words.\n")
    assert (list(commit.parent_ids), commit.body_size) == ([base], len(commit.body))
    assert commit.tree_id == git(calls.folder, "rev-parse", f"{sha}^{{tree}}").decode().strip()
    assert (commit.author.date.seconds - SECONDS) % 60 == 0
    none = await calls.commits.FindCommit(pb.FindCommitRequest(repository=REPOSITORY, revision=b"none"))
    assert not none.HasField("commit")


@pytest.mark.parametrize("revision", ["", "-n1", "--all", "a b", "main:a", "^main", "a..b", "x\0"])
async def test_what_could_be_an_option_or_a_path_is_no_revision(calls: Calls, revision: str) -> None:
    request = pb.FindCommitRequest(repository=REPOSITORY, revision=revision.encode())
    assert await code(calls.commits.FindCommit(request)) is StatusCode.INVALID_ARGUMENT


async def test_trailers_are_told_when_they_are_asked_for(calls: Calls) -> None:
    tree = git(calls.folder, "mktree", stdin=b"").decode().strip()
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    message = "title\n\nwords\n\nConman-Command: 7\nReviewed-by: Bob\n"
    sha = git(calls.folder, *who, "commit-tree", "-m", message, tree).decode().strip()
    request = pb.FindCommitRequest(repository=REPOSITORY, revision=sha.encode(), trailers=True)
    found = (await calls.commits.FindCommit(request)).commit.trailers
    assert [(trailer.key, trailer.value) for trailer in found] == [(b"Conman-Command", b"7"), (b"Reviewed-by", b"Bob")]


async def test_a_very_long_message_is_cut_and_its_length_told(calls: Calls) -> None:
    tree = git(calls.folder, "mktree", stdin=b"").decode().strip()
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    sha = git(calls.folder, *who, "commit-tree", "-F", "-", tree, stdin=b"x" * 100_000 + b"\n").decode().strip()
    commit = (await calls.commits.FindCommit(pb.FindCommitRequest(repository=REPOSITORY, revision=sha.encode()))).commit
    assert (len(commit.body), commit.body_size) == (MAX_TEXT_BYTES, 100_001)


async def test_commits_are_listed_with_exclusions_ranges_and_orders(calls: Calls) -> None:
    base = calls.put({"a": b"0"})
    left = calls.put({"a": b"1"}, [base])
    right = calls.put({"b": b"1"}, [base])
    top = calls.put({"a": b"1", "b": b"1"}, [left, right], ref=MAIN)
    assert await listed(calls, "main") == [top, right, left, base]
    assert await listed(calls, "main", f"^{left}") == [top, right]
    assert await listed(calls, f"{left}..{MAIN}") == [top, right]
    assert await listed(calls, "main", "--not", right) == [top, left]
    assert await listed(calls, "main", first_parent=True) == [top, left, base]
    topo = pb.ListCommitsRequest.TOPO
    assert await listed(calls, "main", order=topo, reverse=True) == (await listed(calls, "main", order=topo))[::-1]
    assert await listed(calls, "main", order=pb.ListCommitsRequest.DATE) == [top, right, left, base]
    assert await listed(calls, "main", max_parents=1) == [right, left, base]
    assert await listed(calls, "main", skip=1, pagination_params=pb.PaginationParameter(limit=2)) == [right, left]
    assert await listed(calls, "main", paths=[b"b"]) == [right]
    assert await listed(calls, "main", author=b"nobody") == []
    assert await listed(calls, right, left, disable_walk=True) == [right, left]


async def test_commits_are_listed_page_by_page(calls: Calls) -> None:
    shas: list[str] = []
    for number in range(5):
        shas.append(calls.put({"a": str(number).encode()}, shas[-1:], ref=MAIN))
    shas.reverse()
    found: list[str] = []
    token = ""
    while True:
        parameters = pb.PaginationParameter(limit=2, page_token=token)
        request = pb.ListCommitsRequest(repository=REPOSITORY, revisions=["main"], pagination_params=parameters)
        (page,) = await everything(calls.commits.ListCommits(request))
        found += [commit.id for commit in page.commits]
        token = page.pagination_cursor.next_cursor
        if not token:
            break
    assert found == shas


async def test_a_long_log_comes_in_several_messages(calls: Calls) -> None:
    shas: list[str] = []
    for number in range(230):
        shas.append(calls.put({"a": str(number).encode()}, shas[-1:], ref=MAIN))
    pages = await everything(calls.commits.ListCommits(pb.ListCommitsRequest(repository=REPOSITORY, revisions=["main"])))
    assert len(pages) == 3
    assert sum(len(page.commits) for page in pages) == 230


@pytest.mark.parametrize("revisions", [[], ["-n1"], ["--exec=x"], ["main:a"], ["^"], [""]])
async def test_malformed_revisions_to_list_are_refused(calls: Calls, revisions: list[str]) -> None:
    calls.put({"a": b"1"}, ref=MAIN)
    request = pb.ListCommitsRequest(repository=REPOSITORY, revisions=revisions)
    assert await code(calls.commits.ListCommits(request)) is StatusCode.INVALID_ARGUMENT


async def test_listing_from_a_revision_that_does_not_exist_says_not_found(calls: Calls) -> None:
    for revision in ("none", MISSING, f"^{MISSING}"):
        request = pb.ListCommitsRequest(repository=REPOSITORY, revisions=[revision])
        assert await code(calls.commits.ListCommits(request)) is StatusCode.NOT_FOUND


async def test_a_commit_contains_itself_and_its_ancestors(calls: Calls) -> None:
    base = calls.put({"a": b"0"})
    top = calls.put({"a": b"1"}, [base], ref=MAIN)

    async def contains(ancestor: str, child: str) -> bool:
        request = pb.CommitIsAncestorRequest(repository=REPOSITORY, ancestor_id=ancestor, child_id=child)
        return (await calls.commits.CommitIsAncestor(request)).value

    assert await contains(base, top)
    assert await contains(top, "main")
    assert not await contains(top, base)
    assert not await contains(MISSING, top)


async def test_a_tree_is_listed_flat_and_recursively_with_modes(calls: Calls) -> None:
    files = {"a.b": b"1", "a/b/c/d": b"2", "a0": (LINK, b"a.b"), "run": (EXECUTABLE, b"#!"), "é/x y": b"3"}
    sha = calls.put(files, ref=MAIN)
    flat = await entries(calls)
    assert [(entry.path.decode(), entry.mode, entry.type) for entry in flat] == [
        ("a.b", 0o100644, pb.TreeEntry.BLOB),
        ("a", 0o040000, pb.TreeEntry.TREE),
        ("a0", LINK, pb.TreeEntry.BLOB),
        ("run", EXECUTABLE, pb.TreeEntry.BLOB),
        ("é", 0o040000, pb.TreeEntry.TREE),
    ]
    assert {entry.commit_oid for entry in flat} == {sha}
    assert flat[1].flat_path == b"a/b/c"
    assert flat[0].flat_path == b"a.b"
    recursive = [entry.path.decode() for entry in await entries(calls, recursive=True)]
    assert recursive == ["a.b", "a", "a/b", "a/b/c", "a/b/c/d", "a0", "run", "é", "é/x y"]
    assert [entry.path for entry in await entries(calls, b"a/b")] == [b"a/b/c"]
    assert [entry.path for entry in await entries(calls, b"a/b/", recursive=True)] == [b"a/b/c", b"a/b/c/d"]
    assert [entry.path for entry in await entries(calls, b".")] == [entry.path for entry in flat]
    first = [entry.path.decode() for entry in await entries(calls, sort=pb.GetTreeEntriesRequest.TREES_FIRST)]
    assert first == ["a", "é", "a.b", "a0", "run"]


async def test_a_submodule_is_listed_as_the_commit_that_it_is(calls: Calls) -> None:
    tree = git(calls.folder, "mktree", "--missing", stdin=f"160000 commit {MISSING}\tsub\n".encode()).decode().strip()
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    sha = git(calls.folder, *who, "commit-tree", "-m", "sub", tree).decode().strip()
    git(calls.folder, "update-ref", MAIN, sha)
    (entry,) = await entries(calls)
    assert (entry.oid, entry.type, entry.mode) == (MISSING, pb.TreeEntry.COMMIT, SUBMODULE)
    (answer,) = await everything(
        calls.commits.TreeEntry(pb.TreeEntryRequest(repository=REPOSITORY, revision=b"main", path=b"sub"))
    )
    assert (answer.oid, answer.type) == (MISSING, pb.TreeEntryResponse.COMMIT)
    wanted = pb.GetBlobsRequest.RevisionPath(revision="main", path=b"sub")
    (blob,) = await everything(calls.blobs.GetBlobs(pb.GetBlobsRequest(repository=REPOSITORY, revision_paths=[wanted])))
    assert (blob.oid, blob.is_submodule, blob.type) == (MISSING, True, pb.COMMIT)


async def test_names_that_are_not_utf_8_keep_their_bytes(calls: Calls) -> None:
    blob = git(calls.folder, "hash-object", "-w", "--stdin", stdin=b"odd").decode().strip()
    tree = git(calls.folder, "mktree", stdin=f"100644 blob {blob}\t".encode() + b"\xff\n").decode().strip()
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    sha = git(calls.folder, *who, "commit-tree", "-m", "odd", tree).decode().strip()
    git(calls.folder, "update-ref", MAIN, sha)
    assert [entry.path for entry in await entries(calls, recursive=True)] == [b"\xff"]
    (answer,) = await everything(
        calls.commits.TreeEntry(pb.TreeEntryRequest(repository=REPOSITORY, revision=b"main", path=b"\xff"))
    )
    assert answer.data == b"odd"


async def test_a_tree_is_listed_page_by_page_and_in_several_messages(calls: Calls) -> None:
    calls.put({f"f{number:03}": b"x" for number in range(250)}, ref=MAIN)
    request = pb.GetTreeEntriesRequest(repository=REPOSITORY, revision=b"main")
    assert len(await everything(calls.commits.GetTreeEntries(request))) == 3
    found: list[bytes] = []
    token = ""
    while True:
        parameters = pb.PaginationParameter(limit=120, page_token=token)
        request = pb.GetTreeEntriesRequest(repository=REPOSITORY, revision=b"main", pagination_params=parameters)
        pages = await everything(calls.commits.GetTreeEntries(request))
        found += [entry.path for page in pages for entry in page.entries]
        token = pages[0].pagination_cursor.next_cursor
        if not token:
            break
    assert found == [f"f{number:03}".encode() for number in range(250)]


async def test_a_folder_that_is_not_there_is_not_found_and_a_path_out_of_the_tree_refused(calls: Calls) -> None:
    calls.put({"a/b": b"1"}, ref=MAIN)
    for path, revision, status in (
        (b"none", b"main", StatusCode.NOT_FOUND),
        (b"a/b", b"main", StatusCode.NOT_FOUND),
        (b"", b"none", StatusCode.NOT_FOUND),
        (b"../x", b"main", StatusCode.INVALID_ARGUMENT),
        (b"/a", b"main", StatusCode.INVALID_ARGUMENT),
        (b"a//b", b"main", StatusCode.INVALID_ARGUMENT),
        (b"", b"", StatusCode.INVALID_ARGUMENT),
    ):
        request = pb.GetTreeEntriesRequest(repository=REPOSITORY, revision=revision, path=path)
        assert await code(calls.commits.GetTreeEntries(request)) is status, path


async def test_one_entry_comes_in_chunks_and_within_limits(calls: Calls) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 5)
    calls.put({"big": data, "empty": b"", "folder/x": b"1"}, ref=MAIN)
    answers = await everything(entry_at(calls, b"big"))
    assert b"".join(answer.data for answer in answers) == data
    assert (answers[0].size, answers[0].mode, answers[0].type) == (len(data), 0o100644, pb.TreeEntryResponse.BLOB)
    assert [len(answer.data) for answer in answers] == [CHUNK_BYTES, CHUNK_BYTES, 5]
    (limited,) = await everything(entry_at(calls, b"big", limit=10))
    assert (limited.data, limited.size) == (data[:10], len(data))
    (empty,) = await everything(entry_at(calls, b"empty"))
    assert (empty.data, empty.size, len(empty.oid)) == (b"", 0, 40)
    (folder,) = await everything(entry_at(calls, b"folder"))
    assert (folder.type, folder.data) == (pb.TreeEntryResponse.TREE, b"")
    assert await code(entry_at(calls, b"big", max_size=10)) is StatusCode.FAILED_PRECONDITION
    assert await code(entry_at(calls, b"none")) is StatusCode.NOT_FOUND
    assert await code(entry_at(calls, b"big", limit=-1)) is StatusCode.INVALID_ARGUMENT


async def test_all_files_are_listed_and_a_missing_revision_is_not_found(calls: Calls) -> None:
    calls.put({"a": b"1", "b/c": b"2", "b/d/e": b"3"}, ref=MAIN)
    for revision in (b"main", b""):
        answers = await everything(calls.commits.ListFiles(pb.ListFilesRequest(repository=REPOSITORY, revision=revision)))
        assert [path for answer in answers for path in answer.paths] == [b"a", b"b/c", b"b/d/e"]
    missing = pb.ListFilesRequest(repository=REPOSITORY, revision=b"none")
    assert await code(calls.commits.ListFiles(missing)) is StatusCode.NOT_FOUND


async def test_many_contents_come_in_order_and_what_is_missing_has_no_id(calls: Calls) -> None:
    data = os.urandom(CHUNK_BYTES + 1)
    calls.put({"a": b"1", "big": data, "folder/x": b"2", "empty": b""}, ref=MAIN)

    async def contents(*paths: bytes, limit: int = -1, revision: str = "main") -> list[tuple[bytes, str, bytes]]:
        wanted = [pb.GetBlobsRequest.RevisionPath(revision=revision, path=path) for path in paths]
        found: list[tuple[bytes, str, bytes]] = []
        request = pb.GetBlobsRequest(repository=REPOSITORY, revision_paths=wanted, limit=limit)
        for answer in await everything(calls.blobs.GetBlobs(request)):
            if answer.revision:
                found.append((answer.path, answer.oid, answer.data))
            else:
                found[-1] = (*found[-1][:2], found[-1][2] + answer.data)
        return found

    found = await contents(b"big", b"none", b"a", b"empty", b"folder")
    assert [(path, len(oid), content) for path, oid, content in found] == [
        (b"big", 40, data),
        (b"none", 0, b""),
        (b"a", 40, b"1"),
        (b"empty", 40, b""),
        (b"folder", 40, b""),
    ]
    assert [content for _, _, content in await contents(b"big", limit=3)] == [data[:3]]
    assert [content for _, _, content in await contents(b"big", limit=0)] == [b""]
    assert await contents(b"a", revision="none") == [(b"a", "", b"")]
    assert await code(calls.blobs.GetBlobs(pb.GetBlobsRequest(repository=REPOSITORY))) is StatusCode.INVALID_ARGUMENT


async def test_a_blob_is_read_by_its_id(calls: Calls) -> None:
    data = os.urandom(CHUNK_BYTES + 1)
    calls.put({"big": data}, ref=MAIN)
    oid = git(calls.folder, "rev-parse", "main:big").decode().strip()

    async def read(**given: Any) -> list[pb.GetBlobResponse]:
        return await everything(calls.blobs.GetBlob(pb.GetBlobRequest(repository=REPOSITORY, **given)))

    answers = await read(oid=oid, limit=-1)
    assert (answers[0].oid, answers[0].size) == (oid, len(data))
    assert b"".join(answer.data for answer in answers) == data
    assert [answer.data for answer in await read(oid=oid, limit=4)] == [data[:4]]
    assert [answer.oid for answer in await read(oid=MISSING, limit=-1)] == [""]
    assert await code(calls.blobs.GetBlob(pb.GetBlobRequest(repository=REPOSITORY, oid="short"))) is StatusCode.INVALID_ARGUMENT
