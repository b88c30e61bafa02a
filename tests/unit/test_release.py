"""Releases keep the table and the rules of `spec.md` 3 and 11."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import AT, MAIN, member, refused, release, sha, uid

from conman.domain import release as rules
from conman.domain.errors import ErrorCode
from conman.domain.jobs import OUTCOMES, JobState, JobType, ReasonCode
from conman.domain.release import AssemblyResult, EditIntent, Failure, Move, PublishIntent, Release, ReleaseState, Selection

S = ReleaseState
RELEASE = uid("release")

# `spec.md` 3. The diagram's line to `deployed_partial` also stands for an app with one environment, whose first success is
# `deployed_full` by that word's definition; and what is deployed stays what it is, or changes between the two, with each end
# of a deployment.
SECTION_3 = """
draft_release    | edit           | draft_release
validated        | edit           | draft_release
draft_release    | assemble       | assembling
assembling       | assembled      | validated
assembling       | return         | draft_release
validated        | return         | draft_release
validated        | publish        | published
draft_release    | drop           | dropped
validated        | drop           | dropped
published        | deploy_partial | deployed_partial
deployed_partial | deploy_partial | deployed_partial
deployed_full    | deploy_partial | deployed_partial
published        | deploy_full    | deployed_full
deployed_partial | deploy_full    | deployed_full
deployed_full    | deploy_full    | deployed_full
published        | roll_back      | rolled_back
deployed_partial | roll_back      | rolled_back
deployed_full    | roll_back      | rolled_back
"""
LEGAL = {
    (row[0], row[1]): row[2] for row in ([cell.strip() for cell in line.split("|")] for line in SECTION_3.split("\n") if line)
}
WALK = [
    pytest.param(state, move, id=f"{state.value} --{move.value}--> {LEGAL.get((state.value, move.value), 'refused')}")
    for state, move in product(S, Move)
]


@pytest.mark.parametrize(("state", "move"), WALK)
def test_a_release_moves_only_along_the_table(state: ReleaseState, move: Move) -> None:
    """`spec.md` 3: an illegal move is `invalid_transition`, naming both states."""
    wanted = LEGAL.get((state.value, move.value))
    if wanted is not None:
        assert rules.target(state, move).value == wanted
        return
    error = refused(ErrorCode.INVALID_TRANSITION, lambda: rules.target(state, move))
    ends = {to for (_, by), to in LEGAL.items() if by == move.value}
    assert state.value in error.message
    assert any(end in error.message for end in ends)
    assert error.details["from"] == state.value
    assert error.details["to"] in ends


def test_the_walk_knows_every_row_of_the_table() -> None:
    """`spec.md` 3: the copy here and the table have the same rows."""
    assert {(state.value, move.value): to.value for (state, move), to in rules.TRANSITIONS.items()} == LEGAL


def test_open_deployable_and_terminal_states_are_all_states_once() -> None:
    """`spec.md` 3: terminal are `dropped` and `rolled_back`, and what is rolled back is not deployable."""
    assert {state.value for state in rules.TERMINAL} == {"dropped", "rolled_back"}
    assert {state.value for state in rules.DEPLOYABLE} == {"published", "deployed_partial", "deployed_full"}
    assert {state.value for state in rules.OPEN} == {"draft_release", "assembling", "validated"}
    assert not [row for row in rules.TRANSITIONS if row[0] in rules.TERMINAL]


# -- selection ---------------------------------------------------------------------------------------------------------------


def test_the_first_selection_creates_the_release_and_gives_it_its_tag() -> None:
    """`spec.md` 11."""
    fresh = release(tag=None, created=False, members=[])
    decision = rules.decide_selected(RELEASE, fresh, [member("a"), member("b")], "r2026.03.01.4")
    assert (decision.owned.tag, decision.owned.created, decision.owned.state) == ("r2026.03.01.4", True, S.DRAFT_RELEASE)
    assert decision.owned.ordered_changeset_ids == [uid("a"), uid("b")]
    assert [event.action for event in decision.events] == ["created"]


@pytest.mark.parametrize(
    ("names", "action"), [("cab", "reordered"), ("ab", "changesets_modified"), ("abcd", "changesets_modified")]
)
def test_a_later_selection_is_a_reorder_when_it_has_the_same_members(names: str, action: str) -> None:
    """`api.md` 5; the tag stays."""
    edit = EditIntent(command_id="c", kind="select", actor={})
    decision = rules.decide_selected(RELEASE, release(edit=edit), [member(name) for name in names], "another")
    assert [event.action for event in decision.events] == [action]
    assert (decision.owned.tag, decision.owned.edit) == ("r2026.03.01.1", None)


def test_editing_a_validated_release_returns_it_to_draft_without_its_candidate() -> None:
    """`spec.md` 3: the selection or order is edited."""
    decision = rules.decide_selected(RELEASE, release("validated", prefix_shas=[sha("p")]), [member("a")], None)
    assert (decision.owned.state, decision.owned.candidate_sha, decision.owned.prefix_shas) == (S.DRAFT_RELEASE, None, [])
    assert [event.action for event in decision.events] == ["changesets_modified", "returned_to_draft"]


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(changeset_ids=["c", "a"]), "ca"),
        (Selection(kind="reorder", changeset_ids=["b", "a"]), "ba"),
        (Selection(kind="change", add=["c"]), "abc"),
        (Selection(kind="change", remove=["a"]), "b"),
        (Selection(kind="change", add=["c", "a"], remove=["b"]), "ac"),
        (Selection(kind="change", add=["b"], remove=["x"]), "ab"),
    ],
    ids=["whole", "reorder", "more", "less", "more and less", "nothing new"],
)
def test_a_selection_is_made_from_the_present_one(selection: Selection, wanted: str) -> None:
    """`api.md` 3: `{changeset_ids? | add?,remove?}`, and reorder."""
    assert selection.of(["a", "b"]) == list(wanted)


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "c"], ["a", "b", "c"], ["a", "a"]], ids=str)
def test_a_reorder_names_every_changeset_once(ids: list[str]) -> None:
    """`api.md` 3."""
    refused(ErrorCode.VALIDATION_ERROR, lambda: Selection(kind="reorder", changeset_ids=ids).of(["a", "b"]))


@pytest.mark.parametrize("state", ["assembling", "published", "deployed_partial", "deployed_full", "dropped", "rolled_back"])
def test_only_a_draft_or_validated_release_can_be_edited_or_dropped(state: str) -> None:
    """`spec.md` 3 and 11: after publish nothing about it can change."""
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.check_select(release(state), Selection(changeset_ids=[uid("a")])))
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.decide_selected(RELEASE, release(state), [member("a")], None))
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.decide_dropped(RELEASE, release(state)))


@pytest.mark.parametrize(("created", "actions"), [(True, ["dropped"]), (False, [])])
def test_a_dropped_release_keeps_its_tag_and_one_that_was_never_shown_leaves_no_event(created: bool, actions: list[str]) -> None:
    """`spec.md` 3: the tag's number stays used."""
    decision = rules.decide_dropped(RELEASE, release("draft_release", created=created))
    assert (decision.owned.state, decision.owned.tag) == (S.DROPPED, "r2026.03.01.1")
    assert [event.action for event in decision.events] == actions


