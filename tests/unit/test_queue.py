"""The queue keeps membership, order, reservations and verdicts (`spec.md` 10, `durability.md` 14-18)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rule_samples import MAIN, SUPERSEDED, entry, queue, refused, running, sha, uid

from conman.domain import queue as rules
from conman.domain.decision import Decision
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode
from conman.domain.queue_records import Entry, EntryState, EntryStatus, Queue, Sweep
from conman.domain.queue_verdicts import EntryVerdict, decide_verdicts

NEXT = sha("next head")


def job_ids(changeset_id: str) -> str:
    return uid(f"fresh {changeset_id}")


def verdict(given_: Queue, name: str, status: str = "valid", **fields: Any) -> EntryVerdict:
    """The verdict that the present sweep would give on an entry."""
    found = given_.entry(uid(name))
    assert found is not None
    passed = status == "valid"
    base: dict[str, Any] = {
        "epoch": given_.epoch,
        "integration_sha": given_.integration_sha,
        "changeset_id": uid(name),
        "head_sha": found.head_sha,
        "job_id": found.job_id or "",
        "status": status,
        "job_state": JobState.SUCCEEDED if passed else JobState.FAILED,
        "reason_code": ReasonCode.OK if passed else ReasonCode.TESTS_FAILED,
    }
    return EntryVerdict(**{**base, **fields})


def names(given_: Queue, known: Sequence[str] = "abcdefgh") -> str:
    """The order of the queue, by the names of its entries."""
    by_id = {uid(name): name for name in known}
    return "".join(by_id[item.changeset_id] for item in given_.entries)


def swept(*entries: Entry, epoch: int = 4, **fields: Any) -> Queue:
    """A queue whose sweep of this epoch runs over the entries that are `running`."""
    ids = [item.changeset_id for item in entries if item.status is EntryStatus.RUNNING]
    sweep = Sweep(epoch=epoch, integration_sha=MAIN, changeset_ids=ids)
    return queue(*entries, epoch=epoch, sweep=sweep, progress_total=len(ids), **fields)


# -- entering ----------------------------------------------------------------------------------------------------------------


def test_entering_appends() -> None:
    """`spec.md` 10."""
    assert names(rules.decide_enqueue(queue(entry("a"), entry("b")), entry("c"), job_ids).owned) == "abc"


def test_a_hotpatch_enters_at_the_head_and_is_revalidated_at_once() -> None:
    """`spec.md` 3 and 10."""
    decision = rules.decide_enqueue(queue(entry("a")), entry("b", hotpatch=True), job_ids)
    assert names(decision.owned) == "ba"
    assert [job.entity_id for job in decision.jobs] == [uid("b")]


def test_what_was_judged_on_the_present_head_needs_no_revalidation() -> None:
    """`spec.md` 3, `up_to_date`: its gate has run on that head."""
    decision = rules.decide_enqueue(queue(entry("a")), entry("b"), job_ids)
    assert (decision.jobs, decision.owned.epoch, decision.owned.sweep) == ((), 0, None)
    assert [item.status for item in decision.owned.entries] == [EntryStatus.VALID] * 2


@pytest.mark.parametrize(
    "entering",
    [entry("b", judged_sha=sha("older head")), entry("b", base_sha=sha("older head"))],
    ids=["judged on an older head", "behind the integration head (`queue_gate: clean_merge`)"],
)
def test_what_no_gate_has_judged_on_the_present_head_is_revalidated_at_once(entering: Entry) -> None:
    """`spec.md` 10, last sentence but one, and 3, `clean_merge`."""
    decision = rules.decide_enqueue(queue(entry("a")), entering, job_ids)
    after = decision.owned
    assert [(item.changeset_id, item.status) for item in after.entries] == [(uid("a"), "valid"), (uid("b"), "running")]
    assert (after.epoch, after.sweep_started, after.progress_done, after.progress_total) == (1, False, 0, 1)
    assert after.sweep is not None
    assert after.sweep.changeset_ids == [uid("b")]
    (job,) = decision.jobs
    assert (job.job_type, job.entity_id, job.id) == (JobType.REVALIDATE_QUEUED_CHANGESET, uid("b"), job_ids(uid("b")))


def test_a_second_enqueue_of_the_same_changeset_changes_nothing() -> None:
    """`durability.md` 4: a repeat has one effect."""
    given_ = queue(entry("a"))
    assert rules.decide_enqueue(given_, entry("a", hotpatch=True), job_ids) == Decision(given_)


def test_a_new_sweep_takes_over_what_the_superseded_one_had_not_judged() -> None:
    """`spec.md` 10 and `durability.md` 18."""
    given_ = swept(entry("a"), running("b"), epoch=4)
    decision = rules.decide_enqueue(given_, entry("c", judged_sha=sha("older head")), job_ids)
    after = decision.owned
    assert after.sweep is not None
    assert after.sweep.changeset_ids == [uid("b"), uid("c")]
    assert (after.epoch, after.superseded_epochs) == (5, [4])
    assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == [(uid("job b"), *SUPERSEDED)]
    assert [job.entity_id for job in decision.jobs] == [uid("b"), uid("c")]


# -- leaving -----------------------------------------------------------------------------------------------------------------


def test_what_leaves_keeps_the_order_of_the_rest() -> None:
    """`spec.md` 10."""
    decision = rules.decide_remove(queue(entry("a"), entry("b"), entry("c")), uid("b"))
    assert names(decision.owned) == "ac"
    assert decision.result == {"removed": True}


def test_what_an_open_release_holds_does_not_leave() -> None:
    """`spec.md` 3, move-to-draft: `queued`, not in an open release."""
    given_ = queue(entry("a", reserved_by=uid("release")))
    error = refused(ErrorCode.CONFLICT, lambda: rules.decide_remove(given_, uid("a")))
    assert error.details == [{"changeset_id": uid("a"), "state": "queued", "release_id": uid("release")}]


def test_removing_what_is_not_there_changes_nothing() -> None:
    """`durability.md` 4: a repeat has one effect."""
    given_ = queue(entry("a"))
    assert rules.decide_remove(given_, uid("b")) == Decision(given_, result={"removed": False})


def test_the_revalidation_of_what_leaves_is_superseded_and_counts_as_done() -> None:
    """`spec.md` 10, `api.md` 4: `done == total` means that all verdicts are in."""
    decision = rules.decide_remove(swept(running("a"), running("b")), uid("a"))
    assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == [(uid("job a"), *SUPERSEDED)]
    assert (decision.owned.progress_done, decision.owned.progress_total) == (1, 2)
    assert rules.decide_remove(decision.owned, uid("b")).owned.sweep is None


# -- order -------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.permutations("abcde"))
def test_a_reorder_permutes_exactly_what_is_listed(order: list[str]) -> None:
    """`spec.md` 10: entries keep all but their place; audited with before and after."""
    given_ = queue(*(entry(name, state="needs_revalidation" if name == "c" else "queued") for name in "abcde"), version=3)
    ids = [uid(name) for name in order]
    decision = rules.decide_reorder(given_, ids, 3)
    assert names(decision.owned) == "".join(order)
    assert all(item == given_.entry(item.changeset_id) for item in decision.owned.entries)
    (event,) = decision.events
    assert (event.before, event.after) == (
        {"ordered_changeset_ids": [uid(name) for name in "abcde"]},
        {"ordered_changeset_ids": ids},
    )


@pytest.mark.parametrize("order", ["", "a", "ab", "abb", "abcd", "abd", "abca"])
def test_a_reorder_that_is_no_exact_permutation_is_refused(order: str) -> None:
    """`api.md` 3: 400 else."""
    given_ = queue(entry("a"), entry("b"), entry("c"))
    error = refused(ErrorCode.VALIDATION_ERROR, lambda: rules.decide_reorder(given_, [uid(name) for name in order], 0))
    assert error.details[0]["field"] == "ordered_changeset_ids"


@pytest.mark.parametrize(("version", "accepted"), [(6, False), (7, True), (8, False)])
def test_a_reorder_needs_the_version_that_was_read(version: int, accepted: bool) -> None:
    """`spec.md` 10: versioned."""
    given_ = queue(entry("a"), version=7)
    if accepted:
        rules.decide_reorder(given_, [uid("a")], version)
    else:
        error = refused(ErrorCode.STALE_WRITE, lambda: rules.decide_reorder(given_, [uid("a")], version))
        assert error.details == {"version": 7}


# -- reservation -------------------------------------------------------------------------------------------------------------


def test_a_release_reserves_all_that_it_names_in_its_order_and_frees_the_rest() -> None:
    """`spec.md` 11."""
    given_ = queue(entry("a", reserved_by=uid("r")), entry("b"), entry("c"))
    decision = rules.decide_reserve(given_, uid("r"), [uid("c"), uid("b")])
    assert [item.reserved_by for item in decision.owned.entries] == [None, uid("r"), uid("r")]
    assert [item["changeset_id"] for item in decision.result["members"]] == [uid("c"), uid("b")]
    assert names(decision.owned) == "abc"


def test_an_empty_selection_frees_all() -> None:
    """`spec.md` 3: `dropped` frees its changesets."""
    given_ = queue(entry("a", reserved_by=uid("r")), entry("b", reserved_by=uid("other")))
    after = rules.decide_reserve(given_, uid("r"), []).owned
    assert [item.reserved_by for item in after.entries] == [None, uid("other")]


def test_one_that_can_not_be_selected_refuses_the_whole_selection_and_all_such_are_named() -> None:
    """`spec.md` 11: 409 `conflict` with details, nothing reserved."""
    given_ = queue(entry("a"), entry("b", state="needs_revalidation"), entry("c", reserved_by=uid("other")))
    wanted = [uid(name) for name in "abcd"]
    error = refused(ErrorCode.CONFLICT, lambda: rules.decide_reserve(given_, uid("r"), wanted))
    assert error.details == [
        {"changeset_id": uid("b"), "state": "needs_revalidation", "release_id": None},
        {"changeset_id": uid("c"), "state": "queued", "release_id": uid("other")},
        {"changeset_id": uid("d"), "state": "not queued", "release_id": None},
    ]


# -- publish and verdicts ----------------------------------------------------------------------------------------------------


def test_after_a_publish_its_members_are_gone_and_all_that_is_listed_is_revalidated_in_order() -> None:
    """`spec.md` 10: `needs_revalidation` too."""
    given_ = queue(entry("a"), entry("b", reserved_by=uid("r")), entry("c", state="needs_revalidation", status="failed"))
    decision = rules.decide_published(given_, uid("r"), NEXT, job_ids)
    after = decision.owned
    assert names(after) == "ac"
    assert [(item.status, item.job_id) for item in after.entries] == [("running", job_ids(uid(name))) for name in "ac"]
    assert after.sweep == Sweep(epoch=1, integration_sha=NEXT, changeset_ids=[uid("a"), uid("c")], adapts=True)
    assert (after.integration_sha, after.progress_done, after.progress_total) == (NEXT, 0, 2)
    assert [job.entity_id for job in decision.jobs] == [uid("a"), uid("c")]
    assert decision.events == ()


def test_a_publish_is_taken_once() -> None:
    """`durability.md` 4: its sender repeats until it is done."""
    once = rules.decide_published(queue(entry("a")), uid("r"), NEXT, job_ids).owned
    assert rules.decide_published(once, uid("r"), NEXT, job_ids) == Decision(once)


def test_a_newer_publish_supersedes_the_sweep_that_still_runs_and_ends_all_its_jobs() -> None:
    """`spec.md` 10: it is canceled, the members' revalidations too."""
    given_ = swept(running("a", reserved_by=uid("r")), running("b"), entry("c"), epoch=4)
    decision = rules.decide_published(given_, uid("r"), NEXT, job_ids)
    ends = [(end.id, end.state, end.reason_code) for end in decision.job_ends]
    assert ends == [(uid("job a"), *SUPERSEDED), (uid("job b"), *SUPERSEDED)]
    assert (decision.owned.superseded_epochs, decision.owned.sweep_started) == ([4], False)
    assert [(event.action, event.before, event.after) for event in decision.events] == [
        ("superseded", {"epoch": 4}, {"epoch": 5})
    ]


