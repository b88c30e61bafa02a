"""`rollback:{id}`: a release is undone by another one, for the deployment of the same id (`spec.md` 12, A)."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from conman.workflows import options
from conman.workflows.entity import now

with workflow.unsafe.imports_passed_through():
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import EntityStart
    from conman.domain.rollback import Step, failed_because, next_step, reverting_release_id
    from conman.domain.rollback_messages import RollbackBegun, RollbackNews, RollbackQuestion, RollbackStep, RollbackView
    from conman.domain.times import milliseconds


@workflow.defn(name="rollback")
class RollbackWorkflow:
    """Arrives: a cancel. Waits for: the release to be assembled and published, each by its own process.

    It owns no record and parents nothing: its deployment says that it is wanted, the release how far it is, so that it can be
    started again at any time (`durability.md` 2 and 20). The deployment holds the environment's lock all the while.
    """

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Make the release, see it through to `published` or `dropped`, and tell the deployment."""
        self.deployment_id = start.entity_id
        self.asks = RollbackQuestion(
            app_id=start.app_id, deployment_id=start.entity_id, release_id=reverting_release_id(start.entity_id)
        )
        self.canceled = False
        self.assemblies = 1
        work = asyncio.create_task(self._run())
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # Somebody canceled it in the Web UI: nothing is undone, unless that is published already.
                self.canceled = True

    async def _run(self) -> str:
        begun = await workflow.execute_activity(
            "begin_revert", self.asks, result_type=RollbackBegun, **options.call(summary="make the release that undoes")
        )
        if begun.refused is not None:
            message = f"Nothing was undone: {begun.refused}"
            news = RollbackNews(deployment_id=self.deployment_id, reason_code=ReasonCode.CANCELED, message=message)
            return await self._tell(news)
        while True:
            workflow.set_current_details("Waits for the release that undoes the other to be assembled and published.")
            view = await workflow.execute_activity(
                "watch_revert", self.asks, result_type=RollbackView, **options.call(summary="how far is the release")
            )
            wanted = view.wanted and not self.canceled
            match step := next_step(view.release, assemblies=self.assemblies, wanted=wanted):
                case Step.WAIT:
                    continue
                case Step.DEPLOY:
                    return await self._tell(RollbackNews(deployment_id=self.deployment_id, release_id=self.asks.release_id))
                case Step.GIVE_UP:
                    return await self._tell(self._failed(view))
                case _:
                    await self._step(step, view)

    def _failed(self, view: RollbackView) -> RollbackNews:
        reason, message = failed_because(view.release.tag or "", view.release.failure)
        if self.canceled:
            reason, message = ReasonCode.CANCELED, "The rollback was canceled: nothing was undone."
        return RollbackNews(deployment_id=self.deployment_id, reason_code=reason, message=message)

    async def _step(self, step: Step, view: RollbackView) -> None:
        judged = view.release.job_id or ""
        command_id = f"rollback:{self.deployment_id}:{step.value}:{judged}"
        job_id = judged
        if step is Step.ASSEMBLE:
            self.assemblies += 1
            job_id = derived_uuid7(milliseconds(now()), "revert-assembly", self.deployment_id, judged)
        request = RollbackStep(
            app_id=self.asks.app_id,
            release_id=self.asks.release_id,
            kind=step,
            command_id=command_id,
            user_id=view.user_id,
            job_id=job_id,
        )
        await workflow.execute_activity("step_revert", request, **options.call(summary=f"{step.value} {view.release.tag}"))

    async def _tell(self, news: RollbackNews) -> str:
        await workflow.execute_activity("tell_deployment", news, **options.call(summary="tell the deployment"))
        return "published" if news.release_id is not None else news.reason_code.value
