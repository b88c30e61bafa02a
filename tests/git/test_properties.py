"""Random histories: every adapter against the others, and the local one against the `git` program.

The in-memory adapter shares no code with the local one where objects, trees, merges and refs are concerned, so that a mistake
has to be made twice to stay unseen.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from git_harness import ANN, EXECUTABLE, FILE, HARNESSES, MAIN, SUBMODULE, SYMLINK, Harness, plant_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conman.git.adapter import (
    ChangedPath,
    ChangeRefused,
    ChangeStatus,
    CommitOutcome,
    DeleteFile,
    EntryType,
    FileChange,
    GitError,
    MoveFile,
    TreeEntry,
    TrialMerge,
    WriteFile,
)
from conman.git.checks import is_ref_name
from tests.support.sizes import size

_FUZZES = settings.get_current_profile_name() == "fuzz"
FINE = settings(max_examples=settings.default.max_examples if _FUZZES else size(30, 100), suppress_health_check=list(HealthCheck))

PATHS = st.sampled_from(
    ["a", "b", "c.txt", "d", "d/x", "d/y z", "d/x/w", "e/\u00fc\u2713.json", "e/f/g", ".x", "a/q", "/".join(["n" * 200] * 15)]
)
"""Few, so that the two sides meet; some are folders of others, one is very long."""
LINE = st.sampled_from([b"alpha", b"beta", b"gamma", b"delta", b"", b"  indented", b"\xe4\xf6", "\u2713 tick".encode()])
END = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def text(draw: st.DrawFn) -> bytes:
    """Lines of one or both ends, the last with or without one."""
    lines = draw(st.lists(st.tuples(LINE, END), max_size=6))
    return b"".join(line + end for line, end in lines) + draw(st.sampled_from([b"", b"tail"]))


@st.composite
def numbered(draw: st.DrawFn) -> bytes:
    """Longer text in which edits are apart."""
    lines = [b"line %d\n" % number for number in range(12)]
    for position in draw(st.lists(st.integers(0, 11), max_size=3)):
        lines[position] = draw(st.sampled_from([b"left\n", b"right\n", b"", b"two\nlines\n"]))
    return b"".join(lines)


BINARY = st.sampled_from([b"\0\1\2", b"\0\1\3", b"text\nwith \0 in it\n"])
CONTENT = st.one_of(numbered(), text(), BINARY, st.just(b""))
CHANGE: st.SearchStrategy[FileChange] = st.one_of(
    st.builds(WriteFile, PATHS, CONTENT, st.none(), st.sampled_from([None, None, True, False])),
    st.builds(DeleteFile, PATHS),
    st.builds(MoveFile, PATHS, PATHS, st.one_of(st.none(), CONTENT)),
)
BASE = st.dictionaries(
    PATHS,
    st.one_of(
        st.tuples(st.sampled_from([FILE, EXECUTABLE]), CONTENT),
        st.tuples(st.just(SYMLINK), st.sampled_from([b"a", b"b", b"../x"])),
        st.tuples(st.just(SUBMODULE), st.sampled_from([b"1" * 40, b"2" * 40])),
    ),
    max_size=6,
)


@dataclass(frozen=True)
class World:
    """The same repository in every adapter, and the path of the one that the `git` program can read."""

    harnesses: dict[str, Harness]
    path: Path
    name: str
    minutes: Iterator[int]

    async def everywhere(self, call: str, *arguments: object, **options: object) -> object:
        """Call every adapter: the one answer (or refusal) that all of them give."""
        answers = [await self._answer(harness, call, *arguments, **options) for harness in self.harnesses.values()]
        assert all(answer == answers[0] for answer in answers), dict(zip(self.harnesses, answers, strict=True))
        return answers[0]

    async def _answer(self, harness: Harness, call: str, *arguments: object, **options: object) -> object:
        try:
            return await getattr(harness.git, call)(self.name, *arguments, **options)
        except ChangeRefused as error:
            return (type(error), error.path)
        except GitError as error:
            return type(error)

    async def plant(self, files: dict[str, tuple[int, bytes]]) -> str:
        """A first commit, the same everywhere."""
        person = f"Ann <ann@example.org> {1714557600 + 60 * next(self.minutes)} +0200"
        shas: set[str] = set()
        for harness in self.harnesses.values():
            tree = plant_tree(harness, self.name, files)
            body = f"tree {tree}\nauthor {person}\ncommitter {person}\n\nplanted\n"
            shas.add(harness.put(self.name, "commit", body.encode()))
        [sha] = shas
        minute = next(self.minutes)
        for harness in self.harnesses.values():
            harness.set_ref(self.name, f"refs/heads/made/{minute}", sha)
        return sha

    async def grow(self, parent: str, changes: list[FileChange]) -> str:
        """One commit for each change that can be applied; those that can't are refused alike."""
        for change in changes:
            minute = next(self.minutes)
            made = await self.everywhere(
                "commit_files",
                ref=f"refs/heads/made/{minute}",
                expected_old=None,
                parent=parent,
                changes=[change],
                author=type(ANN)(ANN.name, ANN.email, ANN.when + timedelta(minutes=minute)),
                message=f"{type(change).__name__} \u2713\n",
            )
            parent = made if isinstance(made, str) else parent
        return parent

    def program(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> bytes:
        """The output of the `git` program on the local repository."""
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, check=False)
        assert done.returncode in codes, done.stderr
        return done.stdout


