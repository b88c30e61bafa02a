"""`job:{id}` of an assembly: compose the candidate, run the release gate, find the culprit (`spec.md` 11)."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import finish, now
from conman.workflows.gate import canceled_verdict, run_gate

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Verdict
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import JobType, ReasonCode
    from conman.domain.messages import (
        AssembleStart,
        ComposeReply,
        GateProfile,
        GateProfiles,
        GateProfilesQuestion,
        GateStart,
        JobEnds,
        NewJobs,
    )
    from conman.domain.release import AssemblyResult, Failure
    from conman.domain.times import milliseconds

WITH_PROFILES = "with-profiles"
"""Patch id: suites run with the profiles of environments, and the overrides that arrive there."""

_VERDICTS = (ReasonCode.OK, ReasonCode.TESTS_FAILED)
"""What says something about the files; anything else blames neither a changeset nor the integration head."""


def _no_verdict(verdict: Verdict) -> Failure:
    return Failure(reason_code=verdict.reason_code.value, message="The bisection ended without a verdict.")


@workflow.defn(name="assemble")
class AssembleWorkflow:
    """Arrives: a cancel. Waits for: the merges, then the suites. It answers its release with what it found.

    A failing suite is bisected over the merge prefixes: the base first (if that fails nobody is blamed), and both ends of the
    last bracket twice before anybody is.
    """

    @workflow.run
    async def run(self, start: AssembleStart) -> AssemblyResult:
        """Compose, gate, and on a failure bisect."""
        self.start = start
        self.gates: list[str] = []
        self.profiles: list[GateProfile] = []
        try:
            return await self._assemble()
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            return AssemblyResult(
                job_id=start.job_id,
                base_sha="",
                gate_job_ids=self.gates,
                failure=Failure(reason_code=ReasonCode.CANCELED.value, message="The assembly was canceled."),
            )

    async def _assemble(self) -> AssemblyResult:
        start = self.start
        workflow.set_current_details(f"Waits for {len(start.members)} merges of {start.tag}.")
        composed = await workflow.execute_activity("compose_release", start, result_type=ComposeReply, **options.git())
        result = AssemblyResult(job_id=start.job_id, base_sha=composed.base_sha, prefix_shas=composed.prefix_shas)
        if composed.conflicted is not None:
            paths = sorted({str(conflict["path"]) for conflict in composed.conflicts})
            failure = Failure(
                reason_code="conflict",
                changeset_id=composed.conflicted,
                paths=paths,
                message=f"It does not merge: {', '.join(paths[:5])}.",
            )
            return result.model_copy(update={"failure": failure, "conflicts": composed.conflicts})
        self.profiles = await self._profiles()
        verdict = await self._suite(composed, len(start.members), "candidate")
        if verdict.reason_code is ReasonCode.TESTS_FAILED:
            failure = await self._find_culprit(composed)
        elif verdict.reason_code is not ReasonCode.OK:
            failure = Failure(reason_code=verdict.reason_code.value, message="The release gate ended without a verdict.")
        else:
            head = await workflow.execute_activity("integration_head", start.app_id, result_type=str, **options.git())
            return result.model_copy(
                update={
                    "candidate_sha": composed.prefix_shas[-1],
                    "head_moved": head != composed.base_sha,
                    "gate_job_ids": self.gates,
                }
            )
        return result.model_copy(update={"failure": failure, "gate_job_ids": self.gates})

    async def _profiles(self) -> list[GateProfile]:
        """With which profiles each suite runs; none of them means with the app's base profile, as before overrides travelled."""
        if not workflow.patched(WITH_PROFILES):
            return []
        ids = sorted({one.profile_id for member in self.start.members for one in member.overrides})
        question = GateProfilesQuestion(app_id=self.start.app_id, profile_ids=ids)
        found = await workflow.execute_activity("gate_profiles", question, result_type=GateProfiles, **options.persist())
        return found.profiles

    async def _suite(self, composed: ComposeReply, prefix: int, what: str) -> Verdict:
        """The suite on the base plus the first `prefix` changesets: with each profile, until one does not pass."""
        profiles = self.profiles or [None]
        for profile in profiles[:-1]:
            verdict = await self._run(composed, prefix, what, profile)
            if verdict.reason_code is not ReasonCode.OK:
                return verdict
        return await self._run(composed, prefix, what, profiles[-1])

    async def _run(self, composed: ComposeReply, prefix: int, what: str, profile: GateProfile | None) -> Verdict:
        """One suite, as a job of its own, with the overrides that the first `prefix` changesets and earlier releases bring."""
        start = self.start
        commit = composed.base_sha if prefix == 0 else composed.prefix_shas[prefix - 1]
        at = now()
        job_id = derived_uuid7(milliseconds(at), start.job_id, str(len(self.gates)))
        self.gates.append(job_id)
        with_profile = f"{what}, with the profile of {profile.environment}" if profile is not None else what
        workflow.set_current_details(f"Waits for the suite of {start.tag}: {with_profile}.")
        jobs = NewJobs(
            app_id=start.app_id,
            job_type=JobType.MSUITE_MERGE,
            entity_type="release",
            entity_id=start.release_id,
            job_ids=[job_id],
            at=at,
        )
        gate = GateStart(
            job_id=job_id,
            app_id=start.app_id,
            job_type=JobType.MSUITE_MERGE,
            entity_type="release",
            entity_id=start.release_id,
            commit_sha=commit,
            scope="release",
            tag=start.tag,
            what=f"{start.tag}, {with_profile}",
        )
        if profile is not None:
            gate = gate.model_copy(update=self._rendering(profile, prefix))
        # A job that was made is ended, whenever a cancel comes.
        await finish(workflow.execute_activity("create_jobs", jobs, **options.persist()))
        canceled = workflow.cancellation_reason() is not None
        verdict = canceled_verdict(gate) if canceled else await run_gate(gate)
        result = {"commit_sha": commit, "prefix": prefix}
        end = verdict.end(result if profile is None else {**result, "profile_id": profile.profile_id})
        ends = JobEnds(ends=[end.model_dump(mode="json")], at=now())
        await finish(workflow.execute_activity("end_jobs", ends, **options.persist()))
        return verdict

    def _rendering(self, profile: GateProfile, prefix: int) -> dict[str, Any]:
        """What of a gate says with which profile it runs."""
        brought = [one.bare for member in self.start.members[:prefix] for one in member.overrides]
        overrides = [*profile.waiting, *(one for one in brought if one.profile_id == profile.profile_id)]
        return {
            "profile_id": profile.profile_id,
            "profile_revision_id": profile.profile_revision_id,
            "overrides": [one.model_dump(mode="json") for one in overrides],
        }

    async def _find_culprit(self, composed: ComposeReply) -> Failure:
        """Bisect: prefix `low` passes, prefix `high` fails."""
        base = await self._suite(composed, 0, "the integration head alone")
        if base.reason_code not in _VERDICTS:
            return _no_verdict(base)
        if base.reason_code is not ReasonCode.OK:
            return Failure(
                reason_code=ReasonCode.BASELINE_FAILING.value,
                message="The integration head itself fails the suite: mend it first; no changeset is to blame.",
            )
        low, high = 0, len(self.start.members)
        while high - low > 1:
            middle = (low + high) // 2
            verdict = await self._suite(composed, middle, f"the first {middle} changesets")
            if verdict.reason_code is ReasonCode.OK:
                low = middle
            elif verdict.reason_code is ReasonCode.TESTS_FAILED:
                high = middle
            else:
                return _no_verdict(verdict)
        again_low = await self._suite(composed, low, f"the first {low} changesets, again")
        again_high = await self._suite(composed, high, f"the first {high} changesets, again")
        for again in (again_low, again_high):
            if again.reason_code not in _VERDICTS:
                return _no_verdict(again)
        if again_low.reason_code is not ReasonCode.OK or again_high.reason_code is not ReasonCode.TESTS_FAILED:
            return Failure(
                reason_code="inconclusive",
                message="The suite passes and fails on the same files: nobody is blamed; mend the suite, then assemble again.",
            )
        culprit = self.start.members[high - 1]
        return Failure(
            reason_code=ReasonCode.TESTS_FAILED.value,
            changeset_id=culprit.changeset_id,
            message=f"The suite fails from changeset {culprit.changeset_id} on.",
        )