def test_a_superseded_sweep_is_stopped_even_where_none_follows_it() -> None:
    """`spec.md` 10: canceled also when the publish took all that was queued."""
    after = rules.decide_published(swept(running("a", reserved_by=uid("r")), epoch=4), uid("r"), NEXT, job_ids).owned
    assert (after.entries, after.sweep, after.superseded_epochs, after.sweep_started) == ([], None, [4], False)
    started = rules.decide_sweep_told(after, after.epoch)
    assert started is not None
    assert (started.owned.superseded_epochs, started.owned.sweep_started) == ([], True)


def test_a_sweep_that_is_still_to_be_stopped_is_not_forgotten_by_the_next_publish() -> None:
    """`spec.md` 10: two publishes in a row, the second over a queue that everybody has left."""
    first = rules.decide_published(swept(running("a"), epoch=4), uid("r"), NEXT, job_ids).owned
    left = rules.decide_remove(first, uid("a")).owned
    second = rules.decide_published(left, uid("s"), sha("after next"), job_ids).owned
    assert (second.superseded_epochs, second.sweep, second.sweep_started) == ([4, 5], None, False)


def test_a_publish_over_an_empty_queue_starts_nothing() -> None:
    """`spec.md` 10."""
    after = rules.decide_published(queue(entry("a", reserved_by=uid("r"))), uid("r"), NEXT, job_ids).owned
    assert (after.entries, after.sweep, after.sweep_started, after.progress_done, after.progress_total) == ([], None, True, 0, 0)


