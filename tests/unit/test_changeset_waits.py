"""What a changeset waits for, in data and in a sentence (`api.md` 3 and 4)."""

from __future__ import annotations

import pytest
from rule_samples import changeset, uid, vote

from conman.domain.changeset import TERMINAL, Changeset, ChangesetState, Intent, Move
from conman.domain.changeset_waits import BlockerCode, Surroundings, Who, blockers, waiting_for
from conman.domain.jobs import JobState, ReasonCode

S, C = ChangesetState, BlockerCode


def gated(state: str, reason: ReasonCode | None = None) -> Changeset:
    given = changeset(gate=state)
    assert given.gate is not None
    return given.model_copy(update={"gate": given.gate.model_copy(update={"reason_code": reason})})


CASES = {
    "a draft": (changeset(S.DRAFT), None, [(C.NOT_SUBMITTED, Who.AUTHOR)]),
    "its gate is queued": (gated("queued"), None, [(C.GATE_RUNNING, Who.CONMAN), (C.APPROVALS_MISSING, Who.REVIEWER)]),
    "its gate runs": (gated("running"), None, [(C.GATE_RUNNING, Who.CONMAN), (C.APPROVALS_MISSING, Who.REVIEWER)]),
    "its gate runs, and its votes were carried": (
        gated("running").model_copy(update={"votes": [vote("ann")]}),
        None,
        [(C.GATE_RUNNING, Who.CONMAN)],
    ),
    "its gate has failed": (
        gated("failed", ReasonCode.TESTS_FAILED),
        None,
        [(C.GATE_NOT_PASSED, Who.AUTHOR), (C.APPROVALS_MISSING, Who.REVIEWER)],
    ),
    "its gate has no verdict": (
        gated("failed", ReasonCode.TIMEOUT),
        None,
        [(C.GATE_WITHOUT_VERDICT, Who.AUTHOR), (C.APPROVALS_MISSING, Who.REVIEWER)],
    ),
    "its gate was canceled": (
        gated("canceled", ReasonCode.CANCELED),
        None,
        [(C.GATE_WITHOUT_VERDICT, Who.AUTHOR), (C.APPROVALS_MISSING, Who.REVIEWER)],
    ),
    "in review": (changeset(S.IN_REVIEW), None, [(C.APPROVALS_MISSING, Who.REVIEWER)]),
    "changes were requested": (changeset(S.CHANGES_REQUESTED), None, [(C.CHANGES_REQUESTED, Who.AUTHOR)]),
    "approved": (changeset(S.APPROVED), Surroundings(), [(C.NOT_QUEUED, Who.AUTHOR)]),
    "approved, and behind": (changeset(S.APPROVED), Surroundings(behind=True), [(C.OUT_OF_DATE, Who.AUTHOR)]),
    "queued": (changeset(S.QUEUED), Surroundings(), [(C.NOT_IN_A_RELEASE, Who.CONFIG_MANAGER)]),
    "in a release": (
        changeset(S.QUEUED),
        Surroundings(release_id=uid("release")),
        [(C.RELEASE_NOT_PUBLISHED, Who.CONFIG_MANAGER)],
    ),
    "conflicted": (changeset(S.CONFLICTED, conflicts=[{"path": "a.json"}]), None, [(C.CONFLICTED, Who.AUTHOR)]),
    "to be revalidated": (changeset(S.NEEDS_REVALIDATION), None, [(C.NEEDS_REVALIDATION, Who.AUTHOR)]),
    "the queue is asked": (
        changeset(S.APPROVED, intent=Intent(command_id="c", move=Move.QUEUE, actor={})),
        None,
        [(C.QUEUE_ASKED, Who.CONMAN)],
    ),
}


@pytest.mark.parametrize(("given", "around", "wanted"), CASES.values(), ids=CASES)
def test_each_thing_that_is_missing_has_a_code_and_says_who_can_clear_it(
    given: Changeset, around: Surroundings | None, wanted: list[tuple[BlockerCode, Who]]
) -> None:
    found = blockers(given, around)
    assert [(blocker.code, blocker.who) for blocker in found] == wanted
    assert waiting_for(given, around) == found[0].message
    for blocker in found:
        assert blocker.message.startswith("Waits for ") and blocker.message.endswith(".")
        assert set(blocker.record()) == {"code", "message", "who"}


def test_every_code_stands_for_something_above() -> None:
    assert {code for _, _, wanted in CASES.values() for code, _ in wanted} == set(BlockerCode)


@pytest.mark.parametrize("state", sorted(TERMINAL), ids=lambda state: state.value)
def test_what_has_ended_is_blocked_by_nothing(state: ChangesetState) -> None:
    assert blockers(changeset(state), Surroundings(behind=True, release_id=uid("release"))) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (gated("failed", ReasonCode.TESTS_FAILED), ["revision 1", "tests_failed", "mends the files and resubmits"]),
        (gated("failed", ReasonCode.TIMEOUT), ["timeout", "retry the job", uid("gate 1")]),
        (changeset(S.CONFLICTED, conflicts=[{"path": "a.json"}]), ["a.json", "return it to draft, sync"]),
        (changeset(required_approvals=3, votes=[vote("ann")]), ["2 more approvals"]),
    ],
    ids=["a verdict", "no verdict", "a conflict", "approvals"],
)
def test_the_sentence_names_the_cause_and_what_to_do(given: Changeset, words: list[str]) -> None:
    assert [word for word in words if word not in (waiting_for(given) or "")] == []


def test_a_gate_that_has_passed_blocks_nothing() -> None:
    passed = gated("succeeded")
    assert passed.gate is not None and passed.gate.state is JobState.SUCCEEDED
    assert [blocker.code for blocker in blockers(passed)] == [C.APPROVALS_MISSING]
