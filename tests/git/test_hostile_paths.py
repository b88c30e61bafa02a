"""Hostile paths at the port, without the rule that stands before it, and against the `git` program.

Whatever a caller asks for is refused, or is a file like any other: nothing is written outside a repository's objects and refs,
and git finds nothing wrong with the trees, clones them and stays inside the clone.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from git_harness import FILE, MAIN, SYMLINK, LocalHarness, Repo, plant_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conman.domain.errors import DomainError
from conman.domain.filenames import is_dot_git
from conman.domain.paths import MAX_PATH_BYTES, MAX_PATH_SEGMENTS, MAX_SEGMENT_BYTES, normalise_path
from conman.git import checks
from conman.git.adapter import ChangeRefused, DeleteFile, FileChange, GitError, MoveFile, ObjectMissing, WriteFile
from tests.paths.hostile import ACCEPTED, GROUPS, ROWS, Row

CONTENT = b"# written by way of a hostile path\n"
"""A comment to git too, where it reads a file of that name."""
AT_ONCE = 8
"""Paths that are tried side by side; none is another's, and each has branches of its own."""
ROOM = 8
"""Bytes of a path that the numbered folders of `_check_with_git` take."""
PLAIN_GIT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "LC_ALL": "C.UTF-8",
}
PROTECT = ("-c", "core.protectHFS=true", "-c", "core.protectNTFS=true")


def _git(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *PROTECT, *arguments], cwd=folder, input=given, env=PLAIN_GIT, capture_output=True, check=False)


def _files_below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _check_with_git(folder: Path, paths: Iterable[str]) -> None:
    """A tree with each path in a numbered folder of its own is sound, is cloned, and is checked out as it is and nowhere else."""
    files = {f"{number:07}/{path}": (FILE, CONTENT) for number, path in enumerate(paths)}
    raw = LocalHarness(folder / "raw")
    repository = folder / "raw" / "app.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", repository], env=PLAIN_GIT, check=True)
    tree = plant_tree(raw, "app.git", files)
    person = "Ann <ann@example.org> 1714557600 +0000"
    commit = raw.put("app.git", "commit", f"tree {tree}\nauthor {person}\ncommitter {person}\n\nm\n".encode())
    raw.set_ref("app.git", MAIN, commit)
    raw.git.close()
    found = _git(repository, "fsck", "--strict")
    assert (found.returncode, found.stderr) == (0, b"")
    clone = folder / "clone"
    before = {path for path in _files_below(folder) if not path.is_relative_to(clone)}
    cloned = _git(folder, "clone", "--quiet", "--no-local", "raw/app.git", "clone")
    assert (cloned.returncode, cloned.stderr) == (0, b"")
    of_git = {path for path in _files_below(clone / ".git")}
    checked_out = {os.fsencode(path.relative_to(clone)) for path in _files_below(clone)} - {
        os.fsencode(path.relative_to(clone)) for path in of_git
    }
    assert checked_out == {path.encode() for path in files}
    assert {path for path in _files_below(folder) if not path.is_relative_to(clone)} == before
    assert not any(path.read_bytes() == CONTENT for path in of_git)


def _outside_of_objects(root: Path) -> dict[Path, bytes]:
    """All files below a folder but those that hold objects and refs, or a mirror's list of what its refs reached."""
    held = {"objects", "refs", "logs", "tips"}
    kept = (path for path in _files_below(root) if not held & set(path.relative_to(root).parts))
    return {path: path.read_bytes() for path in kept}


async def _tried(repo: Repo, base: str, *changes: FileChange) -> str | None:
    """The commit of the changes, None when the port refuses it."""
    try:
        return await repo.commit(list(changes), base)
    except GitError as refused:
        assert not refused.safe_to_repeat
        return None


async def _check_is_not_there(repo: Repo, commit: str, path: str) -> None:
    """Nothing can be read at a path that is not in the tree."""
    try:
        assert await repo.git.read_file(repo.name, commit, path) is None
        assert path == "" or await repo.git.entry(repo.name, commit, path) is None
        assert [entry.path for entry in await repo.git.list_tree(repo.name, commit, path)] == (["kept"] if path == "" else None)
    except GitError as refused:
        assert not refused.safe_to_repeat


async def _refused_or_a_file(repo: Repo, base: str, row: Row) -> bool:
    """Whether the row's path can be written; either way nothing is there before."""
    write, delete, move = WriteFile(row.path, CONTENT), DeleteFile(row.path), MoveFile("kept", row.path)
    made = await _tried(repo, base, write, delete, move)
    if made is not None:
        assert await repo.files(made) == {row.path: CONTENT}
    else:
        assert row.outcome != ACCEPTED, row
        assert await _tried(repo, base, write) is None, row
        assert await _tried(repo, base, move) is None, row
    assert await _tried(repo, base, delete) is None, row
    await _check_is_not_there(repo, base, row.path)
    return made is not None