def test_a_branch_that_was_moved_outside_is_judged_as_after_a_publish_and_nobody_leaves() -> None:
    """`spec.md` 10: verdicts are for the present head."""
    given_ = swept(running("a", reserved_by=uid("r")), entry("b"), epoch=4)
    decision = rules.decide_integration_moved(given_, given_.integration_sha, NEXT, job_ids)
    after = decision.owned
    assert (names(after), after.integration_sha, after.epoch) == ("ab", NEXT, 5)
    assert [item.reserved_by for item in after.entries] == [uid("r"), None]
    assert [job.entity_id for job in decision.jobs] == [uid("a"), uid("b")]
    assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == [(uid("job a"), *SUPERSEDED)]
    assert [(event.action, event.before, event.after) for event in decision.events] == [
        ("superseded", {"epoch": 4}, {"epoch": 5})
    ]
    assert decision.result == {"moved": True}


@pytest.mark.parametrize(("old", "new"), [(sha("older"), NEXT), (NEXT, NEXT)], ids=["a publish came between", "known already"])
def test_a_move_that_the_queue_has_passed_changes_nothing(old: str, new: str) -> None:
    """`durability.md` 17: it carries the head that it was seen from."""
    given_ = queue(entry("a"), integration_sha=NEXT)
    assert rules.decide_integration_moved(given_, old, new, job_ids) == Decision(given_, result={"moved": False})


