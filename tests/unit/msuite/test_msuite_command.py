"""`python -m conman.msuite` as a program: exit codes, report, large repositories, quick start (`spec.md` 9 and 15)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conman.activities.gates import REPORT_LIMIT_BYTES


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


def test_a_folder_is_checked_outside_of_any_repository_also_through_the_conman_command(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.json").write_text('{"a": {"$ref": "gone.json"}}')
    conman = Path(sys.executable).with_name("conman")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [conman, "msuite", "root", "--report", str(report)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[0] == "a.json:1:16: error: dangling-reference: there is no file 'gone.json'"
    assert json.loads(report.read_text())["by_rule"] == {"dangling-reference": 1}
    assert list(tmp_path.glob("**/.*")) == []


def test_the_output_as_json_is_the_report_and_nothing_else(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.json").write_text("{")
    done = msuite("root", "--format", "json", "--report", "report.json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())
    failed = msuite("nowhere", "--format", "json", cwd=tmp_path)
    assert (failed.returncode, failed.stdout, failed.stderr) == (2, "", "msuite: nowhere: no such folder\n")


def test_annotations_name_the_file_from_where_the_command_runs_and_cannot_be_forged(tmp_path: Path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/50%, a:b.json").write_text('{"a": 1, "a": 2}')
    (tmp_path / "config/x\n::error::y.json").write_text("[")
    done = msuite("config", "--format", "github", cwd=tmp_path)
    assert done.returncode == 1
    first, second, summary = done.stdout.splitlines()
    message = "the key 'a' stands in line 1 already"
    assert first == f"::error file=config/50%25%2C a%3Ab.json,line=1,col=10,title=msuite duplicate-key::{message}"
    assert second.startswith("::error file=config/x\\n%3A%3Aerror%3A%3Ay.json,line=1,col=2,title=msuite syntax::")
    assert summary.startswith("msuite: 2 files checked, 2 failed")


def test_a_reader_who_goes_away_leaves_no_traceback(tmp_path: Path):
    for number in range(300):
        (tmp_path / f"{number}.json").write_text("{" * 20)
    source = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-m", "conman.msuite", "."],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (2, "")


def test_a_report_of_very_many_findings_stays_small_enough_for_a_jobs_summary(tmp_path: Path):
    (tmp_path / "root").mkdir()
    name = "é" * 100
    for number in range(1000):
        (tmp_path / f"root/{number:04}{name}.json").write_text("{" * 20)
    report = tmp_path / "report.json"
    msuite("root", "--report", str(report), cwd=tmp_path)
    content = json.loads(report.read_text())
    assert report.stat().st_size <= REPORT_LIMIT_BYTES
    assert 100 < len(content["findings"]) < 1000 == len(content["findings"]) + content["omitted"]
    assert content["by_rule"] == {"syntax": 1000}


def test_thousands_of_files_are_checked_with_progress_and_in_order(tmp_path: Path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/f.json").write_text('{"required": ["a"]}')
    for number in range(2000):
        folder = tmp_path / "f" / f"{number // 100:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04}.json").write_text("{" if number % 500 == 7 else '{"a": 1}' if number != 1999 else "{}")
    progress = tmp_path / "progress"
    done = msuite(str(tmp_path), cwd=tmp_path, env={"MSUITE_PROGRESS": str(progress)})
    assert json.loads(progress.read_text()) == {"done": 2001, "total": 2001, "message": "files checked"}
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
