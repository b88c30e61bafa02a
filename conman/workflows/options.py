"""Names of queues, workflows and activities, and every timeout and retry policy: none stands inline."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from temporalio.common import (
    RetryPolicy,
    SearchAttributeKey,
    SearchAttributePair,
    SearchAttributeUpdate,
    TypedSearchAttributes,
)
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from conman.domain.app import LONGEST_SUITE_SECONDS
from conman.domain.jobs import JobType, timeout_seconds


class Queue(StrEnum):
    """Task queues, each scaled by itself; the configured prefix stands for `conman`."""

    MAIN = "conman"
    GIT = "conman-git"
    MSUITE = "conman-msuite"
    CALLS = "conman-calls"
    """Activities that call updates of other workflows wait here, apart from the store's (`durability.md` 14)."""
    MAIL = "conman-mail"
    """Mails leave from here: a server that hangs must hold up nothing else."""
    WEBHOOKS = "conman-webhooks"
    """The same for webhooks, whose receivers are anybody's."""


_prefix = "conman"


def set_queue_prefix(prefix: str) -> None:
    """Use other task queues than `conman…`; once, as the process starts."""
    global _prefix
    _prefix = prefix


def queue_name(queue: Queue) -> str:
    """The task queue's name on the server."""
    return _prefix + queue.value.removeprefix("conman")


WORKFLOW_TASK_TIMEOUT = timedelta(seconds=5)
STICKY_TIMEOUT = timedelta(seconds=1.5)
PERSIST_TIMEOUT = timedelta(seconds=3)
"""These three bound what a killed worker costs a waiting caller (`durability.md` 8)."""

_FOREVER = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10))
"""Writes that must land: no attempt limit, no schedule-to-close (`durability.md` 5)."""

_MAIL = RetryPolicy(initial_interval=timedelta(seconds=5), backoff_coefficient=2, maximum_interval=timedelta(minutes=15))
MAIL_PATIENCE = timedelta(hours=24)
"""How long a mail that a server does not take is tried again: long enough to mend the server or the settings."""
MAIL_ATTEMPT = timedelta(minutes=10)
"""Longer than a conversation in which each step takes as long as it may; a lost worker shows by its heartbeats."""

_WEBHOOK = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
"""For what fails here, such as the store; a receiver that takes nothing is tried again by the delivery's own times."""
WEBHOOK_ROUND = timedelta(minutes=5)

_ONCE = RetryPolicy(maximum_attempts=1)
"""Gates are run again by the job's own rule, not by Temporal (`spec.md` 9)."""

HEARTBEAT = timedelta(seconds=4)
"""How long an attempt may be silent before another one takes its place: with the sticky queues' 1.5 s it bounds what a killed
worker costs a command that does more than persist (the server adds up to 1.5 s before it notices)."""
GATE_HEARTBEAT = timedelta(seconds=8)
"""For gates: a lost one costs a whole attempt of the suite, so a worker under load gets more time."""
HEARTBEAT_THROTTLE = timedelta(seconds=1)
GATE_MARGIN = timedelta(seconds=120)
"""What a gate's activity may take beside the suite: checkout, and the end of its process group."""


def persist(*, summary: str | None = None) -> ActivityConfig:
    """A guarded write or a read of the store."""
    return ActivityConfig(
        summary=summary, task_queue=queue_name(Queue.MAIN), start_to_close_timeout=PERSIST_TIMEOUT, retry_policy=_FOREVER
    )


def bulk(*, summary: str | None = None) -> ActivityConfig:
    """Store work over many documents; it heartbeats."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.MAIN),
        start_to_close_timeout=timedelta(seconds=30),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_FOREVER,
    )


def git(*, summary: str | None = None) -> ActivityConfig:
    """Git work in proportion to a release or a queue; it heartbeats."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_FOREVER,
    )


def anchor(*, summary: str | None = None) -> ActivityConfig:
    """Commits of the audit's heads; given up soon, since the sealing of events must not wait for a repository."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        schedule_to_close_timeout=timedelta(seconds=20),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_ONCE,
    )


def trials(*, summary: str | None = None) -> ActivityConfig:
    """Trial merges for an answer that may be missing: tried twice again, then given up; it heartbeats."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timedelta(minutes=5),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=3),
    )


def effect(*, summary: str | None = None) -> ActivityConfig:
    """A visible effect on an environment: repeatable under its fence, given up after ten attempts."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timedelta(minutes=15),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10), maximum_attempts=10
        ),
    )


def call(*, summary: str | None = None) -> ActivityConfig:
    """An update of another workflow, repeated until it is answered."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.CALLS),
        start_to_close_timeout=timedelta(minutes=2),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_FOREVER,
    )


