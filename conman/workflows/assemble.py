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
    from conman.domain.bisection import Blamed, Judge, Judged, Nobody, Outcome, Step, most_left, next_step
    from conman.domain.decision import Verdict
    from conman.domain.exclusions import Exclusions
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import JobType, ReasonCode
    from conman.domain.messages import (
        AssembleStart,
        ComposeReply,
        ExclusionsQuestion,
        GateProfile,
        GateProfiles,
        GateProfilesQuestion,
        GateStart,
        JobEnds,
        JobProgress,
        NewJobs,
    )
    from conman.domain.release import AssemblyResult, Failure, PinnedProfile
    from conman.domain.times import milliseconds

WITH_PROFILES = "with-profiles"
"""Patch id: suites run with the profiles of environments, and the overrides that arrive there."""

TELLS_EXCLUSIONS = "tells-exclusions"
"""Patch id: after a conflict it is found out which members exclude each other."""

DECIDED_AT_ONCE = "decided-at-once"
"""Patch id: a bisection ends with the first run that settles it, and runs the profile first that failed before."""

_OUTCOMES = {ReasonCode.OK: Outcome.PASSED, ReasonCode.TESTS_FAILED: Outcome.FAILED}
"""What says something about the files; anything else blames neither a changeset nor the integration head."""


