"""`rollback:{id}`, and the release that it makes (`spec.md` 12)."""

from __future__ import annotations

import pytest
from rollback_fakes import at
from workflow_fakes import gate_profile
from workflow_names import sha, uid
from workflow_samples import release, release_shown
from workflow_world import World, refused

from conman.domain.jobs import ReasonCode
from conman.domain.messages import ComposeReply, GateRun
from conman.domain.overrides import FrozenOverride
from conman.domain.release import Release, ReleaseState
from conman.domain.rollback import MOST_ASSEMBLIES, Step, reverting_release_id
from conman.domain.rollback_messages import RollbackBegun
from conman.workflows.client import EntityWorkflow
from conman.workflows.release import AssembleCommand, PublishCommand, RevertCommand, SelectCommand

PUBLISHED = at("published", published_sha=sha("candidate"))


async def run(world: World) -> str:
    entity = world.commands.rollback_start(world.app_id, world.id("deployment"))
    return await (await world.start(entity)).result()


def steps(world: World) -> list[Step]:
    return [step.kind for step in world.fakes.undoing.steps]


async def test_the_release_is_published_by_itself_and_the_deployment_gets_it(world: World) -> None:
    undoing = world.fakes.undoing
    undoing.states = [at("assembling"), at("validated"), PUBLISHED]
    assert await run(world) == "published"
    assert steps(world) == [Step.PUBLISH]
    assert undoing.steps[0].user_id == uid("max"), "it is the act of who asked for the rollback"
    (news,) = undoing.news
    assert news.release_id == undoing.asked[0].release_id == reverting_release_id(world.id("deployment"))


async def test_a_branch_that_moved_has_it_assembled_and_tried_again(world: World) -> None:
    moved = at("draft_release", failure="head_moved")
    world.fakes.undoing.states = [at("validated"), moved, at("validated", job="second"), PUBLISHED]
    assert await run(world) == "published"
    assert steps(world) == [Step.PUBLISH, Step.ASSEMBLE, Step.PUBLISH]
    ids = [step.command_id for step in world.fakes.undoing.steps]
    assert len(set(ids)) == len(ids), "each try is a command of its own"


async def test_a_branch_that_keeps_moving_ends_it(world: World) -> None:
    moved = [at("draft_release", job=f"{number}", failure="head_moved") for number in range(MOST_ASSEMBLIES)]
    world.fakes.undoing.states = [*moved, at("dropped", failure="head_moved")]
    assert await run(world) == "git_error"
    assert steps(world) == [*[Step.ASSEMBLE] * (MOST_ASSEMBLIES - 1), Step.DROP]


@pytest.mark.parametrize("failure", ["tests_failed", "conflict", "baseline_failing", "timeout"])
async def test_what_speaks_against_it_drops_the_release_and_fails_the_deployment(world: World, failure: str) -> None:
    world.fakes.undoing.states = [at("draft_release", failure=failure), at("dropped", failure=failure)]
    await run(world)
    assert steps(world) == [Step.DROP]
    (news,) = world.fakes.undoing.news
    assert (news.release_id, news.reason_code.value) == (None, "git_error" if failure == "conflict" else failure)
    assert f"It ended with {failure}." in news.message


async def test_what_refuses_the_release_fails_the_deployment(world: World) -> None:
    world.fakes.undoing.begun = RollbackBegun(refused="The app is archived.")
    assert await run(world) == "canceled"
    (news,) = world.fakes.undoing.news
    assert news.message == "Nothing was undone: The app is archived."
    assert steps(world) == []


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([at("assembling"), at("draft_release", failure="canceled"), at("dropped")], [Step.STOP, Step.DROP]),
        ([at("validated"), at("dropped")], [Step.DROP]),
        ([at("draft_release", failure="head_moved"), at("dropped")], [Step.DROP]),
        ([PUBLISHED], []),
    ],
    ids=["while it is assembled", "before its publish", "before another try", "after its publish"],
)
async def test_a_deployment_that_ended_takes_its_release_along_unless_that_is_published(
    world: World, states: list[Release], expected: list[Step]
) -> None:
    world.fakes.undoing.states = list(states)
    world.fakes.undoing.wanted = lambda: False
    await run(world)
    assert steps(world) == expected


