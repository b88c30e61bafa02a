"""The port's rules for making commits of files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from git_harness import (
    ANN,
    BOB,
    EXECUTABLE,
    FILE,
    MAIN,
    MISSING,
    SUBMODULE,
    SYMLINK,
    Repo,
    blob_id,
)

from conman.git.adapter import (
    ChangeRefused,
    DeleteFile,
    EntryType,
    FileChange,
    GitError,
    MoveFile,
    ObjectMissing,
    Signature,
    StaleFile,
    StaleRef,
    TreeEntry,
    WriteFile,
)

ODD = {
    "plain.txt": b"one\ntwo\n",
    "empty": b"",
    "crlf.txt": b"one\r\ntwo\r\n",
    "mixed.txt": b"one\r\ntwo\nthree\rfour",
    "binary.bin": bytes(range(256)) * 40,
    "with space/and \u00fcn\u00ef\u00e7\u00f6d\u00e9 \u2713.txt": "\u00e4\u00f6\u00fc\n".encode(),
    "latin1.txt": b"\xe4\xf6\xfc\n",
    "deep/er/and/deeper/still.txt": b"deep",
    "-dash": b"-",
    "quote\"'$(x).txt": b"q",
    "tab\there": b"t",
    ".hidden": b"h",
    ".gitignore": b"*\n",
    ".gitattributes": b"* text=auto eol=crlf\n",
}


async def test_what_is_written_is_read_byte_by_byte(repo: Repo) -> None:
    sha = await repo.commit(ODD)
    assert await repo.files(sha) == ODD
    for path, data in ODD.items():
        content = await repo.git.read_file(repo.name, sha, path)
        assert content is not None
        assert (content.path, content.data, content.blob_id, content.mode) == (path, data, blob_id(data), FILE)
        assert await repo.git.read_blob(repo.name, content.blob_id) == data


async def test_a_commit_says_who_made_it_when_and_on_what(repo: Repo) -> None:
    message = (
        "Title\n\nBody: not a trailer, the paragraph has more\nthan that.\n\nConman-Command: c1\nReviewed-By: B <b@c.d>\n x\n"
    )
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.git.commit_files(
        repo.name, ref=MAIN, expected_old=one, parent=one, changes=[], author=ANN, committer=BOB, message=message
    )
    commit = await repo.git.commit(repo.name, two)
    assert commit.sha == two
    assert commit.parents == (one,)
    assert commit.tree_id == (await repo.git.commit(repo.name, one)).tree_id
    assert commit.author == ANN
    assert commit.author.when.utcoffset() == timedelta(hours=2)
    assert commit.committer == BOB
    assert commit.message == message
    assert commit.trailers == (("Conman-Command", "c1"), ("Reviewed-By", "B <b@c.d> x"))


@pytest.mark.parametrize(
    ("message", "trailers"),
    [
        ("", ()),
        ("Key: value", ()),
        ("Title\n\nKey: value", (("Key", "value"),)),
        ("Title\n\nKey:value\nkey:\n", (("Key", "value"), ("key", ""))),
        ("Title\n\nKey: value\nnot one\n", ()),
        ("Title\n\nKey: value\n\nLast paragraph\n", ()),
        ("Title\r\n\r\nKey: value\r\n", (("Key", "value"),)),
        ("Title\n\nA-b: http://x:1/y\n\n\n", (("A-b", "http://x:1/y"),)),
    ],
)
async def test_trailers_are_the_last_paragraph_when_it_has_nothing_else(
    repo: Repo, message: str, trailers: tuple[tuple[str, str], ...]
) -> None:
    sha = await repo.commit({"a": b"1"}, message=message)
    commit = await repo.git.commit(repo.name, sha)
    assert (commit.message, commit.trailers) == (message, trailers)


async def test_the_same_call_makes_the_same_sha_and_may_be_repeated(repo: Repo) -> None:
    async def write(name: str) -> str:
        return await repo.git.commit_files(
            repo.name, ref=name, expected_old=None, parent=None, changes=[WriteFile("a", b"1")], author=ANN, message="m\n"
        )

    first = await write(MAIN)
    assert await write(MAIN) == first
    assert await write("refs/heads/other") == first
    assert first == "e25f824d24628948e0df748a8265c18d967caddb"


async def test_a_repeat_after_the_ref_moved_on_is_stale(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    arguments = {"ref": MAIN, "expected_old": one, "parent": one, "changes": [WriteFile("b", b"")]}
    two = await repo.git.commit_files(repo.name, **arguments, author=ANN, message="m")
    await repo.commit({"c": b""}, two, ref=MAIN)
    with pytest.raises(StaleRef):
        await repo.git.commit_files(repo.name, **arguments, author=ANN, message="m")


async def test_a_commit_on_a_ref_that_moved_moves_nothing(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    for expected in (None, MISSING):
        with pytest.raises(StaleRef):
            await repo.git.commit_files(
                repo.name, ref=MAIN, expected_old=expected, parent=one, changes=[], author=ANN, message="m"
            )
    assert await repo.git.resolve(repo.name, MAIN) == one


async def test_a_commit_may_keep_the_tree_as_it_is(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    two = await repo.commit([], one)
    assert two != one
    assert await repo.git.changed_paths(repo.name, one, two) == []


async def test_a_root_commit_may_be_empty(repo: Repo) -> None:
    sha = await repo.commit([])
    assert (await repo.git.commit(repo.name, sha)).tree_id == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert await repo.git.list_tree(repo.name, sha) == []


@pytest.mark.parametrize(
    "signature",
    [
        Signature("", "a@b.c", ANN.when),
        Signature("A", "", ANN.when),
        Signature(" \n", "a@b.c", ANN.when),
        Signature("A", "a@b.c", datetime(2024, 5, 1)),
        Signature("A", "a@b.c", datetime(1969, 12, 31, tzinfo=UTC)),
        Signature("\ud800", "a@b.c", ANN.when),
    ],
    ids=["no name", "no email", "blank name", "no zone", "before 1970", "not unicode"],
)
async def test_a_signature_that_git_can_not_keep_is_refused(repo: Repo, signature: Signature) -> None:
    with pytest.raises(GitError):
        await repo.git.commit_files(
            repo.name, ref=MAIN, expected_old=None, parent=None, changes=[], author=signature, message="m"
        )
    assert await repo.git.resolve(repo.name, MAIN) is None


async def test_a_signature_can_not_forge_a_header(repo: Repo) -> None:
    evil = Signature(
        "Eve <root@x>\nparent 0", "e@v.e>\n\nhello", datetime(2024, 1, 1, tzinfo=timezone(-timedelta(hours=9, minutes=30)))
    )
    sha = await repo.git.commit_files(repo.name, ref=MAIN, expected_old=None, parent=None, changes=[], author=evil, message="m")
    commit = await repo.git.commit(repo.name, sha)
    assert (commit.author.name, commit.author.email) == ("Eve root@xparent 0", "e@v.ehello")
    assert commit.author.when == evil.when
    assert commit.author.when.utcoffset() == -timedelta(hours=9, minutes=30)
    assert commit.parents == ()


@pytest.mark.parametrize("message", ["a\0b", "\ud800"])
async def test_a_message_that_git_can_not_keep_is_refused(repo: Repo, message: str) -> None:
    with pytest.raises(GitError):
        await repo.commit({"a": b""}, message=message)


BASE = {"a": b"a", "dir/b": b"b", "dir/sub/c": b"c", "x.sh": b"#!"}
A, B = blob_id(b"a"), blob_id(b"b")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([WriteFile("new/file", b"n")], {**BASE, "new/file": b"n"}),
        ([WriteFile("a", b"2")], {**BASE, "a": b"2"}),
        ([WriteFile("a", b"2", expected_blob_id=A)], {**BASE, "a": b"2"}),
        ([WriteFile("z", b"2", expected_blob_id="")], {**BASE, "z": b"2"}),
        ([DeleteFile("dir/sub/c")], {key: BASE[key] for key in ("a", "dir/b", "x.sh")}),
        ([DeleteFile("dir/sub/c"), DeleteFile("dir/b", expected_blob_id=B)], {"a": b"a", "x.sh": b"#!"}),
        ([DeleteFile("dir/sub/c"), WriteFile("dir/sub", b"file")], {"a": b"a", "dir/b": b"b", "x.sh": b"#!", "dir/sub": b"file"}),
        ([DeleteFile("a"), WriteFile("a/deep/er", b"x")], {**{k: v for k, v in BASE.items() if k != "a"}, "a/deep/er": b"x"}),
        ([MoveFile("a", "b")], {**{k: v for k, v in BASE.items() if k != "a"}, "b": b"a"}),
        ([MoveFile("a", "a/a", data=b"A")], {**{k: v for k, v in BASE.items() if k != "a"}, "a/a": b"A"}),
        (
            [MoveFile("dir/sub/c", "dir/sub.c"), MoveFile("dir/sub.c", "dir/sub")],
            {**{k: BASE[k] for k in ("a", "dir/b", "x.sh")}, "dir/sub": b"c"},
        ),
        ([WriteFile("t", b"1"), WriteFile("t", b"2", expected_blob_id=blob_id(b"1")), MoveFile("t", "u")], {**BASE, "u": b"2"}),
        ([WriteFile("t", b"1"), DeleteFile("t")], BASE),
        ([DeleteFile("a"), WriteFile("a", b"a")], BASE),
    ],
)
async def test_changes_apply_in_order(repo: Repo, changes: list[FileChange], expected: dict[str, bytes]) -> None:
    one = await repo.commit(BASE)
    assert await repo.files(await repo.commit(changes, one)) == expected


async def test_deleting_everything_leaves_an_empty_tree(repo: Repo) -> None:
    one = await repo.commit(BASE)
    two = await repo.commit(dict.fromkeys(BASE), one)
    assert await repo.git.list_tree(repo.name, two) == []


@pytest.mark.parametrize(
    ("change", "path", "actual"),
    [
        (WriteFile("a", b"2", expected_blob_id=B), "a", A),
        (WriteFile("a", b"2", expected_blob_id=""), "a", A),
        (WriteFile("z", b"2", expected_blob_id=A), "z", None),
        (WriteFile("dir", b"2", expected_blob_id=A), "dir", None),
        (DeleteFile("a", expected_blob_id=B), "a", A),
        (DeleteFile("z", expected_blob_id=B), "z", None),
        (MoveFile("a", "q", expected_blob_id=B), "a", A),
        (MoveFile("z", "q", expected_blob_id=A), "z", None),
    ],
)
async def test_a_file_that_is_not_what_was_expected_stays(repo: Repo, change: FileChange, path: str, actual: str | None) -> None:
    one = await repo.commit(BASE, ref=MAIN)
    with pytest.raises(StaleFile) as stale:
        await repo.commit([WriteFile("other", b"x"), change], one, ref=MAIN)
    assert (stale.value.path, stale.value.actual) == (path, actual)
    assert await repo.git.resolve(repo.name, MAIN) == one


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (WriteFile("dir", b""), "dir"),
        (WriteFile("a/b", b""), "a/b"),
        (WriteFile("a/b/c", b"", expected_blob_id=""), "a/b/c"),
        (DeleteFile("z"), "z"),
        (DeleteFile("dir"), "dir"),
        (DeleteFile("a/b"), "a/b"),
        (MoveFile("z", "q"), "z"),
        (MoveFile("dir", "q"), "dir"),
        (MoveFile("a", "a"), "a"),
        (MoveFile("a", "dir/b"), "dir/b"),
        (MoveFile("a", "dir"), "dir"),
        (MoveFile("a", "dir/b/c"), "dir/b/c"),
        (WriteFile("module", b""), "module"),
        (WriteFile("module/inner", b""), "module/inner"),
        (DeleteFile("module"), "module"),
        (MoveFile("module", "q"), "module"),
    ],
)
async def test_a_change_that_does_not_fit_its_parent_is_refused(repo: Repo, change: FileChange, path: str) -> None:
    files = {name: (FILE, data) for name, data in BASE.items()}
    one = repo.plant({**files, "module": (SUBMODULE, MISSING.encode())}, ref=MAIN)
    with pytest.raises(ChangeRefused) as refused:
        await repo.commit([WriteFile("other", b"x"), change], one, ref=MAIN)
    assert refused.value.path == path
    assert refused.value.reason
    assert await repo.git.resolve(repo.name, MAIN) == one


@pytest.mark.parametrize(
    "path",
    [
        "", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/../b", "a\0b", "\ud800",
        ".git", ".git/config", "a/.git/hooks/x", ".GIT/config", ".Git", ".git ", ".git.", ".git::$INDEX_ALLOCATION",
        "git~1", "GIT~1/config", ".g\u200cit/config", "a\\.git\\config", "x" * 256, "/".join(["x" * 255] * 17),
        "/".join("x" * 257),
    ],
)  # fmt: skip
async def test_a_path_out_of_the_tree_or_into_git_is_refused(repo: Repo, path: str) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    for change in (WriteFile(path, b""), DeleteFile(path), MoveFile(path, "b"), MoveFile("a", path)):
        with pytest.raises(ChangeRefused):
            await repo.commit([change], one, ref=MAIN)
    assert await repo.git.resolve(repo.name, MAIN) == one


@pytest.mark.parametrize(
    "path", [".gitx", "git", "a.git", ".gitmodules", "...", "a..b", "x" * 255, "/".join("x" * 256), "a\\b", "a:b", "~", "git~2"]
)
async def test_a_path_that_only_looks_odd_is_kept(repo: Repo, path: str) -> None:
    assert await repo.files(await repo.commit({path: b"1"})) == {path: b"1"}


async def test_the_mode_is_kept_unless_it_is_given(repo: Repo) -> None:
    one = await repo.commit([WriteFile("run", b"1", executable=True), WriteFile("plain", b"1")])
    two = await repo.commit([WriteFile("run", b"2"), WriteFile("plain", b"2")], one)
    three = await repo.commit([WriteFile("run", b"2", executable=False), WriteFile("plain", b"2", executable=True)], two)
    four = await repo.commit([MoveFile("plain", "moved", data=b"3")], three)
    for sha, modes in ((two, [FILE, EXECUTABLE]), (three, [EXECUTABLE, FILE]), (four, [EXECUTABLE, FILE])):
        assert [entry.mode for entry in await repo.git.list_tree(repo.name, sha)] == modes


async def test_links_and_submodules_are_kept_and_never_followed(repo: Repo) -> None:
    one = repo.plant(
        {
            "link": (SYMLINK, b"dir/file"),
            "out": (SYMLINK, b"/etc/passwd"),
            "folder": (SYMLINK, b"dir"),
            "module": (SUBMODULE, MISSING.encode()),
            "dir/file": (FILE, b"1"),
        }
    )
    assert await repo.read(one, "link") == b"dir/file"
    assert await repo.read(one, "folder/file") is None
    assert await repo.read(one, "module") is None
    two = await repo.commit([MoveFile("link", "moved"), WriteFile("out", b"elsewhere"), DeleteFile("folder")], one)
    entries = {entry.path: entry for entry in await repo.git.list_tree(repo.name, two, recursive=True)}
    assert entries["moved"] == TreeEntry("moved", EntryType.SYMLINK, SYMLINK, blob_id(b"dir/file"), 8)
    assert entries["out"].type is EntryType.SYMLINK
    assert entries["module"] == TreeEntry("module", EntryType.SUBMODULE, SUBMODULE, MISSING, None)
    with pytest.raises(ChangeRefused):
        await repo.commit({"out/x": b""}, two)
    three = await repo.commit([WriteFile("out", b"text", executable=False)], two)
    assert (await repo.git.entry(repo.name, three, "out")) == TreeEntry("out", EntryType.BLOB, FILE, blob_id(b"text"), 4)


async def test_a_commit_of_another_tree_squashes(repo: Repo) -> None:
    base = await repo.commit({"a": b"1"})
    first = await repo.commit({"b": b"1"}, base)
    second = await repo.commit({"c": b"1"}, first)
    arguments = {"ref": MAIN, "expected_old": None, "tree_of": second, "author": ANN, "message": "m"}
    squashed = await repo.git.commit_tree_of(repo.name, **arguments, parents=[base], committer=BOB)
    commit = await repo.git.commit(repo.name, squashed)
    assert commit.parents == (base,)
    assert (commit.author, commit.committer) == (ANN, BOB)
    assert await repo.files(squashed) == await repo.files(second)
    assert await repo.git.commit_tree_of(repo.name, **arguments, parents=[base], committer=BOB) == squashed
    with pytest.raises(StaleRef):
        await repo.git.commit_tree_of(repo.name, **arguments, parents=[base, first])
    with pytest.raises(ObjectMissing):
        await repo.git.commit_tree_of(repo.name, **arguments, parents=[MISSING])
