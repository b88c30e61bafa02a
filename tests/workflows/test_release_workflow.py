"""`release:{id}` (`spec.md` 3 and 11, `durability.md` 14 and 19): select, assemble, publish, drop."""

from __future__ import annotations

import asyncio

import pytest
from workflow_fakes import answer_queue
from workflow_names import sha, uid
from workflow_samples import AT, release, release_shown
from workflow_world import World, refused

from conman.domain.jobs import ReasonCode
from conman.domain.messages import Answer, GateRun, QueueCall
from conman.domain.release import EditIntent, PinnedProfile, PublishIntent, ReleaseState
from conman.workflows.client import EntityWorkflow
from conman.workflows.release import AssembleCommand, DropCommand, PublishCommand, SelectCommand

R = ReleaseState
REFUSAL = Answer(refusal={"code": "conflict", "message": "Choose from the queue.", "details": [{"changeset_id": uid("b")}]})


def refusing(update: str):
    """A queue that refuses one update."""

    def answer(call: QueueCall) -> Answer:
        if call.update == update and call.payload.get("changeset_ids") != []:
            return REFUSAL
        return Answer(result={"members": []})

    return answer


def members(world: World) -> list[str]:
    return release_shown(world).ordered_changeset_ids


async def test_the_first_selection_reserves_and_creates_the_release_under_its_tag(world: World) -> None:
    entity = release(world)
    await world.do(entity, "select", SelectCommand, changeset_ids=[uid("b"), uid("a")])
    shown = release_shown(world)
    assert (shown.tag, shown.created, shown.state) == ("r2026.01.01.1", True, R.DRAFT_RELEASE)
    assert members(world) == [uid("b"), uid("a")]
    assert world.store.actions() == ["created"]


async def test_a_refused_first_selection_leaves_nothing_that_is_shown(world: World) -> None:
    world.fakes.queue = refusing("reserve")
    entity = release(world)
    error = await refused(world.send(entity, "select", await world.command(SelectCommand, changeset_ids=[uid("b")])))
    assert (error.type, error.details[0]) == ("conflict", [{"changeset_id": uid("b")}])
    assert (release_shown(world).state, world.store.audit) == (R.DROPPED, [])
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "dropped"


async def test_a_refused_change_of_the_selection_keeps_what_was_selected(world: World) -> None:
    world.fakes.queue = refusing("reserve")
    entity = release(world, R.VALIDATED, "a")
    command = await world.command(SelectCommand, changeset_ids=[uid("a"), uid("b")])
    assert (await refused(world.send(entity, "select", command))).type == "conflict"
    assert (release_shown(world).state, members(world), release_shown(world).edit) == (R.VALIDATED, [uid("a")], None)


async def test_an_edit_of_a_validated_release_returns_it_to_draft(world: World) -> None:
    entity = release(world, R.VALIDATED, "a", "b")
    await world.do(entity, "select", SelectCommand, changeset_ids=[uid("b"), uid("a")])
    assert (release_shown(world).state, release_shown(world).candidate_sha) == (R.DRAFT_RELEASE, None)
    assert world.store.actions() == ["reordered", "returned_to_draft"]


async def test_two_selections_at_once_are_made_one_after_the_other(world: World) -> None:
    recording = world.store.hold("first:intent")
    entity = release(world, R.DRAFT_RELEASE, "a")
    first = await world.command(SelectCommand, command_id="first", changeset_ids=[uid("a"), uid("b")])
    second = await world.command(SelectCommand, command_id="second", changeset_ids=[uid("c")])
    sending = [asyncio.create_task(world.send(entity, "select", first))]
    await world.until(recording.reached.is_set, "the first intent is being written")
    sending.append(asyncio.create_task(world.send(entity, "select", second)))
    await world.accepted(entity, 2)
    recording.free.set()
    await asyncio.gather(*sending)
    assert [call.payload["changeset_ids"] for call in world.fakes.calls] == [[uid("a"), uid("b")], [uid("c")]]
    assert members(world) == [uid("c")]


