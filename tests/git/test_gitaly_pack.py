"""Pack mode beyond the port's contract: lost answers, workers with mirrors of their own, and the choice of the mode."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from git_harness import ANN, MAIN, Repo, ServedHarness

from conman.git.adapter import GitAdapter, GitError, RefUpdate, StaleRef, WriteFile
from conman.git.gitaly import CacheOptions, GitalyGit
from conman.git.gitaly_channel import GitalyChannel, GitalyError, GitalyOptions
from conman.git.gitaly_pack import PackGit, PackOptions
from conman.git.gitaly_smart import SmartClient
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour
from conman.settings.git import GitalyMode

NAME = "team/app.git"
TAG = "refs/tags/r1"
FLAVOURS = [ServerFlavour.FULL, ServerFlavour.GITALY_RS]


@asynccontextmanager
async def worker(address: str, mirrors: Path) -> AsyncIterator[PackGit]:
    channel = GitalyChannel(GitalyOptions(address))
    git = PackGit(channel, PackOptions(mirrors, max_bytes=2**30, threads=4))
    yield git
    git.close()
    await channel.close()


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    async with serve(tmp_path / "storage", ServerOptions(flavour=ServerFlavour.GITALY_RS)) as made:
        yield made


@pytest.fixture
async def git(address: str, tmp_path: Path) -> AsyncIterator[PackGit]:
    async with worker(address, tmp_path / "mirrors") as made:
        await made.create_repository(NAME, "main")
        yield made


@pytest.fixture
async def other(address: str, tmp_path: Path) -> AsyncIterator[PackGit]:
    """A worker on another machine."""
    async with worker(address, tmp_path / "other") as made:
        yield made


def repo_of(git: GitAdapter, tmp_path: Path) -> Repo:
    return Repo(ServedHarness(git, tmp_path / "storage"), NAME, count(1))


Before = Callable[[], Awaitable[object]]


class LosesAnswers:
    """Pushes through the real client, whose answer to the next push is lost: before it is made, or after `then` followed it."""

    def __init__(self, client: SmartClient, *, pushed: bool, then: Before | None = None) -> None:
        self._client = client
        self._pushed = pushed
        self._then = then
        self.pushes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def push(self, *args: Any) -> dict[str, str | None]:
        self.pushes += 1
        if self.pushes > 1:
            return await self._client.push(*args)
        if self._pushed:
            assert set((await self._client.push(*args)).values()) == {None}
        if self._then is not None:
            await self._then()
        raise GitalyError(args[0], grpc.StatusCode.UNAVAILABLE, "the answer is lost")


def lose(git: PackGit, *, pushed: bool, then: Before | None = None) -> LosesAnswers:
    losing = LosesAnswers(git._smart, pushed=pushed, then=then)
    git._smart = losing  # type: ignore[assignment]
    return losing


async def test_a_push_that_landed_though_its_answer_was_lost_is_not_made_again(git: PackGit, tmp_path: Path) -> None:
    losing = lose(git, pushed=True)
    sha = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
    assert losing.pushes == 1
    assert await git.resolve(NAME, MAIN) == sha


async def test_a_push_that_did_not_land_is_made_again(git: PackGit, tmp_path: Path) -> None:
    losing = lose(git, pushed=False)
    sha = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
    assert losing.pushes == 2
    assert [commit.sha for commit in await git.log(NAME, MAIN)] == [sha]


async def test_a_push_that_landed_and_was_built_upon_is_done(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    one = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)

    async def build_upon() -> None:
        there = await other.resolve(NAME, MAIN)
        await repo_of(other, tmp_path).commit({"c": b"3"}, there, ref=MAIN)

    losing = lose(git, pushed=True, then=build_upon)
    two = await repo_of(git, tmp_path).commit({"b": b"2"}, one, ref=MAIN)
    assert losing.pushes == 1
    assert [commit.sha for commit in await git.log(NAME, MAIN)][1:] == [two, one]


async def test_a_lost_push_whose_ref_somebody_else_moved_is_stale(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    one = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)

    async def overtake() -> None:
        await repo_of(other, tmp_path).commit({"c": b"3"}, one, ref=MAIN)

    lose(git, pushed=False, then=overtake)
    with pytest.raises(StaleRef):
        await repo_of(git, tmp_path).commit({"b": b"2"}, one, ref=MAIN)
    assert await repo_of(git, tmp_path).files(await git.resolve(NAME, MAIN) or "") == {"a": b"1", "c": b"3"}


@pytest.mark.parametrize("pushed", [True, False], ids=["landed", "lost"])
async def test_several_refs_whose_push_is_in_doubt_are_all_moved(git: PackGit, tmp_path: Path, pushed: bool) -> None:
    one = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
    two = await repo_of(git, tmp_path).commit({"a": b"2"}, one, ref="refs/heads/two")
    lose(git, pushed=pushed)
    await git.update_refs(NAME, [RefUpdate(MAIN, one, two), RefUpdate(TAG, None, two), RefUpdate("refs/heads/two", two, None)])
    assert await git.list_refs(NAME, "") == {MAIN: two, TAG: two}


async def test_workers_see_each_others_writes_at_once_and_build_on_them(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    head: str | None = None
    for number in range(6):
        mine = (git, other)[number % 2]
        assert await mine.resolve(NAME, MAIN) == head
        head = await repo_of(mine, tmp_path).commit({f"f{number}": b"%d" % number}, head, ref=MAIN)
    for one in (git, other):
        assert len(await one.log(NAME, MAIN)) == 6
        assert len(await repo_of(one, tmp_path).files(head or "")) == 6


async def test_a_commit_is_made_on_a_parent_that_the_mirror_has_not_seen(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    parent = await repo_of(other, tmp_path).commit({"a": b"1"}, ref="refs/conman/private/a")
    child = await repo_of(git, tmp_path).commit({"b": b"2"}, parent, ref=MAIN)
    assert await repo_of(other, tmp_path).files(child) == {"a": b"1", "b": b"2"}


async def test_rivals_with_mirrors_of_their_own_lose_no_change(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    await repo_of(git, tmp_path).commit({"start": b""}, ref=MAIN)

    async def write(mine: PackGit, number: int) -> None:
        while True:
            head = await mine.resolve(NAME, MAIN)
            changes = [WriteFile(f"file{number}", b"x")]
            try:
                await mine.commit_files(
                    NAME, ref=MAIN, expected_old=head, parent=head, changes=changes, author=ANN, message=f"{number}\n"
                )
                return
            except StaleRef:
                continue

    await asyncio.gather(*(write((git, other)[number % 2], number) for number in range(8)))
    head = await git.resolve(NAME, MAIN)
    assert head is not None
    assert len(await repo_of(other, tmp_path).files(head)) == 9
    assert len(await other.log(NAME, head)) == 9
    await fsck(tmp_path)


async def fsck(tmp_path: Path) -> None:
    check = ["git", "-c", "safe.directory=*", "-C", str(tmp_path / "storage" / NAME), "fsck", "--strict"]
    checked = await asyncio.to_thread(subprocess.run, check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


async def test_an_object_that_the_server_has_dropped_is_sent_again(git: PackGit, tmp_path: Path) -> None:
    repo = repo_of(git, tmp_path)
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    await repo.commit({"again": b"the same", "folder/again": b"too"}, one, ref="refs/heads/gone")
    there = await git.resolve(NAME, "refs/heads/gone")
    await git.update_refs(NAME, [RefUpdate("refs/heads/gone", there, None)])
    prune = ["git", "-c", "safe.directory=*", "-C", str(tmp_path / "storage" / NAME), "gc", "-q", "--prune=now"]
    await asyncio.to_thread(subprocess.run, prune, check=True)
    two = await repo.commit({"again": b"the same", "folder/again": b"too"}, one, ref=MAIN)
    assert await git.resolve(NAME, MAIN) == two
    await fsck(tmp_path)


async def test_a_long_line_of_new_commits_is_sent_whole(git: PackGit, tmp_path: Path) -> None:
    """Longer than what is looked at before all of the server's refs are walked."""
    repo = repo_of(git, tmp_path)
    base = await repo.commit({"base": b""}, ref=MAIN)
    parent = base
    for number in range(70):
        parent = repo.plant({f"f{number}": (0o100644, b"%d" % number)}, (parent,))
    await git.update_refs(NAME, [RefUpdate("refs/heads/long", None, parent)])
    onto = await repo.commit({"other": b"x"}, base, ref=MAIN)
    rebased = await git.merge(
        NAME, ref="refs/heads/merged", expected_old=None, ours=onto, theirs=parent, author=ANN, message="merge\n"
    )
    assert rebased.sha is not None
    await fsck(tmp_path)


