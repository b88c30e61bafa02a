"""`job:{id}` of an assembly (`spec.md` 11): compose, gate, bisect; nobody is blamed without proof."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from temporalio.exceptions import ApplicationError
from workflow_fakes import gate_profile
from workflow_names import sha, uid
from workflow_samples import member
from workflow_world import World

from conman.domain.jobs import ReasonCode
from conman.domain.messages import AssembleStart, GateProfile, GateRun
from conman.domain.overrides import FrozenOverride
from conman.domain.release import AssemblyResult, Member
from conman.workflows import options
from conman.workflows.assemble import AssembleWorkflow

OK, FAILED = ReasonCode.OK, ReasonCode.TESTS_FAILED
NAMES = "abcdefgh"


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


def prefix_of(run: GateRun) -> int:
    """Which prefix a suite judges; 0 is the integration head alone."""
    known = {sha("main-1"): 0} | {sha(f"prefix-{number}"): number for number in range(1, 9)}
    return known[run.gate.commit_sha]


def judging(judge: Callable[[int, int], ReasonCode]) -> Callable[[GateRun], Awaitable[ReasonCode]]:
    """A suite that judges a prefix, and how often it was judged before."""
    seen: dict[int, int] = {}

    async def suite(run: GateRun) -> ReasonCode:
        prefix = prefix_of(run)
        seen[prefix] = seen.get(prefix, -1) + 1
        return judge(prefix, seen[prefix])

    return suite


async def assemble(world: World, names: str = NAMES) -> AssemblyResult:
    handle = await start(world, names)
    return await handle.result()


async def start(world: World, names: str = NAMES, members: list[Member] | None = None, job: str = "job"):
    begun = AssembleStart(
        app_id=world.app_id,
        release_id=world.id("release"),
        job_id=world.id(job),
        tag="r1",
        members=members or [member(name) for name in names],
    )
    queue = options.queue_name(options.Queue.MAIN)
    return await world.client.start_workflow(
        AssembleWorkflow.run, begun, id=options.job_workflow(world.id(job)), task_queue=queue
    )


def judged(world: World) -> list[int]:
    return [prefix_of(run) for run in world.fakes.runs]


async def test_a_candidate_that_passes_needs_one_suite(world: World) -> None:
    found = await assemble(world)
    assert (found.candidate_sha, found.base_sha, found.failure) == (sha("prefix-8"), sha("main-1"), None)
    assert judged(world) == [8]
    assert [one.model_dump() for one in found.pinned_profiles] == [gate_profile("Live").model_dump(exclude={"waiting"})]
    assert [world.store.jobs[job_id]["state"] for job_id in found.gate_job_ids] == ["succeeded"]


@pytest.mark.parametrize("culprit", range(1, 9))
async def test_the_bisection_blames_the_member_from_which_on_the_suite_fails(world: World, culprit: int) -> None:
    world.fakes.suite = judging(lambda prefix, _again: FAILED if prefix >= culprit else OK)
    found = await assemble(world)
    assert found.failure is not None and found.candidate_sha is None
    assert (found.failure.reason_code, found.failure.changeset_id) == ("tests_failed", uid(NAMES[culprit - 1]))
    runs = judged(world)
    assert runs[:2] == [8, 0] and runs[-2:] == [culprit - 1, culprit]
    assert len(runs) <= 2 + 3 + 2
    ends = [world.store.jobs[job_id]["result"]["prefix"] for job_id in found.gate_job_ids]
    assert ends == runs


async def test_the_ends_of_the_last_bracket_are_judged_afresh_and_nothing_else_is(world: World) -> None:
    """A result that was kept of an earlier run would say nothing new of a suite that is in doubt."""
    world.fakes.suite = judging(lambda prefix, _again: FAILED if prefix >= 4 else OK)
    await assemble(world)
    assert [(prefix_of(run), run.gate.fresh) for run in world.fakes.runs] == [
        (8, False),
        (0, False),
        (4, False),
        (2, False),
        (3, False),
        (3, True),
        (4, True),
    ]


async def test_a_doubt_that_settles_it_ends_the_search(world: World) -> None:
    """The last prefix that passed fails when it is looked at again: the other end needs no second look."""
    world.fakes.suite = judging(lambda prefix, again: FAILED if prefix >= 5 or (prefix == 4 and again) else OK)
    found = await assemble(world)
    assert found.failure is not None
    assert found.failure.reason_code == "inconclusive"
    assert judged(world) == [8, 0, 4, 6, 5, 4]


async def test_two_that_fail_only_together_have_the_later_one_blamed(world: World) -> None:
    world.fakes.suite = judging(lambda prefix, _again: FAILED if prefix >= 6 else OK)  # "b" and "f" do not get on
    found = await assemble(world)
    assert found.failure is not None
    assert found.failure.changeset_id == uid("f")


async def test_of_several_that_fail_the_first_is_blamed_and_the_next_assembly_blames_the_next(world: World) -> None:
    names, blamed = "abcdefgh", []
    for number in range(3):
        bad = min(names.index(one) for one in "cfh" if one in names) + 1
        world.fakes.suite = judging(lambda prefix, _again, bad=bad: FAILED if prefix >= bad else OK)
        handle = await start(world, names, job=f"job {number}")
        found = await handle.result()
        assert found.failure is not None
        (culprit,) = [one for one in names if uid(one) == found.failure.changeset_id]
        blamed.append(culprit)
        names = names.replace(culprit, "")
    assert blamed == ["c", "f", "h"]


async def test_the_job_shows_how_many_suites_there_may_still_be(world: World) -> None:
    world.fakes.suite = judging(lambda prefix, _again: FAILED if prefix >= 7 else OK)
    await assemble(world)
    shown = [(done, total) for done, total, _ in world.fakes.progress]
    assert [done for done, _ in shown] == list(range(len(judged(world))))
    assert all(done < total <= 2 + 3 + 2 for done, total in shown)
    assert shown[-1] == (len(shown) - 1, len(shown))
    assert world.fakes.progress[0][2] == "suite: candidate, with the profile of Live"


async def test_a_single_member_is_blamed_after_both_ends_were_judged_twice(world: World) -> None:
    world.fakes.suite = judging(lambda prefix, _again: FAILED if prefix else OK)
    found = await assemble(world, "a")
    assert found.failure is not None and found.failure.changeset_id == uid("a")
    assert judged(world) == [1, 0, 0, 1]


async def test_an_integration_head_that_fails_by_itself_blames_nobody(world: World) -> None:
    world.fakes.suite = judging(lambda _prefix, _again: FAILED)
    found = await assemble(world)
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id) == ("baseline_failing", None)
    assert judged(world) == [8, 0]


@pytest.mark.parametrize("flaky", [4, 5], ids=["last good prefix", "first bad prefix"])
async def test_a_suite_that_changes_its_mind_blames_nobody(world: World, flaky: int) -> None:
    def judge(prefix: int, again: int) -> ReasonCode:
        bad = (prefix >= 5) != (prefix == flaky and again > 0)
        return FAILED if bad else OK

    world.fakes.suite = judging(judge)
    found = await assemble(world)
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id) == ("inconclusive", None)


@pytest.mark.parametrize("lost", [8, 0, 4, 3], ids=["candidate", "integration head", "middle", "second look"])
@pytest.mark.parametrize("reason", [ReasonCode.TIMEOUT, ReasonCode.INFRASTRUCTURE, ReasonCode.CANCELED], ids=str)
async def test_a_suite_without_a_verdict_blames_neither_a_member_nor_the_integration_head(
    world: World, lost: int, reason: ReasonCode
) -> None:
    def judge(prefix: int, again: int) -> ReasonCode:
        if prefix == lost and (again > 0 or lost != 3):
            return reason
        return FAILED if prefix >= 4 else OK

    world.fakes.suite = judging(judge)
    found = await assemble(world)
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id) == (reason.value, None)


async def test_the_first_conflict_ends_the_assembly_before_any_suite(world: World) -> None:
    world.fakes.conflicts = {uid(name): [{"path": f"{name}.json"}] for name in "ce"}
    found = await assemble(world)
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id, found.failure.paths) == ("conflict", uid("c"), ["c.json"])
    assert (found.conflicts, found.prefix_shas) == ([{"path": "c.json"}], [sha("prefix-1"), sha("prefix-2")])
    assert world.fakes.runs == []
    assert found.exclusions is not None
    assert (found.exclusions.alone, found.exclusions.untested) == ([uid("c"), uid("e")], True)
    assert found.exclusions.largest_subset == [uid(name) for name in "abdfgh"]


async def test_a_conflict_is_told_also_where_it_can_not_be_found_out_what_excludes_what(world: World) -> None:
    world.fakes.conflicts = {uid("c"): [{"path": "c.json"}]}
    world.fakes.errors["find_exclusions"] = ApplicationError("the repository is away")
    found = await assemble(world)
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id, found.exclusions) == ("conflict", uid("c"), None)
    assert world.store.log.count("find_exclusions") == 3


async def test_a_head_that_moved_meanwhile_is_told(world: World) -> None:
    world.fakes.head_after_assembly = sha("main-2")
    assert (await assemble(world)).head_moved


async def test_the_suite_runs_with_each_profile_and_the_overrides_that_the_first_changesets_bring(world: World) -> None:
    """`spec.md` 9 and 11: prefix k is the base plus the first k changesets with their overrides only."""
    live, qa = gate_profile("Live"), gate_profile("QA")
    waiting = FrozenOverride(profile_id=live.profile_id, content_id="of an earlier release")
    world.fakes.profiles = [qa, live.model_copy(update={"waiting": [waiting]})]
    members = [member(name).model_copy(update={"overrides": [_override(live, name), _override(qa, name)]}) for name in "ab"]

    async def suite(run: GateRun) -> ReasonCode:
        return FAILED if (prefix_of(run), run.gate.profile_id) == (2, live.profile_id) else OK

    world.fakes.suite = suite
    result = await (await start(world, members=members)).result()
    assert result.failure is not None
    assert result.failure.changeset_id == members[1].changeset_id
    assert world.fakes.overridden == [sorted([live.profile_id, qa.profile_id])]
    runs = [run.gate for run in world.fakes.runs]
    assert {(gate.profile_id, gate.profile_revision_id) for gate in runs} == {
        (profile.profile_id, profile.profile_revision_id) for profile in (live, qa)
    }
    got = {(prefix_of(run), run.gate.profile_id): [one["content_id"] for one in run.gate.overrides] for run in world.fakes.runs}
    for prefix in (0, 1, 2):
        brought = [name for name in "ab"[:prefix]]
        assert got[prefix, qa.profile_id] == [f"{name} for QA" for name in brought]
        assert got[prefix, live.profile_id] == ["of an earlier release", *(f"{name} for Live" for name in brought)]
    assert all("keys" not in one or one["keys"] == {} for gate in runs for one in gate.overrides)
    assert len(result.gate_job_ids) == len(runs)


async def test_a_suite_that_fails_with_one_profile_is_not_run_with_the_next(world: World) -> None:
    world.fakes.profiles = [gate_profile("QA"), gate_profile("Live")]

    async def suite(_run: GateRun) -> ReasonCode:
        return FAILED

    world.fakes.suite = suite
    result = await assemble(world, "a")
    assert result.failure is not None
    assert result.failure.reason_code == ReasonCode.BASELINE_FAILING.value
    assert {run.gate.profile_id for run in world.fakes.runs} == {gate_profile("QA").profile_id}


async def test_the_profile_with_which_a_prefix_failed_is_the_first_to_judge_the_next(world: World) -> None:
    qa, live = gate_profile("QA"), gate_profile("Live")
    world.fakes.profiles = [qa, live]

    async def suite(run: GateRun) -> ReasonCode:
        return FAILED if prefix_of(run) >= 2 and run.gate.profile_id == live.profile_id else OK

    world.fakes.suite = suite
    result = await (await start(world, "abcd")).result()
    assert result.failure is not None
    assert result.failure.changeset_id == uid("b")
    names = {qa.profile_id: "qa", live.profile_id: "live"}
    assert [f"{prefix_of(run)} {names[run.gate.profile_id or '']}" for run in world.fakes.runs] == [
        "4 qa", "4 live",
        "0 live", "0 qa",
        "2 live",
        "1 live", "1 qa",
        "1 live", "1 qa",
        "2 live",
    ]  # fmt: skip


def _override(profile: GateProfile, name: str) -> FrozenOverride:
    keys: dict[str, str | None] = {"env_vars.A": "digest"}
    return FrozenOverride(profile_id=profile.profile_id, content_id=f"{name} for {profile.environment}", keys=keys)


@pytest.mark.parametrize("step", ["compose_release", "find_exclusions", "create_jobs", "suite"])
async def test_a_canceled_assembly_blames_nobody_and_leaves_no_job_open(world: World, step: str) -> None:
    reached = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        reached.set()
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    if step == "suite":
        world.fakes.suite = suite
        waiting = reached
    else:
        waiting = world.fakes.hold(step).reached
    if step == "find_exclusions":
        world.fakes.conflicts = {uid("b"): [{"path": "b.json"}]}
    handle = await start(world, "ab")
    await world.until(waiting.is_set, f"{step} is under way")
    await handle.cancel()
    if step == "create_jobs":
        # The cancel is in history before the activity ends.
        await world.canceled(handle)
        world.fakes.holds["create_jobs"].free.set()
    found = await handle.result()
    assert found.failure is not None
    assert (found.failure.reason_code, found.failure.changeset_id) == ("canceled", None)
    assert {job["state"] for job in world.store.jobs.values()} <= {"canceled"}
    assert world.fakes.running == 0
