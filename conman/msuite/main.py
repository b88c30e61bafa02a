"""One run of the built-in suite: every file, a line for each finding, a summary, a report."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from enum import StrEnum
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from conman.msuite.files import Checker, list_files
from conman.msuite.findings import Finding

REPORT_VARIABLE = "MSUITE_REPORT"
"""The variable that names the report's file where the command line does not."""

PROGRESS_VARIABLE = "MSUITE_PROGRESS"
"""The variable that names a file for the progress, as a gate's worker gives it."""

HELP = """\
Check the JSON, YAML and TOML files below a folder.

Each of them parses, has no key twice, matches the JSON Schemas in schemas/,
and names no file or value that is not there; and no text file holds the
marks of an unresolved merge.

It needs no Git, no server and no network, and changes nothing. Each finding
is one line: path:line:column: error: rule: message.

Exit codes: 0 no findings; 1 findings; 2 the check could not be made (wrong
usage, no such folder, the report can't be written, out of memory).
"""
"""What `--help` says."""

OK, FOUND, NOT_CHECKED = 0, 1, 2
"""The exit codes: no finding; findings; the check could not be made."""

FEW_FILES = 1000
"""Up to so many files are checked in this process and without progress lines."""

CHUNK = 250
"""Files between two progress lines."""

MOST_IN_REPORT = 1000
"""How many findings a report holds; `omitted` counts the others."""

MOST_REPORT_BYTES = 200_000
"""How much of a report its findings may take, bytes: a report of over 256 KiB is left out of a job's summary."""

MOST_PROCESSES = 8
"""How many processes share a large repository."""

_checker: Checker | None = None


class Form(StrEnum):
    """What is written to the output."""

    TEXT = "text"
    """A line for each finding, and a summary."""
    JSON = "json"
    """The report, and nothing else."""
    GITHUB = "github"
    """As text, each finding as an annotation of GitHub Actions."""


def run(path: Path, report: Path | None, out: TextIO, form: Form = Form.TEXT) -> int:
    """Check every file below a folder and write what was found to `out`, and as JSON to `report`; the exit code."""
    try:
        return _run(path, report, out, form)
    except BrokenPipeError:
        # Nobody reads on (`conman msuite | head`): no more is written, neither here nor when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return NOT_CHECKED


def _run(path: Path, report: Path | None, out: TextIO, form: Form) -> int:
    clock = time.monotonic()
    notes = sys.stderr if form is Form.JSON else out
    if not path.is_dir():
        return _not_checked(f"{path}: no such folder", notes)
    try:
        listing = list_files(path)
    except OSError as error:
        return _not_checked(f"{path}: {error.strerror}", notes)
    found: dict[Finding, None] = {}
    done = 0
    try:
        for checked, findings in chain([(0, listing.findings)], _chunks(path, listing.paths)):
            for each in findings:
                if each not in found:
                    found[each] = None
                    if form is not Form.JSON:
                        print(_annotation(path, each) if form is Form.GITHUB else each.text(), file=out, flush=True)
            done += checked
            _tell_progress(done, len(listing.paths))
            if len(listing.paths) > FEW_FILES and checked:
                print(f"msuite: checked {done} of {len(listing.paths)} files", file=notes, flush=True)
    except BrokenProcessPool:
        return _not_checked("a process of the check was killed, perhaps for want of memory", notes)
    record = _record(list(found), done, round((time.monotonic() - clock) * 1000))
    if form is Form.JSON:
        print(json.dumps(record, indent=2), file=out, flush=True)
    else:
        print(_summary(record, len(found)), file=out, flush=True)
    if report is not None:
        try:
            report.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            return _not_checked(f"the report can't be written: {report}: {error.strerror}", notes)
    return FOUND if found else OK


def _tell_progress(done: int, total: int) -> None:
    """Write how far the check is where `MSUITE_PROGRESS` says, so that no half of it is seen."""
    named = os.environ.get(PROGRESS_VARIABLE)
    if not named:
        return
    part = Path(f"{named}.part")
    with suppress(OSError):  # the findings do not depend on what is shown meanwhile
        part.write_text(json.dumps({"done": done, "total": total, "message": "files checked"}), encoding="utf-8")
        part.replace(named)


def _not_checked(why: str, notes: TextIO) -> int:
    print(f"msuite: {why}", file=notes, flush=True)
    return NOT_CHECKED


def _record(found: list[Finding], checked: int, duration_ms: int) -> dict[str, Any]:
    """The report, small enough for a job's summary."""
    records: list[dict[str, Any]] = []
    size = 0
    for each in found[:MOST_IN_REPORT]:
        records.append(each.record())
        size += len(json.dumps(records[-1], indent=6))  # as deep as it stands in the report, and then some
        if size > MOST_REPORT_BYTES:
            records.pop()
            break
    return {
        "checked": checked,
        "failed": len({each.path for each in found}),
        "findings": records,
        "omitted": len(found) - len(records),
        "by_rule": dict(sorted(Counter(each.rule.value for each in found).items())),
        "duration_ms": duration_ms,
    }


def _summary(record: dict[str, Any], found: int) -> str:
    counts = ", ".join(f"{rule} {count}" for rule, count in record["by_rule"].items())
    files = f"msuite: {record['checked']} files checked, {record['failed']} failed"
    return f"{files}, {found} findings ({counts})" if found else f"{files}, no findings"


def _annotation(root: Path, each: Finding) -> str:
    """The finding as a workflow command of GitHub Actions, whose paths are relative to where it runs."""
    record = each.record()
    file = _escaped(os.path.normpath(root / record["path"])).replace(":", "%3A").replace(",", "%2C")
    where = f"file={file},line={each.line},col={each.column},title=msuite {each.rule.value}"
    return f"::error {where}::{_escaped(record['message'])}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _chunks(root: Path, paths: list[str]) -> Iterator[tuple[int, list[Finding]]]:
    """How many files were checked and what was found, in the order of the paths.

    Many files are shared among processes. They are forked, which is safe only while this process has one thread.
    Raises `BrokenProcessPool` when one of them is killed.
    """
    global _checker
    _checker = Checker(root, paths)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    if len(paths) <= FEW_FILES or processes < 2 or threading.active_count() > 1:
        yield from map(_check, chunks)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        yield from pool.map(_check, chunks)


def _check(paths: list[str]) -> tuple[int, list[Finding]]:
    assert _checker is not None
    return len(paths), [each for path in paths for each in _checker.check(path)]