@asynccontextmanager
async def worlds(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        harnesses: dict[str, Harness] = {}
        for name, make in HARNESSES.items():
            (folder / name).mkdir(parents=True)
            harnesses[name] = await stack.enter_async_context(make(folder / name))
            await harnesses[name].git.create_repository("app.git", "main")
        yield World(harnesses, folder / "local" / "storage" / "app.git", "app.git", count(1))


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A fresh folder for each example."""
    return (tmp_path / str(number) for number in count())


def regular(files: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """Without what would need a path to be a file and a folder."""
    return {path: file for path, file in files.items() if not any(path.startswith(f"{other}/") for other in files)}


def as_git_lists(entry: TreeEntry) -> bytes:
    """An entry as `git ls-tree -lz` writes it."""
    kind = "commit" if entry.type is EntryType.SUBMODULE else "blob"
    size = "-" if entry.size is None else entry.size
    return f"{entry.mode:o} {kind} {entry.blob_id} {size:>7}\t{entry.path}".encode()


@FINE
@given(base=BASE, changes=st.lists(CHANGE, max_size=8))
def test_trees_and_differences_are_those_of_git(
    folders: Iterator[Path], base: dict[str, tuple[int, bytes]], changes: list[FileChange]
) -> None:
    async def check() -> None:
        async with worlds(next(folders)) as world:
            first = await world.plant(regular(base))
            last = await world.grow(first, changes)
            for commit in (first, last):
                listed = await world.everywhere("list_tree", commit, recursive=True)
                raw = world.program("ls-tree", "-rlz", commit).split(b"\0")[:-1]
                assert isinstance(listed, list)
                assert [as_git_lists(entry) for entry in listed] == raw
            plain = await world.everywhere("changed_paths", first, last)
            assert isinstance(plain, list)
            status = world.program("diff", "--no-renames", "--name-status", "-z", first, last).decode().split("\0")[:-1]
            letters = {
                ChangeStatus.ADDED: "A",
                ChangeStatus.MODIFIED: "M",
                ChangeStatus.DELETED: "D",
                ChangeStatus.TYPE_CHANGED: "T",
            }
            assert [word for change in plain for word in (letters[change.status], change.path)] == status
            await world.everywhere("changed_paths", first, last, renames=True)
            await world.everywhere("diff", first, last)
            patches = await world.everywhere("diff", first, last, renames=False)
            assert isinstance(patches, list)
            if not any(patch.binary for patch in patches):
                printed = world.program("diff", "--no-renames", "--abbrev=7", first, last)
                assert "".join(patch.patch for patch in patches) == printed.decode("utf-8", "replace")
            assert await world.everywhere("log", last) == await world.everywhere("log", last, first_parent=True)
            assert world.program("fsck", "--strict", "--no-dangling") == b""

    asyncio.run(check())


@FINE
@given(base=BASE, ours=st.lists(CHANGE, max_size=4), theirs=st.lists(CHANGE, max_size=4))
def test_merges_are_those_of_git_and_the_same_everywhere(
    folders: Iterator[Path], base: dict[str, tuple[int, bytes]], ours: list[FileChange], theirs: list[FileChange]
) -> None:
    async def check() -> None:
        async with worlds(next(folders)) as world:
            start = await world.plant(regular(base))
            one, two = await world.grow(start, ours), await world.grow(start, theirs)
            tried = await world.everywhere("trial_merge", one, two)
            assert isinstance(tried, TrialMerge)
            assert (await world.everywhere("merge_base", one, two)) == world.program("merge-base", one, two).decode().strip()
            assert await world.everywhere("is_ancestor", start, two) is True
            if not await moved(world, start, one) and not await moved(world, start, two):
                # Where something moved, git's measure of likeness is not ours; all else must agree.
                said = world.program("-c", "merge.renames=false", "merge-tree", "--write-tree", one, two, codes=(0, 1))
                clean = b"\n\n" not in said and len(said) == 41
                assert tried.clean == clean
                assert not clean or tried.tree_id == said.decode().strip()
            target = {"ref": MAIN, "expected_old": None, "author": ANN, "message": "m\n"}
            made = await world.everywhere("merge", **target, ours=one, theirs=two)
            assert isinstance(made, CommitOutcome)
            assert made.clean == tried.clean
            rebased = {"ref": "refs/heads/rebased", "expected_old": None, "committer": ANN}
            await world.everywhere("rebase", **rebased, head=two, onto=one)
            reverted = {**target, "ref": "refs/heads/reverted"}
            await world.everywhere("revert", **reverted, onto=made.sha or one, base=start, head=one)
            await world.everywhere("list_refs", "refs/")
            assert world.program("fsck", "--strict", "--no-dangling") == b""

    asyncio.run(check())


async def moved(world: World, base: str, head: str) -> bool:
    """Whether our detection or git's finds a moved file."""
    changes = await world.everywhere("changed_paths", base, head, renames=True)
    assert isinstance(changes, list)
    ours = any(isinstance(change, ChangedPath) and change.status is ChangeStatus.RENAMED for change in changes)
    return ours or b"R" in {word[:1] for word in world.program("diff", "-M", "--name-status", base, head).splitlines()}


@FINE
@given(
    st.text("ab/.~^:?*[\\@{ \x01\x7f-\u00fc", max_size=8).map("refs/".__add__)
    | st.sampled_from(["refs/a.lock", "refs/a.lock/b", "refs/a.b", "refs/@", "refs/a/@{", "refs/-", "refs/a//b"])
)
def test_ref_names_are_those_of_git(name: str) -> None:
    if "\0" not in name:
        done = subprocess.run(["git", "check-ref-format", os.fsencode(name)], check=False)
        assert is_ref_name(name) == (done.returncode == 0)