def await_job(*, summary: str | None = None) -> ActivityConfig:
    """Waiting for a gate that an earlier run of this workflow started."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.CALLS),
        start_to_close_timeout=timedelta(hours=24),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_FOREVER,
    )


def mail(*, summary: str | None = None) -> ActivityConfig:
    """The attempts at one mail; a cancel is waited for, so that its row tells the truth."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.MAIL),
        schedule_to_close_timeout=MAIL_PATIENCE,
        start_to_close_timeout=MAIL_ATTEMPT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_MAIL,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def webhook(*, summary: str | None = None) -> ActivityConfig:
    """A round of an app's deliveries, which ends by itself within two minutes; a cancel is waited for, as of a mail."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.WEBHOOKS),
        start_to_close_timeout=WEBHOOK_ROUND,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=_WEBHOOK,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def gate(*, summary: str | None = None) -> ActivityConfig:
    """One attempt at a suite; a cancel is waited for, so that nothing runs on unseen (`durability.md` 16).

    The activity itself holds the suite to its app's timeout; a lost worker shows by its heartbeats.
    """
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.MSUITE),
        start_to_close_timeout=timedelta(seconds=LONGEST_SUITE_SECONDS) + GATE_MARGIN,
        heartbeat_timeout=GATE_HEARTBEAT,
        retry_policy=_ONCE,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def drift_check(*, summary: str | None = None, attempts: int = 1) -> ActivityConfig:
    """One look at an environment, run again by the job's own rule; a cancel is waited for, so that no program runs on unseen.

    `attempts`: how often a look is made whose worker was lost, where no job counts them.
    """
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timedelta(seconds=timeout_seconds(JobType.RUNTIME_PROFILE_DRIFT_CHECK)),
        heartbeat_timeout=GATE_HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=attempts),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def provision(timeout: timedelta, *, summary: str | None = None) -> ActivityConfig:
    """A step of provisioning, which may take so long once a worker has it; run again by the job's own rule.

    A cancel is waited for, so that nothing is made any more when the clean-up begins (`durability.md` 16).
    """
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timeout,
        heartbeat_timeout=GATE_HEARTBEAT,
        retry_policy=_ONCE,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def clean_up(*, summary: str | None = None) -> ActivityConfig:
    """One attempt at removing what a temp env left, run again by the job's own rule."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.GIT),
        start_to_close_timeout=timedelta(seconds=timeout_seconds(JobType.TEMP_ENV_EXPIRE)),
        heartbeat_timeout=GATE_HEARTBEAT,
        retry_policy=_ONCE,
    )


def heal(*, summary: str | None = None) -> ActivityConfig:
    """The start of a healing; what does not start now may at the next round."""
    return ActivityConfig(
        summary=summary,
        task_queue=queue_name(Queue.CALLS),
        start_to_close_timeout=timedelta(minutes=1),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3),
    )


CONTINUE_AFTER_CHANGES = 1500
"""Writes after which a long-lived workflow continues as new even where the server does not suggest it (`durability.md` 12)."""
CONTINUE_AFTER_EVENTS = 8000

APP_ID = SearchAttributeKey.for_keyword("ConmanAppId")
ENTITY_TYPE = SearchAttributeKey.for_keyword("ConmanEntityType")
ENTITY_ID = SearchAttributeKey.for_keyword("ConmanEntityId")
STATE = SearchAttributeKey.for_keyword("ConmanState")
ACTOR = SearchAttributeKey.for_keyword("ConmanActor")
SEARCH_ATTRIBUTES = (APP_ID, ENTITY_TYPE, ENTITY_ID, STATE, ACTOR)


def changeset_workflow(changeset_id: str) -> str:
    """Workflow id of a changeset."""
    return f"changeset:{changeset_id}"


def queue_workflow(app_id: str) -> str:
    """Workflow id of an app's queue."""
    return f"queue:{app_id}"


def revalidation_workflow(app_id: str, epoch: int) -> str:
    """Workflow id of one sweep."""
    return f"revalidation:{app_id}:{epoch}"


def release_workflow(release_id: str) -> str:
    """Workflow id of a release."""
    return f"release:{release_id}"


def deployment_workflow(deployment_id: str) -> str:
    """Workflow id of a deployment."""
    return f"deployment:{deployment_id}"


def rollback_workflow(deployment_id: str) -> str:
    """Workflow id of what makes the release for a deployment that undoes another release."""
    return f"rollback:{deployment_id}"


def job_workflow(job_id: str) -> str:
    """Workflow id of a gate or an assembly."""
    return f"job:{job_id}"


def temp_env_workflow(temp_env_id: str) -> str:
    """Workflow id of a temp env."""
    return f"temp-env:{temp_env_id}"


def notify_workflow(notice_id: str) -> str:
    """Workflow id of a notice: the id of its outgoing entry (`durability.md` 21)."""
    return f"notify:{notice_id}"


def webhook_workflow(app_id: str) -> str:
    """Workflow id of what tells an app's webhook."""
    return f"webhook:{app_id}"


def notice_search_attributes(notice_id: str, app_id: str | None = None, actor: str | None = None) -> TypedSearchAttributes:
    """What the workflow of a notice starts with; app and actor follow once it has read the notice, unless who starts it has."""
    found = ((ENTITY_TYPE, "notice"), (ENTITY_ID, notice_id), (APP_ID, app_id), (ACTOR, actor))
    return TypedSearchAttributes([SearchAttributePair(key, value) for key, value in found if value is not None])


def notice_is_of(app_id: str | None, actor: str | None) -> list[SearchAttributeUpdate[str]]:
    """Which app and whose doing a notice is about, where there are any."""
    found = ((APP_ID, app_id), (ACTOR, actor))
    return [key.value_set(value) for key, value in found if value is not None]


def search_attributes(app_id: str, entity_type: str, entity_id: str, actor: str | None = None) -> TypedSearchAttributes:
    """The search attributes that a workflow starts with; its state follows with each change."""
    pairs = [
        SearchAttributePair(APP_ID, app_id),
        SearchAttributePair(ENTITY_TYPE, entity_type),
        SearchAttributePair(ENTITY_ID, entity_id),
    ]
    if actor is not None:
        pairs.append(SearchAttributePair(ACTOR, actor))
    return TypedSearchAttributes(pairs)
