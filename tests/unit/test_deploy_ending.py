"""The end of a deployment whose process was lost (`durability.md` 20)."""

from __future__ import annotations

import pytest

from conman.domain.deploy_ending import Ending, decide_end
from conman.domain.deployment import Deployment, DeploymentState, Kind, Move, Phase
from conman.domain.jobs import JobState, ReasonCode

LOST = Ending(move=Move.FAIL, reason_code=ReasonCode.INFRASTRUCTURE, message="lost")


def running(phase: Phase) -> Deployment:
    return Deployment(
        app_id="app",
        environment_id="environment",
        release_id="release",
        kind=Kind.DEPLOY,
        state=DeploymentState.RUNNING,
        phase=phase,
        requested_at="2026-01-31T09:30:00.000Z",
        job_id="job",
        gate_job_id="gate job",
        fence=1,
    )


def test_a_deployment_that_is_lost_in_its_gate_ends_the_job_of_the_gate_too() -> None:
    ends = decide_end("deployment", running(Phase.GATE), LOST).job_ends
    assert [(end.id, end.state, end.reason_code) for end in ends] == [
        ("gate job", JobState.FAILED, ReasonCode.INFRASTRUCTURE),
        ("job", JobState.FAILED, ReasonCode.INFRASTRUCTURE),
    ]


@pytest.mark.parametrize("phase", [Phase.MIGRATE, Phase.SWITCH, Phase.VERIFY], ids=str)
def test_a_gate_that_has_passed_keeps_its_verdict(phase: Phase) -> None:
    assert [end.id for end in decide_end("deployment", running(phase), LOST).job_ends] == ["job"]
