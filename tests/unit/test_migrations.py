"""Which migrations run, and in which order (`spec.md` 9 and 12)."""

from __future__ import annotations

from conman.domain.migrations import Execution, ExecutionState, MigrationFile, failed_here, in_order, plan, unresolved

BLOB = "a" * 40
OTHER = "b" * 40


def named(*names: str) -> list[MigrationFile]:
    return [MigrationFile(name=name, blob_id=BLOB) for name in names]


def ran(name: str, state: ExecutionState, *, deployment: str = "d1", at: str = "2026-01-01", blob: str = BLOB) -> Execution:
    return Execution(name=name, blob_id=blob, deployment_id=deployment, state=state, started_at=at)


def test_digits_count_as_numbers_and_folders_stay_together() -> None:
    names = ["m/10-c.sql", "m/2-b.sql", "m/1-a.sql", "m/2-b/1.sql", "m/010-d.sql", "m/x.sql", "m/X.sql", "m/10-b/a.sql"]
    found = in_order(["m"], dict.fromkeys(names, BLOB))
    assert [one.name for one in found] == [
        "m/1-a.sql",
        "m/2-b/1.sql",
        "m/2-b.sql",
        "m/10-b/a.sql",
        "m/10-c.sql",
        "m/010-d.sql",
        "m/X.sql",
        "m/x.sql",
    ]


def test_paths_come_in_the_profiles_order_and_a_file_of_several_once() -> None:
    blobs = dict.fromkeys(["seed.js", "b/1.js", "b/2.js", "a/1.js", "bb/1.js"], BLOB)
    assert [one.name for one in in_order(["b/2.js", "b", "seed.js", "a", "none"], blobs)] == [
        "b/2.js",
        "b/1.js",
        "seed.js",
        "a/1.js",
    ]


def test_only_what_has_no_recorded_success_here_runs() -> None:
    done = [
        ran("1", ExecutionState.SUCCEEDED),
        ran("2", ExecutionState.FAILED),
        ran("3", ExecutionState.SUCCEEDED, blob=OTHER),
        ran("gone", ExecutionState.SUCCEEDED),
    ]
    todo = plan(named("1", "2", "3", "4"), done)
    assert ([one.name for one in todo.pending], todo.applied, todo.changed) == (["2", "4"], ["1", "3"], ["3"])


def test_one_that_failed_and_then_succeeded_never_runs_again() -> None:
    done = [ran("1", ExecutionState.FAILED), ran("1", ExecutionState.SUCCEEDED, deployment="d2")]
    assert plan(named("1"), done).pending == []


def test_one_without_a_result_is_run_again_only_by_a_deployment_that_was_asked_for_after_it() -> None:
    done = [ran("1", ExecutionState.STARTED, at="2026-01-02")]
    assert unresolved(named("1"), done, "d1", "2026-01-03") is not None, "its own deployment never runs it again"
    assert unresolved(named("1"), done, "d2", "2026-01-01") is not None, "one that waited in line was not asked for since"
    assert unresolved(named("1"), done, "d2", "2026-01-02") is not None
    assert unresolved(named("1"), done, "d2", "2026-01-03") is None
    assert unresolved(named("2"), done, "d1", "2026-01-01") is None, "it is none of those that are to run"


def test_a_later_result_settles_one_without_a_result() -> None:
    done = [
        ran("1", ExecutionState.FAILED, deployment="d2", at="2026-01-03"),
        ran("1", ExecutionState.STARTED, at="2026-01-02"),
    ]
    assert unresolved(named("1"), done, "d3", "2026-01-01") is None


def test_a_repeat_of_a_deployment_tells_its_own_failure_and_another_ones_not() -> None:
    done = [ran("1", ExecutionState.FAILED)]
    assert failed_here(named("1"), done, "d1") == done[0]
    assert failed_here(named("1"), done, "d2") is None
    assert failed_here(named("2"), done, "d1") is None
