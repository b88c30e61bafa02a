"""What `rollback:{id}` and a release that undoes another talk to, in memory; a look answers with the next of `states`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from workflow_names import sha, uid

from conman.domain.messages import AssembleStart, ComposeReply, UndoRelease
from conman.domain.release import Failure, Release, ReleaseState
from conman.domain.rollback_messages import RollbackBegun, RollbackNews, RollbackQuestion, RollbackStep, RollbackView


def at(state: str, *, job: str = "job", failure: str | None = None, **more: Any) -> Release:
    """A release that undoes another, in a state."""
    failed = Failure(reason_code=failure, message=f"It ended with {failure}.") if failure is not None else None
    known = {"tag": "r2026.01.01.2", "created": True, "job_id": uid(job), "reverts_release_id": uid("undone")}
    return Release(app_id=uid("app"), state=ReleaseState(state), failure=failed, **{**known, **more})


@dataclass
class Undoing:
    """A release whose states are told beforehand, of which the last one stays; and the deployment that waits for it."""

    begun: RollbackBegun = field(default_factory=RollbackBegun)
    states: list[Release] = field(default_factory=lambda: [at("published", published_sha=sha("candidate"))])
    wanted: Callable[[], bool] = lambda: True
    asked: list[RollbackQuestion] = field(default_factory=list)
    steps: list[RollbackStep] = field(default_factory=list)
    news: list[RollbackNews] = field(default_factory=list)
    undone: list[UndoRelease] = field(default_factory=list)
    composed: ComposeReply = field(default_factory=lambda: ComposeReply(base_sha=sha("main-1"), prefix_shas=[sha("candidate")]))

    @activity.defn
    async def begin_revert(self, question: RollbackQuestion) -> RollbackBegun:
        self.asked.append(question)
        return self.begun

    @activity.defn
    async def watch_revert(self, question: RollbackQuestion) -> RollbackView:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return RollbackView(release=state, wanted=self.wanted(), user_id=uid("max"))

    @activity.defn
    async def step_revert(self, step: RollbackStep) -> None:
        self.steps.append(step)

    @activity.defn
    async def tell_deployment(self, news: RollbackNews) -> None:
        self.news.append(news)

    @activity.defn
    async def undo_release(self, request: UndoRelease) -> None:
        self.undone.append(request)

    @activity.defn
    async def compose_revert(self, start: AssembleStart) -> ComposeReply:
        return self.composed

    def store(self) -> list[Callable[..., Any]]:
        return [self.undo_release]

    def git(self) -> list[Callable[..., Any]]:
        return [self.compose_revert]

    def calls(self) -> list[Callable[..., Any]]:
        return [self.begin_revert, self.watch_revert, self.step_revert, self.tell_deployment]
