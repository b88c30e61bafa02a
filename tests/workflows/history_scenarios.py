"""What is recorded: for every workflow the runs that its events lead through. A scenario names the workflows it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from history_deployments import DEPLOYMENTS
from history_queues import QUEUES
from history_temp_envs import TEMP_ENVS
from rollback_fakes import at
from temporalio.exceptions import ApplicationError
from workflow_fakes import Held, answer_queue, gate_profile
from workflow_names import sha, uid
from workflow_samples import (
    ask_review,
    changeset,
    entry,
    leave,
    queue,
    queue_shown,
    queue_up,
    release,
    release_shown,
    retry,
    review,
    shown,
    submit,
    take_back,
)
from workflow_world import World, refused

from conman.domain.changeset import ChangesetState, Move
from conman.domain.deploy_messages import DriftCheckStart, DriftPlace, DriftQuestion, DriftReply, DriftRound
from conman.domain.drift import DriftItem
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.mail import Wave
from conman.domain.messages import (
    Answer,
    EjectCommand,
    EnqueueCommand,
    GateRun,
    PublishedCommand,
    ReminderSetting,
    RemoveCommand,
    ReorderCommand,
    ReserveCommand,
    RevalidateCommand,
)
from conman.domain.notification import NotifyStart
from conman.domain.release import PinnedProfile, ReleaseState
from conman.domain.webhook import Round
from conman.workflows import options
from conman.workflows.release import AssembleCommand, DropCommand, PublishCommand, RevertCommand, SelectCommand

Recorded = dict[str, str]
"""Name of a history → id of the workflow whose history it is."""
Scenario = Callable[[World], Awaitable[Recorded]]


async def changeset_life(world: World) -> Recorded:
    """Submit, changes requested, resubmit while the gate runs, approve, queue, back to draft."""
    slow = Held()

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.commit_sha == sha("head-2"):
            await slow.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the first verdict")
    await world.send(entity, "review", await review(world, "request_changes"))
    await world.send(entity, "submit", await submit(world, 2, again=True))
    await world.until(slow.reached.is_set, "the second gate runs")
    await refused(world.send(entity, "queue", await queue_up(world)))
    slow.free.set()
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the second verdict")
    await world.send(entity, "review", await review(world))
    await world.send(entity, "queue", await queue_up(world))
    await world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT))
    assert shown(world).state is ChangesetState.DRAFT
    return {"changeset-life": entity.workflow_id, "gate-passes": f"job:{world.id('gate 1')}"}


async def changeset_repaired(world: World) -> Recorded:
    """Its record is put back to what it was, twice: it is told, and then it finds that by itself; with each it goes on."""
    entity = changeset(world)
    place = ("changesets", world.id("changeset"))
    older = world.store.owned(*place)
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    world.store.insert(*place, older)
    await world.client.get_workflow_handle(entity.workflow_id).signal("resync")
    await world.until(lambda: world.store.actions().count("repaired") == 1, "the repair")
    await world.send(entity, "review", await review(world))
    world.store.insert(*place, older)
    await world.send(entity, "leave", await leave(world, Move.WITHDRAW))
    assert world.store.actions().count("repaired") == 2
    await world.handle(entity).result()
    return {"changeset-repaired": entity.workflow_id}


async def changeset_superseded(world: World) -> Recorded:
    """A resubmit withdraws the gate that runs."""
    slow = Held()

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.commit_sha == sha("head-1"):
            await slow.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(slow.reached.is_set, "the first gate runs")
    await world.send(entity, "submit", await submit(world, 2, again=True))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the second verdict")
    await world.client.get_workflow_handle(f"job:{world.id('gate 1')}").result()
    return {"changeset-superseded": entity.workflow_id, "gate-withdrawn": f"job:{world.id('gate 1')}"}


async def changeset_reviewed(world: World) -> Recorded:
    """A gate that was lost is retried; the reviewers are told again, one is asked, and the vote of another is taken back."""
    reasons = [ReasonCode.TIMEOUT, ReasonCode.OK]

    async def suite(_run: GateRun) -> ReasonCode:
        return reasons.pop(0)

    world.fakes.suite = suite
    world.fakes.reminders = ReminderSetting(hours=1)
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.reason_code is ReasonCode.TIMEOUT, "no verdict")
    await world.send(entity, "retry", await retry(world))
    await world.until(lambda: shown(world).reminders == 1, "the reminder: it was submitted long ago")
    await world.send(entity, "request_review", await ask_review(world))
    await world.send(entity, "review", await review(world, required=2))
    await world.send(entity, "take_back", await take_back(world))
    await world.send(entity, "review", await review(world, by="another"))
    assert shown(world).state is ChangesetState.APPROVED
    await world.send(entity, "leave", await leave(world))
    return {"changeset-reviewed": entity.workflow_id}


async def gate_lost(world: World) -> Recorded:
    """An attempt at the suite is lost, the next one passes."""

    async def suite(run: GateRun) -> ReasonCode:
        if run.attempt == 1:
            raise ApplicationError("the disk is full")
        return ReasonCode.OK

    world.fakes.suite = suite
    await world.send(changeset(world), "submit", await submit(world))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    return {"gate-lost-once": f"job:{world.id('gate 1')}"}


async def queue_life(world: World) -> Recorded:
    """Everything that a queue is told, and a sweep of two."""
    entity = queue(world, entry("a"), entry("b"))
    await world.do(entity, "reorder", ReorderCommand, ordered_changeset_ids=[uid("b"), uid("a")], expected_version=0)
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("c", hotpatch=True).model_dump())
    await world.do(entity, "remove", RemoveCommand, changeset_id=uid("c"))
    await world.do(entity, "reserve", ReserveCommand, release_id=uid("release"), changeset_ids=[uid("b")])
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: queue_shown(world).sweep is None and queue_shown(world).undelivered == [], "the sweep has ended")
    await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("a"))
    await world.until(lambda: queue_shown(world).sweep is None, "the second sweep has ended")
    await world.do(entity, "reserve", ReserveCommand, release_id=uid("next"), changeset_ids=[uid("a")])
    eject = {"release_id": uid("next"), "changeset_id": uid("a"), "conflicted": True, "job_id": uid("job")}
    await world.do(entity, "eject", EjectCommand, **eject)
    return {"queue-life": entity.workflow_id, "revalidation-sweep": options.revalidation_workflow(world.app_id, 1)}


async def queue_swept(world: World) -> Recorded:
    """While a sweep runs one enters, one leaves and one is judged again by hand; the next publish supersedes it."""
    slow = Held()

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.entity_id == uid("b"):
            await slow.wait()
        return ReasonCode.TESTS_FAILED if run.gate.entity_id == uid("a") else ReasonCode.OK

    world.fakes.suite = suite
    world.fakes.conflicts = {uid("x"): [{"path": "x.json"}]}
    entity = queue(world, *(entry(name) for name in ("a", "b", "x")))
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: queue_shown(world).progress_done == 2 and not queue_shown(world).undelivered, "two verdicts")
    await slow.reached.wait()
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("c", hotpatch=True).model_dump())
    await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("a"))
    await world.until(lambda: queue_shown(world).progress_done == 3 and not queue_shown(world).undelivered, "two more")
    await world.do(entity, "remove", RemoveCommand, changeset_id=uid("b"))
    await world.until(lambda: queue_shown(world).sweep is None and not queue_shown(world).leaving, "the sweep has ended")
    await world.client.get_workflow_handle(options.revalidation_workflow(world.app_id, 1)).result()
    slow.reached.clear()
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("b", hotpatch=True).model_dump())
    await slow.reached.wait()
    await world.do(entity, "published", PublishedCommand, release_id=uid("next"), integration_sha=sha("main-3"))
    slow.free.set()
    await world.until(lambda: queue_shown(world).sweep is None and not queue_shown(world).undelivered, "the last head is judged")
    await world.client.get_workflow_handle(options.revalidation_workflow(world.app_id, 2)).result()
    return {
        "queue-sweep-changes": entity.workflow_id,
        "revalidation-changes": options.revalidation_workflow(world.app_id, 1),
        "revalidation-superseded": options.revalidation_workflow(world.app_id, 2),
    }


async def release_life(world: World) -> Recorded:
    """Select, assemble, publish."""
    entity = release(world)
    await world.do(entity, "select", SelectCommand, changeset_ids=[uid("a"), uid("b")])
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).state is ReleaseState.VALIDATED, "the result")
    await world.do(entity, "publish", PublishCommand)
    await world.client.get_workflow_handle(entity.workflow_id).result()
    return {"release-life": entity.workflow_id, "assemble-passes": options.job_workflow(world.id("job"))}


async def release_bisected(world: World) -> Recorded:
    """The suite fails from the second member on, which is put out of queue and release; then the release is dropped."""

    async def suite(run: GateRun) -> ReasonCode:
        return ReasonCode.TESTS_FAILED if run.gate.commit_sha in (sha("prefix-2"), sha("prefix-3")) else ReasonCode.OK

    world.fakes.suite = suite
    entity = release(world, ReleaseState.DRAFT_RELEASE, "a", "b", "c")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    await world.do(entity, "drop", DropCommand)
    await world.client.get_workflow_handle(entity.workflow_id).result()
    return {"release-bisected": entity.workflow_id, "assemble-bisects": options.job_workflow(world.id("job"))}


async def release_conflicts(world: World) -> Recorded:
    """A member does not merge: it is found out which exclude each other."""
    world.fakes.conflicts = {uid("b"): [{"path": "b.json"}]}
    entity = release(world, ReleaseState.DRAFT_RELEASE, "a", "b", "c")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    return {"assemble-conflicts": options.job_workflow(world.id("job"))}


async def release_in_doubt(world: World) -> Recorded:
    """The suite fails with the second of two profiles, and on the last prefix that passed when that is looked at again."""
    qa, live = gate_profile("QA"), gate_profile("Live")
    world.fakes.profiles = [qa, live]
    seen: list[str] = []

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.profile_id == live.profile_id:
            seen.append(run.gate.commit_sha)
            if run.gate.commit_sha == sha("prefix-3") or seen.count(sha("prefix-2")) == 2:
                return ReasonCode.TESTS_FAILED
        return ReasonCode.OK

    world.fakes.suite = suite
    entity = release(world, ReleaseState.DRAFT_RELEASE, "a", "b", "c")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    return {"assemble-in-doubt": options.job_workflow(world.id("job"))}


async def release_refused(world: World) -> Recorded:
    """A publish is refused because a profile changed, another because a member left; edits and a reorder lie between; then one
    goes through.
    """
    pinned = PinnedProfile(environment="Live", profile_id=uid("profile"), profile_revision_id=uid("profile-1"))
    entity = release(world, ReleaseState.VALIDATED, "a", pinned_profiles=[pinned])
    world.fakes.edited_profiles = [uid("profile")]
    await refused(world.send(entity, "publish", await world.command(PublishCommand)))
    selection = {"kind": "change", "add": [uid("b")]}
    await world.do(entity, "select", SelectCommand, selection=selection)
    order = {"kind": "reorder", "changeset_ids": [uid("b"), uid("a")]}
    await world.do(entity, "select", SelectCommand, changeset_ids=order["changeset_ids"], selection=order)
    left = [{"changeset_id": uid("b"), "state": "needs_revalidation", "release_id": world.id("release")}]
    answer = Answer(refusal={"code": "conflict", "message": "Choose from the queue.", "details": left})
    for number in (1, 2):
        await world.do(entity, "assemble", AssembleCommand, job_id=world.id(f"job {number}"))
        await world.until(lambda: release_shown(world).state is ReleaseState.VALIDATED, "the result")
        if number == 1:
            world.fakes.queue = lambda _call: answer
            await refused(world.send(entity, "publish", await world.command(PublishCommand)))
            world.fakes.queue = answer_queue
    await world.do(entity, "publish", PublishCommand)
    await world.client.get_workflow_handle(entity.workflow_id).result()
    return {"release-refused": entity.workflow_id}


async def release_overtaken(world: World) -> Recorded:
    """A validated release is told to look; it returns to draft, is assembled again, and published."""
    entity = release(world, ReleaseState.VALIDATED, "a")
    handle = await world.start(entity)
    world.fakes.head = sha("main-2")
    await handle.signal("look_again")
    await world.until(lambda: release_shown(world).state is ReleaseState.DRAFT_RELEASE, "the return")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).state is ReleaseState.VALIDATED, "the result")
    await world.do(entity, "publish", PublishCommand)
    await handle.result()
    return {"release-overtaken": entity.workflow_id}


async def release_with_profiles(world: World) -> Recorded:
    """Each suite runs with the profiles of two environments; the second member breaks one of them."""
    qa, live = gate_profile("QA"), gate_profile("Live")
    world.fakes.profiles = [qa, live]

    async def suite(run: GateRun) -> ReasonCode:
        broken = (run.gate.commit_sha, run.gate.profile_id) == (sha("prefix-2"), live.profile_id)
        return ReasonCode.TESTS_FAILED if broken else ReasonCode.OK

    world.fakes.suite = suite
    entity = release(world, ReleaseState.DRAFT_RELEASE, "a", "b")
    await world.do(entity, "assemble", AssembleCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).failure is not None, "the result")
    return {"assemble-with-profiles": options.job_workflow(world.id("job"))}


async def rollback_goes_on(world: World) -> Recorded:
    """A rollback whose release has to be assembled twice, since the integration branch moved; and the release itself."""
    ready = at("published", published_sha=sha("candidate"))
    world.fakes.undoing.states = [at("validated"), at("draft_release", failure="head_moved"), at("validated", job="two"), ready]
    rollback = world.commands.rollback_start(world.app_id, world.id("deployment"))
    await (await world.start(rollback)).result()
    entity = release(world, reverts_release_id=world.id("undone"), rollback_id=world.id("deployment"))
    await world.do(entity, "revert", RevertCommand, job_id=world.id("job"))
    await world.until(lambda: release_shown(world).state is ReleaseState.VALIDATED, "the result")
    await world.do(entity, "publish", PublishCommand)
    await world.client.get_workflow_handle(entity.workflow_id).result()
    job = options.job_workflow(world.id("job"))
    return {"rollback-goes-on": rollback.workflow_id, "release-reverts": entity.workflow_id, "assemble-reverts": job}


async def rollback_refused(world: World) -> Recorded:
    """A rollback whose release does not pass, and whose news the deployment gets."""
    world.fakes.undoing.states = [at("draft_release", failure="tests_failed"), at("dropped", failure="tests_failed")]
    rollback = world.commands.rollback_start(world.app_id, world.id("deployment"))
    await (await world.start(rollback)).result()
    return {"rollback-refused": rollback.workflow_id}


async def notify_sends(world: World) -> Recorded:
    """A notice with two mails."""
    world.fakes.mailroom.expects("one", "two")
    workflow_id = options.notify_workflow(world.id("notice"))
    await world.client.execute_workflow(
        "notify",
        NotifyStart(notice_id=world.id("notice")),
        id=workflow_id,
        task_queue=options.queue_name(options.Queue.MAIN),
    )
    return {"notify-sends": workflow_id}


async def notify_knows_its_mails(world: World) -> Recorded:
    """A notice that starts with its two mails."""
    world.fakes.mailroom.expects("one", "two")
    notice_id = world.id("known-notice")
    await world.commands.start_notice(notice_id, Wave(app_id=world.app_id, mail_ids=["one", "two"]))
    workflow_id = options.notify_workflow(notice_id)
    await world.client.get_workflow_handle(workflow_id).result()
    return {"notify-knows-its-mails": workflow_id}


async def webhook_rests(world: World) -> Recorded:
    """A webhook whose receiver takes nothing in the first round; one message waits for its own time."""
    world.fakes.hook.script = [Round(failed=1, wait_seconds=0), Round(taken=1, failed=1, wait_seconds=0.5), Round(taken=1)]
    workflow_id = options.webhook_workflow(world.app_id)
    await world.commands.start_webhook(world.app_id)
    await world.client.get_workflow_handle(workflow_id).result()
    return {"webhook-rests": workflow_id}


async def upkeep_round(world: World) -> Recorded:
    """One round of upkeep."""
    workflow_id = world.id("upkeep")
    await world.client.execute_workflow("upkeep", id=workflow_id, task_queue=options.queue_name(options.Queue.MAIN))
    return {"upkeep-round": workflow_id}


async def sealing_rounds(world: World) -> Recorded:
    """One round of sealing, and one in which no repository answers."""
    found: dict[str, str] = {}
    for name, away in (("audit-sealing", False), ("audit-sealing-without-git", True)):
        world.fakes.git_is_away = away
        found[name] = world.id(name)
        done = await world.client.execute_workflow(
            "audit_sealing", id=found[name], task_queue=options.queue_name(options.Queue.MAIN)
        )
        assert done == {"sealed": 5, "anchored": 0 if away else 1}
    return found


async def drift_checked(world: World) -> Recorded:
    """A check whose first look is lost, and one that is canceled while it looks."""
    found = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")

    def look(question: DriftQuestion) -> DriftReply:
        if question.attempt == 1:
            return DriftReply(checked_at=question.at, problem="away", reason_code=ReasonCode.INFRASTRUCTURE)
        return DriftReply(checked_at=question.at, report=[found])

    world.fakes.look = look
    recorded: Recorded = {}
    for name in ("drift-check-again", "drift-check-canceled"):
        start = DriftCheckStart(job_id=world.id(name), app_id=world.app_id, environment_id=world.id("qa"), environment="QA")
        if name == "drift-check-canceled":
            world.fakes.hold("check_drift")
        await world.commands.start_drift_check(start)
        recorded[name] = options.job_workflow(start.job_id)
        handle = world.client.get_workflow_handle(recorded[name])
        if name == "drift-check-canceled":
            await world.until(world.fakes.holds["check_drift"].reached.is_set, "the look")
            await handle.cancel()
        await handle.result()
    return recorded


async def drift_round(world: World) -> Recorded:
    """A round of two pages; what it heals it looks at again."""
    found = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")
    world.fakes.look = lambda question: DriftReply(checked_at=question.at, report=[found])
    pages = [["a", "b"], ["c"]]
    world.fakes.watch.pages = [
        [DriftPlace(app_id=world.app_id, environment_id=world.id(name)) for name in page] for page in pages
    ]
    world.fakes.watch.heals = lambda question: world.id("heal") if question.environment_id == world.id("c") else None
    handle = await world.client.start_workflow(
        "drift_round", DriftRound(), id=world.id("round"), task_queue=options.queue_name(options.Queue.MAIN)
    )
    await world.until(lambda: len(world.fakes.watch.healed) == 3, "the last healing")
    pausing = "drift-round-pauses"
    await _pauses(world, handle.id)
    return {pausing: handle.id}


async def _pauses(world: World, workflow_id: str) -> None:
    """Wait until the workflow's last event is a timer that has started."""
    handle = world.client.get_workflow_handle(workflow_id)
    async with asyncio.timeout(10):
        while True:
            events = (await handle.fetch_history()).events
            if events[-1].HasField("timer_started_event_attributes"):
                return
            await asyncio.sleep(0.05)


SCENARIOS: list[Scenario] = [
    changeset_life,
    changeset_repaired,
    changeset_superseded,
    changeset_reviewed,
    gate_lost,
    queue_life,
    queue_swept,
    release_life,
    release_bisected,
    release_refused,
    release_overtaken,
    release_conflicts,
    release_in_doubt,
    release_with_profiles,
    rollback_goes_on,
    rollback_refused,
    notify_sends,
    notify_knows_its_mails,
    webhook_rests,
    upkeep_round,
    sealing_rounds,
    drift_checked,
    drift_round,
    *QUEUES,
    *DEPLOYMENTS,
    *TEMP_ENVS,
]
ENCRYPTED: list[Scenario] = [changeset_life, gate_lost]
"""Recorded a second time with the codec on: their payloads hold its format to what it was."""
