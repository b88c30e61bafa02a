"""`notify:{id}`: one mail for each recipient, tried for a day, ended once (`durability.md` 21)."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from mail_fakes import Mailroom, hangs, not_taken
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from workflow_world import World

from conman.domain.mail import MailEnd, MailReason, MailState, Wave
from conman.domain.notification import NotifyStart
from conman.workflows import options
from conman.workflows.notify import NotifyWorkflow

SENT, FAILED, SKIPPED = MailState.SENT, MailState.FAILED, MailState.SKIPPED


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture
def mailroom(world: World) -> Mailroom:
    return world.fakes.mailroom


async def start(world: World) -> WorkflowHandle[NotifyWorkflow, dict[str, int]]:
    return await world.client.start_workflow(
        NotifyWorkflow.run,
        NotifyStart(notice_id=world.id("notice")),
        id=options.notify_workflow(world.id("notice")),
        task_queue=options.queue_name(options.Queue.MAIN),
    )


async def run(world: World) -> dict[str, int]:
    return await (await start(world)).result()


async def test_each_mail_of_a_notice_is_sent_once_and_the_notice_ends_after_them(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one", "two", "three")
    assert await run(world) == {"sent": 3}
    assert mailroom.attempts == {"one": 1, "two": 1, "three": 1}
    assert [end.canceled for end in mailroom.ended] == [False]


@pytest.mark.parametrize(("few", "looks"), [(True, 0), (False, 1)], ids=["few mails", "many mails"])
async def test_a_notice_ends_with_its_last_mail_or_where_it_has_many_with_a_last_look(
    world: World, mailroom: Mailroom, few: bool, looks: int
) -> None:
    mailroom.expects("one", "two")
    mailroom.few = few
    notice_id = world.id("notice")
    await world.commands.start_notice(notice_id, Wave(mail_ids=["one", "two"]))
    handle = world.client.get_workflow_handle(options.notify_workflow(notice_id))
    assert await handle.result() == {"sent": 2}
    assert (mailroom.looks, len(mailroom.ended)) == (looks, 1)


async def test_a_notice_that_starts_with_its_mails_is_found_by_its_app_and_actor_too(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one", "two")
    notice_id = world.id("notice")
    wave = Wave(app_id=world.app_id, actor_user_id=world.id("ada"), mail_ids=["one", "two"])
    await world.commands.start_notice(notice_id, wave)
    handle = world.client.get_workflow_handle(options.notify_workflow(notice_id))
    assert await handle.result() == {"sent": 2}
    assert mailroom.attempts == {"one": 1, "two": 1}
    found = (await handle.describe()).typed_search_attributes
    assert (found.get(options.APP_ID), found.get(options.ACTOR)) == (world.app_id, world.id("ada"))


async def test_mails_of_a_notice_do_not_wait_for_each_other(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one", "two")
    both = asyncio.Event()

    async def server(_mail: str, _attempt: int) -> MailEnd:
        if mailroom.under_way == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 15)
        return MailEnd(state=SENT)

    mailroom.server = server
    assert await run(world) == {"sent": 2}


async def test_a_notice_for_nobody_is_done(world: World, mailroom: Mailroom) -> None:
    assert await run(world) == {}
    assert len(mailroom.ended) == 1


async def test_a_mail_that_the_server_does_not_take_now_is_tried_again_until_it_does(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")

    async def server(_mail: str, attempt: int) -> MailEnd:
        if attempt < 5:
            raise not_taken()
        return MailEnd(state=SENT)

    mailroom.server = server
    assert await run(world) == {"sent": 1}
    assert mailroom.attempts["one"] == 5


async def test_a_mail_is_given_up_after_a_day_and_the_others_are_sent_all_the_same(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("bad", "good")

    async def server(mail: str, _attempt: int) -> MailEnd:
        if mail == "bad":
            raise not_taken()
        return MailEnd(state=SENT)

    mailroom.server = server
    began = await world.env.get_current_time()
    handle = await start(world)
    assert await handle.result() == {"failed": 1, "sent": 1}
    ended: datetime | None = (await handle.describe()).close_time
    assert ended is not None
    assert options.MAIL_PATIENCE * 0.9 <= ended - began <= options.MAIL_PATIENCE * 1.1
    assert mailroom.reasons["bad"] is MailReason.GAVE_UP
    # Five seconds, doubled up to a quarter of an hour, for a day: nobody is called more often than that.
    assert 90 <= mailroom.attempts["bad"] <= 110


@pytest.mark.parametrize(
    "end",
    [
        MailEnd(state=FAILED, reason=MailReason.REFUSED, code=550),
        MailEnd(state=SKIPPED, reason=MailReason.ACCOUNT_DISABLED),
        MailEnd(state=SKIPPED, reason=MailReason.TOKEN_EXPIRED),
    ],
    ids=["refused for good", "disabled account", "dead link"],
)
async def test_a_mail_that_ended_without_being_sent_is_not_tried_again(world: World, mailroom: Mailroom, end: MailEnd) -> None:
    mailroom.expects("one")

    async def server(_mail: str, _attempt: int) -> MailEnd:
        return end

    mailroom.server = server
    assert await run(world) == {end.state.value: 1}
    assert mailroom.attempts["one"] == 1


async def test_an_attempt_whose_worker_died_is_made_again(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")

    async def server(_mail: str, attempt: int) -> MailEnd:
        if attempt == 1:
            raise RuntimeError("the worker was stopped")
        return MailEnd(state=SENT)

    mailroom.server = server
    assert await run(world) == {"sent": 1}
    assert mailroom.attempts["one"] == 2


async def test_a_notice_with_more_mails_than_a_wave_goes_on_with_the_rest(world: World, mailroom: Mailroom) -> None:
    mailroom.expects(*(f"mail-{number}" for number in range(7)))
    mailroom.wave = 3
    assert await run(world) == {"sent": 7}
    assert mailroom.most_under_way <= 3
    assert set(mailroom.attempts.values()) == {1}


async def test_a_long_notice_continues_as_new_and_sends_nothing_twice(
    world: World, mailroom: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "CONTINUE_AFTER_EVENTS", 1)
    mailroom.expects("one", "two")
    mailroom.wave = 1
    handle = await start(world)
    assert await handle.result() == {"sent": 2}
    assert set(mailroom.attempts.values()) == {1}
    first = await world.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).fetch_history()
    assert first.events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


async def test_a_notice_that_is_delivered_late_is_waited_for(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")
    mailroom.there = False

    def look(number: int) -> None:
        mailroom.there = number >= 3

    mailroom.on_look = look
    assert await run(world) == {"sent": 1}
    assert mailroom.looks == 3


async def test_a_notice_that_never_appears_is_not_waited_for_ever(world: World, mailroom: Mailroom) -> None:
    mailroom.there = False
    assert await run(world) == {}
    assert mailroom.looks == 10


async def test_a_canceled_notice_sends_no_more_and_says_so(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("quick", "stuck")

    async def server(mail: str, attempt: int) -> MailEnd:
        return await hangs(mail, attempt) if mail == "stuck" else MailEnd(state=SENT)

    mailroom.server = server
    handle = await start(world)
    await world.until(lambda: mailroom.mails["quick"] is SENT and mailroom.attempts["stuck"] == 1, "one is sent, one hangs")
    await world.completed(handle, activities=2)  # the look and the first mail: a cancel would meet its end
    await handle.cancel()
    assert await handle.result() == {"sent": 1, "skipped": 1}
    assert mailroom.reasons["stuck"] is MailReason.CANCELED
    assert [end.canceled for end in mailroom.ended] == [True]
    assert mailroom.under_way == 0


async def test_a_notice_is_started_once_however_often_it_is_asked_for(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")
    notice_id = world.id("notice")
    await asyncio.gather(*(world.commands.start_notice(notice_id) for _ in range(5)))
    await world.client.get_workflow_handle(options.notify_workflow(notice_id)).result()
    with pytest.raises(WorkflowAlreadyStartedError):
        await world.commands.start_notice(notice_id)
    assert mailroom.attempts["one"] == 1


async def test_its_search_attributes_say_which_notice_app_and_actor_it_is_about(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")
    mailroom.app_id, mailroom.actor = world.app_id, world.id("ada")
    notice_id = world.id("notice")
    await world.commands.start_notice(notice_id)
    handle = world.client.get_workflow_handle(options.notify_workflow(notice_id))
    await handle.result()
    found = (await handle.describe()).typed_search_attributes
    shown = {key.name: found.get(key) for key in (options.ENTITY_TYPE, options.ENTITY_ID, options.APP_ID, options.ACTOR)}
    assert shown == {
        "ConmanEntityType": "notice",
        "ConmanEntityId": notice_id,
        "ConmanAppId": world.app_id,
        "ConmanActor": world.id("ada"),
    }


async def test_a_step_of_the_store_that_fails_is_repeated_until_it_works(world: World, mailroom: Mailroom) -> None:
    mailroom.expects("one")
    failures = iter([ApplicationError("the store is away"), ApplicationError("the store is away")])

    def look(_number: int) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    mailroom.on_look = look
    assert await run(world) == {"sent": 1}