VERDICTS = {
    ("queued", "valid"): ("queued", "valid", None),
    ("queued", "failed"): ("needs_revalidation", "failed", "needs_revalidation"),
    ("queued", "conflicted"): (None, None, "conflicted"),
    ("queued", "unknown"): ("queued", "unknown", None),
    ("needs_revalidation", "valid"): ("queued", "valid", "revalidated"),
    ("needs_revalidation", "failed"): ("needs_revalidation", "failed", "needs_revalidation"),
    ("needs_revalidation", "conflicted"): (None, None, "conflicted"),
    ("needs_revalidation", "unknown"): ("needs_revalidation", "unknown", None),
}


@pytest.mark.parametrize(
    ("state", "status"), [pytest.param(*row, id=f"{row[0]} --{row[1]}--> {to[0] or 'left'}") for row, to in VERDICTS.items()]
)
def test_a_verdict_does_to_an_entry_what_section_10_says(state: str, status: str) -> None:
    """`spec.md` 10: pass stays, conflict leaves, failure needs revalidation at its place, no verdict stays `unknown`."""
    given_ = swept(entry("x"), running("a", state=state), running("b"), epoch=4)
    found = verdict(given_, "a", status, conflicts=[{"path": "f"}] if status == "conflicted" else [])
    decision = decide_verdicts(given_, [found])
    assert decision is not None
    now_state, now_status, news = VERDICTS[state, status]
    after = decision.owned.entry(uid("a"))
    if now_state is None:
        assert after is None
    else:
        assert after is not None
        assert (after.state.value, after.status.value) == (now_state, now_status)
        assert [item.changeset_id for item in decision.owned.entries] == [uid("x"), uid("a"), uid("b")]
    assert [item.news.kind for item in decision.owned.undelivered] == ([news] if news else [])
    # The job ends with the record, or once the changeset has taken the news (`spec.md` 9).
    assert [end.id for end in decision.job_ends] == ([] if news else [uid("job a")])
    assert (decision.owned.progress_done, decision.owned.progress_total) == (1, 2)


