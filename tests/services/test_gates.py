"""Gates with real subprocesses: each end that they can have, and what of it is kept (`spec.md` 9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from temporalio.exceptions import ApplicationError

from conman.activities.progress import Progress
from conman.domain.app import BRANCHES
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.redaction import Redactor
from conman.domain.times import later
from conman.git.adapter import Signature, WriteFile
from conman.services.clock import new_id, now
from conman.services.expiry import forget_logs
from tests.services.gate_desk import GateDesk, gate_desk
from tests.services.shop import Shop

GRANDCHILD = "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path({!r}).touch(); time.sleep(300)"
HOLD = """
import subprocess, time
subprocess.Popen([sys.executable, "-c", {grandchild!r}], start_new_session={apart})
print("held", flush=True)
time.sleep(300)
"""


@pytest.fixture
async def desk(shop: Shop, tmp_path: Path) -> AsyncIterator[GateDesk]:
    async with gate_desk(shop, tmp_path) as made:
        yield made
        # By what they were started with: a process that left the group and the session is found too.
        assert [one.pid for one in psutil.process_iter() if _is_of(one, tmp_path)] == []
        assert _left_in(tmp_path / "data" / "scratch") == []


def _left_in(folder: Path) -> list[Path]:
    return list(folder.glob("*"))


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in word for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("script", "reason", "state", "said"),
    [
        ("", ReasonCode.OK, JobState.SUCCEEDED, ""),
        ("sys.exit(3)", ReasonCode.TESTS_FAILED, JobState.FAILED, ""),
        ("import time; time.sleep(300)", ReasonCode.TIMEOUT, JobState.FAILED, "longer than 2 s of wall time"),
        ("while True: pass", ReasonCode.TIMEOUT, JobState.FAILED, "more than 1 s of CPU time"),
        ("x = bytearray(1 << 30)", ReasonCode.TESTS_FAILED, JobState.FAILED, ""),
        ("os.kill(os.getpid(), 9)", ReasonCode.INFRASTRUCTURE, JobState.FAILED, "killed from outside"),
    ],
    ids=["passes", "fails", "sleeps", "computes", "takes memory", "is killed"],
)
async def test_how_a_suite_ends_is_its_gate_s_verdict(
    desk: GateDesk, script: str, reason: ReasonCode, state: JobState, said: str
) -> None:
    desk.script(script)
    desk.more = {"gate_cpu_seconds": 1 if "True" in script else 60, "gate_memory_mb": 512}
    await desk.configure(validation_gates__submit__timeout_seconds=2 if "sleep" in script else 120)
    start = await desk.start()
    verdict = await desk.attempt(start)
    assert (verdict.reason_code, verdict.state) == (reason, state)
    assert verdict.summary is not None
    assert said in verdict.summary["message"]
    log = await desk.log(start.job_id)
    assert log[0] == "the suite runs"
    assert log[-1] == verdict.summary["message"] or not said
    assert verdict.summary["report"]["checked"] == 3
    assert verdict.summary["lines"] == len(log)


async def test_a_command_that_no_worker_knows_or_that_is_not_there_is_a_runner_error(desk: GateDesk) -> None:
    desk.more = {"msuite_command": [str(desk.folder / "gone")]}
    verdict = await desk.judge()
    assert verdict.reason_code is ReasonCode.RUNNER_ERROR
    assert verdict.summary is not None
    assert "could not be started" in verdict.summary["message"]
    await desk.configure(validation_gates__submit__command="unheard-of")
    start = await desk.start()
    assert (await desk.attempt(start)).reason_code is ReasonCode.RUNNER_ERROR
    (line,) = await desk.log(start.job_id)
    assert "CONMAN_COMMANDS_FILE" in line


async def test_a_commit_that_is_not_there_is_a_git_error(desk: GateDesk) -> None:
    for scope in ("submit", "deploy"):  # with and without a look for an earlier result
        with pytest.raises(ApplicationError) as refused:
            await desk.judge(commit_sha="0" * 39 + "1", scope=scope)
        assert refused.value.type == ReasonCode.GIT_ERROR.value
    assert desk.runs == []


@pytest.mark.parametrize("apart", [False, True], ids=["in the group", "in a session of its own"])
async def test_a_cancel_ends_even_a_grandchild_that_will_not(desk: GateDesk, apart: bool) -> None:
    there = desk.told / "grandchild"
    desk.script(HOLD.format(grandchild=GRANDCHILD.format(str(there)), apart=apart))
    start = await desk.start()
    with pytest.raises(asyncio.CancelledError):
        await desk.attempt(start, cancel_when=there.exists)
    assert await desk.log(start.job_id) == ["the suite runs", "held", "It was canceled."]


async def test_output_over_the_cap_is_cut_with_a_note_and_the_suite_goes_on(desk: GateDesk) -> None:
    desk.more = {"gate_output_bytes": 2048}
    desk.script("for n in range(1000): print('line', n)\n")
    start = await desk.start()
    verdict = await desk.attempt(start)
    assert verdict.reason_code is ReasonCode.OK
    assert verdict.summary is not None
    assert verdict.summary["output_truncated"] is True
    log = await desk.log(start.job_id)
    assert sum(len(line) + 1 for line in log[:-1]) <= 2048
    assert log[-1] == "output truncated: the limit of 2048 bytes is reached, the command goes on"


async def test_a_suite_gets_none_of_the_worker_s_own_variables(desk: GateDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONMAN_SECRET", "MONGO_PASSWORD", "PYTHONPATH"):
        monkeypatch.setenv(name, "of the worker, in more than 32 bytes")
    desk.script("(told / 'environment').write_text(json.dumps(dict(os.environ)))")
    await desk.judge()
    environment = json.loads((desk.told / "environment").read_text(encoding="utf-8"))
    assert "of the worker, in more than 32 bytes" not in environment.values()
    given = {"PATH", "HOME", "LANG", "TMPDIR", "LC_CTYPE", "MODE", "TOKEN", "TOLD", "MSUITE_REPORT", "MSUITE_PROGRESS"}
    assert {name for name in environment if not name.startswith("CONMAN_")} <= given


async def test_a_suite_s_progress_is_shown_while_it_runs_and_only_what_is_one(desk: GateDesk) -> None:
    desk.script(
        "import time\n"
        "path = Path(os.environ['MSUITE_PROGRESS'])\n"
        "def tell(text):\n"
        "    path.with_suffix('.new').write_text(text)\n"
        "    path.with_suffix('.new').rename(path)\n"
        "tell(json.dumps({'done': 1, 'total': 3, 'message': 'with ' + os.environ['TOKEN']}))\n"
        "(told / 'first').touch()\n"
        "until = time.monotonic() + 60\n"
        "while not (told / 'seen').exists() and time.monotonic() < until: time.sleep(0.02)\n"
        'tell(\'{"done": 3, "total": 3}\')\n'
    )
    start = await desk.start()
    work = asyncio.create_task(desk.attempt(start))
    shown = None
    async with asyncio.timeout(60):
        while shown is None and not work.done():
            await asyncio.wait([work], timeout=0.05)
            shown = (await desk.job(start.job_id))["progress"]
    (desk.told / "seen").touch()
    assert (await work).reason_code is ReasonCode.OK
    assert shown == {"done": 1, "total": 3, "message": "with ****"}
    assert (await desk.job(start.job_id))["progress"] == {"done": 3, "total": 3, "message": ""}


async def test_what_is_no_progress_is_not_shown_and_what_is_not_new_is_not_written(desk: GateDesk) -> None:
    start, path = await desk.start(), desk.folder / "progress.json"
    await desk.platform.db["jobs"].update_one({"_id": start.job_id}, {"$set": {"state": "running"}})
    progress = Progress(desk.platform.db, start.job_id, path, Redactor(()))
    await progress.show()
    for text in (
        "",
        "{",
        "[]",
        "3",
        '{"done": -1}',
        '{"done": "1"}',
        '{"done": 1e3}',
        '{"total": 2}',
        " " * 20_000 + '{"done": 1}',
    ):
        path.write_text(text, encoding="utf-8")
        await progress.show()
    assert (await desk.job(start.job_id))["progress"] is None
    path.write_text(json.dumps({"done": 1, "message": "x" * 1000, "more": []}), encoding="utf-8")
    for _ in range(2):
        await progress.show()
    job = await desk.job(start.job_id)
    assert job["progress"] == {"done": 1, "total": None, "message": "x" * 200}
    assert job["version"] == 2


async def test_a_pipe_in_the_place_of_a_report_holds_nobody_up(desk: GateDesk) -> None:
    desk.script(
        "for name in ('MSUITE_REPORT', 'MSUITE_PROGRESS'):\n"
        "    Path(os.environ[name]).unlink(missing_ok=True)\n"
        "    os.mkfifo(os.environ[name])\n"
    )
    verdict = await desk.judge()
    assert verdict.reason_code is ReasonCode.OK
    assert verdict.summary is not None
    assert "report" not in verdict.summary


async def test_logs_go_when_they_are_too_old_and_the_jobs_stay(desk: GateDesk) -> None:
    db, at = desk.platform.db, now()
    old, young = later(at, -timedelta(days=30, seconds=1)), later(at, -timedelta(days=29))
    made = {new_id(old): old, new_id(young): young, new_id(later(old, -timedelta(days=9))): young}
    for job_id, written in made.items():
        line = {"seq": 1, "at": written, "stream": "stdout", "text": "said"}
        chunk = {"job_id": job_id, "attempt": 1, "first_seq": 1, "last_seq": 1, "lines": [line]}
        await db["job_logs"].insert_one({"_id": f"{job_id}:1:000000001", **chunk})
        await db["jobs"].insert_one({"_id": job_id, "state": "succeeded"})
    assert await forget_logs(db, at, 0) == 0
    assert await forget_logs(db, at, 31) == 0
    assert await forget_logs(db, at, 30) == 1
    logs = [await desk.log(job_id) for job_id in made]
    assert logs == [[], ["said"], ["said"]], "one that waited for long before it ran is as young as what it said"
    assert await db["jobs"].count_documents({}) == 3


async def test_nothing_in_a_checkout_or_a_profile_runs_in_the_place_of_the_built_in_suite(desk: GateDesk) -> None:
    """`spec.md` 6: no member of an app can make a worker run another program."""
    desk.more = {"msuite_command": ["conman", "msuite", "."]}
    fake = b"print('taken over')"
    package = ("conman/__init__.py", "conman/msuite/__init__.py", "conman/msuite/__main__.py", "json/__init__.py")
    repo = desk.shop.app["repo_path"]
    head = await desk.shop.tip(desk.platform, f"{BRANCHES}main")
    sha = await desk.platform.git.commit_files(
        repo,
        ref=f"{BRANCHES}fake",
        expected_old=None,
        parent=head,
        changes=[WriteFile(path, fake) for path in package],
        author=Signature("Ann", "ann@example.com", datetime(2026, 1, 2, tzinfo=UTC)),
        message="a package of the suite's name",
    )
    profile_id = desk.shop.app["settings"]["default_base_profile_id"]
    loads = {"PYTHONPATH": {"type": "string", "value": "."}}
    await desk.platform.db["profiles"].update_one({"_id": profile_id}, {"$set": {"content.env_vars": loads}})
    start = await desk.start(commit_sha=sha)
    assert (await desk.attempt(start)).reason_code is ReasonCode.OK
    log = await desk.log(start.job_id)
    assert "taken over" not in log
    assert any("files checked" in line for line in log)
