"""DiffService of the Git server, over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from server_harness import MAIN, MISSING, REPOSITORY, ZERO, Calls, calling_with_repository, code, everything, git

from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import CHUNK_BYTES

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
LINK, EXECUTABLE = 0o120000, 0o100755
Changed = pb.ChangedPaths

TEXT = b"".join(b"line %d\n" % number for number in range(20))


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


async def changed(calls: Calls, **given: Any) -> list[pb.ChangedPaths]:
    answers = await everything(calls.diffs.FindChangedPaths(pb.FindChangedPathsRequest(repository=REPOSITORY, **given)))
    return [path for answer in answers for path in answer.paths]


async def patches(calls: Calls, left: str, right: str, **given: Any) -> list[tuple[pb.CommitDiffResponse, bytes]]:
    """First message and body of each patch."""
    request = pb.CommitDiffRequest(repository=REPOSITORY, left_commit_id=left, right_commit_id=right, **given)
    found: list[tuple[pb.CommitDiffResponse, bytes]] = []
    first, body = None, b""
    for answer in await everything(calls.diffs.CommitDiff(request)):
        assert len(answer.raw_patch_data) <= CHUNK_BYTES
        first, body = first or answer, body + answer.raw_patch_data
        if answer.end_of_patch:
            found.append((first, body))
            first, body = None, b""
    assert first is None
    return found


def between(left: str, right: str) -> list[pb.FindChangedPathsRequest.Request]:
    trees = pb.FindChangedPathsRequest.Request.TreeRequest(left_tree_revision=left, right_tree_revision=right)
    return [pb.FindChangedPathsRequest.Request(tree_request=trees)]


def of_commit(commit: str, *parents: str) -> list[pb.FindChangedPathsRequest.Request]:
    wanted = pb.FindChangedPathsRequest.Request.CommitRequest(commit_revision=commit, parent_commit_revisions=parents)
    return [pb.FindChangedPathsRequest.Request(commit_request=wanted)]


@pytest.fixture
def pair(calls: Calls) -> tuple[str, str]:
    """Two commits that differ in every way there is."""
    old = {
        "bin": b"\0\1",
        "change me": b"a\nb\nc\n",
        "gone": b"bye\n",
        "link": (LINK, b"gone"),
        "mode": b"#!\n",
        "move": TEXT,
        'qu"ote\\é': b"1\n",
        "same": b"same\n",
    }
    new = {
        "bin": b"\0\2",
        "change me": b"a\nB\nc\n",
        "link": b"now a file\n",
        "mode": (EXECUTABLE, b"#!\n"),
        "moved": TEXT + b"one more\n",
        "new": b"",
        'qu"ote\\é': b"2\n",
        "same": b"same\n",
    }
    left = calls.put(old)
    return left, calls.put(new, [left], ref=MAIN)


async def test_changed_paths_tell_status_modes_ids_and_moves(calls: Calls, pair: tuple[str, str]) -> None:
    left, right = pair
    plain = {path.path.decode(): path for path in await changed(calls, requests=between(left, right))}
    assert {name: path.status for name, path in plain.items()} == {
        "bin": Changed.MODIFIED,
        "change me": Changed.MODIFIED,
        "gone": Changed.DELETED,
        "link": Changed.TYPE_CHANGE,
        "mode": Changed.MODIFIED,
        "move": Changed.DELETED,
        "moved": Changed.ADDED,
        "new": Changed.ADDED,
        'qu"ote\\é': Changed.MODIFIED,
    }
    assert (plain["mode"].old_mode, plain["mode"].new_mode) == (0o100644, EXECUTABLE)
    assert plain["gone"].new_blob_id == ZERO
    assert plain["new"].new_blob_id == git(calls.folder, "rev-parse", f"{right}:new").decode().strip()
    moved = {path.path: path for path in await changed(calls, requests=between(left, right), find_renames=True)}[b"moved"]
    assert (moved.status, moved.old_path) == (Changed.RENAMED, b"move")
    assert 50 < moved.score < 100
    added = pb.FindChangedPathsRequest.DIFF_STATUS_ADDED
    only = await changed(calls, requests=between(left, right), diff_filters=[added])
    assert [path.path for path in only] == [b"moved", b"new"]
    assert await changed(calls, requests=between(right, right)) == []


async def test_changed_paths_of_commits_are_those_against_their_parents(calls: Calls) -> None:
    base = calls.put({"a": b"0", "b": b"0"})
    left, right = calls.put({"a": b"1", "b": b"0"}, [base]), calls.put({"a": b"0", "b": b"1"}, [base])
    top = calls.put({"a": b"1", "b": b"2"}, [left, right], ref=MAIN)
    assert [(path.path, path.commit_id) for path in await changed(calls, commits=[base])] == [(b"a", base), (b"b", base)]
    assert [path.path for path in await changed(calls, commits=[left, right])] == [b"a", b"b"]
    assert [path.path for path in await changed(calls, requests=of_commit(top))] == [b"b", b"a", b"b"]
    mode = pb.FindChangedPathsRequest.MERGE_COMMIT_DIFF_MODE_ALL_PARENTS
    assert [path.path for path in await changed(calls, requests=of_commit(top), merge_commit_diff_mode=mode)] == [b"b"]
    assert [path.path for path in await changed(calls, requests=of_commit(top, base))] == [b"a", b"b"]


async def test_patches_are_those_of_git_without_their_heads(calls: Calls, pair: tuple[str, str]) -> None:
    left, right = pair
    found = await patches(calls, left, right)
    by_path = {(first.from_path.decode(), first.to_path.decode()): (first, body) for first, body in found}
    assert by_path["change me", "change me"][1] == b"@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
    assert by_path["bin", "bin"][0].binary
    assert by_path["bin", "bin"][1] == b"Binary files a/bin and b/bin differ\n"
    assert by_path["move", "moved"][1].endswith(b"+one more\n")
    assert by_path["new", "new"][1] == b""
    assert by_path["mode", "mode"][1] == b""
    assert by_path['qu"ote\\é', 'qu"ote\\é'][1] == b"@@ -1 +1 @@\n-1\n+2\n"
    links = [(first, body) for first, body in found if first.from_path == b"link"]
    assert [(first.old_mode, first.new_mode) for first, _ in links] == [(LINK, 0), (0, 0o100644)]
    assert [body.split(b"\n")[1] for _, body in links] == [b"-gone", b"+now a file"]
    changed_file = by_path["change me", "change me"][0]
    assert (changed_file.lines_added, changed_file.lines_removed) == (1, 1)


async def test_patches_of_some_paths_and_without_white_space(calls: Calls) -> None:
    left = calls.put({"a": b"x  y\n", "f/b": b"1\n", "f/c": b"1\n"})
    right = calls.put({"a": b"x y\n", "f/b": b"2\n", "f/c": b"2\n"}, [left])
    assert [first.to_path for first, _ in await patches(calls, left, right, paths=[b"f"])] == [b"f/b", b"f/c"]
    ignoring = pb.CommitDiffRequest.WHITESPACE_CHANGES_IGNORE_ALL
    bodies = {first.to_path: body for first, body in await patches(calls, left, right, whitespace_changes=ignoring)}
    assert bodies[b"a"] == b""
    assert bodies[b"f/b"].startswith(b"@@ ")
    words = await patches(calls, left, right, paths=[b"f/b"], diff_mode=pb.CommitDiffRequest.WORDDIFF)
    assert words[0][1] == b"@@ -1 +1 @@\n-1\n+2\n~\n"


async def test_a_long_patch_comes_in_several_messages(calls: Calls) -> None:
    left = calls.put({"a": b""})
    right = calls.put({"a": b"".join(b"line %d\n" % number for number in range(60_000))}, [left])
    ((_, body),) = await patches(calls, left, right)
    assert body.count(b"\n+line") == 60_000


async def test_limits_collapse_mark_or_end_a_comparison(calls: Calls) -> None:
    left = calls.put({name: b"1\n" for name in "abcd"})
    right = calls.put({name: b"2\n2\n" for name in "abcd"}, [left])
    wide = {"max_files": 9, "max_lines": 99, "max_bytes": 9999, "max_patch_bytes": 9999}
    safe = {"safe_max_files": 2, "safe_max_lines": 99, "safe_max_bytes": 9999}
    found = await patches(calls, left, right, collapse_diffs=True, **safe)
    assert [(first.collapsed, bool(body)) for first, body in found] == [(False, True)] * 2 + [(True, False)] * 2
    found = await patches(calls, left, right, enforce_limits=True, **(wide | {"max_files": 2}))
    assert [first.overflow_marker for first, _ in found] == [False, False, True]
    found = await patches(calls, left, right, enforce_limits=True, **(wide | {"max_patch_bytes": 5}))
    assert [(first.too_large, bool(body)) for first, body in found] == [(True, False)] * 4
    found = await patches(calls, left, right, enforce_limits=True, collect_all_paths=True, **(wide | {"max_files": 1}))
    assert [(first.to_path, bool(body)) for first, body in found] == [(b"a", True), (b"b", False), (b"c", False), (b"d", False)]


async def test_a_raw_diff_is_what_git_prints(calls: Calls, pair: tuple[str, str]) -> None:
    left, right = pair
    answers = await everything(
        calls.diffs.RawDiff(pb.RawDiffRequest(repository=REPOSITORY, left_commit_id=left, right_commit_id=right))
    )
    assert b"".join(answer.data for answer in answers) == git(calls.folder, "diff", "--full-index", left, right)


async def test_statistics_count_lines_by_path(calls: Calls, pair: tuple[str, str]) -> None:
    left, right = pair
    request = pb.DiffStatsRequest(repository=REPOSITORY, left_commit_id=left, right_commit_id=right)
    stats = {stat.path: stat for answer in await everything(calls.diffs.DiffStats(request)) for stat in answer.stats}
    assert (stats[b"change me"].additions, stats[b"change me"].deletions) == (1, 1)
    assert (stats[b"bin"].additions, stats[b"bin"].deletions) == (0, 0)
    assert (stats[b"moved"].additions, stats[b"moved"].old_path) == (1, b"move")
    assert 'qu"ote\\é'.encode() in stats


async def test_a_comparison_with_what_does_not_exist_is_not_found(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    sides = {"left_commit_id": sha, "right_commit_id": MISSING}
    for call in (
        calls.diffs.CommitDiff(pb.CommitDiffRequest(repository=REPOSITORY, **sides)),
        calls.diffs.RawDiff(pb.RawDiffRequest(repository=REPOSITORY, **sides)),
        calls.diffs.DiffStats(pb.DiffStatsRequest(repository=REPOSITORY, **sides)),
        calls.diffs.FindChangedPaths(pb.FindChangedPathsRequest(repository=REPOSITORY, requests=between(sha, MISSING))),
    ):
        assert await code(call) is StatusCode.NOT_FOUND
    assert (
        await code(calls.diffs.FindChangedPaths(pb.FindChangedPathsRequest(repository=REPOSITORY))) is StatusCode.INVALID_ARGUMENT
    )
    option = pb.RawDiffRequest(repository=REPOSITORY, left_commit_id="--output=/tmp/x", right_commit_id=sha)
    assert await code(calls.diffs.RawDiff(option)) is StatusCode.INVALID_ARGUMENT


async def test_names_that_are_not_utf_8_keep_their_bytes(calls: Calls) -> None:
    blob = git(calls.folder, "hash-object", "-w", "--stdin", stdin=b"odd").decode().strip()
    tree = git(calls.folder, "mktree", stdin=f"100644 blob {blob}\t".encode() + b"\xff\n").decode().strip()
    (patch,) = await patches(calls, EMPTY_TREE, tree)
    assert (patch[0].to_path, patch[1]) == (b"\xff", b"@@ -0,0 +1 @@\n+odd\n\\ No newline at end of file\n")
