"""Overrides that collide in the queue: the later one leaves (`spec.md` 6 and 10)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_samples import HEAD, changeset, entry, queue, sha, uid
from test_override_collisions import SETS
from test_overrides import QA, frozen

from conman.domain import queue as rules
from conman.domain.changeset import ChangesetState
from conman.domain.changeset_news import QueueNews, decide_news
from conman.domain.changeset_queue import decide_queued
from conman.domain.changeset_waits import waiting_for
from conman.domain.decision import Actor, Event
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.outgoing import audit_entry
from conman.domain.override_collisions import collided
from conman.domain.overrides import FrozenOverride
from conman.domain.queue import Entry, EntryStatus, Queue

AT = "2026-03-01T09:30:00.000Z"
NEXT = sha("next head")


def job_ids(changeset_id: str) -> str:
    return uid(f"job of {changeset_id}")


def overriding(name: str, value: int, key: str = "A", **fields: Any) -> Entry:
    return entry(name, overrides=[frozen(env_vars={key: {"type": "number", "value": value}})], **fields)


def collision(name: str, key: str = "env_vars.A") -> dict[str, str]:
    return {"kind": "override_collision", "profile_id": QA, "key": key, "changeset_id": uid(name)}


def names(found: Queue) -> list[str]:
    return [item.changeset_id for item in found.entries]


def is_auditable(*events: Event) -> None:
    for event in events:
        audit_entry(uid("event"), event, app_id=uid("app"), actor=Actor(), at=AT)


# -- Entering


def test_the_later_of_two_that_collide_does_not_enter_and_is_told_with_which() -> None:
    before = queue(overriding("a", 1), overriding("b", 1))
    decision = rules.decide_enqueue(before, overriding("c", 2), job_ids)
    assert decision.owned is before
    assert decision.result == {"collisions": [collision("a"), collision("b")]}


@pytest.mark.parametrize(
    "newcomer", [overriding("c", 1), overriding("c", 2, "B"), entry("c")], ids=["equal", "another key", "none"]
)
def test_what_does_not_collide_enters(newcomer: Entry) -> None:
    decision = rules.decide_enqueue(queue(overriding("a", 1)), newcomer, job_ids)
    assert names(decision.owned) == [uid("a"), uid("c")]
    assert decision.result == {}


def test_a_hotpatch_enters_first_and_those_that_collide_with_it_leave() -> None:
    before = queue(overriding("a", 1), overriding("b", 2, "B"), overriding("c", 1))
    decision = rules.decide_enqueue(before, overriding("h", 2, hotpatch=True), job_ids)
    assert names(decision.owned) == [uid("h"), uid("b")]
    assert [news.changeset_id for news in decision.owned.undelivered] == [uid("a"), uid("c")]
    for news in decision.owned.undelivered:
        assert news.news.conflicts == [collision("h")]
        assert news.job_end is not None
        assert (news.job_end.state, news.job_end.reason_code) == (JobState.FAILED, ReasonCode.TESTS_FAILED)
    assert {job.id for job in decision.jobs} == {job_ids(uid(name)) for name in "hac"}
    sweep = decision.owned.sweep
    assert sweep is not None
    assert [item.changeset_id for item in decision.owned.entries if item.status is EntryStatus.RUNNING] == [uid("h")]
    is_auditable(*decision.events)


@given(st.lists(SETS, max_size=5))
def test_however_many_enter_nothing_in_the_queue_collides(sets: list[list[FrozenOverride]]) -> None:
    present = queue()
    for number, overrides in enumerate(sets):
        hotpatch = number % 3 == 2
        present = rules.decide_enqueue(present, entry(f"e{number}", overrides=overrides, hotpatch=hotpatch), job_ids).owned
        assert collided([(item.changeset_id, item.overrides) for item in present.entries]) == {}


# -- After a publish


def test_after_a_publish_those_that_collide_have_their_verdict_at_once() -> None:
    entries = [overriding("a", 1, reserved_by=uid("r")), overriding("b", 1), overriding("c", 2), overriding("d", 1)]
    decision = rules.decide_published(queue(*entries), uid("r"), NEXT, job_ids)
    after = decision.owned
    assert names(after) == [uid("b"), uid("d")]
    assert [(news.changeset_id, news.news.conflicts) for news in after.undelivered] == [(uid("c"), [collision("b")])]
    assert (after.progress_total, after.progress_done) == (3, 1)
    is_auditable(*decision.events)


# -- The changeset


def test_a_changeset_that_collides_is_queued_and_conflicted_in_one_write() -> None:
    before = changeset(ChangesetState.APPROVED)
    decision = decide_queued(uid("changeset"), before, AT, [collision("a")])
    assert decision.owned.state is ChangesetState.CONFLICTED
    assert decision.owned.conflicts == [collision("a")]
    assert [event.action for event in decision.events] == ["queued", "conflicted"]
    after = decision.events[1].after
    assert after is not None
    assert (after["cause"], after["collisions"]) == (
        "override_collision",
        [{"profile_id": QA, "key": "env_vars.A", "changeset_id": uid("a")}],
    )
    assert "paths" not in after
    is_auditable(*decision.events)
    said = waiting_for(decision.owned)
    assert said is not None
    assert f"overrides of env_vars.A collide with those of changeset {uid('a')}" in said


def test_without_collisions_it_is_queued() -> None:
    decision = decide_queued(uid("changeset"), changeset(ChangesetState.APPROVED), AT)
    assert decision.owned.state is ChangesetState.QUEUED


def test_news_of_files_and_of_overrides_name_both() -> None:
    conflicts = [{"path": "a.json", "kind": "content"}, collision("a")]
    news = QueueNews(kind="conflicted", head_sha=HEAD, job_id=uid("job"), conflicts=conflicts)
    decision = decide_news(uid("changeset"), changeset(ChangesetState.QUEUED), news)
    assert decision is not None
    after = decision.events[0].after
    assert after is not None
    assert (after["paths"], len(after["collisions"])) == (["a.json"], 1)
    is_auditable(*decision.events)


def test_a_release_reserves_the_overrides_of_its_members() -> None:
    decision = rules.decide_reserve(queue(overriding("a", 1)), uid("r"), [uid("a")])
    assert decision.result["members"][0]["overrides"][0]["profile_id"] == QA
