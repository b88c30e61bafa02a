"""Which decision tells people of what, and whom it names (`spec.md` 14); whom else a kind's rule finds: tests/mail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from profile_samples import FULL, URI, merged, text
from rule_samples import AUTHOR, CHANGESET, HEAD, MAIN, changeset, member, review_facts, sha, submit_facts, uid, vote
from rule_samples import release as sample_release

from conman.domain import profile_notices, release
from conman.domain.changeset import ChangesetState, Gate
from conman.domain.changeset_gate import decide_gate_verdict, decide_retry
from conman.domain.changeset_news import QueueNews, decide_news
from conman.domain.changeset_notices import MOST_NAMED
from conman.domain.changeset_queue import decide_move_to_draft, decide_queued, decide_withdraw
from conman.domain.changeset_review import decide_request_review, decide_review, decide_take_back
from conman.domain.changeset_submit import decide_submit
from conman.domain.decision import NewNotice, Verdict
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.notification import NoticeKind
from conman.domain.publishing import decide_published
from conman.domain.release import PublishIntent
from conman.mail.rendering import Words, render

S, K = ChangesetState, NoticeKind
JOB = uid("gate 1")
PLANTED = "open-sesame"
"""What no mail may say, in places where a record may hold it."""
COLLISION = {"kind": "override_collision", "profile_id": uid("p"), "key": "LIMIT", "changeset_id": uid("other"), "value": PLANTED}
CONFLICT = {"path": "limits.yaml", "base": PLANTED, "ours": PLANTED}


def queued(**fields: Any) -> Any:
    return changeset(S.QUEUED, **fields)


def verdict(state: JobState, reason: ReasonCode) -> Verdict:
    return Verdict(job_id=JOB, state=state, reason_code=reason, summary={"message": PLANTED})


def judged(state: JobState, reason: ReasonCode, **fields: Any) -> Any:
    return decide_gate_verdict(CHANGESET, changeset(gate="running", **fields), verdict(state, reason))


def news(kind: Any, cs: Any, **fields: Any) -> Any:
    return decide_news(CHANGESET, cs, QueueNews(kind=kind, head_sha=HEAD, **fields))


def reviewed(action: str, required: int = 1, **fields: Any) -> Any:
    facts = review_facts(action, required).model_copy(update={"comment": PLANTED})
    return decide_review(CHANGESET, changeset(**fields), facts, uid("reviewer"))


INTENT = PublishIntent(command_id="c", actor={}, old_sha=MAIN, new_sha=sha("candidate"), tag="r2026.03.01.2", at="t")
UNDOING = {"created": False, "tag": None, "members": [], "reverts_release_id": uid("undone")}
CARRIED = {"votes": [vote("ann")], "required_approvals": 1}
OVERRIDDEN = [{"profile_id": uid("p"), "env_vars": {"LIMIT": PLANTED}, "secrets": {"PIN": PLANTED}}]

TOLD: dict[str, tuple[Callable[[], Any], list[tuple[NoticeKind, tuple[str, ...]]]]] = {
    "submitted": (
        lambda: decide_submit(CHANGESET, changeset(S.DRAFT), submit_facts(overrides=OVERRIDDEN), AUTHOR, again=False),
        [(K.CHANGESET_SUBMITTED, ())],
    ),
    "resubmitted": (
        lambda: decide_submit(CHANGESET, changeset(S.CHANGES_REQUESTED), submit_facts(), AUTHOR, again=True),
        [(K.CHANGESET_SUBMITTED, ())],
    ),
    "review asked of somebody": (
        lambda: decide_request_review(CHANGESET, changeset(), uid("reviewer"), AUTHOR, "t"),
        [(K.REVIEW_REQUESTED, (uid("reviewer"),))],
    ),
    "gate passed": (lambda: judged(JobState.SUCCEEDED, ReasonCode.OK), []),
    "gate failed": (lambda: judged(JobState.FAILED, ReasonCode.TESTS_FAILED), [(K.CHANGESET_GATE_FAILED, (AUTHOR,))]),
    "gate without a verdict": (lambda: judged(JobState.FAILED, ReasonCode.TIMEOUT), [(K.CHANGESET_GATE_FAILED, (AUTHOR,))]),
    "gate canceled": (lambda: judged(JobState.CANCELED, ReasonCode.CANCELED), []),
    "gate passed, votes carried": (
        lambda: judged(JobState.SUCCEEDED, ReasonCode.OK, **CARRIED),
        [(K.CHANGESET_APPROVED, (AUTHOR,))],
    ),
    "gate run again": (
        lambda: decide_retry(CHANGESET, _lost(), JOB, uid("next gate"), AUTHOR),
        [],
    ),
    "approved": (lambda: reviewed("approve"), [(K.CHANGESET_APPROVED, (AUTHOR,))]),
    "one approval of two": (lambda: reviewed("approve", 2), []),
    "second approval of two": (lambda: reviewed("approve", 2, votes=[vote("ann")]), [(K.CHANGESET_APPROVED, (AUTHOR,))]),
    "changes requested": (lambda: reviewed("request_changes"), [(K.CHANGESET_CHANGES_REQUESTED, (AUTHOR,))]),
    "rejected": (lambda: reviewed("reject"), [(K.CHANGESET_REJECTED, (AUTHOR,))]),
    "approval taken back": (
        lambda: decide_take_back(CHANGESET, changeset(S.APPROVED, votes=[vote("ann")]), uid("ann"), None),
        [],
    ),
    "queued": (lambda: decide_queued(CHANGESET, changeset(S.APPROVED), "t"), [(K.CHANGESET_QUEUED, (AUTHOR,))]),
    "queued, and out again": (
        lambda: decide_queued(CHANGESET, changeset(S.APPROVED), "t", [COLLISION]),
        [(K.CHANGESET_CONFLICTED, (AUTHOR,))],
    ),
    "conflicted": (
        lambda: news("conflicted", queued(), job_id=JOB, conflicts=[CONFLICT, COLLISION]),
        [(K.CHANGESET_CONFLICTED, (AUTHOR,))],
    ),
    "needs revalidation": (
        lambda: news("needs_revalidation", queued(), job_id=JOB),
        [(K.CHANGESET_NEEDS_REVALIDATION, (AUTHOR,))],
    ),
    "valid again": (lambda: news("revalidated", changeset(S.NEEDS_REVALIDATION), job_id=JOB), []),
    "released": (lambda: news("released", queued(), release_id=uid("release")), []),
    "back to draft": (lambda: decide_move_to_draft(CHANGESET, changeset()), []),
    "withdrawn": (lambda: decide_withdraw(CHANGESET, changeset()), []),
    "release created": (
        lambda: release.decide_selected(uid("r"), _release(created=False), [member("a")], "r2026.03.01.1"),
        [(K.RELEASE_CREATED, ())],
    ),
    "selection changed": (lambda: release.decide_selected(uid("r"), _release(), [member("a")], None), []),
    "release that undoes another": (
        lambda: release.decide_reverting(uid("r"), _release(**UNDOING), "r2026.03.01.1", uid("job"), None),
        [(K.RELEASE_CREATED, ())],
    ),
    "release published": (
        lambda: decide_published(uid("r"), _release("validated", publishing=INTENT), "r2026.03.01.2"),
        [(K.RELEASE_PUBLISHED, ())],
    ),
}


def _release(state: str = "draft_release", **fields: Any) -> Any:
    return sample_release(state, **fields)


def _lost() -> Any:
    cs = changeset(gate=None)
    return cs.model_copy(update={"gate": Gate(state=JobState.FAILED, job_id=JOB, reason_code=ReasonCode.TIMEOUT)})


@pytest.mark.parametrize("event", TOLD)
def test_a_decision_tells_of_what_the_specification_lists_and_of_nothing_else(event: str) -> None:
    decide, told = TOLD[event]
    assert [(one.kind, one.user_ids) for one in decide().notices] == told


def test_every_kind_about_changesets_and_releases_is_told_by_a_decision() -> None:
    by_rules = {kind for _, told in TOLD.values() for kind, _ in told}
    about = ("changeset_", "release_", "review_")
    assert {kind for kind in K if kind.value.startswith(about)} - by_rules == {K.REVIEW_REMINDER}, "test_changeset_reminders"


PROFILE = merged(FULL, env_vars={"A": text(PLANTED)}, secrets={"TOKEN": PLANTED, "NEW": PLANTED})
PROFILE_CHANGES = {
    "edited": profile_notices.changed(uid("p"), 2, FULL, PROFILE),
    "in use": profile_notices.changed(uid("p"), 2, FULL, PROFILE, deployed_in=["Live"]),
    "reverted": profile_notices.changed(uid("p"), 3, PROFILE, FULL, reverted_to=1),
    "relinked": profile_notices.relinked(uid("p"), 3, FULL, PROFILE, "Live"),
    "deleted": profile_notices.deleted(uid("p"), 3, PROFILE),
}
NOTICES: list[NewNotice] = [
    *(notice for decide, _ in TOLD.values() for notice in decide().notices),
    *PROFILE_CHANGES.values(),
]


@pytest.mark.parametrize("notice", NOTICES, ids=lambda notice: notice.kind.value)
def test_a_notice_brings_what_its_mail_says_and_no_value_of_anything(notice: NewNotice) -> None:
    """Also of the barest record: a template that asks for what its notice does not bring is an error."""
    rendered = render(notice.kind, Words("https://conman.test/", "https://conman.test/me", *[None] * 5, data=notice.data))
    assert rendered.subject
    for planted in (PLANTED, URI, FULL.secrets["TOKEN"].mask):
        assert planted not in f"{notice.data}{rendered}"


def test_a_mail_of_a_profile_names_the_keys_that_differ() -> None:
    assert PROFILE_CHANGES["edited"].data["fields"] == ["env_vars.A", "secrets.NEW", "secrets.TOKEN"]
    assert PROFILE_CHANGES["deleted"].data["fields"] == []


def test_a_mail_of_many_conflicts_names_some_and_counts_the_rest() -> None:
    conflicts = [{"path": f"file-{number}"} for number in range(MOST_NAMED + 5)]
    (notice,) = news("conflicted", queued(), conflicts=[*conflicts, *conflicts]).notices
    assert (len(notice.data["paths"]), notice.data["more"]) == (MOST_NAMED, 5)