@workflow.defn(name="assemble")
class AssembleWorkflow:
    """Arrives: a cancel. Waits for: the merges, then the suites. It answers its release with what it found.

    A selection that does not merge names the first member that conflicts, and which members exclude each other. A failing suite
    is bisected over the merge prefixes (`domain/bisection.py`).

    The suites of one commit run one after the other, with one profile each, and end with the first that does not pass: that one
    settles it, and other gates wait for the same machines.
    """

    @workflow.run
    async def run(self, start: AssembleStart) -> AssemblyResult:
        """Compose, gate, and on a failure bisect."""
        self.start = start
        self.gates: list[str] = []
        self.profiles: list[GateProfile] = []
        self.failed_with: GateProfile | None = None
        self.failed_first = False
        self.expected = 0
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
        compose = "compose_release" if start.reverts_release_id is None else "compose_revert"
        composed = await workflow.execute_activity(compose, start, result_type=ComposeReply, **options.git())
        result = AssemblyResult(
            job_id=start.job_id,
            base_sha=composed.base_sha,
            prefix_shas=composed.prefix_shas,
            conflicts=composed.conflicts,
            overrides=composed.overrides,
        )
        if composed.problem is not None:
            paths = sorted({str(conflict["path"]) for conflict in composed.conflicts})
            failure = Failure(reason_code="conflict", paths=paths, message=composed.problem)
            return result.model_copy(update={"failure": failure})
        if composed.conflicted is not None:
            return await self._conflicted(composed, composed.conflicted, result)
        self.profiles = await self._profiles(composed)
        self.expected = len(self.profiles or [None])
        verdict = await self._suite(composed, len(composed.prefix_shas), "candidate")
        if verdict.reason_code is ReasonCode.TESTS_FAILED and start.reverts_release_id is not None:
            message = "The suite fails on the integration head without the release that was to be undone."
            failure = Failure(reason_code=ReasonCode.TESTS_FAILED.value, message=message)
        elif verdict.reason_code is ReasonCode.TESTS_FAILED:
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
                    "pinned_profiles": [_pinned(profile) for profile in self.profiles],
                }
            )
        return result.model_copy(update={"failure": failure, "gate_job_ids": self.gates})

    async def _conflicted(self, composed: ComposeReply, changeset_id: str, result: AssemblyResult) -> AssemblyResult:
        """The end of an assembly whose selection does not merge."""
        paths = sorted({str(conflict["path"]) for conflict in composed.conflicts})
        message = f"It does not merge: {', '.join(paths[:5])}."
        found = await self._exclusions(composed) if workflow.patched(TELLS_EXCLUSIONS) else None
        if found is not None:
            merging, of = len(found.largest_subset), len(self.start.members)
            message += f" The largest part of the selection that merges has {merging} of its {of} changesets; it is not tested."
        failure = Failure(reason_code="conflict", changeset_id=changeset_id, paths=paths, message=message)
        return result.model_copy(update={"failure": failure, "conflicts": composed.conflicts, "exclusions": found})

    async def _exclusions(self, composed: ComposeReply) -> Exclusions | None:
        """Which members exclude each other; None where that could not be found out: the conflict itself is known."""
        question = ExclusionsQuestion(app_id=self.start.app_id, base_sha=composed.base_sha, members=self.start.members)
        workflow.set_current_details(f"Waits to know which changesets of {self.start.tag} exclude each other.")
        try:
            return await workflow.execute_activity("find_exclusions", question, result_type=Exclusions, **options.trials())
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("what of %s excludes each other was not found out: %s", self.start.tag, error.__cause__)
            return None

    async def _profiles(self, composed: ComposeReply) -> list[GateProfile]:
        """With which profiles each suite runs; none of them means with the app's base profile, as before overrides travelled."""
        if not workflow.patched(WITH_PROFILES):
            return []
        start = self.start
        overrides = [*(one for member in start.members for one in member.overrides), *composed.overrides]
        question = GateProfilesQuestion(app_id=start.app_id, profile_ids=sorted({one.profile_id for one in overrides}))
        if start.reverts_release_id is not None:
            undoes = {"release_id": start.release_id, "reverts_release_id": start.reverts_release_id}
            question = question.model_copy(update={**undoes, "overrides": composed.overrides})
        found = await workflow.execute_activity("gate_profiles", question, result_type=GateProfiles, **options.persist())
        return found.profiles

    async def _suite(self, composed: ComposeReply, prefix: int, what: str, *, fresh: bool = False) -> Verdict:
        """The suite on the base plus the first `prefix` changesets: with each profile, until one does not pass."""
        first, *others = self._in_turn() or [None]
        verdict = await self._run(composed, prefix, what, first, fresh)
        for profile in others:
            if verdict.reason_code is not ReasonCode.OK:
                return verdict
            verdict = await self._run(composed, prefix, what, profile, fresh)
        return verdict

    def _in_turn(self) -> list[GateProfile]:
        """The profiles in stage order; in a bisection the one first that failed before: it most likely fails again."""
        if not self.failed_first:
            return self.profiles
        return sorted(self.profiles, key=lambda profile: profile is not self.failed_with)

    async def _run(self, composed: ComposeReply, prefix: int, what: str, profile: GateProfile | None, fresh: bool) -> Verdict:
        """One suite, as a job of its own, with the overrides that the first `prefix` changesets and earlier releases bring."""
        start = self.start
        commit = composed.base_sha if prefix == 0 else composed.prefix_shas[prefix - 1]
        at = now()
        job_id = derived_uuid7(milliseconds(at), start.job_id, str(len(self.gates)))
        with_profile = f"{what}, with the profile of {profile.environment}" if profile is not None else what
        progress = JobProgress(job_id=start.job_id, done=len(self.gates), total=self.expected, message=f"suite: {with_profile}")
        self.gates.append(job_id)
        workflow.set_current_details(f"Waits for the suite of {start.tag}: {with_profile}.")
        jobs = NewJobs(
            app_id=start.app_id,
            job_type=JobType.MSUITE_MERGE,
            entity_type="release",
            entity_id=start.release_id,
            job_ids=[job_id],
            at=at,
            progress=progress,
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
            fresh=fresh,
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
        if verdict.reason_code is ReasonCode.TESTS_FAILED:
            self.failed_with = profile
        return verdict

    def _rendering(self, profile: GateProfile, prefix: int) -> dict[str, Any]:
        """What of a gate says with which profile it runs."""
        overrides = profile.overrides_with(self.start.members[:prefix])
        return {
            "profile_id": profile.profile_id,
            "profile_revision_id": profile.profile_revision_id,
            "overrides": [one.model_dump(mode="json") for one in overrides],
        }

    async def _find_culprit(self, composed: ComposeReply) -> Failure:
        """Bisect (`domain/bisection.py`), with the suites of one prefix as one verdict."""
        members = len(self.start.members)
        at_once = self.failed_first = workflow.patched(DECIDED_AT_ONCE)
        judged: list[Judged] = []
        verdict: Verdict | None = None
        doubts = 0
        while isinstance(step := next_step(members, judged), Judge):
            self.expected = len(self.gates) + most_left(members, judged) * len(self.profiles or [None])
            verdict = await self._suite(composed, step.prefix, _what(step), fresh=step.again)
            judged.append(Judged(step.prefix, _OUTCOMES.get(verdict.reason_code, Outcome.NO_VERDICT)))
            doubts += step.again
        if doubts == 1 and not at_once:
            # Runs from before the patch looked at the upper end again, whatever the lower one had said.
            upper = Judge(judged[-1].prefix + 1, again=True)
            await self._suite(composed, upper.prefix, _what(upper), fresh=True)
        return self._verdict_of(step, verdict)

    def _verdict_of(self, found: Step, last: Verdict | None) -> Failure:
        """What the end of a bisection says of the assembly."""
        match found:
            case Blamed(member):
                culprit = self.start.members[member - 1].changeset_id
                message = f"The suite fails from changeset {culprit} on."
                return Failure(reason_code=ReasonCode.TESTS_FAILED.value, changeset_id=culprit, message=message)
            case Nobody.BASELINE_FAILING:
                message = "The integration head itself fails the suite: mend it first; no changeset is to blame."
                return Failure(reason_code=ReasonCode.BASELINE_FAILING.value, message=message)
            case Nobody.INCONCLUSIVE:
                message = "The suite passes and fails on the same files: nobody is blamed; mend the suite, then assemble again."
                return Failure(reason_code="inconclusive", message=message)
            case _:
                reason = last.reason_code if last is not None else ReasonCode.INFRASTRUCTURE
                return Failure(reason_code=reason.value, message="The bisection ended without a verdict.")


def _pinned(profile: GateProfile) -> PinnedProfile:
    """What of a profile must still hold when the release is published."""
    return PinnedProfile(
        environment=profile.environment,
        profile_id=profile.profile_id,
        profile_revision_id=profile.profile_revision_id,
    )


def _what(step: Judge) -> str:
    """A prefix in words, as gates and their jobs show it."""
    if step.prefix == 0 and not step.again:
        return "the integration head alone"
    return f"the first {step.prefix} changesets{', again' if step.again else ''}"
