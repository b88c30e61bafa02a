"""A program ends by its own exit code, whatever threads of a library are still about."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BEGIN = """
    import atexit, sys, threading, time
    from conman.leaving import run_to_exit

    class Tells:
        def __del__(self):
            sys.__stdout__.write("taken down")

    tells = Tells()
"""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("None", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit(257)", 1, ""),
        ("sys.exit('no such file')", 1, "no such file\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("(_ for _ in ()).throw(KeyboardInterrupt)", 130, "KeyboardInterrupt\n"),
    ],
)
def test_it_ends_by_its_own_code_and_says_why(ending: str, code: int, said: str) -> None:
    process = ended(f"run_to_exit(lambda: (print('done'), {ending}))")
    assert (process.returncode, process.stdout) == (code, "done\n")
    assert process.stderr.endswith(said)
    assert bool(process.stderr) == bool(said)


def test_without_it_the_interpreter_is_taken_down() -> None:
    assert ended("").stdout == "taken down", "or the test above would see nothing"


def test_threads_are_waited_for_and_what_was_registered_runs() -> None:
    process = ended("""
        def work():
            atexit.register(lambda: print("registered"))
            threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()

        run_to_exit(work)
    """)
    assert (process.returncode, process.stdout, process.stderr) == (0, "thread\nregistered\n", "")


@pytest.mark.parametrize(("own", "code"), [(3, 3), (0, 1)])
def test_what_nobody_could_read_is_no_success(own: int, code: int) -> None:
    process = ended(f"""
        import os

        def work():
            reading, writing = os.pipe()
            os.dup2(writing, 1)
            os.close(reading)
            os.close(writing)
            sys.stdout.reconfigure(line_buffering=False, write_through=False)
            print("nobody reads this")
            sys.exit({own})

        run_to_exit(work)
    """)
    assert (process.returncode, process.stderr) == (code, "")


STUCK = """
    import asyncio
    from conman.leaving import leaving_when_stuck

    async def work(seconds, held):
        with leaving_when_stuck(seconds):
            await asyncio.sleep(1.25 * seconds)
            time.sleep(held)
        time.sleep(1.25 * seconds)
        print("done")
"""


def test_a_loop_that_stands_still_ends_its_process_and_says_where_it_stood() -> None:
    process = ended(textwrap.dedent(STUCK) + "run_to_exit(lambda: asyncio.run(work(1, held=30)))")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith("Timeout")
    assert "in work" in process.stderr


def test_a_loop_that_goes_on_and_one_that_is_watched_no_more_are_let_be() -> None:
    process = ended(textwrap.dedent(STUCK) + "run_to_exit(lambda: asyncio.run(work(4, held=0)))")
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")
