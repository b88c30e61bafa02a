"""Mirrors are a cache: damaged, deleted, outdated or without room, they give right answers or a clear error."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pygit2
import pytest
from git_harness import MAIN, Repo, ServedHarness

from conman.git import gitaly_mirror
from conman.git.adapter import GitError, ObjectMissing, RepositoryMissing
from conman.git.gitaly_channel import GitalyChannel, GitalyOptions
from conman.git.gitaly_mirror import Mirror
from conman.git.gitaly_pack import PackGit, PackOptions
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour

NAME = "team/app.git"


class World:
    """A server like gitaly-rs, and adapters to it as different workers have them."""

    def __init__(self, address: str, root: Path) -> None:
        self.address = address
        self.root = root
        self.storage = root / "storage"
        self._open: list[tuple[PackGit, GitalyChannel]] = []

    def worker(self, mirrors: str = "mirrors", max_bytes: int = 2**30) -> PackGit:
        channel = GitalyChannel(GitalyOptions(self.address))
        git = PackGit(channel, PackOptions(self.root / mirrors, max_bytes, threads=4))
        self._open.append((git, channel))
        return git

    def repo(self, git: PackGit, name: str = NAME) -> Repo:
        return Repo(ServedHarness(git, self.storage), name, count(1))

    def mirror(self, mirrors: str = "mirrors") -> Mirror:
        """The only mirror in the folder."""
        [folder] = (self.root / mirrors).iterdir()
        return Mirror(folder)

    def generation(self) -> Path:
        mirror = self.mirror()
        name = mirror.current()
        assert name is not None
        return mirror.folder / name

    async def close(self) -> None:
        for git, channel in self._open:
            git.close()
            await channel.close()


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[World]:
    async with serve(root / "storage", ServerOptions(flavour=ServerFlavour.GITALY_RS)) as address:
        world = World(address, root)
        yield world
        await world.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        yield made


def packs(generation: Path) -> list[Path]:
    return sorted((generation / "objects" / "pack").glob("*.pack"))


def replace(path: Path, data: bytes) -> None:
    """Put another file in the place of one. Files are mapped into memory while they are read: no program that does so,
    git included, outlives one that is cut short in place at that moment."""
    made = path.with_suffix(".made")
    made.write_bytes(data)
    made.rename(path)


def overwrite(path: Path, data: bytes, at: int = 0) -> None:
    old = path.read_bytes()
    replace(path, old[:at] + data + old[at + len(data) :])


def cut(path: Path, size: int) -> None:
    replace(path, path.read_bytes()[:size])


def each_pack(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(generation: Path) -> None:
        for pack in packs(generation):
            damage(pack)

    return do


DAMAGES: dict[str, Callable[[Path], object]] = {
    "packs cut in half": each_pack(lambda pack: cut(pack, pack.stat().st_size // 2)),
    "packs emptied": each_pack(lambda pack: cut(pack, 0)),
    "objects overwritten": each_pack(lambda pack: overwrite(pack, b"\xff" * (pack.stat().st_size - 40), at=20)),
    "packs deleted": each_pack(Path.unlink),
    "indexes deleted": each_pack(lambda pack: pack.with_suffix(".idx").unlink()),
    "indexes overwritten": each_pack(lambda pack: overwrite(pack.with_suffix(".idx"), b"\0" * 1000)),
    "HEAD missing": lambda generation: (generation / "HEAD").unlink(),
    "settings garbled": lambda generation: (generation / "config").write_text("[core\n\0garbage"),
    "tips garbled": lambda generation: (generation / "tips").write_bytes(b"\xff\xfe not shas \0"),
    "a file where the objects were": lambda generation: (
        shutil.rmtree(generation / "objects"),
        (generation / "objects").write_text("x"),
    )[0],
    "generation deleted": lambda generation: shutil.rmtree(generation),
    "link deleted": lambda generation: (generation.parent / "current").unlink(),
    "mirror deleted": lambda generation: shutil.rmtree(generation.parent),
    "all mirrors deleted": lambda generation: shutil.rmtree(generation.parent.parent),
}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("damage", list(DAMAGES))
async def test_a_damaged_mirror_is_noticed_and_mended(world: World, damage: str, restarted: bool) -> None:
    git = world.worker()
    repo = world.repo(git)
    await git.create_repository(NAME, "main")
    one = await repo.commit({"a": b"1" * 500, "folder/b": b"2" * 500}, ref=MAIN)
    two = await repo.commit({"a": b"3" * 500}, one, ref=MAIN)
    reader = world.worker() if restarted else git
    DAMAGES[damage](world.generation())
    assert await world.repo(reader).read(one, "folder/b") == b"2" * 500
    assert [commit.sha for commit in await reader.log(NAME, MAIN)] == [two, one]
    assert await reader.resolve(NAME, MAIN) == two
    three = await world.repo(reader).commit({"c": b"4"}, two)
    assert await world.repo(reader).files(three) == {"a": b"3" * 500, "folder/b": b"2" * 500, "c": b"4"}


async def test_an_export_from_a_damaged_mirror_writes_everything_once(world: World, tmp_path: Path) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    sha = await world.repo(git).commit({f"f{number}": os.urandom(2000) for number in range(20)}, ref=MAIN)
    [pack] = packs(world.generation())
    overwrite(pack, b"\xff" * 3000, at=pack.stat().st_size // 2)
    assert await git.export(NAME, sha, tmp_path / "out") == 20
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written == await world.repo(git).files(sha)


async def test_what_the_server_itself_lacks_does_not_build_the_mirror_again_and_again(world: World) -> None:
    git = world.worker()
    repo = world.repo(git)
    await git.create_repository(NAME, "main")
    await repo.commit({"a": b"1"}, ref=MAIN)
    before = world.generation()
    for _ in range(3):
        with pytest.raises(ObjectMissing):
            await git.commit(NAME, "12" * 20)
        with pytest.raises(ObjectMissing):
            await git.list_tree(NAME, MAIN, "no/folder")
    assert world.generation() == before


async def test_a_repository_that_was_replaced_by_another_is_noticed(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    old = await world.repo(git).commit({"a": b"old"}, ref=MAIN)
    shutil.rmtree(world.storage / NAME)
    other = world.worker("elsewhere")
    await other.create_repository(NAME, "main")
    new = await world.repo(other).commit({"a": b"new"}, ref=MAIN)
    assert await git.resolve(NAME, MAIN) == new
    assert await world.repo(git).read(new, "a") == b"new"
    assert await git.resolve(NAME, old) is None


async def test_a_repository_that_was_emptied_keeps_nothing_in_the_mirror(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    old = await world.repo(git).commit({"a": b"old"}, ref=MAIN)
    shutil.rmtree(world.storage / NAME)
    await world.worker("elsewhere").create_repository(NAME, "main")
    assert await git.list_refs(NAME, "") == {}
    assert await git.resolve(NAME, old) is None


async def test_a_repository_that_is_gone_takes_its_mirror_along(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    sha = await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    shutil.rmtree(world.storage / NAME)
    with pytest.raises(RepositoryMissing):
        await git.resolve(NAME, MAIN)
    with pytest.raises(RepositoryMissing):
        await git.commit(NAME, sha)
    assert world.mirror().current() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_told_leaves_no_half_mirror_and_is_no_lasting_harm(world: World, small_disk: Path) -> None:
    other = world.worker("elsewhere")
    await other.create_repository(NAME, "main")
    data = os.urandom(2_000_000)
    sha = await world.repo(other).commit({"big": data}, ref=MAIN)
    git = world.worker("small/mirrors")
    for _ in range(2):
        with pytest.raises(GitError) as full:
            await git.resolve(NAME, MAIN)
        assert "No space left on device" in str(full.value)
        assert full.value.safe_to_repeat
    [folder] = (small_disk / "mirrors").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert await world.repo(git).read(sha, "big") == data


async def test_a_full_disk_while_a_commit_is_made_moves_nothing(world: World, small_disk: Path) -> None:
    git = world.worker("small/mirrors")
    await git.create_repository(NAME, "main")
    sha = await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    with pytest.raises(GitError) as full:
        await world.repo(git).commit({"big": os.urandom(2_000_000)}, sha, ref=MAIN)
    assert "No space left on device" in str(full.value)
    assert full.value.safe_to_repeat
    assert await git.resolve(NAME, MAIN) == sha
    assert await world.repo(git).read(sha, "a") == b"1"


async def test_the_longest_unused_mirrors_make_room(world: World) -> None:
    git = world.worker(max_bytes=500_000)
    shas: dict[str, str] = {}
    other = world.worker("elsewhere")
    for name in ("one.git", "two.git", "three.git"):
        await other.create_repository(name, "main")
        shas[name] = await world.repo(other, name).commit({"a": os.urandom(200_000)}, ref=MAIN)
    for name in ("one.git", "two.git", "one.git", "three.git"):
        await git.resolve(name, MAIN)
    kept = {folder.name for folder in (world.root / "mirrors").iterdir() if Mirror(folder).current() is not None}
    expected = {git._mirrors.mirror(name).folder.name for name in ("one.git", "three.git")}
    assert kept == expected
    for name, sha in shas.items():
        assert len(await world.repo(git, name).read(sha, "a") or b"") == 200_000


async def test_a_mirror_larger_than_all_may_be_is_still_used(world: World) -> None:
    git = world.worker(max_bytes=1)
    await git.create_repository(NAME, "main")
    sha = await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    assert await git.resolve(NAME, MAIN) == sha
    assert world.mirror().current() is not None


async def test_many_at_once_on_a_cold_mirror_build_it_once(world: World) -> None:
    other = world.worker("elsewhere")
    await other.create_repository(NAME, "main")
    sha = await world.repo(other).commit({f"f{number}": b"%d" % number for number in range(50)}, ref=MAIN)
    workers = [world.worker() for _ in range(3)]
    reads = [world.repo(git).read(sha, f"f{number}") for git in workers for number in range(50)]
    assert await asyncio.gather(*reads) == [b"%d" % number for number in range(50)] * 3
    assert len(list(world.mirror().folder.glob("generation-*"))) == 1


async def test_several_processes_share_a_mirror(world: World) -> None:
    other = world.worker("elsewhere")
    await other.create_repository(NAME, "main")
    sha = await world.repo(other).commit({f"f{number}": b"x" * 100 for number in range(30)}, ref=MAIN)
    program = [sys.executable, str(Path(__file__).with_name("mirror_reader.py"))]
    arguments = [world.address, str(world.root / "mirrors"), NAME, sha]
    pipe = asyncio.subprocess.PIPE
    started = [await asyncio.create_subprocess_exec(*program, *arguments, stdout=pipe) for _ in range(2)]
    printed = [(await process.communicate())[0] for process in started]
    assert printed == [b"30 3000\n"] * 2
    assert len(list(world.mirror().folder.glob("generation-*"))) == 1


async def test_a_reader_does_not_wait_for_a_fetch_that_it_does_not_need(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    sha = await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    await git.resolve(NAME, MAIN)
    async with world.mirror().exclusive("test", 1):
        assert await world.repo(git).read(sha, "a") == b"1"
        assert await git.resolve(NAME, MAIN) == sha
        assert await world.repo(git).commit({"b": b"2"}, sha) is not None


async def test_who_waits_too_long_for_the_mirrors_lock_may_try_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    async with mirror.exclusive("test", 1):
        with pytest.raises(GitError) as locked:
            async with Mirror(mirror.folder).exclusive("test", 0.01):
                pass
    assert locked.value.safe_to_repeat


def test_a_generation_that_is_read_is_not_deleted(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    first = mirror.begin()
    mirror.publish(first)
    with mirror.reading() as path:
        assert path == first
        second = mirror.begin()
        mirror.publish(second)
        assert first.is_dir()
    mirror.sweep()
    assert not first.exists()
    with mirror.reading() as path:
        assert path == second


async def test_what_dead_processes_left_is_deleted(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    await git.resolve(NAME, MAIN)
    mirror = world.mirror()
    half = mirror.begin()
    (mirror.folder / "scratch-dead").mkdir()
    mirror.discard()
    await git.resolve(NAME, MAIN)
    names = {path.name for path in mirror.folder.iterdir()}
    assert half.name not in names
    assert names == {"lock", "current", mirror.current()}


async def test_many_pushes_do_not_leave_many_packs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitaly_mirror, "MAX_PACKS", 5)
    git = world.worker()
    repo = world.repo(git)
    await git.create_repository(NAME, "main")
    heads: list[str] = []
    for number in range(14):
        heads.append(await repo.commit({f"f{number}": b"%d" % number}, heads[-1] if heads else None, ref=MAIN))
        assert len(packs(world.generation())) <= 6
    for number, head in enumerate(heads):
        assert await repo.read(head, f"f{number}") == b"%d" % number
    assert len(await git.log(NAME, heads[-1])) == 14


async def test_nothing_is_fetched_while_the_refs_are_as_they_were(world: World) -> None:
    git = world.worker()
    await git.create_repository(NAME, "main")
    await world.repo(git).commit({"a": b"1"}, ref=MAIN)
    await git.resolve(NAME, MAIN)
    before = packs(world.generation())
    assert len(before) == 1
    for _ in range(3):
        await git.list_refs(NAME, "")
    assert packs(world.generation()) == before


async def test_an_object_that_no_ref_reaches_is_fetched_by_its_sha(world: World) -> None:
    git = world.worker()
    repo = world.repo(git)
    await git.create_repository(NAME, "main")
    await repo.commit({"a": b"1"}, ref=MAIN)
    blob = repo.harness.put(NAME, "blob", b"behind the back")
    commit = repo.plant({"planted": (0o100644, b"too")})
    assert await git.read_blob(NAME, blob) == b"behind the back"
    assert await repo.read(commit, "planted") == b"too"


async def test_a_mirror_passes_gits_own_check(world: World) -> None:
    git = world.worker()
    repo = world.repo(git)
    await git.create_repository(NAME, "main")
    one = await repo.commit({"a": b"1" * 3000, "b/c": b"2"}, ref=MAIN)
    other = world.worker("elsewhere")
    two = await world.repo(other).commit({"a": b"1" * 2990 + b"3"}, one, ref=MAIN)
    await git.resolve(NAME, MAIN)
    generation = world.generation()
    pygit2.Repository(str(generation)).references.create("refs/heads/tip", two)
    check = ["git", "-c", "safe.directory=*", "-C", str(generation), "fsck", "--strict"]
    checked = await asyncio.to_thread(subprocess.run, check, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