async def test_a_large_file_goes_through_whole(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    sha = await repo_of(git, tmp_path).commit({"large": data}, ref=MAIN)
    assert await repo_of(other, tmp_path).read(sha, "large") == data


async def test_a_commit_whose_push_lost_leaves_nothing_behind(git: PackGit, other: PackGit, tmp_path: Path) -> None:
    one = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
    await repo_of(other, tmp_path).commit({"a": b"2"}, one, ref=MAIN)
    [mirror] = (tmp_path / "mirrors").iterdir()
    before = sorted(mirror.rglob("*.pack"))
    with pytest.raises(StaleRef):
        await git.commit_files(
            NAME, ref=MAIN, expected_old=one, parent=one, changes=[WriteFile("a", b"3")], author=ANN, message="lost\n"
        )
    assert sorted(mirror.rglob("*.pack")) == before
    assert not list(mirror.glob("scratch-*"))


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_pack_mode_works_with_either_form_of_advertisement(tmp_path: Path, flavour: ServerFlavour) -> None:
    async with serve(tmp_path / "storage", ServerOptions(flavour=flavour)) as address, worker(address, tmp_path / "m") as git:
        await git.create_repository(NAME, "main")
        assert await git.list_refs(NAME, "") == {}
        sha = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
        assert await git.list_refs(NAME, "") == {MAIN: sha}
        await git.update_refs(NAME, [RefUpdate(MAIN, sha, None)])
        assert await git.list_refs(NAME, "") == {}


@asynccontextmanager
async def facade(address: str, root: Path, mode: GitalyMode = GitalyMode.AUTO) -> AsyncIterator[GitalyGit]:
    git = GitalyGit(GitalyOptions(address), mode, CacheOptions(root / "cache", 2**30, threads=2))
    yield git
    await git.close()


@pytest.mark.parametrize(("flavour", "mode"), [(ServerFlavour.GITALY_RS, "pack"), (ServerFlavour.FULL, "operations")])
async def test_the_mode_follows_from_what_the_server_can_do(tmp_path: Path, flavour: ServerFlavour, mode: str) -> None:
    async with serve(tmp_path / "storage", ServerOptions(flavour=flavour)) as address, facade(address, tmp_path) as git:
        health = await git.health()
        assert (health.backend, health.mode, health.details["address"]) == ("gitaly", "undecided", address)
        await git.create_repository(NAME, "main")
        one = await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
        two = await repo_of(git, tmp_path).commit({"b": b"2"}, one, ref=MAIN)
        assert await repo_of(git, tmp_path).files(two) == {"a": b"1", "b": b"2"}
        health = await git.health()
        assert health.mode == mode
        assert health.details["operations"] == ("yes" if mode == "operations" else "no")


async def test_the_questions_about_the_mode_change_nothing(address: str, git: PackGit, tmp_path: Path) -> None:
    await repo_of(git, tmp_path).commit({"a": b"1"}, ref=MAIN)
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "storage").rglob("*"))
    async with facade(address, tmp_path) as asking:
        await asking.list_refs(NAME, "")
        assert (await asking.health()).mode == "pack"
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "storage").rglob("*")) == before


@pytest.mark.parametrize("mode", [GitalyMode.PACK, GitalyMode.OPERATIONS])
async def test_a_mode_that_is_set_is_used_without_asking(tmp_path: Path, mode: GitalyMode) -> None:
    async with serve(tmp_path / "storage") as address, facade(address, tmp_path, mode) as git:
        assert (await git.health()).mode == mode.value
        await git.create_repository(NAME, "main")
        assert await git.list_refs(NAME, "") == {}
        assert set((await git.health()).details) == {"address", "storage"}


async def test_a_server_that_can_not_be_reached_is_not_healthy_and_decides_nothing(tmp_path: Path) -> None:
    options = GitalyOptions("127.0.0.1:1", attempts=1)
    git = GitalyGit(options, GitalyMode.AUTO, CacheOptions(tmp_path, 2**30, threads=1))
    with pytest.raises(GitError) as down:
        await git.health()
    assert down.value.safe_to_repeat
    with pytest.raises(GitError):
        await git.list_refs(NAME, "")
    await git.close()
