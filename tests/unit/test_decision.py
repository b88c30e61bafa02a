"""What rules answer, and what a record remembers (`durability.md` 3, 4 and 23)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel
from rule_samples import uid

from conman.domain import (
    changeset,
    changeset_commands,
    changeset_news,
    changeset_queue,
    changeset_review,
    changeset_submit,
    decision,
    deployment,
    messages,
    queue,
    release,
)
from conman.domain.decision import (
    REMEMBERED_COMMANDS,
    Actor,
    Command,
    Decision,
    Event,
    JobEnd,
    Model,
    NewJob,
    Owned,
    Remembered,
    Verdict,
)
from conman.domain.jobs import JobState, JobType, ReasonCode

OWNERS: list[type[Owned]] = [changeset.Changeset, queue.Queue, release.Release, deployment.Deployment]


def test_a_record_remembers_the_result_of_each_command() -> None:
    """`durability.md` 4: a repeat gets the first run's answer."""
    owned = Owned(commands=[Remembered(id="a", result={"n": 1}), Remembered(id="b")])
    found = owned.remembered("a")
    assert found is not None
    assert found.result == {"n": 1}
    assert owned.remembered("b") == Remembered(id="b", result={})
    assert owned.remembered("c") is None
    assert Owned().remembered("a") is None


def test_fifty_commands_are_remembered() -> None:
    """`durability.md` 4."""
    assert REMEMBERED_COMMANDS == 50


@pytest.mark.parametrize(
    "value",
    [
        Decision(Owned()),
        Event("queue", uid("app"), "reordered"),
        NewJob(uid("j"), JobType.MSUITE_SUBMIT, "changeset", uid("c"), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_can_not_be_changed_afterwards(value: Any) -> None:
    """`durability.md` 3: what was decided is what is written."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, None)


def test_two_decisions_share_no_result() -> None:
    """`durability.md` 4."""
    first, second = Decision(Owned()), Decision(Owned())
    first.result["x"] = 1
    assert second.result == {}


def test_a_verdict_ends_its_job_with_all_that_it_says() -> None:
    """`spec.md` 9: exit code, summary, reason code."""
    verdict = Verdict(
        job_id=uid("job"),
        state=JobState.FAILED,
        reason_code=ReasonCode.TESTS_FAILED,
        attempt=2,
        exit_code=1,
        summary={"failed": 3},
    )
    assert verdict.end({"commit_sha": "c"}) == JobEnd(
        id=uid("job"),
        state=JobState.FAILED,
        reason_code=ReasonCode.TESTS_FAILED,
        exit_code=1,
        summary={"failed": 3},
        result={"commit_sha": "c"},
    )
    assert verdict.end().result is None


OF_CHANGESETS = (changeset, changeset_commands, changeset_news, changeset_queue, changeset_review, changeset_submit)


def kept_models() -> list[type[Model]]:
    found = [
        item
        for module in (*OF_CHANGESETS, decision, queue, release, deployment, messages)
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, BaseModel) and item.__module__ == module.__name__
    ]
    assert len(found) > 40
    return found


@pytest.mark.parametrize("model", kept_models(), ids=lambda model: f"{model.__module__.rpartition('.')[2]}.{model.__name__}")
def test_models_in_history_ignore_unknown_fields(model: type[Model]) -> None:
    """`durability.md` 23: a field that a newer version added."""
    assert issubclass(model, Model)
    assert model.model_config.get("extra") == "ignore"


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_what_a_workflow_owns_has_a_version_and_remembers_commands(owner: type[Owned]) -> None:
    """`durability.md` 9 and 4."""
    assert owner.model_fields["version"].default == 0
    assert "commands" in owner.model_fields


def test_a_command_is_conmans_own_unless_somebody_asked() -> None:
    """`api.md` 4: `actor_user_id` null is Conman itself."""
    assert Command(id="c", not_after="2026-03-01T09:30:00.000Z").actor == Actor(
        user_id=None, ip=None, user_agent=None, request_id=None
    )
