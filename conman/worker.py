"""The worker process: task queues, graceful drain, and the sign of life that health looks for."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from pymongo.errors import PyMongoError
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, ScheduleActionStartWorkflow
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from conman import __version__
from conman.activities.calls import CallActivities
from conman.activities.composing import ComposeActivities
from conman.activities.deploying import DeployingActivities
from conman.activities.deployments import DeploymentActivities
from conman.activities.drift import DriftActivities, DriftRecordActivities
from conman.activities.gates import GateActivities
from conman.activities.git import GitActivities
from conman.activities.heals import HealActivities
from conman.activities.mail import MailActivities, NoticeActivities
from conman.activities.migrations import MigrationActivities
from conman.activities.publishing import PublishActivities
from conman.activities.reconcile import ReconcileActivities
from conman.activities.rollback import RollbackActivities
from conman.activities.sealing import SealingActivities
from conman.activities.store import StoreActivities
from conman.activities.targets import TargetActivities
from conman.activities.temp_envs import TempEnvActivities, TempEnvRecordActivities
from conman.activities.webhooks import WebhookActivities
from conman.config import Settings
from conman.services.clock import now
from conman.services.master_keys import check_master_keys
from conman.services.notices import NoticeStarter
from conman.services.platform import Platform, make_platform
from conman.services.schedules import ensure_drift_round, ensure_temp_orphans, keep_schedule
from conman.services.sending import Sending, make_transport
from conman.services.temp_orphans import forget_dumps
from conman.services.webhook_http import Poster
from conman.services.webhook_sending import WebhookSending
from conman.store.database import ensure_indexes
from conman.targets.registry import Targets
from conman.workflows import options
from conman.workflows.assemble import AssembleWorkflow
from conman.workflows.changeset import ChangesetWorkflow
from conman.workflows.deployment import DeploymentWorkflow
from conman.workflows.drift_check import DriftCheckWorkflow, DriftRoundWorkflow
from conman.workflows.gate import GateWorkflow
from conman.workflows.notify import NotifyWorkflow
from conman.workflows.options import Queue
from conman.workflows.queue import QueueWorkflow
from conman.workflows.release import ReleaseWorkflow
from conman.workflows.revalidation import RevalidationWorkflow
from conman.workflows.rollback import RollbackWorkflow
from conman.workflows.sealing import SEALING_ID, AuditSealingWorkflow
from conman.workflows.temp_env import TempEnvWorkflow
from conman.workflows.temp_orphans import TempOrphansWorkflow
from conman.workflows.upkeep import UPKEEP_ID, UpkeepWorkflow
from conman.workflows.webhook import WebhookWorkflow

log = structlog.get_logger(__name__)

WORKFLOWS = [
    ChangesetWorkflow,
    QueueWorkflow,
    RevalidationWorkflow,
    ReleaseWorkflow,
    AssembleWorkflow,
    GateWorkflow,
    DeploymentWorkflow,
    RollbackWorkflow,
    DriftCheckWorkflow,
    DriftRoundWorkflow,
    NotifyWorkflow,
    TempEnvWorkflow,
    TempOrphansWorkflow,
    UpkeepWorkflow,
    AuditSealingWorkflow,
    WebhookWorkflow,
]
SIGN_OF_LIFE_SECONDS = 5.0
TIDY_SECONDS = 15.0
"""How soon the scratch of a worker that died is looked for again: a rendered profile may lie there."""
UPKEEP_EVERY = timedelta(minutes=1)
SEAL_EVERY = timedelta(seconds=30)
"""Events have their seals within a minute (`api.md` 4)."""


def sandbox() -> SandboxedWorkflowRunner:
    """The sandbox that tests and replays run workflows in: it refuses what is not deterministic.

    The pure domain and the models pass through it, since they are deterministic and slow to import twice. The options do too:
    inside a copy of them, workflows would not see the configured prefix of the task queues.
    """
    modules = ("conman.domain", "conman.workflows.options", "pydantic", "pydantic_core")
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*modules))


def no_sandbox() -> UnsandboxedWorkflowRunner:
    """How a worker runs workflows, which have been held to `sandbox` by tests and replays: at a quarter less computing.

    docs/adr/0025-two-sandboxes-for-workflows.md
    """
    return UnsandboxedWorkflowRunner()


def make_workers(platform: Platform, queues: set[Queue]) -> list[Worker]:
    """One Temporal worker per task queue."""
    settings, client = platform.settings, platform.commands.client
    starter = NoticeStarter(platform.commands, platform.db)
    store = StoreActivities(
        platform.db, settings.job_log_days, starter, settings.feed_hours, mail_keep_days=settings.mail_keep_days
    )
    drain = timedelta(seconds=settings.worker_drain_seconds)

    def worker(queue: Queue, activities: list[Any], at_once: int, **more: Any) -> Worker:
        return Worker(
            client,
            task_queue=options.queue_name(queue),
            activities=activities,
            graceful_shutdown_timeout=drain,
            max_concurrent_activities=at_once,
            # Else the SDK reads and compiles every module there is for one: a second and a half of each start.
            build_id=f"conman-{__version__}",
            max_heartbeat_throttle_interval=options.HEARTBEAT_THROTTLE,
            default_heartbeat_throttle_interval=options.HEARTBEAT_THROTTLE,
            **more,
        )

    rollback = RollbackActivities(platform.db, platform.git, platform.vault, platform.commands)
    sealing = SealingActivities(platform.db, platform.git)
    made: list[Worker] = []
    if Queue.MAIN in queues:
        made.append(
            worker(
                Queue.MAIN,
                [
                    *store.all(),
                    *DeployingActivities(platform.db).all(),
                    *rollback.on_main(),
                    *DeploymentActivities(platform.db).all(),
                    *DriftRecordActivities(platform.db).all(),
                    *sealing.on_main(),
                    *NoticeActivities(platform.db).all(),
                    *TempEnvRecordActivities(platform.db).all(),
                ],
                100,
                workflows=WORKFLOWS,
                workflow_runner=no_sandbox(),
                sticky_queue_schedule_to_start_timeout=options.STICKY_TIMEOUT,
            )
        )
    if Queue.GIT in queues:
        git = GitActivities(platform.db, platform.git)
        composing = ComposeActivities(platform.db, platform.git)
        publishing = PublishActivities(platform.db, platform.git)
        targets = TargetActivities(settings, platform.db, platform.git, platform.vault)
        migrations = MigrationActivities(settings, platform.db, platform.git, platform.vault)
        drift = DriftActivities(platform.db, platform.vault, Targets(settings, platform.db, platform.git, platform.vault).observe)
        on_git = [*git.all(), *composing.all(), *publishing.all(), *targets.all(), *rollback.on_git(), *sealing.on_git()]
        temp_envs = TempEnvActivities(settings, platform.db, platform.git, platform.vault)
        made.append(worker(Queue.GIT, [*on_git, *migrations.all(), *drift.all(), *temp_envs.all()], 20))
    if Queue.MSUITE in queues:
        gates = GateActivities(settings, platform.db, platform.git, platform.vault)
        made.append(worker(Queue.MSUITE, gates.all(), settings.gate_concurrency))
    if Queue.MAIL in queues:
        sending = Sending(settings, platform.db, make_transport(settings))
        made.append(worker(Queue.MAIL, MailActivities(sending).all(), settings.mail_concurrency))
    if Queue.WEBHOOKS in queues:
        webhooks = WebhookSending(settings, platform, Poster(settings))
        made.append(worker(Queue.WEBHOOKS, WebhookActivities(webhooks).all(), settings.webhook_concurrency))
    if Queue.CALLS in queues:
        reconcile = ReconcileActivities(platform.db, platform.commands, platform, platform.git)
        heals = HealActivities(platform.db, platform.commands, settings.heal_limits)
        calls = CallActivities(client, platform.db)
        made.append(worker(Queue.CALLS, [*calls.all(), *rollback.on_calls(), *reconcile.all(), *heals.all()], 200))
    return made


async def register_search_attributes(client: Client) -> None:
    """Make the typed search attributes known to the namespace; the ones that are there stay."""
    wanted = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in options.SEARCH_ATTRIBUTES}
    service = client.operator_service
    there = await service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    missing = {name: kind for name, kind in wanted.items() if name not in there.custom_attributes}
    if not missing:
        return
    try:
        await service.add_search_attributes(AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing))
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


async def ensure_upkeep(client: Client) -> None:
    """Create or renew the schedule that delivers what crashes left behind and starts workflows that are missing."""
    action = ScheduleActionStartWorkflow(
        "upkeep",
        id=UPKEEP_ID,
        task_queue=options.queue_name(Queue.MAIN),
        static_summary="deliver what crashes left, start what is missing",
    )
    await keep_schedule(client, action, UPKEEP_EVERY, at_once=True)


async def ensure_sealing(client: Client) -> None:
    """Create or renew the schedule that seals the audit."""
    action = ScheduleActionStartWorkflow(
        "audit_sealing", id=SEALING_ID, task_queue=options.queue_name(Queue.MAIN), static_summary="seal the audit"
    )
    await keep_schedule(client, action, SEAL_EVERY, at_once=False)


async def _signs_of_life(platform: Platform, identity: str, queues: list[str]) -> None:
    while True:
        try:
            await platform.db["workers"].update_one(
                {"_id": identity}, {"$set": {"seen_at": now(), "queues": queues}}, upsert=True
            )
        except PyMongoError as error:
            log.warning("sign_of_life_failed", error=str(error)[:200])
        await asyncio.sleep(SIGN_OF_LIFE_SECONDS)


async def _tidying(gates: GateActivities, platform: Platform) -> None:
    """What dead workers left here goes soon after their jobs have ended, and not only when a worker starts."""
    while True:
        try:
            await gates.clear_left_behind()
            await forget_dumps(platform.db, platform.settings)
        except (PyMongoError, OSError) as error:
            log.warning("scratch_not_cleared", error=str(error)[:200])
        await asyncio.sleep(TIDY_SECONDS)


def say_what_mails_lack(settings: Settings, queues: set[Queue]) -> None:
    """One line when this worker is to send mails and can't make the links of some."""
    if settings.secret is None and Queue.MAIL in queues:
        log.warning("no_secret", problem="CONMAN_SECRET is missing: invites and password resets wait until a worker has it")


