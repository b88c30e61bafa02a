"""Rollbacks as rules: what undoing takes back of profiles, what may be returned to, and what is lost by it (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.errors import DomainError
from conman.domain.override_travel import PublishedRelease, arriving, undone
from conman.domain.overrides import FrozenOverride, Override, overridden
from conman.domain.profile import Profile
from conman.domain.release import HEAD_MOVED, Failure, Release, ReleaseState
from conman.domain.rollback import (
    MOST_ASSEMBLIES,
    MOST_RETURNS,
    Builder,
    KeyClash,
    ReleaseName,
    Step,
    Touched,
    check_returnable,
    check_undoable,
    clashes,
    environments_left,
    failed_because,
    inverse,
    newer_than,
    next_step,
    refusal,
    reverting_release_id,
    secrets_to_restore,
)


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


BEFORE = Profile.model_validate(
    {
        "name": "Production",
        "base_url": "https://old.example",
        "env_vars": {"LEVEL": text("info"), "GONE": text("1")},
        "secrets": {"TOKEN": {"value_id": "v1", "mask": "…1"}},
    }
)
CHANGES = Override.model_validate(
    {
        "base_url": "https://new.example",
        "env_vars": {"LEVEL": text("debug"), "GONE": None, "NEW": text("x")},
        "secrets": {"TOKEN": {"value_id": "v2", "mask": "…2", "digest": "d2"}},
    }
)


def touched(**more: Any) -> Touched:
    known: dict[str, Any] = {
        "profile_id": "p",
        "before": BEFORE,
        "present": overridden(BEFORE, [CHANGES]),
        "overrides": [CHANGES],
        "received": True,
    }
    return Touched(**{**known, **more})


def test_the_inverse_gives_each_key_its_value_before() -> None:
    case = touched()
    assert clashes(case) == []
    assert secrets_to_restore(case) == ["TOKEN"]
    made = inverse(case, {"TOKEN": "d1"})
    assert made is not None
    assert overridden(case.present, [made]) == BEFORE
    assert made.digests()["secrets.TOKEN"] == "d1"


_NAMES = st.sampled_from(["A", "B", "C"])
_VALUES = st.one_of(
    st.builds(lambda value: {"type": "string", "value": value}, st.sampled_from(["x", "y"])),
    st.builds(lambda value: {"type": "number", "value": value}, st.integers(0, 1)),
)
_CONTENT = st.fixed_dictionaries(
    {"name": st.just("P"), "env_vars": st.dictionaries(_NAMES, _VALUES), "base_url": st.sampled_from([None, "https://a.example"])}
)
_CHANGE = st.dictionaries(_NAMES, st.none() | _VALUES, min_size=1)
_OVERRIDE = st.builds(
    lambda variables, more: Override.model_validate({"env_vars": variables, **more}),
    _CHANGE,
    st.sampled_from([{}, {"base_url": None}, {"base_url": "https://b.example"}, {"data_strategy": {"seed_mode": "baseline"}}]),
)


@given(_CONTENT, st.lists(_OVERRIDE, min_size=1, max_size=3))
def test_what_a_release_set_and_its_inverse_together_change_nothing(content: dict[str, Any], overrides: list[Override]) -> None:
    before = Profile.model_validate(content)
    present = overridden(before, overrides)
    case = Touched("p", before, present, overrides, received=True)
    made = inverse(case, {})
    assert made is not None
    assert clashes(case) == []
    assert overridden(present, [made]) == before
    back = Touched("p", present, before, [made], received=True)
    again = inverse(back, {})
    assert again is not None, "the undoing can be undone"
    assert clashes(back) == []
    assert overridden(before, [again]) == present


def test_a_key_that_was_changed_since_is_a_clash() -> None:
    changed = overridden(touched().present, [Override.model_validate({"env_vars": {"LEVEL": text("warn")}})])
    assert clashes(touched(present=changed)) == [KeyClash(profile_id="p", key="env_vars.LEVEL")]


@pytest.mark.parametrize("value", [{"type": "number", "value": 1}, text("debug ")], ids=["another type", "another text"])
def test_values_differ_by_type_and_by_text(value: dict[str, Any]) -> None:
    changed = overridden(touched().present, [Override.model_validate({"env_vars": {"LEVEL": value}})])
    assert [clash.key for clash in clashes(touched(present=changed))] == ["env_vars.LEVEL"]


def test_a_key_that_a_newer_release_overrides_clashes_even_where_its_value_is_the_same() -> None:
    found = clashes(touched(newer={"base_url": "r2026.01.02.1"}))
    assert found == [KeyClash(profile_id="p", key="base_url", tag="r2026.01.02.1")]


def test_a_profile_that_has_not_received_the_release_has_nothing_to_give_back() -> None:
    case = touched(present=BEFORE, received=False, newer={"env_vars.LEVEL": "r2"})
    assert clashes(case) == []
    made = inverse(case, {"TOKEN": "d1"})
    assert made is not None
    assert "env_vars.LEVEL" not in made.digests(), "the newer release has the word on it"


def release(release_id: str, reverts: str | None = None, profile_id: str = "p") -> PublishedRelease:
    return PublishedRelease(release_id, [FrozenOverride(profile_id=profile_id, content_id=f"c-{release_id}")], reverts)


ONE, TWO, UNDO, REDO = release("1"), release("2"), release("u", "1"), release("r", "u")


@pytest.mark.parametrize(
    ("published", "received", "arrives"),
    [
        ([ONE, TWO, UNDO], [], ["2"]),
        ([ONE, TWO, UNDO], ["1"], ["2", "u"]),
        ([ONE, TWO, UNDO], ["1", "2", "u"], []),
        ([ONE, TWO, UNDO, REDO], [], ["1", "2"]),
        ([ONE, TWO, UNDO, REDO], ["1"], ["2"]),
        ([ONE, TWO, UNDO, REDO], ["1", "2", "u"], ["r"]),
    ],
    ids=["never had it", "has it", "has both", "never had it, redone", "has it, redone", "had it undone, redone"],
)
def test_an_undoing_arrives_where_what_it_undid_has_arrived(
    published: list[PublishedRelease], received: list[str], arrives: list[str]
) -> None:
    last = published[-1].id
    assert [arrival.release_id for arrival in arriving("p", last, published, received)] == arrives


def test_what_undoes_an_undoing_puts_the_first_in_force_again() -> None:
    assert undone([ONE, TWO, UNDO]) == {"1"}
    assert undone([ONE, TWO, UNDO, REDO]) == {"u"}


def test_newer_releases_in_force_are_those_that_a_later_one_has_not_undone() -> None:
    undoes_two = release("x", "2")
    assert [one.id for one in newer_than("1", [ONE, TWO])] == ["2"]
    assert newer_than("1", [ONE, TWO, undoes_two]) == [], "the pair changes nothing"
    assert [one.id for one in newer_than("1", [ONE, TWO, UNDO])] == ["2", "u"]


@pytest.mark.parametrize("state", list(ReleaseState), ids=lambda state: state.value)
def test_only_what_is_published_and_was_not_undone_can_be_undone(state: ReleaseState) -> None:
    owned = Release(app_id="a", state=state)
    if state in (ReleaseState.PUBLISHED, ReleaseState.DEPLOYED_PARTIAL, ReleaseState.DEPLOYED_FULL):
        check_undoable(owned)
        return
    with pytest.raises(DomainError) as caught:
        check_undoable(owned)
    assert caught.value.code.value == "invalid_transition"
    assert caught.value.details["from"] == state.value


FIRST = ReleaseName(release_id="r1", tag="r2026.01.01.1")
SECOND = ReleaseName(release_id="r2", tag="r2026.01.01.2")


@pytest.mark.parametrize(
    ("state", "succeeded", "bad", "code"),
    [
        (ReleaseState.DEPLOYED_PARTIAL, [SECOND, FIRST], [], None),
        (ReleaseState.DEPLOYED_FULL, [FIRST], ["r2"], None),
        (ReleaseState.PUBLISHED, [SECOND], [], "conflict"),
        (ReleaseState.PUBLISHED, [], [], "conflict"),
        (ReleaseState.DEPLOYED_PARTIAL, [FIRST], ["r1"], "marked_bad"),
        (ReleaseState.ROLLED_BACK, [FIRST], [], "invalid_transition"),
        (ReleaseState.VALIDATED, [], [], "invalid_transition"),
    ],
    ids=["succeeded here", "another is bad", "never here", "nothing here", "marked bad", "was undone", "not published"],
)
def test_what_may_be_returned_to(state: ReleaseState, succeeded: list[ReleaseName], bad: list[str], code: str | None) -> None:
    owned = Release(app_id="a", state=state)
    if code is None:
        check_returnable(FIRST, owned, "QA", succeeded, bad)
        return
    with pytest.raises(DomainError) as caught:
        check_returnable(FIRST, owned, "QA", succeeded, bad)
    assert caught.value.code.value == code
    if code == "conflict":
        assert caught.value.details == {"succeeded": [one.model_dump() for one in succeeded]}


def test_an_environment_with_a_long_past_names_its_latest_releases_only() -> None:
    past = [ReleaseName(release_id=f"x{number}", tag=f"r{number}") for number in range(500)]
    with pytest.raises(DomainError) as caught:
        check_returnable(FIRST, Release(app_id="a", state=ReleaseState.PUBLISHED), "QA", past)
    assert caught.value.details == {"succeeded": [one.model_dump() for one in past[:MOST_RETURNS]]}


def test_a_conflict_names_paths_keys_and_the_releases_that_build_on_it() -> None:
    clash = KeyClash(profile_id="p", key="env_vars.A", tag="r2")
    error = refusal("r1", ["a.json"], [clash], [Builder(release_id="2", tag="r2", paths=["a.json"], keys=[clash])])
    assert error.code.value == "conflict"
    assert error.details["paths"] == ["a.json"]
    assert error.details["newer_releases"][0]["tag"] == "r2"
    assert "a.json" in error.message
    assert "r2" in error.message


@pytest.mark.parametrize(
    ("succeeded", "taken", "left"),
    [
        ([], [], []),
        ([("dev", 1), ("qa", 4)], [], ["dev", "qa"]),
        ([("dev", 1), ("qa", 4)], [("qa", 5)], ["dev"]),
        ([("dev", 1), ("dev", 7)], [("dev", 5)], ["dev"]),
        ([("dev", 1), ("dev", 4)], [("dev", 5), ("dev", 3)], []),
    ],
    ids=["nowhere", "two", "one was taken", "came again", "taken twice"],
)
def test_a_return_takes_the_environment_until_the_release_succeeds_there_again(
    succeeded: list[tuple[str, int]], taken: list[tuple[str, int]], left: list[str]
) -> None:
    assert environments_left(succeeded, taken) == left


FAILED = Failure(reason_code="tests_failed", message="The suite fails.")
MOVED = Failure(reason_code=HEAD_MOVED, message="It moved.")


@pytest.mark.parametrize(
    ("state", "failure", "assemblies", "wanted", "step"),
    [
        ("assembling", None, 1, True, Step.WAIT),
        ("assembling", None, 1, False, Step.STOP),
        ("validated", None, 1, True, Step.PUBLISH),
        ("validated", None, 1, False, Step.DROP),
        ("draft_release", MOVED, 1, True, Step.ASSEMBLE),
        ("draft_release", MOVED, MOST_ASSEMBLIES - 1, True, Step.ASSEMBLE),
        ("draft_release", MOVED, MOST_ASSEMBLIES, True, Step.DROP),
        ("draft_release", MOVED, 1, False, Step.DROP),
        ("draft_release", FAILED, 1, True, Step.DROP),
        ("dropped", FAILED, 1, True, Step.GIVE_UP),
    ],
)
def test_the_way_of_a_release_that_undoes(state: str, failure: Failure | None, assemblies: int, wanted: bool, step: Step) -> None:
    owned = Release(app_id="a", state=ReleaseState(state), failure=failure)
    assert next_step(owned, assemblies=assemblies, wanted=wanted) is step


@pytest.mark.parametrize("state", ["published", "deployed_full", "rolled_back"])
def test_what_is_published_goes_out(state: str) -> None:
    assert next_step(Release(app_id="a", state=ReleaseState(state), published_sha="s"), assemblies=9, wanted=False) is Step.DEPLOY


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(None, "canceled"), (FAILED, "tests_failed"), (Failure(reason_code="conflict"), "git_error"), (MOVED, "git_error")],
)
def test_the_deployment_fails_with_the_reason_of_its_release(failure: Failure | None, reason: str) -> None:
    assert failed_because("r1", failure)[0].value == reason


def test_any_process_makes_the_same_release_for_a_deployment() -> None:
    one, other = "019ca8bb-b5c0-73b1-afd4-907bedf51c30", "019ca8bb-b5c0-73b1-afd4-907bedf51c31"
    assert reverting_release_id(one) == reverting_release_id(one)
    assert reverting_release_id(one) != reverting_release_id(other)
    assert reverting_release_id(one)[:13] == one[:13], "it sorts by the same time"