# -- assembly ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "accepted"), [("", False), ("a", True), ("ab", True)])
def test_assembling_an_empty_selection_is_a_conflict(members: str, accepted: bool) -> None:
    """`spec.md` 11."""
    given_ = release(members=[member(name) for name in members])
    if accepted:
        assert rules.decide_assemble(RELEASE, given_, uid("job"), None).owned.state is S.ASSEMBLING
    else:
        refused(ErrorCode.CONFLICT, lambda: rules.decide_assemble(RELEASE, given_, uid("job"), None))


def test_an_assembly_starts_with_a_job_and_forgets_the_earlier_failure() -> None:
    """`spec.md` 9 and 11."""
    decision = rules.decide_assemble(RELEASE, release(failure=Failure(reason_code="conflict")), uid("job"), uid("manager"))
    assert (decision.owned.failure, decision.owned.candidate_sha, decision.owned.job_id) == (None, None, uid("job"))
    (job,) = decision.jobs
    assert (job.job_type, job.entity_id, job.created_by) == (JobType.RELEASE_ASSEMBLE, RELEASE, uid("manager"))
    assert decision.result == {"job_id": uid("job")}


def assembled(**fields: Any) -> AssemblyResult:
    base: dict[str, Any] = {"job_id": uid("assembly"), "base_sha": MAIN, "candidate_sha": sha("new"), "prefix_shas": [sha("new")]}
    return AssemblyResult(**{**base, **fields})


def test_an_assembly_that_passes_validates_the_release_on_the_head_that_it_used() -> None:
    """`spec.md` 11."""
    decision = rules.decide_assembly_result(RELEASE, release("assembling"), assembled())
    assert decision is not None
    after = decision.owned
    assert (after.state, after.base_sha, after.candidate_sha) == (S.VALIDATED, MAIN, sha("new"))
    assert [event.action for event in decision.events] == ["assembled", "validated"]
    assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == [
        (uid("assembly"), JobState.SUCCEEDED, ReasonCode.OK)
    ]


