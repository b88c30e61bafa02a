"""What a publish proves, what refuses it, and what it freezes (`spec.md` 3 and 11, `durability.md` 19)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import AT, MAIN, refused, release, sha, uid

from conman.domain import publishing as rules
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import PublishFacts
from conman.domain.release import PinnedProfile, PublishIntent, ReleaseState

S = ReleaseState
RELEASE = uid("release")
INTENT = PublishIntent(
    command_id="c",
    actor={"user_id": uid("manager")},
    old_sha=MAIN,
    new_sha=sha("candidate"),
    tag="r2026.03.01.2",
    at=AT,
    supersedes=uid("before"),
)
PINNED = PinnedProfile(environment="QA", profile_id=uid("profile"), profile_revision_id=uid("profile-1"))
EDITED = PINNED.model_copy(update={"profile_revision_id": uid("profile-2")})


def facts(**fields: Any) -> PublishFacts:
    return PublishFacts.model_validate({"integration_sha": MAIN, "tag": "r2026.03.01.2", **fields})


@pytest.mark.parametrize("state", [state.value for state in S if state is not S.VALIDATED])
def test_only_a_validated_release_can_be_published(state: str) -> None:
    """`spec.md` 3."""
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.check_publish(release(state), MAIN))
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.decide_publishing(release(state), INTENT))


def test_a_publish_needs_the_head_that_assembly_used() -> None:
    """`spec.md` 11: moved since → 409 `conflict`, re-assembly is offered."""
    rules.check_publish(release("validated"), MAIN)
    error = refused(ErrorCode.CONFLICT, lambda: rules.check_publish(release("validated"), sha("moved")))
    assert "assemble it again" in error.message
    assert error.details == {"reason_code": "head_moved", "assembled_on": MAIN, "integration_sha": sha("moved")}


def test_nothing_speaks_against_a_proved_candidate_on_the_present_head() -> None:
    """`spec.md` 11."""
    assert rules.refusal(release("validated"), facts()) is None


def test_a_member_that_is_no_longer_queued_refuses_first_in_the_words_of_the_queue() -> None:
    """`spec.md` 3: validated → draft_release when a member leaves the queue."""
    left = [{"changeset_id": uid("c"), "state": "needs_revalidation", "release_id": RELEASE}]
    found = rules.refusal(release("validated"), facts(left=left, integration_sha=sha("moved")))
    assert found is not None
    assert (found.failure.reason_code, found.failure.changeset_id, found.error.details) == ("member_left", uid("c"), left)


REFUSALS = {
    "uprooted": ({"uprooted": [uid("a")], "unexplained": ["x"]}, "unproven", uid("a"), ["x"]),
    "unexplained": ({"unexplained": ["x"], "integration_sha": sha("moved")}, "unproven", None, ["x"]),
    "lost": ({"lost": [uid("b")], "integration_sha": sha("moved")}, "unproven", uid("b"), []),
    "moved": ({"integration_sha": sha("moved"), "changed_profiles": [EDITED.model_dump()]}, "head_moved", None, []),
    "profile": ({"changed_profiles": [EDITED.model_dump()]}, "profile_changed", None, []),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_refuses_a_publish_returns_the_release_to_draft_with_the_reason_and_its_members(case: str) -> None:
    """`spec.md` 3 and 11: 409 `conflict`; the first that speaks against it is told."""
    given_, reason, changeset, paths = REFUSALS[case]
    validated = release("validated", publishing=INTENT, pinned_profiles=[PINNED])
    found = rules.refusal(validated, facts(**given_))
    assert found is not None
    assert (found.error.code, found.error.details["reason_code"]) == (ErrorCode.CONFLICT, reason)
    assert (found.failure.reason_code, found.failure.changeset_id, found.failure.paths) == (reason, changeset, paths)
    decision = rules.decide_refused(RELEASE, validated, found)
    after = decision.owned
    assert (after.state, after.candidate_sha, after.publishing, after.pinned_profiles) == (S.DRAFT_RELEASE, None, None, [])
    assert after.failure == found.failure.model_copy(update={"details": found.details})
    with pytest.raises(DomainError) as again:
        rules.check_may_publish(after)
    assert (again.value.code, again.value.details) == (ErrorCode.CONFLICT, found.details)
    assert after.ordered_changeset_ids == [uid(name) for name in "abc"]
    assert [event.action for event in decision.events] == ["returned_to_draft"]


def test_a_changed_profile_is_named_with_the_revision_that_the_gate_used() -> None:
    """`spec.md` 11."""
    found = rules.refusal(release("validated", pinned_profiles=[PINNED]), facts(changed_profiles=[EDITED.model_dump()]))
    assert found is not None
    assert "QA" in found.failure.message
    assert found.details["profiles"] == [{**EDITED.model_dump(), "assembled_with": PINNED.profile_revision_id}]


def test_a_member_that_left_the_queue_is_told_with_the_queue_s_own_details() -> None:
    """`spec.md` 3 and 11: `details: [{changeset_id, state, release_id}]`."""
    details = [{"changeset_id": uid("b"), "state": "needs_revalidation", "release_id": RELEASE}]
    found = rules.member_left(details)
    assert (found.error.details, found.failure.reason_code, found.failure.changeset_id) == (details, "member_left", uid("b"))


def test_the_intent_is_recorded_before_anything_moves() -> None:
    """`durability.md` 19: still validated, with the tag that will be made."""
    after = rules.decide_publishing(release("validated"), INTENT).owned
    assert (after.state, after.publishing, after.tag, after.published_sha) == (S.VALIDATED, INTENT, "r2026.03.01.2", None)


def test_a_publish_freezes_what_by_whom_and_when_and_has_still_to_tell_the_queue() -> None:
    """`spec.md` 11. The tag is the one that was made: its number is another one where somebody was quicker."""
    decision = rules.decide_published(RELEASE, rules.decide_publishing(release("validated"), INTENT).owned, "r2026.03.01.3")
    after = decision.owned
    assert (after.state, after.published_sha, after.published_at) == (S.PUBLISHED, sha("candidate"), AT)
    assert (after.published_by, after.supersedes, after.publishing, after.told) == (uid("manager"), uid("before"), None, False)
    assert decision.result == {"published_sha": sha("candidate"), "tag": "r2026.03.01.3"}


def test_nothing_is_published_without_its_recorded_intent() -> None:
    """`durability.md` 19."""
    with pytest.raises(ValueError, match="intent"):
        rules.decide_published(RELEASE, release("validated"), "r2026.03.01.2")


PATHS = st.lists(st.sampled_from(["a", "b", "c/d", "c/e", "f"]), max_size=6)


@settings(deadline=None)
@given(PATHS, st.lists(PATHS, max_size=4))
def test_every_changed_path_must_be_one_that_a_changeset_changed(changed: list[str], members: list[list[str]]) -> None:
    """`spec.md` 11: else publish refuses; the answer is sorted."""
    found = rules.unexplained_paths(changed, members)
    assert found == sorted(found)
    for path in ["a", "b", "c/d", "c/e", "f"]:
        explained = any(path in paths for paths in members)
        assert (path in found) is (path in changed and not explained)


def test_a_candidate_that_was_overtaken_stays_while_a_command_works_on_it() -> None:
    """That command finds the same, and answers with it."""
    found = rules.head_moved(release("validated"), sha("moved"))
    returned = rules.decide_overtaken(RELEASE, release("validated"), found)
    assert returned is not None
    assert returned.owned.state is S.DRAFT_RELEASE
    for busy in (release("validated", publishing=INTENT), release("draft_release"), release("published")):
        assert rules.decide_overtaken(RELEASE, busy, found) is None