async def test_a_rollback_that_is_canceled_in_the_web_ui_undoes_nothing(world: World) -> None:
    world.fakes.undoing.states = [at("assembling")]
    handle = await world.start(world.commands.rollback_start(world.app_id, world.id("deployment")))
    await world.until(lambda: world.fakes.undoing.asked, "its first step")
    await handle.cancel()
    await world.canceled(handle)
    world.fakes.undoing.states = [at("validated"), at("dropped")]
    assert await handle.result() == "canceled"
    assert Step.DROP in steps(world)
    assert Step.PUBLISH not in steps(world)
    assert world.fakes.undoing.news[0].message == "The rollback was canceled: nothing was undone."


# -- The release


INVERSE = FrozenOverride(profile_id=uid("profile Live"), content_id="inverse")


async def reverting(world: World, until: ReleaseState = ReleaseState.VALIDATED) -> EntityWorkflow:
    entity = release(world, reverts_release_id=world.id("undone"), rollback_id=world.id("deployment"))
    await world.do(entity, "revert", RevertCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).state is until, f"it is {until.value}")
    return entity


async def test_a_release_that_undoes_gets_a_tag_and_is_validated_with_what_it_takes_back(world: World) -> None:
    world.fakes.undoing.composed = ComposeReply(base_sha=sha("main-1"), prefix_shas=[sha("candidate")], overrides=[INVERSE])
    world.fakes.profiles = [gate_profile("Live")]
    await reverting(world)
    shown = release_shown(world)
    assert (shown.tag, shown.created, shown.members) == (world.fakes.tag, True, [])
    assert (shown.base_sha, shown.candidate_sha, shown.overrides) == (sha("main-1"), sha("candidate"), [INVERSE])
    assert [one.gate.commit_sha for one in world.fakes.runs] == [sha("candidate")]
    assert world.fakes.overridden == [[INVERSE.profile_id]]
    assert world.store.jobs[world.id("job")]["state"] == "succeeded"


async def test_its_publish_rolls_the_undone_one_back_before_the_queue_is_told(world: World) -> None:
    entity = await reverting(world)
    await world.do(entity, "publish", PublishCommand)
    (undone,) = world.fakes.undoing.undone
    assert (undone.release_id, undone.by_release_id) == (world.id("undone"), world.id("release"))
    assert world.fakes.calls[-1].update == "published"
    assert not any(call.publishes for call in world.fakes.calls), "a hold does not stop a rollback"


async def test_a_suite_that_fails_without_the_undone_release_blames_nobody_and_is_not_bisected(world: World) -> None:
    async def suite(_: GateRun) -> ReasonCode:
        return ReasonCode.TESTS_FAILED

    world.fakes.suite = suite
    await reverting(world, until=ReleaseState.DRAFT_RELEASE)
    failure = release_shown(world).failure
    assert failure is not None
    assert (failure.reason_code, failure.changeset_id) == ("tests_failed", None)
    assert len(world.fakes.runs) == 1
    assert world.fakes.told == []


async def test_what_can_not_be_undone_says_why(world: World) -> None:
    world.fakes.undoing.composed = ComposeReply(
        base_sha=sha("main-1"), conflicts=[{"path": "a.json"}], problem="r1 can't be undone: a.json."
    )
    await reverting(world, until=ReleaseState.DRAFT_RELEASE)
    failure = release_shown(world).failure
    assert failure is not None
    assert (failure.reason_code, failure.paths, failure.message) == ("conflict", ["a.json"], "r1 can't be undone: a.json.")
    assert world.fakes.runs == []


async def test_a_release_that_undoes_takes_no_changesets_and_begins_once(world: World) -> None:
    entity = await reverting(world)
    error = await refused(world.do(entity, "select", SelectCommand, changeset_ids=[uid("a")]))
    assert error.type == "conflict"
    error = await refused(world.do(entity, "revert", RevertCommand, job_id=world.id("other")))
    assert error.type == "invalid_transition"


async def test_it_is_assembled_again_on_a_branch_that_has_moved(world: World) -> None:
    entity = await reverting(world)
    world.fakes.head = sha("main-2")
    world.fakes.undoing.composed = ComposeReply(base_sha=sha("main-2"), prefix_shas=[sha("again")])
    await refused(world.do(entity, "publish", PublishCommand))
    assert release_shown(world).state is ReleaseState.DRAFT_RELEASE
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("second"))
    await world.until(lambda: release_shown(world).state is ReleaseState.VALIDATED, "it is validated again")
    assert release_shown(world).candidate_sha == sha("again")