async def test_what_two_managers_add_and_remove_at_the_same_moment_is_all_done(world: World) -> None:
    recording = world.store.hold("first:intent")
    entity = release(world, R.DRAFT_RELEASE, "a", "b")
    more = [{"kind": "change", "add": [uid("c")]}, {"kind": "change", "add": [uid("d")], "remove": [uid("a")]}]
    first, second = [
        await world.command(SelectCommand, command_id=name, selection=selection)
        for name, selection in zip(("first", "second"), more, strict=True)
    ]
    sending = [asyncio.create_task(world.send(entity, "select", first))]
    await world.until(recording.reached.is_set, "the first intent is being written")
    sending.append(asyncio.create_task(world.send(entity, "select", second)))
    await world.accepted(entity, 2)
    recording.free.set()
    await asyncio.gather(*sending)
    assert members(world) == [uid("b"), uid("c"), uid("d")]


async def test_a_reorder_that_an_edit_was_quicker_than_is_refused_and_undoes_nothing(world: World) -> None:
    recording = world.store.hold("first:intent")
    entity = release(world, R.DRAFT_RELEASE, "a", "b")
    first = await world.command(SelectCommand, command_id="first", selection={"kind": "change", "add": [uid("c")]})
    order = {"kind": "reorder", "changeset_ids": [uid("b"), uid("a")]}
    second = await world.command(SelectCommand, command_id="second", selection=order)
    sending = asyncio.create_task(world.send(entity, "select", first))
    await world.until(recording.reached.is_set, "the first intent is being written")
    reordering = asyncio.create_task(refused(world.send(entity, "select", second)))
    await world.accepted(entity, 2)
    recording.free.set()
    await sending
    assert (await reordering).type == "validation_error"
    assert members(world) == [uid("a"), uid("b"), uid("c")]


async def test_an_assembling_release_is_neither_edited_nor_dropped(world: World) -> None:
    held = world.fakes.hold("compose_release")
    entity = release(world, R.DRAFT_RELEASE, "a")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(held.reached.is_set, "it is being composed")
    for update, kind, fields in (("drop", DropCommand, {}), ("select", SelectCommand, {"changeset_ids": []})):
        assert (await refused(world.send(entity, update, await world.command(kind, **fields)))).type == "invalid_transition"
    assert [call.payload["changeset_ids"] for call in world.fakes.calls] == [[uid("a")]]
    held.free.set()
    await world.until(lambda: release_shown(world).state is R.VALIDATED, "the result")


async def test_an_assembly_that_passes_validates_and_its_job_ends_after_the_record_shows_it(world: World) -> None:
    entity = release(world, R.DRAFT_RELEASE, "a", "b")
    assert await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job")) == {"job_id": world.id("job")}
    assert world.store.jobs[world.id("job")]["job_type"] == "release_assemble"
    await world.until(lambda: release_shown(world).state is R.VALIDATED, "the result")
    shown = release_shown(world)
    assert (shown.base_sha, shown.candidate_sha) == (sha("main-1"), sha("prefix-2"))
    assert world.store.jobs[world.id("job")]["state"] == "succeeded"
    assert [run.gate.commit_sha for run in world.fakes.runs] == [sha("prefix-2")]
    assert world.store.log.index("audit validated") < max(i for i, line in enumerate(world.store.log) if line == "job ok")


async def test_an_empty_selection_can_not_be_assembled(world: World) -> None:
    entity = release(world, R.DRAFT_RELEASE, "a", members=[])
    error = await refused(world.send(entity, "assemble", await world.command(AssembleCommand, job_id=world.id("job"))))
    assert (error.type, world.store.jobs) == ("conflict", {})


async def test_a_head_that_moved_during_the_assembly_returns_it_to_draft(world: World) -> None:
    world.fakes.head_after_assembly = sha("main-2")
    entity = release(world, R.DRAFT_RELEASE, "a")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    assert (release_shown(world).state, release_shown(world).failure.reason_code) == (R.DRAFT_RELEASE, "head_moved")
    assert members(world) == [uid("a")]


async def test_a_conflicting_member_leaves_queue_first_then_is_told_then_leaves_the_release(world: World) -> None:
    world.fakes.conflicts = {uid("b"): [{"path": "x.json"}]}
    entity = release(world, R.DRAFT_RELEASE, "a", "b", "c")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    shown = release_shown(world)
    assert (shown.failure.reason_code, shown.failure.changeset_id, shown.failure.paths) == ("conflict", uid("b"), ["x.json"])
    assert members(world) == [uid("a"), uid("c")]
    order = [line for line in world.store.log if line in ("queue eject", "audit assembly_failed") or line.startswith("told")]
    assert order == ["queue eject", f"told {uid('b')} conflicted", "audit assembly_failed"]
    assert world.fakes.runs == []
    assert world.store.jobs[world.id("job")]["state"] == "failed"


