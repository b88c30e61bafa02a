"""What a rule answers: the new state of the part that a workflow owns, and what goes out with it.

A `Decision` becomes one guarded document write (`durability.md` 3): the owned fields, the remembered command and the entries
that leave the document (audit events, new jobs, ended jobs, notices) stand together or not at all.
docs/adr/0004-one-document-per-write.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from conman.domain.jobs import JobState, JobType, ReasonCode

if TYPE_CHECKING:
    from conman.domain.notification import NoticeKind

REMEMBERED_COMMANDS = 50
"""How many command ids a record keeps (`durability.md` 4)."""


class Model(BaseModel):
    """Base of everything that is kept in MongoDB or in a workflow's history: unknown fields are ignored (`durability.md` 23)."""

    model_config = ConfigDict(extra="ignore")


class Actor(Model):
    """Who asked, and from where; `user_id` None is Conman itself."""

    user_id: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


class Command(Model):
    """One request to change an entity. `not_after` is the time from which it is refused (`durability.md` 6)."""

    id: str
    actor: Actor = Field(default_factory=Actor)
    not_after: str


class Remembered(Model):
    """A command that was carried out, with the answer that a repeat of it gets."""

    id: str
    result: dict[str, Any] = Field(default_factory=dict)


class Owned(Model):
    """The sub-document that one workflow owns; `version` grows by one with each write (`durability.md` 9)."""

    version: int = 0
    commands: list[Remembered] = Field(default_factory=list[Remembered])

    def remembered(self, command_id: str) -> Remembered | None:
        """The earlier run of this command, if there was one."""
        return next((entry for entry in self.commands if entry.id == command_id), None)


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event to be: the action of `api.md` 5 with what it changed."""

    entity_type: str
    entity_id: str
    action: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    git_sha: str | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that can be read as soon as the decision is written (`spec.md` 9)."""

    id: str
    job_type: JobType
    entity_type: str
    entity_id: str
    max_attempts: int
    created_by: str | None = None


@dataclass(frozen=True, slots=True)
class NewNotice:
    """People to be told of the decision (`spec.md` 14), whom the kind's rule finds, `user_ids` among them."""

    kind: NoticeKind
    entity_type: str
    entity_id: str
    user_ids: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict[str, Any])


class JobEnd(Model):
    """The end of a job, written with the records that its verdict changes, never before them (`spec.md` 9)."""

    id: str
    state: JobState
    reason_code: ReasonCode
    exit_code: int | None = None
    summary: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


class JobProgress(Model):
    """How far a job is: `done` of `total` steps, and what it does now (`api.md` 4); `attempt`: another one begins with this."""

    id: str
    done: int
    total: int
    message: str
    attempt: int | None = None


OwnedT = TypeVar("OwnedT", bound=Owned)


@dataclass(frozen=True, slots=True)
class Decision(Generic[OwnedT]):
    """A rule's answer; see the module's docstring. `result` is what the caller gets, also on a repeat."""

    owned: OwnedT
    events: tuple[Event, ...] = ()
    jobs: tuple[NewJob, ...] = ()
    job_starts: tuple[str, ...] = ()
    progress: tuple[JobProgress, ...] = ()
    job_ends: tuple[JobEnd, ...] = ()
    notices: tuple[NewNotice, ...] = ()
    result: dict[str, Any] = field(default_factory=dict[str, Any])


class Verdict(Model):
    """How a job's run ended, with what it judged (`durability.md` 17).

    `reused_from`: no suite ran; this is the result of that job, which judged the same tree, profile and command.
    """

    job_id: str
    state: JobState
    reason_code: ReasonCode
    attempt: int = 1
    exit_code: int | None = None
    summary: dict[str, Any] | None = None
    reused_from: str | None = None

    def end(self, result: dict[str, Any] | None = None) -> JobEnd:
        """The end of the job that this verdict says; its summary names the job whose result was taken over."""
        return JobEnd(
            id=self.job_id,
            state=self.state,
            reason_code=self.reason_code,
            exit_code=self.exit_code,
            summary=self.summary if self.reused_from is None else {**(self.summary or {}), "reused_from": self.reused_from},
            result=result,
        )
