"""Supervised child processes: healthy before used, started again when they die, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from conman.embedded import guard
from conman.embedded.errors import EmbeddedError, NotReady
from conman.embedded.process import ManagedProcess, ProcessGroup, ProcessSpec

SECONDS = 20.0
PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
PARENT_OF_ONE = (
    f"import subprocess, sys, time\nprint(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid, flush=True)\ntime.sleep(600)"
)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
async def group() -> AsyncIterator[ProcessGroup]:
    group = ProcessGroup()
    yield group
    group.sweep()


class Bench:
    """Makes managed processes that print to one log, which is also how their health is told."""

    def __init__(self, folder: Path, group: ProcessGroup) -> None:
        self.log = folder / "child.log"
        self.group = group
        self.said: list[str] = []

    def process(self, program: str, *, name: str = "child", start: float = SECONDS, stop: float = 5.0) -> ManagedProcess:
        async def printed() -> None:
            if "up" not in self.log.read_text():
                raise NotReady("it has printed nothing")

        spec = ProcessSpec(
            name=name, command=[*PYTHON, program], log=self.log, healthy=printed, start_seconds=start, stop_seconds=stop
        )
        return ManagedProcess(spec, self.group, self.said.append)


@pytest.fixture
def bench(tmp_path: Path, group: ProcessGroup) -> Bench:
    return Bench(tmp_path, group)


async def test_start_waits_for_health_and_stop_ends_it(bench: Bench) -> None:
    child = bench.process(SLEEPER)
    await child.start()
    pid = child.pid
    assert pid is not None and alive(pid)
    await child.stop()
    assert child.pid is None and not alive(pid)
    await child.stop()  # twice is as good as once


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_process_that_dies_unasked_is_started_again(number: signal.Signals, bench: Bench) -> None:
    child = bench.process(SLEEPER)
    await child.start()
    first = child.pid
    assert first is not None
    os.kill(first, number)
    await until(lambda: "child is back" in bench.said, "back")
    assert child.pid not in (None, first)
    assert child.restarts == 1
    assert number.name in bench.said[0]
    await child.stop()


async def test_restarts_back_off_and_go_on(bench: Bench, tmp_path: Path) -> None:
    flag = tmp_path / "stay"
    program = f"import os, time\nprint('up', flush=True)\nwhile os.path.exists({str(flag)!r}): time.sleep(0.02)"
    flag.touch()
    child = bench.process(program)
    await child.start()
    flag.unlink()
    await until(lambda: child.restarts >= 3, "three restarts")
    waits = [line.rpartition(" in ")[2] for line in bench.said if "died" in line]
    assert waits[:3] == ["0.1 s", "0.2 s", "0.4 s"]
    await child.stop()
    assert child.pid is None


async def test_a_process_that_ignores_sigterm_is_killed_after_its_time(bench: Bench) -> None:
    child = bench.process(STUBBORN, stop=0.3)
    await child.start()
    pid = child.pid
    await child.stop()
    assert pid is not None and not alive(pid)
    assert "child did not stop in 0 s; killing it" in bench.said


async def test_a_process_that_ends_while_starting_is_an_error_with_its_last_words(bench: Bench) -> None:
    child = bench.process("raise SystemExit('no such database')")
    with pytest.raises(EmbeddedError, match=r"child ended while starting \(exit code 1\): no such database"):
        await child.start()
    assert child.pid is None


async def test_a_process_that_never_gets_healthy_is_stopped(bench: Bench) -> None:
    child = bench.process("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)", start=1.0)
    with pytest.raises(EmbeddedError, match="not ready after 1 s: it has printed nothing"):
        await child.start()
    assert child.pid is None
    assert not alive(int(bench.log.read_text()))


async def test_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    child = bench.process("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    starting = asyncio.create_task(child.start())
    await until(lambda: bench.log.exists() and bench.log.read_text() != "", "its pid")
    starting.cancel()
    await asyncio.wait([starting])
    assert not alive(int(bench.log.read_text()))


async def test_a_program_that_is_not_there_is_an_error_that_names_it(bench: Bench) -> None:
    async def never() -> None:
        raise NotReady("nothing there")

    child = ManagedProcess(ProcessSpec("child", ["/nowhere/server"], bench.log, healthy=never), bench.group, print)
    with pytest.raises(EmbeddedError, match="/nowhere/server can't be run: No such file"):
        await child.start()


async def test_what_a_child_started_ends_with_it(bench: Bench) -> None:
    child = ManagedProcess(ProcessSpec("child", [*PYTHON, PARENT_OF_ONE], bench.log), bench.group, bench.said.append)
    await child.start()
    await until(lambda: bench.log.exists() and bench.log.read_text().endswith("up\n"), "its child's output")
    grandchild = int(bench.log.read_text().split()[0])
    assert alive(grandchild)
    await child.stop()
    await until(lambda: not alive(grandchild), "the grandchild's end")


async def test_all_children_share_one_group_that_is_not_ours(tmp_path: Path, group: ProcessGroup) -> None:
    benches = [Bench(tmp_path / name, group) for name in ("a", "b")]
    children = [bench.process(SLEEPER, name=str(number)) for number, bench in enumerate(benches)]
    for child in children:
        await child.start()
    groups = {os.getpgid(child.pid) for child in children if child.pid}
    assert len(groups) == 1 and os.getpgrp() not in groups
    for child in children:
        await child.stop()
    late = Bench(tmp_path / "late", group).process(SLEEPER)  # the group has gone with its members: a new one
    await late.start()
    assert late.pid is not None and os.getpgid(late.pid) != os.getpgrp()
    await late.stop()


async def test_a_sweep_kills_what_has_left_its_parent(bench: Bench) -> None:
    process = bench.group.spawn([*PYTHON, PARENT_OF_ONE], env=None, log=bench.log)
    await until(lambda: bench.log.read_text().endswith("up\n"), "its child's output")
    orphan = int(bench.log.read_text().split()[0])
    process.kill()
    process.wait()
    assert alive(orphan)
    bench.group.sweep()
    await until(lambda: not alive(orphan), "the orphan's end")


OWNER = """
import asyncio, sys
from pathlib import Path
from conman.embedded.process import ManagedProcess, ProcessGroup, ProcessSpec
async def main():
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    spec = ProcessSpec("child", [sys.executable, "-c", program], Path(sys.argv[1]))
    await ManagedProcess(spec, ProcessGroup(), print).start()
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "way",
    [pytest.param("", marks=pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")), "watch"],
    ids=["by the kernel", "by watching"],
)
async def test_no_child_survives_the_kill_of_its_owner(way: str, tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, str(log), env={**os.environ, "CONMAN_GUARD": way})
    await until(lambda: log.exists() and log.read_text().endswith("\n"), "the child's pid")
    child = int(log.read_text())
    assert alive(child)
    owner.kill()
    await owner.wait()
    await until(lambda: not alive(child), "the child's end")


def test_a_guarded_command_does_not_start_when_its_parent_has_gone() -> None:
    if sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is Linux's")
    gone = subprocess.Popen(["true"])
    gone.wait()
    process = subprocess.run(guard.command(["echo", "started"], parent=gone.pid), capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL
    assert process.stdout == b""
