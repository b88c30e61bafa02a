"""The cache: verified before use, built once, never half there (docs/adr/0003)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from conman.embedded.cache import Cache, default_folder
from conman.embedded.errors import EmbeddedError


class Builder:
    """Makes an artifact of two files and counts how often."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, made: Path, work: Path) -> None:
        self.runs += 1
        (work / "on-the-way").write_text("not part of it")
        (made / "bin").mkdir()
        (made / "bin" / "tool").write_text("the tool")
        (made / "readme").write_text("read me")


@pytest.fixture
def said() -> list[str]:
    return []


async def test_an_artifact_is_built_once_and_then_taken_from_the_cache(tmp_path: Path, said: list[str]) -> None:
    cache, build = Cache(tmp_path / "cache"), Builder()
    first = await cache.get("tool-1", build, said.append)
    assert await cache.get("tool-1", build, said.append) == first
    assert build.runs == 1
    assert (first / "bin" / "tool").read_text() == "the tool"
    assert not list(cache.folder.rglob("on-the-way"))


def change(folder: Path) -> None:
    (folder / "bin" / "tool").write_text("the fool")


def cut(folder: Path) -> None:
    (folder / "readme").write_bytes(b"")


def delete(folder: Path) -> None:
    (folder / "readme").unlink()


def add(folder: Path) -> None:
    (folder / "stray").write_text("who am I")


def lose_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()


def garble_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("damage", [change, cut, delete, add, lose_sums, garble_sums], ids=lambda damage: damage.__name__)
async def test_a_damaged_artifact_is_built_anew_and_that_is_said(damage, tmp_path: Path, said: list[str]) -> None:
    cache, build = Cache(tmp_path), Builder()
    folder = await cache.get("tool-1", build, said.append)
    damage(folder)
    assert said == []
    assert await cache.get("tool-1", build, said.append) == folder
    assert build.runs == 2
    assert [line for line in said if "tool-1 is damaged" in line]
    assert (folder / "bin" / "tool").read_text() == "the tool"
    assert not (folder / "stray").exists()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_failed_build_leaves_nothing_and_the_next_one_starts_afresh(tmp_path: Path, said: list[str]) -> None:
    cache = Cache(tmp_path)

    async def fails(made: Path, work: Path) -> None:
        (made / "half").write_text("of it")
        (made / "read-only").mkdir()
        (made / "read-only" / "file").write_text("as Go's module cache is")
        (made / "read-only").chmod(0o500)
        raise EmbeddedError("no compiler")

    with pytest.raises(EmbeddedError, match="no compiler"):
        await cache.get("tool-1", fails, said.append)
    assert names(tmp_path) == ["tool-1.lock"]
    assert (await cache.get("tool-1", Builder(), said.append) / "readme").exists()


async def test_a_build_that_makes_nothing_is_an_error(tmp_path: Path, said: list[str]) -> None:
    async def nothing(made: Path, work: Path) -> None:
        pass

    with pytest.raises(EmbeddedError, match="no files"):
        await Cache(tmp_path).get("tool-1", nothing, said.append)


async def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / ".tool-1.killed" / "made").mkdir(parents=True)
    await Cache(tmp_path).get("tool-1", Builder(), said.append)
    assert not (tmp_path / ".tool-1.killed").exists()


RACER = """
import asyncio, sys
from pathlib import Path
from conman.embedded.cache import Cache
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
async def build(made, work):
    with log.open("a") as file:
        file.write("built\\n")
    while not (folder / "go").exists():  # until the test has seen the other one wait
        await asyncio.sleep(0.02)
    (made / "tool").write_text("the tool")
found = asyncio.run(Cache(folder).get("tool-1", build, lambda line: print(line, flush=True)))
print((found / "tool").read_text(), flush=True)
"""


async def test_of_two_processes_one_builds_and_the_other_waits_and_says_so(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    command = [sys.executable, "-c", RACER, str(folder), str(log)]
    racers = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    lines = [asyncio.create_task(racer.stdout.readline()) for racer in racers if racer.stdout]
    async with asyncio.timeout(30):
        done, _ = await asyncio.wait(lines, return_when=asyncio.FIRST_COMPLETED)
        assert b"another process is making tool-1" in done.pop().result()
        (folder / "go").touch()
        rest = [await racer.stdout.read() for racer in racers if racer.stdout is not None and await asyncio.wait(lines)]
    said = [task.result() + more for task, more in zip(lines, rest, strict=True)]
    assert all(b"the tool" in line for line in said)
    assert log.read_text() == "built\n"
    assert [await racer.wait() for racer in racers] == [0, 0]


def test_the_folder_is_the_users_cache_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONMAN_CACHE", str(tmp_path / "named"))
    assert default_folder() == tmp_path / "named"
    monkeypatch.delenv("CONMAN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == Path.home() / ".cache" / "conman"
