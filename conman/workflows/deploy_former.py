"""The steps of deployments that began before drift, migrations and health were part of them.

Their histories are under way, or kept: they replay as they were (`durability.md` 22). A deployment that begins now never comes
here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from conman.workflows import options
from conman.workflows.deploy_gate import pass_gate
from conman.workflows.deploy_process import EXPIRED, Process, Stop, failed
from conman.workflows.entity import now

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Actor, Decision
    from conman.domain.deploy_ending import Ending
    from conman.domain.deploy_moves import decide_start
    from conman.domain.deployment import Move, Phase
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import (
        DeployFacts,
        DeployQuestion,
        ProfileQuestion,
        ProfileReply,
        StartDeployment,
        SwitchReply,
    )
    from conman.domain.target import Health
    from conman.domain.times import milliseconds, parse_time

BRINGS_OVERRIDES = "brings-overrides"
"""Patch id: a deployment goes out with a revision that has the overrides which its release brings."""


async def deploy(process: Process) -> Ending:
    """Approvals, gate, switch, verify."""
    await _approvals(process)
    facts = await _start(process, await _facts(process))
    await pass_gate(process, facts.published_sha, facts.tag, facts.profile_id, facts.profile_revision_id)
    request = process.switch_request(facts, facts.profile_id, process.state.profile_revision_id)
    await _phase(process, Phase.SWITCH)
    switched = await process.effect("switch_environment", request, SwitchReply, f"put {facts.tag} in place")
    await _phase(process, Phase.VERIFY)
    looked = await process.effect("verify_environment", request, dict[str, Any], "look whether the environment shows it")
    # The look answered with the folder once, and raised what was wrong.
    health = Health.model_validate({"healthy": True, **looked})
    if not health.healthy:
        raise failed(health.message, ReasonCode.TESTS_FAILED)
    return Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder=switched.folder)


async def _phase(process: Process, phase: Phase) -> None:
    await process.entity.apply(
        f"phase:{phase.value}", Actor(), lambda deployment: Decision(deployment.model_copy(update={"phase": phase}))
    )


async def _approvals(process: Process) -> None:
    state = process.state
    if not state.approvals_required:
        process.check_end()
        return
    await _phase(process, Phase.APPROVALS)
    expires = parse_time(state.approvals_expire_at or state.requested_at)
    wanted = state.approvals_required
    while True:
        left = expires - workflow.now()
        try:
            await workflow.wait_condition(
                lambda wanted=wanted: process.must_end or process.entity.gone or len(process.state.approvals) >= wanted,
                timeout=max(left, timedelta(0)),
                timeout_summary="approvals expire",
            )
        except TimeoutError:
            raise Stop(EXPIRED) from None
        process.check_end()
        counted = len(process.state.approvals)
        if len((await _facts(process)).eligible_approvers) >= state.approvals_required:
            return
        wanted = counted + 1


async def _facts(process: Process) -> DeployFacts:
    state = process.state
    return await workflow.execute_activity(
        "deploy_facts",
        DeployQuestion(
            app_id=process.app_id,
            environment_id=state.environment_id,
            release_id=process.release_id,
            deployment_id=process.id,
            approver_ids=[approval.user_id for approval in state.approvals],
        ),
        result_type=DeployFacts,
        **options.persist(),
    )


async def _start(process: Process, facts: DeployFacts) -> DeployFacts:
    state = process.state
    held = await workflow.execute_activity(
        "lock_running",
        StartDeployment(app_id=process.app_id, environment_id=state.environment_id, deployment_id=process.id),
        result_type=bool,
        **options.persist(),
    )
    if not held:
        raise failed("The environment's lock was lost.")
    if workflow.patched(BRINGS_OVERRIDES):
        facts = await _with_overrides(process, facts)
    gate_job_id = derived_uuid7(milliseconds(now()), "deploy-gate", process.id)
    await process.entity.apply(
        f"start:{process.id}",
        Actor(),
        lambda deployment: decide_start(
            process.id, deployment, gate_job_id=gate_job_id, profile_revision_id=facts.profile_revision_id
        ),
    )
    return facts


async def _with_overrides(process: Process, facts: DeployFacts) -> DeployFacts:
    state = process.state
    question = ProfileQuestion(
        app_id=process.app_id,
        environment_id=state.environment_id,
        release_id=process.release_id,
        deployment_id=process.id,
        requested_by=state.requested_by,
        at=now(),
    )
    found = await workflow.execute_activity("prepare_profile", question, result_type=ProfileReply, **options.persist())
    if found.problem is not None:
        raise failed(found.problem, ReasonCode.RUNNER_ERROR)
    return facts.model_copy(update={"profile_id": found.profile_id, "profile_revision_id": found.profile_revision_id})