@pytest.mark.parametrize("group", GROUPS)
async def test_a_hostile_path_is_refused_by_the_port_or_is_a_file_like_any_other(repo: Repo, tmp_path: Path, group: str) -> None:
    base = await repo.commit({"kept": CONTENT}, ref=MAIN)
    before = _outside_of_objects(tmp_path)
    places = asyncio.Semaphore(AT_ONCE)

    async def tried(row: Row) -> bool:
        async with places:
            return await _refused_or_a_file(repo, base, row)

    rows = [row for row in ROWS if row.group == group]
    passed = await asyncio.gather(*map(tried, rows))
    harmless = [row.path for row, is_file in zip(rows, passed, strict=True) if is_file]
    assert await repo.git.resolve(repo.name, MAIN) == base
    after = _outside_of_objects(tmp_path)
    assert before.items() <= after.items()
    assert CONTENT not in after.values()
    (tmp_path / "git").mkdir()
    _check_with_git(tmp_path / "git", [path for path in harmless if len(path.encode()) <= MAX_PATH_BYTES - ROOM])


async def test_the_longest_and_the_deepest_paths_can_be_checked_out(repo: Repo, tmp_path: Path) -> None:
    whole, rest = divmod(MAX_PATH_BYTES, MAX_SEGMENT_BYTES + 1)
    longest = ("a" * MAX_SEGMENT_BYTES + "/") * whole + "b" * rest
    for path in (longest, "/".join("d" * MAX_PATH_SEGMENTS)):
        assert normalise_path(path) == path
        made = await repo.commit({path: CONTENT})
        assert await repo.files(made) == {path: CONTENT}
    for over in (f"{longest}b", "/".join("d" * (MAX_PATH_SEGMENTS + 1))):
        with pytest.raises(ChangeRefused):
            await repo.commit({over: CONTENT})
    (tmp_path / "git").mkdir()
    _check_with_git(tmp_path / "git", ["/".join("d" * (MAX_PATH_SEGMENTS - 1)), longest[ROOM:]])


@pytest.mark.parametrize("target", ["../..", "/", ".git", "dir", ".", ""])
async def test_nothing_is_read_or_written_through_a_link(repo: Repo, tmp_path: Path, target: str) -> None:
    base = repo.plant({"a": (SYMLINK, target.encode()), "dir/x": (FILE, b"1"), "kept": (FILE, b"2")}, ref=MAIN)
    before = _outside_of_objects(tmp_path)
    for path in ("a/x", "a/config", "a/hooks/post-checkout", "a/dir/x", "a/../x"):
        for change in (WriteFile(path, CONTENT), MoveFile("kept", path, data=CONTENT), DeleteFile(path), MoveFile(path, "new")):
            with pytest.raises(ChangeRefused):
                await repo.commit([change], base)
        if ".." not in path:
            assert await repo.read(base, path) is None
            assert await repo.git.entry(repo.name, base, path) is None
            with pytest.raises(ObjectMissing):
                await repo.git.list_tree(repo.name, base, path)
    with pytest.raises(ObjectMissing):
        await repo.git.list_tree(repo.name, base, "a")
    after = _outside_of_objects(tmp_path)
    assert before.items() <= after.items()
    assert CONTENT not in after.values()


async def test_a_folder_may_take_the_place_of_a_link_and_then_is_a_folder(repo: Repo) -> None:
    base = repo.plant({"a": (SYMLINK, b"../.."), "kept": (FILE, b"2")})
    made = await repo.commit([DeleteFile("a"), WriteFile("a/x", CONTENT)], base)
    assert await repo.files(made) == {"a/x": CONTENT, "kept": b"2"}


@pytest.mark.parametrize(
    "name", [".gitmodules", ".GitModules", "gitmod~1", "GI7EBA~1", ".git\u200cmodules", ".gitmodules ", "a/.gitmodules"]
)
async def test_a_link_can_not_become_gitmodules_as_git_would_refuse_the_tree(repo: Repo, tmp_path: Path, name: str) -> None:
    base = repo.plant({"link": (SYMLINK, b"kept"), "kept": (FILE, b"2")})
    with pytest.raises(ChangeRefused):
        await repo.commit([MoveFile("link", name)], base)
    assert await repo.files(await repo.commit([MoveFile("kept", name)], base)) == {"link": b"kept", name: b"2"}
    raw = LocalHarness(tmp_path / "raw")
    await raw.git.create_repository("app.git", "main")
    plant_tree(raw, "app.git", {name: (SYMLINK, b"kept")})
    raw.git.close()
    assert b"gitmodulesSymlink" in _git(tmp_path / "raw" / "app.git", "fsck", "--strict").stderr


