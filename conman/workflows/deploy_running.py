"""What a `running` deployment does: gate, migrations, switch, verify; and the way back when the environment does not work."""

from __future__ import annotations

from temporalio import workflow

from conman.workflows import options
from conman.workflows.deploy_gate import pass_gate
from conman.workflows.deploy_process import Process, Stop, failed
from conman.workflows.deploy_waiting import Ready

with workflow.unsafe.imports_passed_through():
    from conman.domain import deploy_moves as moves
    from conman.domain import deployment as rules
    from conman.domain.deploy_ending import Ending, Left
    from conman.domain.deploy_messages import (
        ClearedEdit,
        MigrateReply,
        MigrateRequest,
        PriorQuestion,
        PriorReply,
        RaiseFence,
    )
    from conman.domain.deployment import Move, Phase
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import SwitchReply, SwitchRequest
    from conman.domain.target import Health


async def carry_out(process: Process, ready: Ready) -> Ending:
    """Gate, migrations, switch, verify; raises `Stop` when one of them is the end."""
    request = process.switch_request(ready.facts, ready.profile_id, ready.profile_revision_id)
    if not rules.skips_gate(process.state):
        await pass_gate(process, ready.facts.published_sha, ready.facts.tag, ready.profile_id, ready.profile_revision_id)
        await _clear_edit(process)
        await _step(process, Phase.MIGRATE)
        await _migrate(process, request)
        await _step(process, Phase.SWITCH)
    left = Left(release_id=process.release_id, profile_revision_id=ready.profile_revision_id)
    try:
        switched = await process.effect("switch_environment", request, SwitchReply, f"put {request.tag} in place")
    except Stop as stop:
        raise Stop(stop.ending.model_copy(update={"left": Left()})) from stop
    left = left.model_copy(update={"folder": switched.folder})
    await _step(process, Phase.VERIFY)
    try:
        health = await process.effect("verify_environment", request, Health, "look whether the environment works")
    except Stop as stop:
        raise Stop(stop.ending.model_copy(update={"left": left})) from stop
    if health.healthy:
        return Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder=switched.folder)
    left = left.model_copy(update={"health": "unhealthy"})
    return await _unhealthy(process, ready, request, left, health)


async def _step(process: Process, phase: Phase) -> None:
    await process.apply(f"step:{phase.value}", lambda deployment: moves.decide_step(process.id, deployment, phase))


async def _clear_edit(process: Process) -> None:
    """The gate has passed with the emergency edit: it blocks no deployment any more (`spec.md` 12)."""
    state = process.state
    if state.cleared_revision_id is not None:
        edit = ClearedEdit(environment_id=state.environment_id, profile_revision_id=state.cleared_revision_id)
        await workflow.execute_activity("clear_edit", edit, **options.persist(summary="the emergency edit is cleared"))


async def _migrate(process: Process, coming: SwitchRequest) -> None:
    request = MigrateRequest(**coming.model_dump(), job_id=process.state.job_id)
    reply = await process.effect("run_migrations", request, MigrateReply, "run the migrations")
    if reply.failed is not None:
        # Its own verdict is not known to be about the release: what the command found is in its log.
        reason = ReasonCode.INFRASTRUCTURE if reply.infrastructure else ReasonCode.RUNNER_ERROR
        raise failed(f"The migration {reply.failed} did not succeed. {reply.message}".rstrip(), reason)


async def _unhealthy(process: Process, ready: Ready, request: SwitchRequest, left: Left, health: Health) -> Ending:
    """The environment does not work: with `auto_rollback` what was there before is put back, by this process."""
    state = process.state
    why = f"{request.tag} is in place, and unhealthy: {health.message}".rstrip(": ")
    ending = Ending(move=Move.FAIL, reason_code=ReasonCode.TESTS_FAILED, message=why, folder=left.folder, left=left)
    if not ready.facts.auto_rollback or rules.skips_gate(state):
        return ending
    prior = await workflow.execute_activity(
        "prior_deployment",
        PriorQuestion(app_id=process.app_id, environment_id=state.environment_id, deployment_id=process.id),
        result_type=PriorReply,
        **options.persist(),
    )
    same = (prior.release_id, prior.profile_revision_id) == (request.release_id, request.profile_revision_id)
    if prior.deployment_id is None or prior.release_id is None or same:
        return ending.model_copy(update={"message": f"{why}. Nothing else was there before that could be put back."})
    back = request.model_copy(
        update={
            "release_id": prior.release_id,
            "tag": prior.tag,
            "commit_sha": prior.published_sha,
            "profile_id": prior.profile_id,
            "profile_revision_id": prior.profile_revision_id,
        }
    )
    try:
        return await _put_back(process, back, ending, prior)
    except Stop as stop:
        message = f"{why}. {prior.tag} could not be put back: {stop.ending.message}"
        return ending.model_copy(update={"message": message, "left": Left()})


async def _put_back(process: Process, back: SwitchRequest, ending: Ending, prior: PriorReply) -> Ending:
    raised = RaiseFence(app_id=process.app_id, environment_id=back.environment_id, deployment_id=process.id, fence=back.fence)
    fence = await workflow.execute_activity("raise_fence", raised, result_type=int, **options.persist())
    await process.apply("back", lambda deployment: moves.decide_putting_back(deployment, fence, ending.message))
    back = back.model_copy(update={"fence": fence})
    switched = await process.effect("switch_environment", back, SwitchReply, f"put {back.tag} back")
    await _step(process, Phase.VERIFY)
    health = await process.effect("verify_environment", back, Health, "look whether the environment works again")
    again = f"{back.tag} was put back" + ("" if health.healthy else f", and is unhealthy too: {health.message}")
    left = Left(
        release_id=back.release_id,
        profile_revision_id=back.profile_revision_id,
        folder=switched.folder,
        health="healthy" if health.healthy else "unhealthy",
        restored=prior.deployment_id,
        marks_bad=prior.release_id != process.release_id,
    )
    return ending.model_copy(update={"message": f"{ending.message}. {again}.", "folder": switched.folder, "left": left})
