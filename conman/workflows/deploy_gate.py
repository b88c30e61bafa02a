"""The deploy gate of a deployment."""

from __future__ import annotations

from temporalio import workflow

from conman.workflows.deploy_process import Process, canceled, failed

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Actor, Decision
    from conman.domain.jobs import JobType, ReasonCode
    from conman.domain.messages import GateStart


async def pass_gate(process: Process, commit_sha: str, tag: str, profile_id: str, profile_revision_id: str | None) -> None:
    """Run it on the release's commit with the profile that goes out; raises `Stop` unless it passes."""
    gate_job_id = process.state.gate_job_id or ""
    verdict = await process.suite(
        GateStart(
            job_id=gate_job_id,
            app_id=process.app_id,
            job_type=JobType.MSUITE_DEPLOY,
            entity_type="deployment",
            entity_id=process.id,
            commit_sha=commit_sha,
            scope="deploy",
            profile_id=profile_id,
            profile_revision_id=profile_revision_id,
            tag=tag,
            what=f"{tag} before it is deployed",
        )
    )
    await process.entity.apply(
        f"gate:{gate_job_id}",
        Actor(),
        lambda deployment: Decision(
            deployment.model_copy(update={"message": f"gate: {verdict.reason_code.value}"}), job_ends=(verdict.end(),)
        ),
    )
    process.check_end()
    if verdict.reason_code is ReasonCode.CANCELED:
        raise canceled("The deploy gate was canceled.")
    if verdict.reason_code is not ReasonCode.OK:
        message = f"The deploy gate ended with {verdict.reason_code.value}; see job {gate_job_id}."
        raise failed(message, verdict.reason_code)
