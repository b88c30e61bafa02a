"""What Temporal starts by the clock: schedules are created or renewed when a worker starts (`durability.md` 25)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.deploy_messages import DriftRound
from conman.workflows import options
from conman.workflows.drift_check import DRIFT_ROUND_ID
from conman.workflows.options import Queue
from conman.workflows.temp_orphans import TEMP_ORPHANS_ID


async def keep_schedule(client: Client, action: ScheduleActionStartWorkflow, every: timedelta, *, at_once: bool) -> None:
    """Create or renew the schedule that has its workflow's id; one round at a time, and one that was missed is not caught up.

    It is written anew at each start, so that its payloads are under the keys of today (`durability.md` 24, 25). `at_once`: a new
    one starts its workflow now.
    """
    schedule = Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=every),
    )
    try:
        await client.create_schedule(action.id, schedule, trigger_immediately=at_once)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(action.id).update(
            # An operator may have paused it.
            lambda there: ScheduleUpdate(replace(schedule, state=there.description.schedule.state))
        )


async def drop_schedule(client: Client, schedule_id: str) -> None:
    """Take a schedule away; one that is not there is gone."""
    try:
        await client.get_schedule_handle(schedule_id).delete()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def ensure_temp_orphans(client: Client, minutes: int) -> None:
    """Look for what temp envs have left every so many minutes; 0 takes the schedule away."""
    if minutes == 0:
        await drop_schedule(client, TEMP_ORPHANS_ID)
        return
    action = ScheduleActionStartWorkflow(
        "temp-orphans",
        id=TEMP_ORPHANS_ID,
        task_queue=options.queue_name(Queue.MAIN),
        static_summary="look for what temp envs have left behind or lost",
    )
    await keep_schedule(client, action, timedelta(minutes=minutes), at_once=False)


async def ensure_drift_round(client: Client, minutes: int) -> None:
    """Look through all environments every so many minutes; 0 takes the schedule away."""
    if minutes == 0:
        await drop_schedule(client, DRIFT_ROUND_ID)
        return
    action = ScheduleActionStartWorkflow(
        "drift_round",
        DriftRound(),
        id=DRIFT_ROUND_ID,
        task_queue=options.queue_name(Queue.MAIN),
        static_summary="look for drift in all environments",
    )
    await keep_schedule(client, action, timedelta(minutes=minutes), at_once=False)
