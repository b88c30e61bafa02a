"""One run of the built-in suite: every file, a line for each finding, a summary, a report."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

from conman.msuite.files import Checker, list_files
from conman.msuite.findings import Finding

REPORT_VARIABLE = "MSUITE_REPORT"
"""The variable that names the report's file where the command line does not."""

OK, FOUND, NOT_CHECKED = 0, 1, 2
"""The exit codes: no finding; findings; the check could not be made."""

FEW_FILES = 1000
"""Up to so many files are checked in this process and without progress lines."""

CHUNK = 250
"""Files between two progress lines."""

MOST_IN_REPORT = 1000
"""How many findings a report holds; `omitted` counts the others."""

MOST_PROCESSES = 8
"""How many processes share a large repository."""

_checker: Checker | None = None


def run(path: Path, report: Path | None, out: TextIO) -> int:
    """Check every file below a folder and write what was found to `out`, and as JSON to `report`; the exit code."""
    clock = time.monotonic()
    if not path.is_dir():
        print(f"msuite: {path}: no such folder", file=out, flush=True)
        return NOT_CHECKED
    listing = list_files(path)
    found: dict[Finding, None] = {}
    done = 0
    try:
        for checked, findings in chain([(0, listing.findings)], _chunks(path, listing.paths)):
            for each in findings:
                if each not in found:
                    found[each] = None
                    print(each.text(), file=out, flush=True)
            done += checked
            if len(listing.paths) > FEW_FILES and checked:
                print(f"msuite: checked {done} of {len(listing.paths)} files", file=out, flush=True)
    except BrokenProcessPool:
        print("msuite: a process of the check was killed, perhaps for want of memory", file=out, flush=True)
        return NOT_CHECKED
    return _finish(list(found), done, round((time.monotonic() - clock) * 1000), report, out)


def _finish(found: list[Finding], checked: int, duration_ms: int, report: Path | None, out: TextIO) -> int:
    by_rule = dict(sorted(Counter(each.rule.value for each in found).items()))
    failed = len({each.path for each in found})
    counts = ", ".join(f"{rule} {count}" for rule, count in by_rule.items())
    print(
        f"msuite: {checked} files checked, {failed} failed"
        + (f", {len(found)} findings ({counts})" if found else ", no findings"),
        file=out,
        flush=True,
    )
    if report is not None:
        record = {
            "checked": checked,
            "failed": failed,
            "findings": [each.record() for each in found[:MOST_IN_REPORT]],
            "omitted": max(0, len(found) - MOST_IN_REPORT),
            "by_rule": by_rule,
            "duration_ms": duration_ms,
        }
        try:
            report.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"msuite: the report can't be written: {report}: {error.strerror}", file=out, flush=True)
            return NOT_CHECKED
    return FOUND if found else OK


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
