"""Suites run within their limits, are heard line by line, and leave nothing behind (`spec.md` 9, `durability.md` 16)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import psutil
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conman.domain.jobs import ReasonCode
from conman.domain.redaction import MASK, Redactor
from conman.programs import runner
from conman.programs.runner import CommandSpec, OutputLine, RunResult, Stream, run_command
from conman.programs.runner_output import LINE_BYTES, LineSink

DEADLINE = 30.0
MIB = 1024 * 1024
DAEMON = """
    import os, signal, sys, time
    def daemon():
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        print("pid", os.getpid(), flush=True)
        while True:
            time.sleep(60)
    daemon()
"""


def spec(folder: Path, *argv: str, **more: Any) -> CommandSpec:
    values: dict[str, Any] = {
        "argv": argv or ("true",),
        "cwd": folder,
        "env": {},
        "timeout_seconds": DEADLINE,
        "cpu_seconds": 60,
        "memory_bytes": 1024 * MIB,
        "output_bytes": 10 * MIB,
        "kill_grace_seconds": DEADLINE,
    }
    return CommandSpec(**{**values, **more})


def python(folder: Path, code: str, **more: Any) -> CommandSpec:
    return spec(folder, sys.executable, "-I", "-S", "-c", textwrap.dedent(code), **more)


class Heard(NamedTuple):
    """What a run said, and how it ended."""

    result: RunResult
    lines: list[OutputLine]

    def texts(self, stream: Stream = Stream.STDOUT) -> list[str]:
        return [line.text for line in self.lines if line.stream is stream]


async def heard(command: CommandSpec, then: Callable[[OutputLine, asyncio.Event], object] | None = None) -> Heard:
    lines: list[OutputLine] = []
    cancel = asyncio.Event()

    async def on_line(line: OutputLine) -> None:
        lines.append(line)
        if then:
            then(line, cancel)

    return Heard(await run_command(command, on_line, cancel), lines)


def at_work(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the deadline has passed"
        time.sleep(0.01)


def cancel_when(text: str) -> Callable[[OutputLine, asyncio.Event], object]:
    return lambda line, cancel: cancel.set() if line.text.startswith(text) else None


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path):
    before = set(Path("/proc/self/fd").iterdir())
    yield
    assert at_work(tmp_path) == []
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []
    assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 3, "descriptors of pipes are still open"


@pytest.mark.parametrize(("code", "reason"), [(0, "ok"), (1, "tests_failed"), (2, "tests_failed"), (255, "tests_failed")])
async def test_exit_code_zero_is_ok_and_every_other_is_failed_tests(tmp_path: Path, code: int, reason: str):
    run = await heard(spec(tmp_path, "sh", "-c", f"exit {code}"))
    assert (run.result.exit_code, run.result.signal, run.result.reason) == (code, None, reason)
    assert run.lines == [] and run.result.lines == 0 and not run.result.output_truncated


async def test_a_command_reads_what_it_is_given_and_need_not(tmp_path: Path):
    order = "an order \u00fc\n" * 20_000  # more than a pipe holds
    run = await heard(spec(tmp_path, "sh", "-c", "cksum; cat | wc -c", stdin=order))
    assert run.texts()[0].split()[1] == str(len(order.encode()))
    assert run.texts()[1].strip() == "0"
    assert (await heard(spec(tmp_path, "true", stdin=order))).result.reason == "ok"
    assert (await heard(spec(tmp_path, "cat"))).texts() == []


async def test_an_answer_is_no_line_of_the_log_and_is_handed_on_as_it_is(tmp_path: Path):
    answer, lines = bytearray(), list[OutputLine]()

    async def on_line(line: OutputLine) -> None:
        lines.append(line)

    command = spec(tmp_path, "sh", "-c", "printf 'the secret\\377'; echo the secret >&2", redact=("secret",))
    result = await run_command(command, on_line, asyncio.Event(), on_answer=answer.extend)
    assert bytes(answer) == b"the secret\xff"
    assert [line.text for line in lines] == ["the ****"]
    assert result.lines == 1


async def test_whoever_takes_the_answer_ends_the_command_by_an_error(tmp_path: Path):
    def refuse(_data: bytes) -> None:
        raise ValueError("too much")

    async def on_line(_line: OutputLine) -> None:
        return None

    with pytest.raises(ValueError, match="too much"):
        await run_command(python(tmp_path, "while True: print('x' * 99999)"), on_line, asyncio.Event(), on_answer=refuse)


async def test_both_streams_are_heard_in_one_order_with_times(tmp_path: Path):
    run = await heard(spec(tmp_path, "sh", "-c", "echo a; echo b >&2; echo c; printf d"))
    assert run.texts() == ["a", "c", "d"]
    assert run.texts(Stream.STDERR) == ["b"]
    assert [line.seq for line in run.lines] == [1, 2, 3, 4]
    assert run.result.lines == 4
    times = [run.result.started_at, *(line.at for line in run.lines), run.result.finished_at]
    assert times == sorted(times) and times[0].tzinfo is not None
    assert run.result.duration_seconds > 0


async def test_a_line_is_heard_while_the_command_still_runs(tmp_path: Path):
    waits = "echo ready; while [ ! -e go ]; do sleep 0.01; done; echo went"
    run = await heard(
        spec(tmp_path, "sh", "-c", waits),
        lambda line, _: (tmp_path / "go").touch() if line.text == "ready" else None,
    )
    assert run.texts() == ["ready", "went"]


async def test_the_command_sees_only_the_variables_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONMAN_SECRET", "x" * 40)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.delenv("TMPDIR", raising=False)
    run = await heard(spec(tmp_path, "/usr/bin/env", env={"HOME": str(tmp_path), "LABEL": "ä"}))
    assert sorted(run.texts()) == sorted([f"PATH={os.environ['PATH']}", "LANG=C.UTF-8", f"HOME={tmp_path}", "LABEL=ä"])


async def test_words_reach_the_program_without_a_shell_between(tmp_path: Path):
    run = await heard(spec(tmp_path, "printf", "%s\n", "$(id)", "a b", "*", ";", ""))
    assert run.texts() == ["$(id)", "a b", "*", ";", ""]


async def test_the_command_has_no_input_no_terminal_and_a_group_of_its_own(tmp_path: Path):
    code = "import os,sys; print(sys.stdin.read()=='', os.getpgrp()==os.getpid(), os.getsid(0)!=os.getpid(), os.getcwd())"
    run = await heard(python(tmp_path, code))
    assert run.texts() == [f"True True True {tmp_path}"]
    assert run.result.reason is ReasonCode.OK


async def test_no_descriptor_of_the_worker_reaches_the_command(tmp_path: Path):
    pipe = os.pipe()
    try:
        for end in pipe:
            os.set_inheritable(end, True)
        listing = "import os; fds = os.listdir('/proc/self/fd'); print(sorted(fds)[:3], len(fds))"
        run = await heard(python(tmp_path, listing))
    finally:
        for end in pipe:
            os.close(end)
    assert run.texts() == ["['0', '1', '2'] 4"]


@pytest.mark.parametrize("kind", ["missing", "not executable", "no program", "a folder", "NUL in a word", "no interpreter"])
async def test_a_command_that_can_t_start_is_a_runner_error(tmp_path: Path, kind: str):
    (tmp_path / "plain").write_text("echo")
    (tmp_path / "text").write_text("no program")
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    for name in ("text", "lost"):
        (tmp_path / name).chmod(0o755)
    argv = {
        "missing": ["no-such-program"],
        "not executable": ["./plain"],
        "no program": ["./text"],
        "a folder": [str(tmp_path)],
        "NUL in a word": ["echo", "a\0b"],
        "no interpreter": ["./lost"],
    }[kind]
    run = await heard(spec(tmp_path, *argv))
    assert run.result.reason is ReasonCode.RUNNER_ERROR
    assert (run.result.exit_code, run.result.signal) == (None, None)
    assert "could not be started" in run.result.message
    assert run.texts(Stream.SYSTEM) == [run.result.message]


async def test_a_missing_folder_is_the_machine_s_fault(tmp_path: Path):
    run = await heard(spec(tmp_path / "gone", "true"))
    assert run.result.reason is ReasonCode.INFRASTRUCTURE
    assert "gone" in run.result.message


async def test_no_room_for_another_process_is_the_machine_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    run = await heard(spec(tmp_path, "true"))
    assert run.result.reason is ReasonCode.INFRASTRUCTURE


@pytest.mark.parametrize(("free", "reason"), [(0, "infrastructure"), (1_048_575, "infrastructure"), (1_048_576, "tests_failed")])
async def test_a_failure_on_a_full_disk_is_the_machine_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: str
):
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(runner.shutil, "disk_usage", lambda _: Usage(free))
    assert (await heard(spec(tmp_path, "false"))).result.reason == reason
    assert (await heard(spec(tmp_path, "true"))).result.reason is ReasonCode.OK


async def test_a_command_that_removes_its_folder_is_judged_by_its_exit_code(tmp_path: Path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    run = await heard(spec(folder, "sh", "-c", f"rmdir {folder}; exit 4"))
    assert (run.result.exit_code, run.result.reason) == (4, "tests_failed")


async def test_a_kill_from_outside_is_the_machine_s_fault_and_another_signal_a_failed_test(tmp_path: Path):
    killed = await heard(spec(tmp_path, "sh", "-c", "kill -9 $$"))
    assert (killed.result.signal, killed.result.exit_code, killed.result.reason) == (9, None, "infrastructure")
    crashed = await heard(spec(tmp_path, "sh", "-c", "kill -SEGV $$"))
    assert (crashed.result.signal, crashed.result.reason) == (11, "tests_failed")


async def test_a_timeout_ends_even_a_group_that_ignores_the_request(tmp_path: Path):
    stubborn = "trap '' TERM; (trap '' TERM; while :; do sleep 60; done) & while :; do sleep 60; done"
    run = await heard(spec(tmp_path, "sh", "-c", stubborn, timeout_seconds=0.3, kill_grace_seconds=0.2))
    assert (run.result.reason, run.result.signal) == (ReasonCode.TIMEOUT, signal.SIGKILL)
    assert "0.3 s" in run.lines[-1].text and run.lines[-1].stream is Stream.SYSTEM


async def test_a_suite_that_is_asked_to_end_may_clean_up(tmp_path: Path):
    polite = "trap 'echo cleaning; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    run = await heard(spec(tmp_path, "sh", "-c", polite), cancel_when("ready"))
    assert run.texts() == ["ready", "cleaning"]
    assert (run.result.reason, run.result.exit_code) == (ReasonCode.CANCELED, 0)


async def test_what_the_command_started_has_the_grace_too(tmp_path: Path):
    child = "trap 'while [ ! -e go ]; do sleep 0.01; done; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.01; done"
    parent = f"trap 'echo gone; touch go; exit 3' TERM; sh -c \"{child}\" & while :; do sleep 0.01; done"
    run = await heard(spec(tmp_path, "sh", "-c", parent), cancel_when("ready"))
    assert sorted(run.texts()) == ["cleaned", "gone", "ready"]
    assert run.result.exit_code == 3


async def test_a_cancel_reaches_a_descendant_that_left_the_group(tmp_path: Path):
    code = DAEMON + "    while True: time.sleep(60)\n"
    run = await heard(python(tmp_path, code, kill_grace_seconds=0.1), cancel_when("pid"))
    assert run.result.reason is ReasonCode.CANCELED
    assert not psutil.pid_exists(int(run.texts()[0].split()[1]))


async def test_a_cancel_that_came_before_starts_nothing(tmp_path: Path):
    cancel = asyncio.Event()
    cancel.set()

    async def on_line(line: OutputLine) -> None:
        raise AssertionError(line)

    result = await run_command(spec(tmp_path, "touch", "ran"), on_line, cancel)
    assert result.reason is ReasonCode.CANCELED
    assert not (tmp_path / "ran").exists()


async def test_background_processes_that_hold_the_pipes_end_with_the_command(tmp_path: Path):
    run = await heard(spec(tmp_path, "sh", "-c", "sleep 1000 & sleep 1000 & echo done"))
    assert (run.texts(), run.result.reason) == (["done"], ReasonCode.OK)


async def test_a_daemon_that_left_the_session_ends_with_the_command(tmp_path: Path):
    waits = "\n    while not os.path.exists('go'): time.sleep(0.01)\n"
    run = await heard(python(tmp_path, DAEMON + waits), lambda *_: (tmp_path / "go").touch())
    assert run.result.reason is ReasonCode.OK
    assert not psutil.pid_exists(int(run.texts()[0].split()[1]))


async def test_cpu_time_is_bounded(tmp_path: Path):
    run = await heard(python(tmp_path, "while True: pass", cpu_seconds=1))
    assert (run.result.reason, run.result.signal) == (ReasonCode.TIMEOUT, signal.SIGXCPU)
    assert "CPU" in run.result.message


async def test_cpu_time_of_a_program_below_a_shell_is_bounded_too(tmp_path: Path):
    burn = f"{sys.executable} -I -S -c 'while True: pass'; exit $?"
    run = await heard(spec(tmp_path, "sh", "-c", burn, cpu_seconds=1))
    assert run.result.reason is ReasonCode.TIMEOUT


async def test_memory_is_bounded(tmp_path: Path):
    code = f"bytearray({512 * MIB})"
    assert (await heard(python(tmp_path, code, memory_bytes=256 * MIB))).result.reason is ReasonCode.TESTS_FAILED
    assert (await heard(python(tmp_path, code, memory_bytes=1024 * MIB))).result.reason is ReasonCode.OK


async def test_a_command_may_not_raise_its_own_limits(tmp_path: Path):
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CORE))"
    run = await heard(python(tmp_path, code, memory_bytes=256 * MIB))
    assert run.texts() == [f"({256 * MIB}, {256 * MIB}) (0, 0)"]


@pytest.mark.parametrize(("over", "pieces"), [(-1, 1), (0, 1), (1, 2)])
async def test_a_line_longer_than_8_kib_comes_in_pieces(tmp_path: Path, over: int, pieces: int):
    run = await heard(python(tmp_path, f"print('a' * {LINE_BYTES + over})"))
    assert len(run.texts()) == pieces
    assert "".join(run.texts()) == "a" * (LINE_BYTES + over)


async def test_a_very_long_line_is_cut_between_characters(tmp_path: Path):
    run = await heard(python(tmp_path, "import sys; sys.stdout.buffer.write('x€'.encode() * 100_000)"))
    assert "".join(run.texts()) == "x€" * 100_000
    assert max(len(text.encode()) for text in run.texts()) <= LINE_BYTES


async def test_odd_bytes_are_shown_and_colours_kept(tmp_path: Path):
    code = r"import sys; sys.stdout.buffer.write(b'a\xffb\r\n\x1b[31mred\x1b[0m\n\n10%\r20%\n')"
    run = await heard(python(tmp_path, code))
    assert run.texts() == ["a\ufffdb", "\x1b[31mred\x1b[0m", "", "10%\r20%"]


@pytest.mark.parametrize(("cap", "kept"), [(9, 2), (10, 2), (11, 2), (12, 3), (13, 3)])
async def test_output_over_the_cap_is_left_out_with_one_note(tmp_path: Path, cap: int, kept: int):
    run = await heard(spec(tmp_path, "sh", "-c", "echo abc; echo def; echo ghi", output_bytes=cap))
    assert run.texts() == ["abc", "def", "ghi"][:kept]
    assert run.result.output_truncated is (kept < 3)
    assert len(run.texts(Stream.SYSTEM)) == (1 if kept < 3 else 0)
    assert all("truncated" in note for note in run.texts(Stream.SYSTEM))


async def test_a_command_goes_on_when_its_output_is_truncated(tmp_path: Path):
    code = "print('y' * 200 + '\\n' * 1, end='')\nfor _ in range(20_000): print('z' * 200)\nopen('end', 'w').close()"
    run = await heard(python(tmp_path, code, output_bytes=1024))
    assert (tmp_path / "end").exists()
    assert run.result.reason is ReasonCode.OK and run.result.output_truncated
    assert sum(len(line.text) + 1 for line in run.lines if line.stream is Stream.STDOUT) <= 1024
    assert run.result.lines == len(run.lines)


async def test_secrets_are_scrubbed_from_both_streams(tmp_path: Path):
    secret = 'p"ss/wörd one'
    key = "-----BEGIN KEY-----\nQUJDREVGRw==\nab\n-----END KEY-----\n"
    code = f"""
        import json, sys
        from urllib.parse import quote
        s, k = {secret!r}, {key!r}
        print("plain", s); print("json", json.dumps(s)); print("url", quote(s, safe="")); print(k)
        print("key", json.dumps(k)); print("x" * 8190 + s, file=sys.stderr)
    """
    run = await heard(python(tmp_path, code, redact=[secret, key, ""]))
    assert run.texts()[:3] == ["plain ****", 'json "****"', "url ****"]
    assert run.texts()[3:6] == ["****", "****", "ab"]
    everything = "".join(line.text for line in run.lines)
    assert "wörd" not in everything and "QUJD" not in everything and "BEGIN" not in everything
    assert "".join(run.texts(Stream.STDERR)) == "x" * 8190 + "****"


async def _sunk(chunks: Sequence[bytes], secrets: Sequence[str], cap: int = MIB) -> list[str]:
    texts: list[str] = []

    async def on_line(line: OutputLine) -> None:
        texts.append(line.text)

    sink = LineSink(on_line, Redactor(secrets), cap)
    for chunk in chunks:
        await sink.feed(Stream.STDOUT, chunk)
    await sink.finish(Stream.STDOUT)
    return texts


@given(st.data())
async def test_a_secret_is_scrubbed_however_its_bytes_are_chunked(data: st.DataObject):
    secrets = ["hunter2hunter", "hunter2", "tr€sor"]
    filler = st.sampled_from(["x" * (LINE_BYTES - 9), "y" * 40, "\n", "hunter", "é"])
    parts = data.draw(st.lists(filler | st.sampled_from(secrets), max_size=12))
    raw = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    bounds = [0, *cuts, len(raw)]
    chunks = [raw[start:end] for start, end in itertools.pairwise(bounds)]
    texts = await _sunk(chunks, secrets)
    assert "".join(texts) == Redactor(secrets).scrub(raw).decode().replace("\n", "")
    assert not any(secret in "".join(texts) for secret in secrets)
    assert all(len(text.encode()) <= LINE_BYTES for text in texts)


def test_the_longer_of_two_secrets_is_scrubbed_whole():
    assert Redactor(["abc", "abcdef"]).scrub(b"abcdef abc") == MASK + b" " + MASK
    assert Redactor([]).scrub(b"abc") == b"abc"


SPELLED = 'it\'s 50% <b>&\\"ünder" /tmp + more'


@pytest.mark.parametrize(
    "spell",
    [
        str,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        repr,
        shlex.quote,
        quote,
        quote_plus,
        lambda text: quote(text, safe=""),
        html.escape,
        lambda text: html.escape(text, quote=False),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
        lambda text: base64.b64encode(f"a:{text}, b".encode()).decode(),
        lambda text: base64.b64encode(f"x:{text}!".encode()).decode(),
    ],
)
def test_a_secret_is_scrubbed_however_programs_write_it(spell: Callable[[str], str]):
    spelled = spell(SPELLED)
    scrubbed = Redactor([SPELLED]).scrub(f"see {spelled} there".encode()).decode()
    assert scrubbed.startswith("see ") and scrubbed.endswith(" there") and "****" in scrubbed
    kept = scrubbed.replace("****", "").removeprefix("see ").removesuffix(" there")
    assert len(kept) <= 12, "no more than quotes, or what stands around it in base64"


@given(st.binary(max_size=9), st.text(min_size=6, max_size=30), st.binary(max_size=9))
def test_of_a_secret_within_base64_nothing_is_left(before: bytes, secret: str, after: bytes):
    value = secret.strip("\r\n")
    assume(len(value.encode(errors="replace")) >= 6)
    encoded = base64.b64encode(before + value.encode(errors="replace") + after)
    assert MASK in Redactor([value]).scrub(encoded)


def test_a_report_is_scrubbed_in_its_texts_names_and_numbers():
    report = {"found": ["hunter2 is here", {"hunter2": 4711}], "lines": 147110, "ok": True, "none": None, "share": 0.5}
    assert Redactor(["hunter2", "4711"]).scrub_json(report) == {
        "found": ["**** is here", {"****": "****"}],
        "lines": 147110,
        "ok": True,
        "none": None,
        "share": 0.5,
    }
    assert Redactor([]).scrub_json(report) == report


async def test_a_listener_that_fails_ends_the_command_and_its_error_is_raised(tmp_path: Path):
    async def on_line(_: OutputLine) -> None:
        raise ConnectionError("the log is away")

    endless = spec(tmp_path, "sh", "-c", "sleep 1000 & echo a; while :; do sleep 60; done")
    with pytest.raises(ConnectionError, match="the log is away"):
        await run_command(endless, on_line, asyncio.Event())
    assert at_work(tmp_path) == []


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path):
    ready = asyncio.Event()

    async def on_line(_: OutputLine) -> None:
        ready.set()

    task = asyncio.create_task(run_command(python(tmp_path, DAEMON + "    time.sleep(1000)"), on_line, asyncio.Event()))
    async with asyncio.timeout(DEADLINE):
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert at_work(tmp_path) == []


async def test_a_slow_listener_delays_neither_timeout_nor_loses_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "SILENCE_SECONDS", 0.01)
    texts: list[str] = []

    async def on_line(line: OutputLine) -> None:
        texts.append(line.text)
        if len(texts) == 1:
            await asyncio.to_thread(until, lambda: at_work(tmp_path) == [])

    command = spec(tmp_path, "sh", "-c", "echo a; echo b; echo c; sleep 1000", timeout_seconds=0.5)
    result = await run_command(command, on_line, asyncio.Event())
    assert result.reason is ReasonCode.TIMEOUT
    assert texts[:3] == ["a", "b", "c"]


async def test_a_guard_that_is_killed_is_an_infrastructure_failure(tmp_path: Path):
    code = "import os, time; os.fork(); print(os.getppid(), flush=True)\nwhile True: time.sleep(60)"
    killed: list[int] = []

    def kill_guard(line: OutputLine, _: asyncio.Event) -> None:
        parent = psutil.Process(int(line.text)) if line.stream is Stream.STDOUT else None
        if parent and not killed and "guard.py" in " ".join(parent.cmdline()):
            killed.append(parent.pid)
            parent.kill()

    run = await heard(python(tmp_path, code), kill_guard)
    assert killed and run.result.reason is ReasonCode.INFRASTRUCTURE
    assert "guard" in run.result.message


async def test_a_guard_that_is_stopped_does_not_stop_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "GUARD_MARGIN_SECONDS", 0.2)
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); print('stopped', flush=True); time.sleep(1000)"
    run = await heard(python(tmp_path, code, kill_grace_seconds=0.1), cancel_when("stopped"))
    assert run.result.reason is ReasonCode.CANCELED


async def test_many_commands_run_side_by_side(tmp_path: Path):
    runs = await asyncio.gather(*(heard(spec(tmp_path, "sh", "-c", f"echo {n}; exit {n}")) for n in range(12)))
    assert [(run.texts(), run.result.exit_code) for run in runs] == [([str(n)], n) for n in range(12)]


def test_a_worker_killed_at_any_moment_leaves_no_process_of_a_suite(tmp_path: Path):
    """`kill -9` of the process that called `run_command`: the suite, its children and a daemon of it must end."""
    suite = textwrap.dedent(DAEMON) + textwrap.dedent("""
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("pid", os.getpid(), flush=True)
        while True:
            time.sleep(60)
    """)
    worker = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from conman.programs.runner import CommandSpec, run_command
        async def on_line(line):
            print(line.text, flush=True)
        spec = CommandSpec([sys.executable, "-I", "-S", "-c", sys.argv[1]], Path(sys.argv[2]), {}, 600, 60, 1 << 30, 1 << 20)
        asyncio.run(run_command(spec, on_line, asyncio.Event()))
    """)
    with subprocess.Popen([sys.executable, "-c", worker, suite, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline().split()[1]) for _ in range(3)]
        guards = [child.pid for child in psutil.Process(process.pid).children()]
        assert guards and set(pids) <= {child.pid for child in psutil.Process(guards[0]).children(recursive=True)}
        process.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in [*pids, *guards]))
    assert at_work(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": []},
        {"argv": [""]},
        {"timeout_seconds": 0},
        {"cpu_seconds": 0},
        {"memory_bytes": 0},
        {"output_bytes": 0},
        {"kill_grace_seconds": -1},
    ],
    ids=str,
)
def test_a_command_without_a_program_or_a_limit_is_refused(tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="command"):
        spec(tmp_path, **{"argv": ["true"], **wrong})


def test_secrets_do_not_show_in_the_text_of_a_command(tmp_path: Path):
    assert "hunter2" not in repr(spec(tmp_path, "true", redact=["hunter2"]))
