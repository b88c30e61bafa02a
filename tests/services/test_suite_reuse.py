"""A suite that passed is not run again on the same input, and every gate says so that took a result over (`spec.md` 9 and 11)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from conman.domain.app import BRANCHES
from conman.domain.jobs import JobState, JobType, ReasonCode
from conman.domain.times import later
from conman.git.adapter import Signature
from conman.services.clock import now
from conman.services.expiry import forget_expired
from conman.services.suite_results import COLLECTION
from conman.settings.vault import generate_keyring
from tests.services.gate_desk import SECRET, GateDesk, gate_desk, stored
from tests.services.shop import OUTSIDER, REPO, Shop
from tests.support.crashes import crash_at


@pytest.fixture
async def desk(shop: Shop, tmp_path: Path) -> AsyncIterator[GateDesk]:
    async with gate_desk(shop, tmp_path) as made:
        yield made


async def other_commit_of_the_same_tree(desk: GateDesk) -> str:
    head = await desk.shop.tip(desk.platform, f"{BRANCHES}main")
    return await desk.platform.git.commit_tree_of(
        REPO,
        ref="refs/conman/tests/again",
        expected_old=None,
        tree_of=head,
        parents=[head],
        author=Signature("somebody", "somebody@example.com", OUTSIDER.when),
        message="the same files\n",
    )


async def test_another_commit_of_the_same_tree_takes_the_result_over_and_says_whose_it_is(desk: GateDesk) -> None:
    first = await desk.start()
    assert (await desk.attempt(first)).reused_from is None
    again = await other_commit_of_the_same_tree(desk)
    second = await desk.start(commit_sha=again, job_type=JobType.REVALIDATE_QUEUED_CHANGESET)
    verdict = await desk.attempt(second)
    assert (verdict.state, verdict.reason_code, verdict.exit_code) == (JobState.SUCCEEDED, ReasonCode.OK, 0)
    assert verdict.reused_from == first.job_id
    summary = verdict.end().summary
    assert summary is not None
    assert summary["reused_from"] == first.job_id
    assert summary["report"] == {"checked": 3, "token": "****"}
    (line,) = await desk.log(second.job_id)
    assert line == summary["message"]
    assert first.job_id in line
    job = await desk.job(second.job_id)
    assert (job["state"], job["attempt"]) == ("running", 1), "it ends, as every job, by who asked for it"
    assert job["started_at"] is not None
    assert desk.runs == [first.job_id]
    third = await desk.judge()
    assert third.reused_from == first.job_id, "a result that was taken over is that of the run itself"


async def test_whatever_else_the_suite_would_see_makes_it_run(desk: GateDesk) -> None:
    await desk.judge()

    async def runs_again() -> None:
        before = len(desk.runs)
        assert (await desk.judge()).reused_from is None
        assert len(desk.runs) == before + 1
        assert (await desk.judge()).reused_from is not None

    await desk.shop.commit_to_main(desk.platform, "base.txt", "two\n")
    await runs_again()
    await desk.set_profile(mode="two")
    await runs_again()
    await desk.set_profile(mode="two", secret="another secret of the profile")
    await runs_again()
    await desk.configure(env_defaults={"REGION": {"type": "string", "value": "north"}})
    await runs_again()
    await desk.configure(validation_gates__submit__timeout_seconds=59)
    await runs_again()
    suite = desk.folder / "suite.py"
    suite.write_text(suite.read_text(encoding="utf-8") + "\nprint('changed in place')\n", encoding="utf-8")
    await runs_again()
    desk.more["gate_cpu_seconds"] = 599
    await runs_again()
    desk.keyring = f"{generate_keyring()},{desk.keyring}"
    await runs_again()
    assert (await desk.judge(scope="release", job_type=JobType.MSUITE_MERGE)).reused_from is None, "it is told its scope"


async def test_a_secret_that_is_set_to_its_old_value_finds_the_old_result(desk: GateDesk) -> None:
    first = await desk.start()
    await desk.attempt(first)
    await desk.set_profile(secret="for a while")
    await desk.judge()
    await desk.set_profile()
    assert (await desk.judge()).reused_from == first.job_id


async def test_a_suite_that_failed_runs_again_each_time(desk: GateDesk) -> None:
    desk.script("sys.exit(1)")
    for _ in range(2):
        verdict = await desk.judge()
        assert (verdict.reason_code, verdict.reused_from) == (ReasonCode.TESTS_FAILED, None)
    desk.script("")
    assert (await desk.judge()).reason_code is ReasonCode.OK
    assert len(desk.runs) == 3


async def test_a_fresh_run_that_fails_voids_what_was_kept_and_says_that_the_suite_may_be_flaky(desk: GateDesk) -> None:
    first = await desk.start()
    await desk.attempt(first)
    assert (await desk.judge(fresh=True)).reused_from is None
    last = desk.runs[-1]
    desk.script("sys.exit(1)")
    assert (await desk.judge()).reused_from == last, "the suite is flaky, and nobody has seen it"
    failed = await desk.judge(fresh=True)
    assert failed.reason_code is ReasonCode.TESTS_FAILED
    assert failed.summary is not None
    assert last in failed.summary["message"]
    assert "may be flaky" in failed.summary["message"]
    assert (await desk.judge()).reason_code is ReasonCode.TESTS_FAILED


async def test_what_says_nothing_of_the_suite_voids_nothing(desk: GateDesk) -> None:
    first = await desk.start()
    await desk.attempt(first)
    desk.script("os.kill(os.getpid(), 9)")
    assert (await desk.judge(fresh=True)).reason_code is ReasonCode.INFRASTRUCTURE
    assert (await desk.judge()).reused_from == first.job_id


async def test_the_gate_of_a_deployment_always_runs_and_its_result_answers_for_nobody(desk: GateDesk) -> None:
    for _ in range(2):
        assert (await desk.judge(scope="deploy", job_type=JobType.MSUITE_DEPLOY)).reused_from is None
    assert len(desk.runs) == 2
    assert await desk.platform.db[COLLECTION].count_documents({}) == 0


async def test_an_app_and_an_operator_can_have_every_gate_run(desk: GateDesk) -> None:
    await desk.judge()
    await desk.configure(validation_gates__submit__reuse=False)
    assert (await desk.judge()).reused_from is None
    await desk.configure(validation_gates__submit__reuse=True)
    desk.more["suite_reuse_hours"] = 0
    assert (await desk.judge()).reused_from is None
    del desk.more["suite_reuse_hours"]
    assert (await desk.judge()).reused_from is not None


async def test_a_result_that_is_too_old_is_not_reused_and_upkeep_removes_it(desk: GateDesk) -> None:
    results = desk.platform.db[COLLECTION]
    await desk.judge()
    old = later(now(), -timedelta(hours=25))
    await results.update_one({}, {"$set": {"ended_at": old}})
    assert (await desk.judge()).reused_from is None
    assert await results.count_documents({}) == 1, "the new run took the place of the old one"
    await forget_expired(desk.platform.db, later(now(), timedelta(hours=23)))
    assert await results.count_documents({}) == 1
    await forget_expired(desk.platform.db, later(now(), timedelta(hours=25)))
    assert await results.count_documents({}) == 0


async def test_what_is_kept_neither_holds_nor_tells_a_secret(desk: GateDesk) -> None:
    await desk.judge()
    (row,) = await desk.platform.db[COLLECTION].find({}).to_list()
    text = stored(row)
    assert SECRET not in text
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in text
    assert set(row) == {"_id", "job_id", "attempt", "ended_at", "report", "forget_at"}


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_worker_that_died_after_the_result_was_kept_leaves_it_to_the_next_attempt_of_the_job(
    desk: GateDesk, fresh: bool
) -> None:
    start = await desk.start(fresh=fresh)
    with crash_at("gate.kept"):
        await desk.attempt(start)
    verdict = await desk.attempt(start, 2)
    assert (verdict.reason_code, verdict.attempt, verdict.reused_from) == (ReasonCode.OK, 2, None)
    assert verdict.summary is not None
    assert verdict.summary["report"] == {"checked": 3, "token": "****"}
    assert desk.runs == [start.job_id]
    assert await desk.log(start.job_id, 1) == ["the suite runs"]
    (line,) = await desk.log(start.job_id, 2)
    assert "attempt 1 of this job" in line
