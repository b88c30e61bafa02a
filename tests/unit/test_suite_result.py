"""When the result of a suite stands for another run of it (`spec.md` 9 and 11)."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from conman.domain.decision import Verdict
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.suite_result import ReusePolicy, SuiteInput, SuiteResult
from conman.services.suite_results import program_digest

INPUT = SuiteInput(
    app_id="app",
    scope="submit",
    tree_id="t" * 40,
    profile="digest",
    command="msuite",
    argv=("run", "--all"),
    program="digest of the program",
    timeout_seconds=300.0,
    cpu_seconds=600,
    memory_bytes=2**31,
)
KEPT = SuiteResult(job_id="first", attempt=1, ended_at="2026-01-31T09:00:00.000Z")
POLICY = ReusePolicy(scope="submit", wanted=True, hours=24, fresh=False)
ANOTHER: dict[str, Any] = {
    "app_id": "other",
    "scope": "release",
    "tree_id": "u" * 40,
    "profile": "other",
    "command": "other",
    "argv": ("run --all",),
    "program": "other",
    "timeout_seconds": 301.0,
    "cpu_seconds": 601,
    "memory_bytes": 2**31 + 1,
}


@pytest.mark.parametrize("field", [each.name for each in fields(SuiteInput)])
def test_whatever_differs_in_the_input_is_another_result(field: str) -> None:
    assert replace(INPUT).key == INPUT.key
    assert replace(INPUT, **{field: ANOTHER[field]}).key != INPUT.key


@pytest.mark.parametrize(
    ("at", "accepted"),
    [
        ("2026-01-31T09:00:00.000Z", True),
        ("2026-02-01T08:59:59.999Z", True),
        ("2026-02-01T09:00:00.000Z", False),
        ("2026-02-01T09:00:00.001Z", False),
    ],
)
def test_a_result_is_good_until_it_is_too_old(at: str, accepted: bool) -> None:
    assert POLICY.accepts(KEPT, "second", at) is accepted


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        ({}, True),
        ({"scope": "release"}, True),
        ({"scope": "deploy"}, False),
        ({"wanted": False}, False),
        ({"hours": 0}, False),
        ({"fresh": True}, True),
    ],
)
def test_a_result_is_kept_where_the_operator_the_app_and_the_kind_of_gate_allow_it(change: dict[str, Any], keeps: bool) -> None:
    policy = replace(POLICY, **change)
    assert policy.keeps is keeps
    assert keeps or not policy.accepts(KEPT, "second", KEPT.ended_at)


def test_who_asks_for_a_fresh_run_gets_only_what_an_earlier_attempt_of_the_same_job_found() -> None:
    fresh = replace(POLICY, fresh=True)
    assert not fresh.accepts(KEPT, "second", KEPT.ended_at)
    assert fresh.accepts(KEPT, "first", KEPT.ended_at)


def test_a_verdict_says_in_the_job_s_summary_whose_result_it_took_over() -> None:
    verdict = Verdict(job_id="second", state=JobState.SUCCEEDED, reason_code=ReasonCode.OK, summary={"lines": 1})
    assert verdict.end().summary == {"lines": 1}
    assert verdict.model_copy(update={"reused_from": "first"}).end().summary == {"lines": 1, "reused_from": "first"}


def test_a_program_that_was_changed_in_place_is_another_one(tmp_path: Path) -> None:
    program, data = tmp_path / "suite", tmp_path / "rules.toml"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    data.write_text("strict = true\n", encoding="utf-8")
    search = {"PATH": str(tmp_path)}

    def digest(version: str = "1", *argv: str) -> str:
        return program_digest(version, argv or ("suite", str(data)), search)

    first = digest()
    assert digest() == first
    assert digest("2") != first
    assert digest("1", "suite", str(tmp_path)) != first, "a folder has no content that is looked at"
    data.write_text("strict = false\n", encoding="utf-8")
    second = digest()
    assert second != first
    program.write_text("#!/bin/sh\nexit 1 \n", encoding="utf-8")
    third = digest()
    assert third not in (first, second)
    program.unlink()
    assert digest() not in (first, second, third)