async def test_a_failing_suite_names_the_culprit_to_queue_and_changeset(world: World) -> None:
    async def suite(run: GateRun) -> ReasonCode:
        bad = run.gate.commit_sha in (sha("prefix-2"), sha("prefix-3"))
        return ReasonCode.TESTS_FAILED if bad else ReasonCode.OK

    world.fakes.suite = suite
    entity = release(world, R.DRAFT_RELEASE, "a", "b", "c")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    eject = world.fakes.calls[-1]
    assert (eject.update, eject.payload["changeset_id"], eject.payload["conflicted"]) == ("eject", uid("b"), False)
    assert world.fakes.told == [(uid("b"), "needs_revalidation")]
    assert world.store.jobs[eject.payload["job_id"]]["reason_code"] == "tests_failed"
    assert members(world) == [uid("a"), uid("c")]


async def test_publish_is_answered_when_members_are_released_and_the_queue_was_told(world: World) -> None:
    entity = release(world, R.VALIDATED, "a", "b")
    await world.do(entity, "publish", PublishCommand)
    shown = release_shown(world)
    assert (shown.state, shown.published_sha, shown.told) == (R.PUBLISHED, sha("candidate"), True)
    steps = ("queue reserve", "publish_facts", "refs moved", "audit published", "queue published")
    order = [line for line in world.store.log if line in steps or line.startswith("told ")]
    released = [f"told {uid(name)} released" for name in "ab"]
    assert order == ["queue reserve", "publish_facts", "refs moved", "audit published", *released, "queue published"]
    assert world.fakes.calls[-1].payload == {"release_id": world.id("release"), "integration_sha": sha("candidate")}
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "published"


async def test_publish_waits_for_the_queue(world: World) -> None:
    held = world.fakes.hold("queue published")
    entity = release(world, R.VALIDATED, "a")
    publishing = asyncio.create_task(world.do(entity, "publish", PublishCommand))
    await world.until(held.reached.is_set, "the queue is being told")
    assert (release_shown(world).state, publishing.done()) == (R.PUBLISHED, False)
    held.free.set()
    await publishing


async def test_a_head_that_moved_before_publish_moves_nothing_and_returns_the_release_to_draft(world: World) -> None:
    world.fakes.head = sha("main-2")
    entity = release(world, R.VALIDATED, "a")
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert (error.type, error.details[0]["integration_sha"]) == ("conflict", sha("main-2"))
    assert (release_shown(world).state, "move_refs" in world.store.log) == (R.DRAFT_RELEASE, False)
    assert world.store.actions() == ["returned_to_draft"]


async def test_a_head_that_moves_between_the_look_and_the_move_refuses_the_publish(world: World) -> None:
    world.fakes.refs_move = False
    entity = release(world, R.VALIDATED, "a")
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert (error.type, release_shown(world).state, release_shown(world).publishing) == ("conflict", R.DRAFT_RELEASE, None)
    assert world.fakes.told == []


async def test_a_candidate_with_changes_of_nobody_is_not_published(world: World) -> None:
    world.fakes.unexplained = ["stray.json"]
    entity = release(world, R.VALIDATED, "a")
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert (error.type, error.details[0]) == ("conflict", {"reason_code": "unproven", "paths": ["stray.json"]})
    await back_in_draft(world, entity, "unproven")


async def test_a_member_that_left_the_queue_stops_the_publish(world: World) -> None:
    world.fakes.queue = refusing("reserve")
    entity = release(world, R.VALIDATED, "a")
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert (error.type, error.details[0]) == ("conflict", REFUSAL.refusal["details"])
    assert "publish_facts" not in world.store.log
    world.fakes.queue = answer_queue
    await back_in_draft(world, entity, "member_left")


async def back_in_draft(world: World, entity: EntityWorkflow, reason: str) -> None:
    """The refused release can be assembled again, and then be published."""
    shown = release_shown(world)
    assert (shown.state, shown.failure.reason_code, shown.candidate_sha) == (R.DRAFT_RELEASE, reason, None)
    assert world.store.actions() == ["returned_to_draft"]
    assert "move_refs" not in world.store.log
    world.fakes.unexplained, world.fakes.edited_profiles = [], []
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("another job"))
    await world.until(lambda: release_shown(world).state is R.VALIDATED, "the result")
    await world.do(entity, "publish", PublishCommand)
    assert release_shown(world).state is R.PUBLISHED