async def run_worker(settings: Settings, queues: set[Queue] | None = None) -> None:
    """Run until SIGTERM or SIGINT, then let running activities finish for `worker_drain_seconds`."""
    chosen = queues or set(Queue)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    platform = await make_platform(settings)
    try:
        await check_master_keys(platform)
        say_what_mails_lack(settings, chosen)
        await ensure_indexes(platform.db)
        await register_search_attributes(platform.commands.client)
        await ensure_upkeep(platform.commands.client)
        await ensure_sealing(platform.commands.client)
        await ensure_drift_round(platform.commands.client, settings.drift_check_minutes)
        await ensure_temp_orphans(platform.commands.client, settings.temp_orphan_minutes)
        identity = f"{os.getpid()}@{socket.gethostname()}"
        names = sorted(options.queue_name(queue) for queue in chosen)
        scratch = GateActivities(settings, platform.db, platform.git, platform.vault)
        async with AsyncExitStack() as stack:
            workers = make_workers(platform, chosen)
            for worker in workers:
                await stack.enter_async_context(worker)
            life = asyncio.create_task(_signs_of_life(platform, identity, names))
            tidying = asyncio.create_task(_tidying(scratch, platform)) if chosen & {Queue.MSUITE, Queue.GIT} else None
            log.info("worker_ready", queues=names, identity=identity)
            await stop.wait()
            log.info("worker_draining", seconds=settings.worker_drain_seconds)
            life.cancel()
            if tidying is not None:
                tidying.cancel()
            await platform.db["workers"].delete_one({"_id": identity})
            # Together, so that the drain is waited for once; the workflows' worker last, where what they finish goes on.
            await asyncio.gather(*(worker.shutdown() for worker in workers[Queue.MAIN in chosen :]))
        log.info("worker_stopped")
    finally:
        await platform.close()