@pytest.mark.parametrize(
    "older",
    [
        {"epoch": 3},
        {"epoch": 5},
        {"integration_sha": sha("older head")},
        {"head_sha": sha("other head")},
        {"job_id": uid("other job")},
        {"changeset_id": uid("not queued")},
    ],
    ids=lambda older: next(iter(older)),
)
def test_a_verdict_that_judged_something_else_changes_nothing(older: dict[str, Any]) -> None:
    """`spec.md` 10 and `durability.md` 17: it is dropped whenever it lands."""
    given_ = swept(running("a"), epoch=4)
    assert decide_verdicts(given_, [verdict(given_, "a", "conflicted", **older)]) is None


def test_a_verdict_counts_once() -> None:
    """`durability.md` 17: also when the same one comes twice in a batch."""
    given_ = swept(running("a"), running("b"))
    twice = decide_verdicts(given_, [verdict(given_, "a"), verdict(given_, "a", "conflicted")])
    assert twice is not None
    assert (len(twice.events), len(twice.job_ends), names(twice.owned)) == (1, 1, "ab")
    assert decide_verdicts(twice.owned, [verdict(given_, "a")]) is None


def test_the_job_of_told_news_ends_when_they_are_delivered_and_only_then() -> None:
    """`spec.md` 9: a job ends only after every record that its verdict changes shows it."""
    given_ = swept(running("a"))
    judged = decide_verdicts(given_, [verdict(given_, "a", "failed")])
    assert judged is not None
    assert judged.job_ends == ()
    delivered = rules.decide_delivered(judged.owned, judged.owned.undelivered)
    assert [end.id for end in delivered.job_ends] == [uid("job a")]
    assert delivered.owned.undelivered == []
    assert rules.decide_delivered(delivered.owned, judged.owned.undelivered).job_ends == ()


def test_a_sweep_has_started_once_and_only_in_its_epoch() -> None:
    """`durability.md` 18."""
    given_ = swept(running("a"), epoch=4, sweep_started=False, superseded_epochs=[3])
    assert rules.decide_sweep_told(given_, 3) is None
    started = rules.decide_sweep_told(given_, 4)
    assert started is not None
    assert (started.owned.sweep_started, started.owned.superseded_epochs) == (True, [])
    assert rules.decide_sweep_told(started.owned, 4) is None


@pytest.mark.parametrize("status", ["valid", "failed", "unknown"])
def test_one_entry_is_judged_again_on_the_present_head(status: str) -> None:
    """`spec.md` 10: run again by `revalidate`."""
    decision = rules.decide_revalidate(queue(entry("a", status=status), entry("b")), uid("a"), job_ids)
    assert decision.result == {"job_id": job_ids(uid("a"))}
    assert [job.entity_id for job in decision.jobs] == [uid("a")]


def test_a_revalidation_that_runs_already_is_the_answer_and_one_outside_the_queue_is_refused() -> None:
    """`api.md` 3: revalidate → {job}, of what is queued or needs_revalidation."""
    given_ = swept(running("a"))
    assert rules.decide_revalidate(given_, uid("a"), job_ids) == Decision(given_, result={"job_id": uid("job a")})
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.decide_revalidate(given_, uid("b"), job_ids))


@pytest.mark.parametrize(("conflicted", "order"), [(True, "ac"), (False, "abc")])
def test_a_blamed_member_leaves_the_selection_and_the_others_stay_reserved_in_order(conflicted: bool, order: str) -> None:
    """`spec.md` 11: a conflict leaves the queue, a failing suite keeps its place."""
    given_ = queue(*(entry(name, reserved_by=uid("r")) for name in "abc"))
    after = rules.decide_eject(given_, uid("r"), uid("b"), conflicted=conflicted, job_id=uid("assembly")).owned
    assert names(after) == order
    blamed = after.entry(uid("b"))
    if blamed is not None:
        assert (blamed.state, blamed.status) == (EntryState.NEEDS_REVALIDATION, EntryStatus.FAILED)
        assert (blamed.reserved_by, blamed.job_id) == (None, uid("assembly"))
    assert [item.reserved_by for item in after.entries if item.changeset_id != uid("b")] == [uid("r")] * 2


def test_only_the_release_that_holds_a_changeset_can_blame_it() -> None:
    """`durability.md` 14: a reservation carries its release's id."""
    given_ = queue(entry("a", reserved_by=uid("r")), entry("b"))
    for release, name in (("other", "a"), ("r", "b"), ("r", "c")):
        assert rules.decide_eject(given_, uid(release), uid(name), conflicted=True, job_id=uid("j")) == Decision(given_)


