"""Records, facts and ids that the tests of the rules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conman.domain.changeset import Changeset, ChangesetState, Gate, Revision, Vote
from conman.domain.changeset_review import ReviewFacts
from conman.domain.changeset_submit import SubmitFacts
from conman.domain.deployment import Deployment
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.queue import Entry, Queue
from conman.domain.release import Member, Release

AT = "2026-03-01T09:30:00.000Z"


def uid(name: str) -> str:
    """The id that a name always has."""
    return derived_uuid7(1_772_357_400_000, "sample", name)


def sha(name: str) -> str:
    """The Git object id that a name always has."""
    return uid(name).replace("-", "") + "00000000"


def refused(code: ErrorCode, call: Callable[[], Any]) -> DomainError:
    """The refusal of a rule, which must have this code."""
    with pytest.raises(DomainError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


AUTHOR = uid("author")
CHANGESET = uid("changeset")
HEAD = sha("head")
BASE = sha("base")
MAIN = sha("integration head")


def revision(number: int, head: str = HEAD, overrides: list[dict[str, Any]] | None = None) -> Revision:
    return Revision(
        revision_number=number,
        head_sha=head,
        base_sha=BASE,
        integration_sha=MAIN,
        job_id=uid(f"gate {number}"),
        overrides=overrides or [],
        created_at=AT,
    )


def changeset(state: ChangesetState = ChangesetState.SUBMITTED, *, gate: str | None = "succeeded", **fields: Any) -> Changeset:
    """A changeset in a state, with one revision unless it is a fresh draft, and its gate in the state `gate`."""
    fresh = state is ChangesetState.DRAFT
    given: dict[str, Any] = {
        "app_id": uid("app"),
        "author_user_id": AUTHOR,
        "workspace_id": uid("workspace"),
        "state": state,
        "head_sha": None if fresh else HEAD,
        "base_sha": None if fresh else BASE,
        "revisions": [] if fresh else [revision(1)],
        "gate": None if fresh or gate is None else Gate(state=JobState(gate), job_id=uid("gate 1")),
    }
    return Changeset(**{**given, **fields})


def vote(reviewer: str, action: Any = "approve", number: int = 1, *, void: bool = False) -> Vote:
    return Vote(
        id=uid(f"vote {reviewer} {action}"),
        reviewer_user_id=uid(reviewer),
        action=action,
        revision_number=number,
        at=AT,
        void=void,
    )


def submit_facts(head: str = "next head", *, files: int = 1, overrides: list[dict[str, Any]] | None = None) -> SubmitFacts:
    return SubmitFacts(
        head_sha=sha(head),
        base_sha=BASE,
        integration_sha=MAIN,
        changed_files=files,
        overrides=overrides or [],
        job_id=uid("next gate"),
        at=AT,
        required_approvals=1,
    )


def review_facts(action: Any = "approve", required: int = 1, name: str = "review") -> ReviewFacts:
    return ReviewFacts(review_id=uid(name), action=action, at=AT, required_approvals=required)


def entry(name: str, **fields: Any) -> Entry:
    """An entry that was judged on the present head, `MAIN`."""
    given: dict[str, Any] = {
        "changeset_id": uid(name),
        "author_user_id": AUTHOR,
        "revision_number": 1,
        "head_sha": sha(name),
        "base_sha": MAIN,
        "queued_at": AT,
        "judged_sha": MAIN,
    }
    return Entry(**{**given, **fields})


def running(name: str, **fields: Any) -> Entry:
    """An entry whose revalidation runs."""
    return entry(name, status="running", job_id=uid(f"job {name}"), **fields)


def queue(*entries: Entry, **fields: Any) -> Queue:
    given: dict[str, Any] = {"app_id": uid("app"), "integration_sha": MAIN, "entries": list(entries)}
    return Queue(**{**given, **fields})


def member(name: str) -> Member:
    return Member(changeset_id=uid(name), head_sha=sha(name), base_sha=MAIN, revision_number=1)


def release(state: Any = "draft_release", *names: str, **fields: Any) -> Release:
    given: dict[str, Any] = {
        "app_id": uid("app"),
        "tag": "r2026.03.01.1",
        "state": state,
        "created": True,
        "members": [member(name) for name in names or ("a", "b", "c")],
        "base_sha": MAIN,
        "candidate_sha": sha("candidate"),
        "job_id": uid("assembly"),
    }
    return Release(**{**given, **fields})


def deployment(state: Any = "pending", **fields: Any) -> Deployment:
    given: dict[str, Any] = {
        "app_id": uid("app"),
        "environment_id": uid("environment"),
        "release_id": uid("release"),
        "state": state,
        "requested_by": uid("manager"),
        "requested_at": AT,
        "job_id": uid("deploy job"),
        "fence": 7,
    }
    return Deployment(**{**given, **fields})


SUPERSEDED = (JobState.CANCELED, ReasonCode.SUPERSEDED)
