"""The port's rules for comparing commits and exporting them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from git_harness import EXECUTABLE, FILE, MISSING, SUBMODULE, SYMLINK, Repo, blob_id

from conman.git.adapter import ChangedPath, ChangeStatus, DeleteFile, GitError, MoveFile, ObjectMissing, WriteFile

LINES = b"".join(b"line %d\n" % number for number in range(20))
CHANGED = LINES.replace(b"line 9\n", b"nine\n")


async def test_each_way_to_differ_has_its_status(repo: Repo) -> None:
    one = repo.plant(
        {
            "edit": (FILE, b"1"),
            "mode": (FILE, b"1"),
            "gone": (FILE, b"1"),
            "to-link": (FILE, b"1"),
            "link": (SYMLINK, b"1"),
            "to-folder": (FILE, b"1"),
            "module": (SUBMODULE, MISSING.encode()),
            "same": (FILE, b"1"),
        }
    )
    two = repo.plant(
        {
            "edit": (FILE, b"2"),
            "mode": (EXECUTABLE, b"1"),
            "new": (EXECUTABLE, b""),
            "to-link": (SYMLINK, b"1"),
            "link": (SYMLINK, b"2"),
            "to-folder/inner": (FILE, b"1"),
            "module": (SUBMODULE, MISSING[::-1].encode()),
            "same": (FILE, b"1"),
        }
    )
    b1, b2, empty = blob_id(b"1"), blob_id(b"2"), blob_id(b"")
    assert await repo.git.changed_paths(repo.name, one, two) == [
        ChangedPath("edit", None, ChangeStatus.MODIFIED, b1, b2, FILE, FILE),
        ChangedPath("gone", None, ChangeStatus.DELETED, b1, None, FILE, None),
        ChangedPath("link", None, ChangeStatus.MODIFIED, b1, b2, SYMLINK, SYMLINK),
        ChangedPath("mode", None, ChangeStatus.MODIFIED, b1, b1, FILE, EXECUTABLE),
        ChangedPath("module", None, ChangeStatus.MODIFIED, MISSING, MISSING[::-1], SUBMODULE, SUBMODULE),
        ChangedPath("new", None, ChangeStatus.ADDED, None, empty, None, EXECUTABLE),
        ChangedPath("to-folder", None, ChangeStatus.DELETED, b1, None, FILE, None),
        ChangedPath("to-folder/inner", None, ChangeStatus.ADDED, None, b1, None, FILE),
        ChangedPath("to-link", None, ChangeStatus.TYPE_CHANGED, b1, b1, FILE, SYMLINK),
    ]
    assert await repo.git.changed_paths(repo.name, one, one) == []


async def test_a_move_is_one_change_only_where_moves_are_asked_for(repo: Repo) -> None:
    one = await repo.commit({"old": LINES, "keep": b""})
    two = await repo.commit([MoveFile("old", "dir/new", data=CHANGED)], one)
    before, after = blob_id(LINES), blob_id(CHANGED)
    assert await repo.git.changed_paths(repo.name, one, two, renames=True) == [
        ChangedPath("dir/new", "old", ChangeStatus.RENAMED, before, after, FILE, FILE)
    ]
    assert await repo.git.changed_paths(repo.name, one, two) == [
        ChangedPath("dir/new", None, ChangeStatus.ADDED, None, after, None, FILE),
        ChangedPath("old", None, ChangeStatus.DELETED, before, None, FILE, None),
    ]


async def test_a_file_counts_as_moved_from_half_of_its_content(repo: Repo) -> None:
    def with_kept(kept: int) -> bytes:
        return b"".join(b"line %d\n" % number if number < kept else b"other %d\n" % number for number in range(20))

    one = await repo.commit({"old": LINES})
    for kept, status in ((10, [ChangeStatus.RENAMED]), (9, [ChangeStatus.ADDED, ChangeStatus.DELETED])):
        two = await repo.commit([DeleteFile("old"), WriteFile("new", with_kept(kept))], one)
        changes = await repo.git.changed_paths(repo.name, one, two, renames=True)
        assert [change.status for change in changes] == status


async def test_a_diff_has_a_patch_and_counts_for_each_file(repo: Repo) -> None:
    one = await repo.commit({"a": LINES, "b": b"1\n2", "gone": b"x\n"})
    two = await repo.commit({"a": CHANGED, "b": b"1\n2\n3\n", "gone": None, "new": b"n\n"}, one)
    a, b, gone, new = await repo.git.diff(repo.name, one, two)
    assert (a.change.path, a.additions, a.deletions, a.binary) == ("a", 1, 1, False)
    ids = f"{blob_id(LINES)[:7]}..{blob_id(CHANGED)[:7]}"
    assert a.patch == (
        f"diff --git a/a b/a\nindex {ids} 100644\n--- a/a\n+++ b/a\n@@ -7,7 +7,7 @@ line 5\n"
        " line 6\n line 7\n line 8\n-line 9\n+nine\n line 10\n line 11\n line 12\n"
    )
    assert (b.additions, b.deletions) == (2, 1)
    assert b.patch.endswith("@@ -1,2 +1,3 @@\n 1\n-2\n\\ No newline at end of file\n+2\n+3\n")
    assert gone.patch.splitlines()[1:5] == [
        "deleted file mode 100644", f"index {blob_id(b'x' + bytes([10]))[:7]}..0000000", "--- a/gone", "+++ /dev/null"
    ]  # fmt: skip
    assert new.patch.splitlines()[1] == "new file mode 100644"
    assert new.patch.splitlines()[3:] == ["--- /dev/null", "+++ b/new", "@@ -0,0 +1 @@", "+n"]
    assert await repo.git.diff(repo.name, one, one) == []


async def test_a_diff_of_a_move_names_both_paths(repo: Repo) -> None:
    one = await repo.commit({"old": LINES})
    two = await repo.commit([MoveFile("old", "new")], one)
    three = await repo.commit([MoveFile("old", "new", data=CHANGED)], one)
    [moved] = await repo.git.diff(repo.name, one, two)
    assert moved.change.old_path == "old"
    assert moved.patch == "diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n"
    [changed] = await repo.git.diff(repo.name, one, three)
    assert changed.patch.startswith("diff --git a/old b/new\nsimilarity index 95%\nrename from old\nrename to new\nindex ")
    assert (changed.additions, changed.deletions) == (1, 1)
    assert [diff.change.path for diff in await repo.git.diff(repo.name, one, two, renames=False)] == ["new", "old"]


async def test_a_diff_of_binary_or_mode_alone_has_no_lines(repo: Repo) -> None:
    one = await repo.commit({"bin": b"\0\1", "run": b"1"})
    two = await repo.commit([WriteFile("bin", b"\0\2"), WriteFile("run", b"1", executable=True)], one)
    binary, mode = await repo.git.diff(repo.name, one, two)
    assert (binary.binary, binary.patch, binary.additions, binary.deletions) == (True, "", 0, 0)
    assert (mode.binary, mode.additions, mode.deletions) == (False, 0, 0)
    assert mode.patch == "diff --git a/run b/run\nold mode 100644\nnew mode 100755\n"


async def test_a_diff_shows_text_that_is_not_utf8_with_replacements(repo: Repo) -> None:
    one = await repo.commit({"a": b"\xe4\n"})
    two = await repo.commit({"a": b"\xe4\n\xff\r\n"}, one)
    [diff] = await repo.git.diff(repo.name, one, two)
    assert diff.patch.endswith(" \ufffd\n+\ufffd\r\n")


@pytest.mark.parametrize(("context", "lines"), [(0, 2), (1, 4), (3, 8), (100, 21)])
async def test_a_diff_has_as_much_context_as_asked(repo: Repo, context: int, lines: int) -> None:
    one = await repo.commit({"a": LINES})
    two = await repo.commit({"a": CHANGED}, one)
    [diff] = await repo.git.diff(repo.name, one, two, context=context)
    assert len(diff.patch[diff.patch.index("@@ -") :].splitlines()) - 1 == lines


async def test_a_diff_is_limited_to_paths_of_either_side(repo: Repo) -> None:
    one = await repo.commit({"old": LINES, "a": b"1", "d/b": b"1"})
    two = await repo.commit([MoveFile("old", "new"), WriteFile("a", b"2"), WriteFile("d/b", b"2")], one)

    async def paths(*wanted: str) -> list[str]:
        return [diff.change.path for diff in await repo.git.diff(repo.name, one, two, paths=wanted)]

    assert await paths("old") == ["new"]
    assert await paths("new", "a") == ["a", "new"]
    assert await paths("d/b", "none") == ["d/b"]
    assert await paths("d") == []
    assert await paths() == []


async def test_an_export_writes_every_kind_of_file(repo: Repo, tmp_path: Path) -> None:
    sha = repo.plant(
        {
            "plain": (FILE, b"1\r\n"),
            "dir/run": (EXECUTABLE, b"#!"),
            "dir/empty": (FILE, b""),
            "link": (SYMLINK, b"dir/run"),
            "dangling": (SYMLINK, b"/nowhere/at all"),
            "dir/module": (SUBMODULE, MISSING.encode()),
            "odd \udcff": (FILE, b"2"),
        }
    )
    out = tmp_path / "new" / "out"
    assert await repo.git.export(repo.name, sha, out) == 6
    assert (out / "plain").read_bytes() == b"1\r\n"
    assert not os.access(out / "plain", os.X_OK)
    assert os.access(out / "dir/run", os.X_OK)
    assert (out / "dir/empty").read_bytes() == b""
    assert (out / "link").readlink() == Path("dir/run")
    assert (out / "dangling").readlink() == Path("/nowhere/at all")
    assert list((out / "dir/module").iterdir()) == []
    assert (out / "odd \udcff").read_bytes() == b"2"


async def test_an_export_needs_an_empty_folder(repo: Repo, tmp_path: Path) -> None:
    sha = await repo.commit({"a": b"1"})
    out = tmp_path / "out"
    out.mkdir()
    assert await repo.git.export(repo.name, sha, out) == 1
    (out / "a").write_bytes(b"mine")
    with pytest.raises(GitError):
        await repo.git.export(repo.name, sha, out)
    assert (out / "a").read_bytes() == b"mine"
    with pytest.raises(ObjectMissing):
        await repo.git.export(repo.name, MISSING, tmp_path / "other")
    with pytest.raises(GitError):
        await repo.git.export(repo.name, sha, out / "a")


async def test_an_export_of_nothing_is_an_empty_folder(repo: Repo, tmp_path: Path) -> None:
    assert await repo.git.export(repo.name, await repo.commit([]), tmp_path / "out") == 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", "git~1"])
async def test_an_export_refuses_a_tree_with_a_name_that_leaves_it(repo: Repo, tmp_path: Path, name: str) -> None:
    for path in (name, f"{name}/inner", f"dir/{name}/inner"):
        sha = repo.plant({"a": (FILE, b"1"), path: (FILE, b"evil")})
        with pytest.raises(GitError):
            await repo.git.export(repo.name, sha, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert not (tmp_path / "inner").exists()


async def test_an_export_never_writes_through_a_link(repo: Repo, tmp_path: Path) -> None:
    """A tree that names a link and a folder alike, which no honest program writes."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = repo.harness.put(repo.name, "blob", os.fsencode(outside))
    evil = repo.harness.put(repo.name, "blob", b"evil")
    folder = repo.harness.put(repo.name, "tree", b"100644 file\0" + bytes.fromhex(evil))
    raw = b"120000 d\0" + bytes.fromhex(link) + b"40000 d\0" + bytes.fromhex(folder)
    tree = repo.harness.put(repo.name, "tree", raw)
    person = "A <a@b.c> 1714557600 +0000"
    body = f"tree {tree}\nauthor {person}\ncommitter {person}\n\nevil\n"
    sha = repo.harness.put(repo.name, "commit", body.encode())
    with pytest.raises(GitError):
        await repo.git.export(repo.name, sha, tmp_path / "out")
    assert list(outside.iterdir()) == []