async def test_a_profile_that_changed_since_the_gate_ran_with_it_refuses_the_publish(world: World) -> None:
    pinned = PinnedProfile(environment="QA", profile_id=uid("profile"), profile_revision_id=uid("profile-1"))
    world.fakes.edited_profiles = [uid("profile")]
    entity = release(world, R.VALIDATED, "a", pinned_profiles=[pinned])
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert (error.type, error.details[0]["reason_code"]) == ("conflict", "profile_changed")
    assert error.details[0]["profiles"][0]["environment"] == "QA"
    await back_in_draft(world, entity, "profile_changed")


async def test_an_app_that_is_closing_refuses_the_publish_and_says_nothing_against_the_candidate(world: World) -> None:
    closing = Answer(refusal={"code": "conflict", "message": "The app is closing.", "details": {"closing": "archive"}})
    world.fakes.queue = lambda _call: closing
    entity = release(world, R.VALIDATED, "a")
    assert (await refused(world.send(entity, "publish", await world.command(PublishCommand)))).type == "conflict"
    assert (release_shown(world).state, release_shown(world).edit) == (R.VALIDATED, None)


async def test_the_record_has_the_tag_that_was_made_and_the_release_that_was_published_before(world: World) -> None:
    world.fakes.tag_made, world.fakes.published_before = "r2026.01.01.7", uid("before")
    entity = release(world, R.VALIDATED, "a")
    await world.do(entity, "publish", PublishCommand)
    assert (release_shown(world).tag, release_shown(world).supersedes) == ("r2026.01.01.7", uid("before"))


async def test_a_publish_of_one_app_does_not_wait_for_that_of_another(world: World) -> None:
    held = world.fakes.hold(f"move_refs of {world.app_id}")
    slow = release(world, R.VALIDATED, "a")
    other = world.store.owned("releases", world.id("release")) | {"app_id": world.id("another app")}
    world.store.insert("releases", world.id("another release"), other)
    publishing = asyncio.create_task(world.do(slow, "publish", PublishCommand))
    await world.until(held.reached.is_set, "the refs of the first app are being moved")
    quick = world.commands.release_start(world.id("another app"), world.id("another release"))
    await world.do(quick, "publish", PublishCommand)
    assert world.store.owned("releases", world.id("another release"))["state"] == "published"
    assert (release_shown(world).state, publishing.done()) == (R.VALIDATED, False)
    held.free.set()
    await publishing


COMMANDS = {
    "select": (SelectCommand, {"changeset_ids": [uid("b")]}),
    "reorder": (SelectCommand, {"selection": {"kind": "reorder", "changeset_ids": [uid("a")]}}),
    "add": (SelectCommand, {"selection": {"kind": "change", "add": [uid("b")]}}),
    "assemble": (AssembleCommand, {"job_id": uid("job")}),
    "publish": (PublishCommand, {}),
    "drop": (DropCommand, {}),
}


@pytest.mark.parametrize("state", [R.PUBLISHED, R.DEPLOYED_PARTIAL, R.DEPLOYED_FULL, R.ROLLED_BACK], ids=str)
async def test_after_publish_nothing_about_a_release_changes(world: World, state: ReleaseState) -> None:
    entity = release(world, state, "a", published_sha=sha("candidate"), told=True)
    before = world.store.owned("releases", world.id("release"))
    for name, (kind, fields) in COMMANDS.items():
        update = "select" if kind is SelectCommand else name
        error = await refused(world.send(entity, update, await world.command(kind, **fields)))
        assert error.type == "invalid_transition", name
    assert world.store.owned("releases", world.id("release")) == before
    assert (world.fakes.calls, world.store.audit, world.store.jobs) == ([], [], {})


async def test_after_the_refs_moved_there_is_only_forward(world: World) -> None:
    held = world.fakes.hold("tell")
    entity = release(world, R.VALIDATED, "a")
    publishing = asyncio.create_task(world.do(entity, "publish", PublishCommand))
    await world.until(held.reached.is_set, "the members are being told")
    handle = world.client.get_workflow_handle(entity.workflow_id)
    await handle.cancel()
    assert (await refused(world.send(entity, "drop", await world.command(DropCommand)))).type == "invalid_transition"
    held.free.set()
    await publishing
    assert await handle.result() == "published"
    assert world.fakes.calls[-1].update == "published"