@pytest.mark.parametrize("conflicted", [True, False])
def test_the_revalidation_of_a_blamed_member_is_superseded(conflicted: bool) -> None:
    """`spec.md` 9: no job is left without an end."""
    given_ = swept(running("a", reserved_by=uid("r")), running("b"))
    decision = rules.decide_eject(given_, uid("r"), uid("a"), conflicted=conflicted, job_id=uid("assembly"))
    assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == [(uid("job a"), *SUPERSEDED)]
    assert (decision.owned.progress_done, decision.owned.progress_total) == (1, 2)


# -- random histories --------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abcd")
RELEASES = st.sampled_from(["r1", "r2", "r3"])


class RandomHistories(RuleBasedStateMachine):
    """Any order of commands, with an independent account of who is in the queue, in which order, and held by whom."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.order: list[str] = []
        self.held: dict[str, str] = {}
        self.published: list[str] = []
        self.open_jobs: list[str] = []
        self.known: list[str] = []
        self.numbers = count(1)

    def job(self, changeset_id: str) -> str:
        return uid(f"job {next(self.numbers)} of {changeset_id}")

    def take(self, decision: Decision[Queue]) -> None:
        """Apply a decision as a workflow does, and keep the account of jobs: each is started once and ended once."""
        if decision.owned is not self.queue:
            self.queue = decision.owned.model_copy(update={"version": self.queue.version + 1})
        for job in decision.jobs:
            assert job.id not in self.open_jobs
            self.open_jobs.append(job.id)
        for end in decision.job_ends:
            if end.id in self.open_jobs:
                self.open_jobs.remove(end.id)

    @initialize()
    def start(self) -> None:
        for name in "abc":
            self.enqueue(name, current=True, hotpatch=False)

    @rule(name=NAMES, current=st.booleans(), hotpatch=st.sampled_from([False, False, True]))
    def enqueue(self, name: str, current: bool, hotpatch: bool) -> None:
        present = self.queue.integration_sha
        judged = present if current else sha("long ago")
        entering = entry(name, hotpatch=hotpatch, judged_sha=judged, base_sha=judged)
        self.take(rules.decide_enqueue(self.queue, entering, self.job))
        if name not in self.order:
            self.order = [name, *self.order] if hotpatch else [*self.order, name]

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name in self.held:
            refused(ErrorCode.CONFLICT, lambda: rules.decide_remove(self.queue, uid(name)))
            return
        self.take(rules.decide_remove(self.queue, uid(name)))
        self.order = [other for other in self.order if other != name]

    @rule(release=RELEASES, names=st.lists(NAMES, unique=True, max_size=3), listed=st.booleans())
    def reserve(self, release: str, names: list[str], listed: bool) -> None:
        if release in self.published:
            return
        wanted = [name for name in names if name in self.order] if listed else names
        free = [
            name
            for name in wanted
            if name in self.order
            and self.held.get(name, release) == release
            and next(item for item in self.queue.entries if item.changeset_id == uid(name)).state is EntryState.QUEUED
        ]
        try:
            decision = rules.decide_reserve(self.queue, uid(release), [uid(name) for name in wanted])
        except DomainError as error:
            assert free != wanted
            assert [item["changeset_id"] for item in error.details] == [uid(name) for name in wanted if name not in free]
            return
        assert free == wanted
        self.take(decision)
        kept = {name: by for name, by in self.held.items() if by != release}
        self.held = {**kept, **dict.fromkeys(wanted, release)}

    @rule(release=RELEASES)
    def publish(self, release: str) -> None:
        self.take(rules.decide_published(self.queue, uid(release), sha(f"published {release}"), self.job))
        if release not in self.published:
            self.published.append(release)
            self.order = [name for name in self.order if self.held.get(name) != release]
            self.held = {name: by for name, by in self.held.items() if by != release}
            assert all(item.status is EntryStatus.RUNNING for item in self.queue.entries)

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations(self.order))
        self.take(rules.decide_reorder(self.queue, [uid(name) for name in order], self.queue.version))
        self.order = order

    @rule(name=NAMES, status=st.sampled_from(["valid", "failed", "conflicted", "unknown"]))
    def judge(self, name: str, status: str) -> None:
        if name not in self.order:
            return
        given_ = next(item for item in self.queue.entries if item.changeset_id == uid(name))
        decision = decide_verdicts(self.queue, [verdict(self.queue, name, status)])
        assert (decision is None) is (given_.status is not EntryStatus.RUNNING)
        if decision is None:
            return
        self.take(decision)
        if status == "conflicted":
            self.order = [other for other in self.order if other != name]
            self.held.pop(name, None)

    @rule(name=NAMES, wrong=st.sampled_from(["epoch", "job_id", "head_sha", "integration_sha"]), ago=st.integers(1, 3))
    def judge_what_is_no_more(self, name: str, wrong: str, ago: int) -> None:
        if name in self.order:
            value = self.queue.epoch - ago if wrong == "epoch" else sha(f"other {ago}")
            assert decide_verdicts(self.queue, [verdict(self.queue, name, "conflicted", **{wrong: value})]) is None

    @rule(name=NAMES)
    def revalidate(self, name: str) -> None:
        if name in self.order:
            self.take(rules.decide_revalidate(self.queue, uid(name), self.job))

    @rule(name=NAMES, conflicted=st.booleans())
    def eject(self, name: str, conflicted: bool) -> None:
        if name in self.held:
            assembly = uid("assembly")
            release = uid(self.held.pop(name))
            self.take(rules.decide_eject(self.queue, release, uid(name), conflicted=conflicted, job_id=assembly))
            self.order = [other for other in self.order if other != name or not conflicted]

    @rule()
    def deliver(self) -> None:
        self.take(rules.decide_delivered(self.queue, self.queue.undelivered[:1]))

    @rule()
    def start_sweep(self) -> None:
        if not self.queue.sweep_started:
            self.known = [item.job_id or "" for item in self.queue.entries if item.status is EntryStatus.RUNNING]
            decision = rules.decide_sweep_told(self.queue, self.queue.epoch, self.known)
            assert decision is not None
            self.take(decision)

    @rule()
    def tell_the_sweep_what_changed(self) -> None:
        if self.queue.sweep_started and (self.queue.joining or self.queue.leaving):
            self.known = [*(job for job in self.known if job not in self.queue.leaving), *self.queue.joining]
            decision = rules.decide_sweep_told(self.queue, self.queue.epoch, [*self.queue.joining, *self.queue.leaving])
            assert decision is not None
            self.take(decision)
            assert (self.queue.joining, self.queue.leaving) == ([], [])

    @invariant()
    def order_is_kept_and_nothing_stands_twice(self) -> None:
        assert names(self.queue) == "".join(self.order)
        assert len(set(self.order)) == len(self.order)

    @invariant()
    def only_open_releases_hold_something(self) -> None:
        found = {item.changeset_id: item.reserved_by for item in self.queue.entries if item.reserved_by is not None}
        assert found == {uid(name): uid(release) for name, release in self.held.items()}
        assert not [release for release in self.published if uid(release) in found.values()]

    @invariant()
    def all_verdicts_are_in_if_and_only_if_nothing_runs(self) -> None:
        runs = [item.changeset_id for item in self.queue.entries if item.status is EntryStatus.RUNNING]
        assert (self.queue.progress_done == self.queue.progress_total) is (not runs)
        assert 0 <= self.queue.progress_done <= self.queue.progress_total
        assert (self.queue.sweep is None) is (not runs)
        if self.queue.sweep is not None:
            assert (self.queue.sweep.epoch, self.queue.sweep.integration_sha) == (self.queue.epoch, self.queue.integration_sha)
            assert not [run for run in runs if run not in self.queue.sweep.changeset_ids]

    @invariant()
    def every_open_job_is_waited_for(self) -> None:
        waited = [item.job_id for item in self.queue.entries if item.status is EntryStatus.RUNNING]
        told = [news.job_end.id for news in self.queue.undelivered if news.job_end is not None]
        assert sorted(self.open_jobs) == sorted([*(job for job in waited if job), *told])

    @invariant()
    def a_sweep_that_is_under_way_knows_all_that_runs_or_is_still_to_be_told(self) -> None:
        if self.queue.sweep_started and self.queue.sweep is not None:
            runs = [item.job_id for item in self.queue.entries if item.status is EntryStatus.RUNNING]
            assert not [job for job in runs if job not in self.known and job not in self.queue.joining]

    @invariant()
    def superseded_sweeps_are_stopped(self) -> None:
        assert not (self.queue.superseded_epochs and self.queue.sweep_started)


RandomHistories.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


class TestAnyHistoryOfCommandsKeepsTheQueueRight(RandomHistories.TestCase):
    """`spec.md` 10 and 11, `durability.md` 14-18."""