HFS_IGNORED = str.maketrans(
    dict.fromkeys("\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\ufeff", "")
    | dict.fromkeys(map(chr, range(0x206A, 0x2070)), "")
)


def _single_names(paths: Iterable[str]) -> set[str]:
    """The names within paths that can be asked about one by one, a line each."""
    names = {name for path in paths for name in path.split("/")} - {"", ".", ".."}
    return {name for name in names if not re.search("[\0\n\ud800-\udfff]", name)}


def _kept_out_of_an_index(folder: Path, names: set[str]) -> set[str]:
    """The names that git takes for `.git` with the rules for HFS+ and NTFS on."""
    asked = sorted(names)
    done = _git(folder, "update-index", "--force-remove", "-z", "--stdin", given=b"\0".join(map(str.encode, asked)))
    assert done.returncode == 0, done.stderr
    said = set(done.stderr.split(b"\n"))
    return {name for name in asked if b"Ignoring path " + name.encode() in said}


def _check_dot_git_is_git_s(folder: Path, paths: Iterable[str]) -> None:
    """Both of our rules know every name that git takes for `.git`; the port's knows no more than the two of git's together."""
    subprocess.run(["git", "init", "--quiet", folder], env=PLAIN_GIT, check=True)
    names = _single_names(paths)
    # Git's index lets a leading backslash pass, its fsck does not.
    seen = {name: name.translate(HFS_IGNORED).lstrip("\\") for name in names}
    kept_out = _kept_out_of_an_index(folder, names | set(seen.values()) - {"", ".", ".."})
    for name in names:
        assert checks.is_dot_git(name) == (name in kept_out or seen[name] in kept_out), ascii(name)
        if name in kept_out and "\\" not in name:
            assert is_dot_git(name), ascii(name)


def test_what_git_takes_for_its_own_folder_is_what_we_take_for_it(tmp_path: Path) -> None:
    _check_dot_git_is_git_s(tmp_path / "index", (row.path for row in ROWS))


PIECE = st.sampled_from(
    [
        "/", "/", "/", ".", "..", "...", ".git", ".GIT", "git~1", "~1", "~", "git", "modules", "ignore", ".gitmodules",
        "gi7eba~1", "\\", ":", "::$INDEX_ALLOCATION", ":$DATA", " ", "  ", "\u00a0", "\u200c", "\u200d", "\u202e", "\ufeff",
        "\u206a", "\u2065", "\ufe0f", "\U000e0100", "\u0307", "\u0301", "e", "\u00e9", "\uff0e", "\u2024", "\u2025", "\u2026",
        "\u2215", "\uff0f", "\uff47", "\u0456", "\u0131", "%2e", "%2f", "%", "2e", "&#46;", ";", "con", "nul", "aux", ".json",
        "a", "b", "C:", "-", "$", "\0", "\n", "\x7f", "\ud800", "\U0001f600", "x" * 120,
    ]
)  # fmt: skip
NAME = st.sampled_from(
    [".git", ".GIT/config", "a/.git/x", "git~1/x", "..", "../a", ".gitmodules", ".github/x", "a/b.json", "con.json"]
)


def _with_insertions(name: str, insertions: list[tuple[int, str]]) -> str:
    for place, piece in insertions:
        at = place % (len(name) + 1)
        name = name[:at] + piece + name[at:]
    return name


JOINED = st.lists(PIECE | st.characters(min_codepoint=0xA0), min_size=1, max_size=9).map("".join)
DISGUISED = st.builds(_with_insertions, NAME, st.lists(st.tuples(st.integers(0, 40), PIECE), min_size=1, max_size=3))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.lists(JOINED | DISGUISED, min_size=60, max_size=120, unique=True))
def test_whatever_passes_the_rule_is_one_file_inside_the_repository_everywhere(raw: list[str]) -> None:
    passed: list[str] = []
    for text in raw:
        try:
            path = normalise_path(text)
        except DomainError:
            continue
        assert normalise_path(path) == path
        assert os.path.normpath(f"/root/{path}") == f"/root/{path}"
        assert checks.path_problem(path) is None
        passed.append(path)
    with tempfile.TemporaryDirectory() as folder:
        _check_dot_git_is_git_s(Path(folder, "index"), raw)
        assert not _kept_out_of_an_index(Path(folder, "index"), _single_names(passed))
        _check_with_git(Path(folder), passed)
