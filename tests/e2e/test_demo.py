"""`conman demo` as a process: the whole walk, a second one in the same folder, signals, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from conman.demo.edits import BROKEN, GOOD
from conman.embedded.files import DataLock
from tests.support.sizes import some_of, thorough

pytestmark = [pytest.mark.kill, pytest.mark.timeout(1200)]

SECONDS = 600.0
TAG = re.compile(r"r\d{4}\.\d{2}\.\d{2}\.\d+")


@contextmanager
def started(data: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo, called in a folder whose `.env` names servers that it must not touch; its lines go to a file there."""
    home = data.parent
    (home / ".env").write_text("CONMAN_MONGO_URI=mongodb://127.0.0.1:9/\nCONMAN_TEMPORAL_ADDRESS=127.0.0.1:9\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_") or name == "CONMAN_CACHE"}
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "conman", "demo", "--data", str(data), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def said(data: Path) -> str:
    return (data.parent / "output").read_text(encoding="utf-8")


def wait_for(process: subprocess.Popen[bytes], data: Path, text: str) -> None:
    deadline = time.monotonic() + SECONDS
    while text not in said(data):
        assert process.poll() is None, said(data)
        assert time.monotonic() < deadline, said(data)
        time.sleep(0.05)


def processes(data: Path) -> list[str]:
    """The processes that name the data folder on their command line or in their environment."""
    found: list[str] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            named = [*process.cmdline(), *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(data) in text for text in named):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


def fact(output: str, name: str) -> str:
    [value] = re.findall(rf"^{re.escape(name)} +(.+)$", output, re.MULTILINE)
    return value


def assert_walked(data: Path) -> str:
    """The output tells of a release that is everywhere, and the deployed folder is what it tells; gives the tag."""
    output = said(data)
    tag = fact(output, "Release")
    assert TAG.fullmatch(tag)
    assert f"release {tag} is deployed_full, and the broken changeset is changes_requested" in output
    assert f"{BROKEN.edits[0].path}, line 5" in output
    files = Path(fact(output, "Deployed folder")) / "files"
    assert sum(path.is_file() for path in files.rglob("*")) >= 200
    for edit in (edit for proposal in GOOD for edit in proposal.edits):
        text = (files / edit.path).read_text(encoding="utf-8")
        assert all(new in text and old not in text for old, new in edit.changes.items()), edit.path
    assert not any(new in (files / BROKEN.edits[0].path).read_text() for new in BROKEN.edits[0].changes.values())
    return tag


def test_the_demo_walks_the_main_job_and_leaves_nothing_and_walks_again_in_the_same_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data, "--once") as process:
        assert process.wait(SECONDS) == 0, said(data)
    assert assert_walked(data).endswith(".1")
    assert processes(data) == []
    password = (data / "keys" / "admin.json").read_text().split('"')[-2]
    assert password not in said(data)

    with started(data) as process:
        wait_for(process, data, "Ctrl-C stops everything")
        assert assert_walked(data).endswith(".1")  # another app: its numbers start anew
        assert httpx.get(fact(said(data), "API and its docs"), trust_env=False).status_code == 200
        assert httpx.get(fact(said(data), "Temporal's Web UI"), trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0, said(data)
    assert processes(data) == []


@pytest.mark.parametrize("number", some_of([signal.SIGINT, signal.SIGTERM], one_in=2))
def test_a_signal_before_the_end_stops_the_stack_and_is_no_success(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    with started(data) as process:
        wait_for(process, data, "first commit")
        process.send_signal(number)
        assert process.wait(SECONDS) == 130, said(data)
    assert processes(data) == []


@thorough
def test_a_stack_that_dies_ends_the_demo_with_its_last_line_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data) as process:
        wait_for(process, data, "first commit")
        [up] = [child for child in psutil.Process(process.pid).children() if "up" in child.cmdline()]
        up.kill()
        assert process.wait(SECONDS) == 1, said(data)
    assert "conman demo failed: conman up was killed by SIGKILL: " in said(data)
    deadline = time.monotonic() + 10
    while processes(data) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(data) == []


def test_a_folder_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lock = DataLock(data)
    lock.acquire()
    try:
        with started(data, "--once") as process:
            assert process.wait(SECONDS) == 1
    finally:
        lock.release()
    [line] = [line for line in said(data).splitlines() if line.startswith("conman demo failed: ")]
    assert re.search(r"conman up ended with exit code 1: .* is in use by another conman", line)
    assert processes(data) == []


@thorough
def test_killing_the_demo_itself_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data) as process:
        wait_for(process, data, "conman up is ready")
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while processes(data) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(data) == []
