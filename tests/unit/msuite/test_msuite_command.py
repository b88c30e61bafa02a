"""`python -m conman.msuite` as a program: exit codes, report, large repositories, quick start (`spec.md` 9 and 15)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def msuite(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    source = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-m", "conman.msuite", *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": source, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_finding_is_exit_code_zero(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    done = msuite(cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "msuite: 1 files checked, 0 failed, no findings\n", "")


def test_findings_are_exit_code_one_and_a_line_each(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"a": 1,\n "a": 2}')
    done = msuite(".", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "a.json:2:2: error: duplicate-key: the key 'a' stands in line 1 already"


@pytest.mark.parametrize("words", [["nowhere"], ["--no-such-option"], [".", "extra"]], ids=str)
def test_wrong_use_is_exit_code_two(tmp_path: Path, words: list[str]):
    assert msuite(*words, cwd=tmp_path).returncode == 2


def test_the_report_goes_where_the_variable_says_and_the_option_wins(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.json").write_text("{")
    by_variable, by_option = tmp_path / "v.json", tmp_path / "o.json"
    msuite(str(root), cwd=tmp_path, env={"MSUITE_REPORT": str(by_variable)})
    assert json.loads(by_variable.read_text())["by_rule"] == {"syntax": 1}
    by_variable.unlink()
    msuite(str(root), "--report", str(by_option), cwd=tmp_path, env={"MSUITE_REPORT": str(by_variable)})
    assert by_option.exists() and not by_variable.exists()


def test_thousands_of_files_are_checked_with_progress_and_in_order(tmp_path: Path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/f.json").write_text('{"required": ["a"]}')
    for number in range(2000):
        folder = tmp_path / "f" / f"{number // 100:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04}.json").write_text("{" if number % 500 == 7 else '{"a": 1}' if number != 1999 else "{}")
    done = msuite(str(tmp_path), cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.split(":")[0] for line in lines if " error: " in line] == [
        "f/00/0007.json",
        "f/05/0507.json",
        "f/10/1007.json",
        "f/15/1507.json",
        "f/19/1999.json",
    ]
    assert "msuite: checked 250 of 2001 files" in lines and "msuite: checked 2001 of 2001 files" in lines
    assert lines[-1].startswith("msuite: 2001 files checked, 5 failed, 5 findings")


def test_the_start_imports_neither_the_api_nor_the_workflows(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    code = (
        "import io, pathlib, sys; from conman.msuite import run; run(pathlib.Path('.'), None, io.StringIO());"
        "heavy = {'fastapi', 'temporalio', 'pydantic', 'pymongo', 'typer', 'rich', 'jsonschema', 'ruamel.yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_process_that_is_killed_for_its_memory_is_no_verdict(tmp_path: Path):
    for number in range(1100):
        (tmp_path / f"{number}.json").write_text("{}")
    code = (
        "import os, pathlib, signal, sys; from conman.msuite import main;"
        "main.os.sched_getaffinity = lambda _: {0, 1};"
        "main._check = lambda paths: os.kill(os.getpid(), signal.SIGKILL);"
        "main._check.__qualname__ = '_check'; main._check.__module__ = 'conman.msuite.main';"
        "sys.exit(main.run(pathlib.Path('.'), None, sys.stdout))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "was killed" in done.stdout) == (2, True), done.stderr
