"""A merge with resolutions is one commit of both heads: the plain merge everywhere else, the user's word where it conflicts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conman.domain.app import AppSettings
from conman.domain.decision import Actor
from conman.domain.errors import DomainError
from conman.git.adapter import ConflictKind, DeleteFile, FileChange, MoveFile, Signature, WriteFile
from conman.git.memory import MemoryGit
from conman.services.call import Call
from conman.services.conflicts import conflicts_between
from conman.services.platform import Platform
from conman.services.resolutions import Resolution, merge_resolved
from conman.services.workspace_refs import Scratch

REPO = "app.git"
SCRATCH = "refs/conman/scratch/w/1"
AUTHOR = Signature("Ann", "ann@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
USER = {"_id": "u", "name": "Ann", "email": "ann@example.com"}
CALL = Call(command_id="c", at="2026-01-02T03:04:05.000Z", actor=Actor(), user=USER)
APP = {"repo_path": REPO, "settings": AppSettings().model_dump(mode="json")}

Files = Mapping[str, str]


class Heads:
    """A repository with a base and two branches of it."""

    def __init__(self) -> None:
        self.git = MemoryGit()
        self.platform = cast("Platform", SimpleNamespace(git=self.git))

    async def commit(self, branch: str, parent: str | None, *changes: FileChange) -> str:
        return await self.git.commit_files(
            REPO, ref=f"refs/heads/{branch}", expected_old=None, parent=parent, changes=changes, author=AUTHOR, message="m\n"
        )

    async def of(self, branch: str, parent: str | None, before: Files, after: Files) -> str:
        gone = [DeleteFile(path) for path in before if path not in after]
        written = [WriteFile(path, text.encode()) for path, text in after.items() if before.get(path) != text]
        return await self.commit(branch, parent, *gone, *written)

    async def resolve(self, ours: str, theirs: str, resolutions: list[Resolution]) -> str:
        async with Scratch(self.git, REPO, SCRATCH) as making:
            made = await merge_resolved(self.platform, CALL, APP, making, ours, theirs, resolutions, "Sync\n")
            await self.git.commit_tree_of(
                REPO, ref="refs/heads/kept", expected_old=None, tree_of=made, parents=[made], author=AUTHOR, message="k\n"
            )
        assert await self.git.list_refs(REPO, "refs/conman/") == {}
        assert (await self.git.commit(REPO, made)).parents == (ours, theirs)
        return made

    async def files(self, commit: str) -> dict[str, str]:
        rows = await self.git.list_tree(REPO, commit, recursive=True)
        return {row.path: (await self.git.read_blob(REPO, row.blob_id)).decode() for row in rows}


async def heads() -> Heads:
    made = Heads()
    await made.git.create_repository(REPO, "main")
    return made


PATHS = ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt", "g.txt"]


def texts(versions: Mapping[str, int]) -> dict[str, str]:
    """Each version of each path has lines of its own, so that nothing looks like a move or merges within a file."""
    return {path: f"{path} {version}\n" for path, version in versions.items()}


_side = st.dictionaries(st.sampled_from(PATHS), st.integers(0, 2), max_size=5).map(texts)


def merged(base: Files, ours: Files, theirs: Files) -> tuple[dict[str, str], set[str]]:
    """The three-way merge of whole files, by the book: what it holds, and where it conflicts."""
    held: dict[str, str] = {}
    conflicts: set[str] = set()
    for path in PATHS:
        one, two, three = base.get(path), ours.get(path), theirs.get(path)
        if two == three or three == one:
            text = two
        elif two == one:
            text = three
        else:
            conflicts.add(path)
            continue
        if text is not None:
            held[path] = text
    return held, conflicts


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.differing_executors]
)
@given(_side, _side, _side, st.lists(st.sampled_from(["x\n", "y\n", None]), min_size=5, max_size=5))
def test_the_merge_is_the_plain_one_with_the_users_word_at_each_conflict(
    base: Files, ours: Files, theirs: Files, words: list[str | None]
) -> None:
    async def check() -> None:
        at = await heads()
        root = await at.of("base", None, {}, base)
        mine, other = await at.of("ours", root, base, ours), await at.of("theirs", root, base, theirs)
        held, conflicting = merged(base, ours, theirs)
        assert {one.path for one in await conflicts_between(at.git, REPO, mine, other)} == conflicting
        decided = dict(zip(sorted(conflicting), words, strict=False))
        resolutions = [Resolution(path, content=word.encode() if word else None) for path, word in decided.items()]
        if not conflicting:
            return
        made = await at.resolve(mine, other, resolutions)
        assert await at.files(made) == held | {path: word for path, word in decided.items() if word}

    asyncio.run(check())


LINES = "".join(f"line {number}\n" for number in range(30))


async def resolved(at: Heads, ours: str, theirs: str, words: dict[str, str | None]) -> dict[str, str]:
    resolutions = [Resolution(path, content=word.encode() if word is not None else None) for path, word in words.items()]
    return await at.files(await at.resolve(ours, theirs, resolutions))


async def test_a_move_against_a_change_is_resolved_at_both_paths() -> None:
    at = await heads()
    root = await at.commit("base", None, WriteFile("a.txt", LINES.encode()), WriteFile("k.txt", b"kept\n"))
    mine = await at.commit("ours", root, MoveFile("a.txt", "b.txt", data=LINES.replace("line 3\n", "mine\n").encode()))
    other = await at.commit(
        "theirs", root, WriteFile("a.txt", LINES.replace("line 3\n", "theirs\n").encode()), WriteFile("k.txt", b"new\n")
    )
    found = await conflicts_between(at.git, REPO, mine, other)
    assert {(one.path, one.kind) for one in found} == {("a.txt", ConflictKind.RENAME), ("b.txt", ConflictKind.RENAME)}
    assert await resolved(at, mine, other, {"a.txt": None, "b.txt": "both\n"}) == {"b.txt": "both\n", "k.txt": "new\n"}


async def test_a_copy_beside_a_conflict_is_not_taken_for_a_move() -> None:
    at = await heads()
    root = await at.commit("base", None, WriteFile("a.txt", LINES.encode()))
    mine = await at.commit("ours", root, WriteFile("a.txt", b"mine\n"), WriteFile("copy.txt", LINES.encode()))
    other = await at.commit("theirs", root, DeleteFile("a.txt"))
    paths = {one.path for one in await conflicts_between(at.git, REPO, mine, other)}
    made = await resolved(at, mine, other, dict.fromkeys(paths, "settled\n"))
    assert made["a.txt" if "a.txt" in paths else "copy.txt"] == "settled\n"
    assert set(made) == paths | {"copy.txt"}


async def test_a_file_against_a_folder_is_settled_by_deleting_the_file() -> None:
    at = await heads()
    root = await at.commit("base", None, WriteFile("k.txt", b"1\n"))
    mine = await at.commit("ours", root, WriteFile("a", b"file\n"))
    other = await at.commit("theirs", root, WriteFile("a/b.txt", b"in a folder\n"))
    paths = {one.path for one in await conflicts_between(at.git, REPO, mine, other)}
    assert paths == {"a"}
    assert await resolved(at, mine, other, {"a": None}) == {"a/b.txt": "in a folder\n", "k.txt": "1\n"}
    with pytest.raises(DomainError):
        await at.resolve(mine, other, [Resolution("a", content=b"file\n")])


async def test_the_mode_of_a_resolved_file_is_kept() -> None:
    at = await heads()
    root = await at.commit("base", None, WriteFile("run.sh", b"1\n", executable=True))
    mine = await at.commit("ours", root, WriteFile("run.sh", b"2\n"))
    other = await at.commit("theirs", root, WriteFile("run.sh", b"3\n"))
    made = await at.resolve(mine, other, [Resolution("run.sh", content=b"4\n")])
    entry: Any = await at.git.entry(REPO, made, "run.sh")
    assert entry.mode == 0o100755


async def test_the_same_inputs_make_the_same_commit() -> None:
    made: set[str] = set()
    for _ in range(2):
        at = await heads()
        root = await at.commit("base", None, WriteFile("a.txt", b"1\n"))
        mine = await at.commit("ours", root, WriteFile("a.txt", b"2\n"))
        other = await at.commit("theirs", root, WriteFile("a.txt", b"3\n"))
        made.add(await at.resolve(mine, other, [Resolution("a.txt", content=b"4\n")]))
    assert len(made) == 1
