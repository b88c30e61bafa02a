"""What joins and what leaves a sweep that is under way (`spec.md` 10, `durability.md` 18): the others are judged on."""

from __future__ import annotations

from typing import Any

import pytest
from rule_samples import MAIN, entry, queue, running, sha, uid
from test_queue_collisions import overriding

from conman.domain import queue as rules
from conman.domain.decision import Verdict
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import revalidation_gate
from conman.domain.queue_records import Entry, EntryStatus, Queue, Sweep
from conman.domain.queue_verdicts import BATCH_BYTES, Judged, decide_verdicts, first_batch

OLDER = sha("older head")


def job_ids(changeset_id: str) -> str:
    return uid(f"fresh {changeset_id}")


def under_way(*entries: Entry, **fields: Any) -> Queue:
    """A queue with a sweep of epoch 4 whose process runs."""
    ids = [item.changeset_id for item in entries if item.status is EntryStatus.RUNNING]
    sweep = Sweep(epoch=4, integration_sha=MAIN, changeset_ids=ids, adapts=True)
    return queue(*entries, **{"epoch": 4, "sweep": sweep, "progress_total": len(ids), **fields})


def progress(found: Queue) -> tuple[int, int]:
    return found.progress_done, found.progress_total


def test_what_enters_joins_the_sweep_and_no_other_revalidation_ends() -> None:
    before = under_way(running("a"), running("b"))
    decision = rules.decide_enqueue(before, entry("c", judged_sha=OLDER), job_ids)
    after = decision.owned
    assert (after.epoch, after.sweep_started, after.superseded_epochs) == (4, True, [])
    assert [item.job_id for item in after.entries] == [uid("job a"), uid("job b"), job_ids(uid("c"))]
    assert (decision.job_ends, [job.entity_id for job in decision.jobs]) == ((), [uid("c")])
    assert (after.joining, progress(after)) == ([job_ids(uid("c"))], (0, 3))


def test_what_is_revalidated_by_hand_joins_the_sweep_and_runs_afresh() -> None:
    decision = rules.decide_revalidate(under_way(running("a"), entry("b")), uid("b"), job_ids)
    assert (decision.result, decision.job_ends) == ({"job_id": job_ids(uid("b"))}, ())
    found = decision.owned.entry(uid("b"))
    assert found is not None
    assert found.fresh
    assert revalidation_gate(uid("app"), found, sha("merged")).fresh
    assert (decision.owned.epoch, progress(decision.owned)) == (4, (0, 2))


def test_one_that_is_judged_twice_in_an_epoch_counts_once() -> None:
    before = under_way(running("a"), running("b"))
    judged = decide_verdicts(before, [Judged(4, MAIN).by_suite(before.entries[0], Verdict.model_validate(PASSED))])
    assert judged is not None
    assert progress(judged.owned) == (1, 2)
    again = rules.decide_revalidate(judged.owned, uid("a"), job_ids).owned
    assert (progress(again), again.joining) == ((0, 2), [job_ids(uid("a"))])


PASSED = {"job_id": uid("job a"), "state": JobState.SUCCEEDED, "reason_code": ReasonCode.OK}


def test_only_who_asks_by_hand_gets_a_fresh_run() -> None:
    by_hand = rules.decide_revalidate(queue(entry("a"), entry("b")), uid("a"), job_ids).owned
    assert [item.fresh for item in by_hand.entries] == [True, False]
    published = rules.decide_published(by_hand, uid("r"), sha("next head"), job_ids).owned
    assert [item.fresh for item in published.entries] == [False, False]


def test_only_a_new_head_supersedes() -> None:
    before = under_way(running("a"), entry("b"), joining=[uid("job a")])
    decision = rules.decide_published(before, uid("r"), sha("next head"), job_ids)
    assert (decision.owned.epoch, decision.owned.superseded_epochs, decision.owned.joining) == (5, [4], [])
    assert [end.reason_code for end in decision.job_ends] == [ReasonCode.SUPERSEDED]


def test_a_sweep_begun_by_an_older_conman_is_superseded_by_what_enters() -> None:
    older = under_way(running("a"), sweep=Sweep(epoch=4, integration_sha=MAIN, changeset_ids=[uid("a")]))
    after = rules.decide_enqueue(older, entry("b", judged_sha=OLDER), job_ids).owned
    assert (after.epoch, after.superseded_epochs, after.joining) == (5, [4], [])


def test_what_leaves_the_queue_leaves_the_sweep() -> None:
    removed = rules.decide_remove(under_way(running("a"), running("b")), uid("a")).owned
    assert (removed.leaving, progress(removed)) == ([uid("job a")], (1, 2))
    reserved = under_way(running("a", reserved_by=uid("r")), running("b"))
    ejected = rules.decide_eject(reserved, uid("r"), uid("a"), conflicted=False, job_id=uid("suite")).owned
    assert (ejected.leaving, progress(ejected)) == ([uid("job a")], (1, 2))
    assert rules.decide_remove(under_way(running("a"), entry("b")), uid("b")).owned.leaving == []


def test_what_collides_with_a_hotpatch_leaves_the_sweep() -> None:
    later = overriding("a", 1).model_copy(update={"status": EntryStatus.RUNNING, "job_id": uid("job a")})
    decision = rules.decide_enqueue(under_way(later, running("b")), overriding("h", 2, hotpatch=True), job_ids)
    after = decision.owned
    assert [item.changeset_id for item in after.entries] == [uid("h"), uid("b")]
    assert (after.joining, after.leaving) == ([job_ids(uid("h"))], [uid("job a")])
    assert [news.job_end.id for news in after.undelivered if news.job_end] == [uid("job a")]


def test_what_joined_while_the_process_was_told_is_still_to_be_told() -> None:
    before = under_way(running("a"), running("b"), joining=[uid("job a"), uid("job b")], leaving=[uid("job x")])
    told = rules.decide_sweep_told(before, 4, [uid("job a"), uid("job x")])
    assert told is not None
    assert (told.owned.joining, told.owned.leaving) == ([uid("job b")], [])
    assert rules.decide_sweep_told(told.owned, 4, [uid("job a")]) is None
    assert rules.decide_sweep_told(before, 3, [uid("job a")]) is None


def test_a_process_that_still_has_what_left_is_stopped_by_the_next_epoch() -> None:
    left = rules.decide_remove(under_way(running("a"), entry("b")), uid("a")).owned
    assert (left.sweep, left.leaving) == (None, [uid("job a")])
    after = rules.decide_revalidate(left, uid("b"), job_ids).owned
    assert (after.epoch, after.superseded_epochs, after.leaving) == (5, [4], [])


@pytest.mark.parametrize(
    ("sizes", "taken"), [((0.3, 0.3, 0.3), 3), ((0.6, 0.6), 1), ((1.5, 0.1), 1), ((0.4, 0.4, 0.4), 2), ((), 0)]
)
def test_what_travels_at_once_is_bounded_and_one_always_travels(sizes: tuple[float, ...], taken: int) -> None:
    judges = Judged(4, MAIN)
    reports = ["x" * int(BATCH_BYTES * size) for size in sizes]
    verdicts = [judges.by_suite(running("a"), Verdict.model_validate({**PASSED, "summary": {"report": one}})) for one in reports]
    assert first_batch(verdicts) == verdicts[:taken]