async def test_a_publish_that_was_recorded_before_a_crash_is_finished(world: World) -> None:
    intent = PublishIntent(
        command_id="p", actor={"user_id": uid("ada")}, old_sha=sha("main-1"), new_sha=sha("candidate"), tag="r1", at=AT
    )
    entity = release(world, R.VALIDATED, "a", publishing=intent)
    await world.start(entity)
    await world.do(entity, "publish", PublishCommand, command_id="p")
    shown = release_shown(world)
    assert (shown.state, shown.published_by, shown.told) == (R.PUBLISHED, uid("ada"), True)
    assert world.store.log.count("move_refs") == 1 and "publish_facts" not in world.store.log


async def test_a_publish_that_is_repeated_while_its_refs_move_gets_the_same_answer(world: World) -> None:
    held = world.fakes.hold("move_refs")
    entity = release(world, R.VALIDATED, "a")
    command = await world.command(PublishCommand, command_id="p")
    first = asyncio.create_task(world.send(entity, "publish", command))
    await world.until(held.reached.is_set, "the refs are being moved")
    second = asyncio.create_task(world.send(entity, "publish", command))
    await world.accepted(entity, 2)
    held.free.set()
    assert await asyncio.gather(first, second) == [{}, {}]
    assert world.store.actions() == ["published"]


async def test_a_release_that_was_published_and_not_told_is_told(world: World) -> None:
    entity = release(world, R.PUBLISHED, "a", published_sha=sha("candidate"), told=False)
    await world.start(entity)
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "published"
    assert world.fakes.told == [(uid("a"), "released")]


async def test_an_edit_that_was_recorded_before_a_crash_is_finished(world: World) -> None:
    edit = EditIntent(command_id="e", kind="drop", actor={"user_id": uid("ada")})
    entity = release(world, R.VALIDATED, "a", edit=edit)
    await world.start(entity)
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "dropped"


@pytest.mark.parametrize("state", [R.DRAFT_RELEASE, R.VALIDATED], ids=str)
async def test_a_drop_frees_the_selection_and_ends(world: World, state: ReleaseState) -> None:
    entity = release(world, state, "a")
    await world.do(entity, "drop", DropCommand)
    assert [(call.update, call.payload["changeset_ids"]) for call in world.fakes.calls] == [("reserve", [])]
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "dropped"
    assert (await refused(world.send(entity, "select", await world.command(SelectCommand, changeset_ids=[])))).type == (
        "invalid_transition"
    )


async def test_a_cancel_from_the_web_ui_gives_up_the_assembly_then_nothing_more(world: World) -> None:
    held = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        held.set()
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    entity = release(world, R.DRAFT_RELEASE, "a")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(held.is_set, "the suite runs")
    await world.client.get_workflow_handle(entity.workflow_id).cancel()
    await world.until(lambda: release_shown(world).state is R.DRAFT_RELEASE, "the end of the assembly")
    assert release_shown(world).failure.reason_code == "canceled"
    assert {job["state"] for job in world.store.jobs.values()} == {"canceled"}
    await world.do(entity, "drop", DropCommand)


async def test_a_cancel_from_the_web_ui_drops_an_open_release(world: World) -> None:
    entity = release(world, R.VALIDATED, "a")
    handle = await world.start(entity)
    await world.until(lambda: "load releases" in world.store.log, "it was read")
    await handle.cancel()
    assert await handle.result() == "dropped"
    assert world.fakes.calls[-1].payload["changeset_ids"] == []


async def test_a_validated_release_that_was_overtaken_returns_to_draft_when_it_is_told(world: World) -> None:
    """`spec.md` 3; a publish afterwards still says that it must be assembled again (`spec.md` 11)."""
    entity = release(world, R.VALIDATED, "a")
    handle = await world.start(entity)
    world.fakes.head = sha("main-2")
    await handle.signal("look_again")
    await world.until(lambda: release_shown(world).state is R.DRAFT_RELEASE, "the return")
    assert (release_shown(world).failure.reason_code, members(world)) == ("head_moved", [uid("a")])
    error = await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    assert error.type == "conflict"
    assert error.details[0]["reason_code"] == "head_moved"


async def test_a_publish_tells_the_other_validated_releases(world: World) -> None:
    entity = release(world, R.VALIDATED, "a")
    await world.do(entity, "publish", PublishCommand)
    assert [one.integration_sha for one in world.fakes.overtaken] == [release_shown(world).published_sha]