@pytest.mark.parametrize("blamed", ["a", "b", "c", None])
def test_what_is_blamed_leaves_the_selection_and_the_others_stay_in_order(blamed: str | None) -> None:
    """`spec.md` 11: the release returns to draft with the reason; blamed is at most one."""
    failure = Failure(reason_code="tests_failed", changeset_id=uid(blamed) if blamed else None, message="why")
    decision = rules.decide_assembly_result(RELEASE, release("assembling"), assembled(failure=failure))
    assert decision is not None
    assert (decision.owned.state, decision.owned.failure) == (S.DRAFT_RELEASE, failure)
    assert decision.owned.ordered_changeset_ids == [uid(name) for name in "abc" if name != blamed]
    assert [event.action for event in decision.events] == ["assembly_failed"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((reason.value, reason) for reason in ReasonCode if reason is not ReasonCode.OK),
        ("conflict", ReasonCode.TESTS_FAILED),
        ("inconclusive", ReasonCode.TESTS_FAILED),
        ("head_moved", ReasonCode.SUPERSEDED),
    ],
)
def test_an_assembly_that_fails_ends_its_job_with_a_known_reason_and_its_state(code: str, reason: ReasonCode) -> None:
    """`spec.md` 9: the reason fixes the state."""
    decision = rules.decide_assembly_result(
        RELEASE, release("assembling"), assembled(failure=Failure(reason_code=code, message="why"))
    )
    assert decision is not None
    (end,) = decision.job_ends
    assert (end.reason_code, end.state) == (reason, OUTCOMES[reason].state)
    assert end.result is not None
    assert end.result["failure"]["reason_code"] == code


def test_an_assembly_whose_head_moved_meanwhile_ends_in_draft_and_blames_nobody() -> None:
    """`spec.md` 3: an assembly whose head moved meanwhile ends in `draft_release` too; 9: `superseded`."""
    decision = rules.decide_assembly_result(RELEASE, release("assembling"), assembled(head_moved=True))
    assert decision is not None
    assert decision.owned.state is S.DRAFT_RELEASE
    assert decision.owned.ordered_changeset_ids == [uid(name) for name in "abc"]
    assert decision.owned.failure is not None
    assert decision.owned.failure.reason_code == "head_moved"
    assert [(end.state, end.reason_code) for end in decision.job_ends] == [(JobState.CANCELED, ReasonCode.SUPERSEDED)]


@pytest.mark.parametrize(("state", "job"), [("draft_release", "assembly"), ("validated", "assembly"), ("assembling", "older")])
def test_the_result_of_an_assembly_that_nobody_waits_for_is_dropped(state: str, job: str) -> None:
    """`durability.md` 17."""
    assert rules.decide_assembly_result(RELEASE, release(state), assembled(job_id=uid(job))) is None


INTENT = PublishIntent(command_id="c", actor={}, old_sha=MAIN, new_sha=sha("candidate"), tag="r2026.03.01.2", at=AT)

# -- what is deployed --------------------------------------------------------------------------------------------------------

ENVIRONMENTS = st.lists(st.sampled_from(["dev", "qa", "uat", "prod"]), unique=True)


@settings(deadline=None)
@given(ENVIRONMENTS, ENVIRONMENTS)
def test_deployed_full_is_every_listed_environment_and_partial_at_least_one(listed: list[str], succeeded: list[str]) -> None:
    """`spec.md` 3: what has succeeded in an environment that is no longer listed does not count."""
    count = len([name for name in listed if name in succeeded])
    wanted = S.PUBLISHED if count == 0 else S.DEPLOYED_FULL if count == len(listed) else S.DEPLOYED_PARTIAL
    assert rules.deployed_state(listed, succeeded) is wanted
    assert rules.deployed_state(listed[::-1], [*succeeded, *succeeded]) is wanted


@pytest.mark.parametrize(
    ("succeeded", "state"),
    [
        ([], "published"),
        (["dev"], "deployed_partial"),
        (["dev", "qa"], "deployed_partial"),
        (["dev", "qa", "prod"], "deployed_full"),
    ],
    ids=["none of three", "one of three", "two of three", "three of three"],
)
def test_the_last_environment_makes_it_full(succeeded: list[str], state: str) -> None:
    """`spec.md` 3."""
    assert rules.deployed_state(["dev", "qa", "prod"], succeeded).value == state


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (release(), "assemble"),
        (release("assembling"), "assembly"),
        (release("validated"), "publish"),
        (release("validated", publishing=INTENT), "refs"),
        (release(edit=EditIntent(command_id="c", kind="drop", actor={})), "the queue to answer drop"),
        (release("published", told=False), "the queue to be told"),
        (release("published"), None),
        (release("deployed_full"), None),
        (release("dropped"), None),
        (release("rolled_back"), None),
    ],
)
def test_what_a_release_waits_for_is_said_in_words(given_: Release, words: str | None) -> None:
    """`api.md` 4, `waiting_for`."""
    said = rules.waiting_for(given_)
    assert (said is None) if words is None else (words in (said or ""))
