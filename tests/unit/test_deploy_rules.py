"""What stands in the way of a deployment, and whose yes it needs (`spec.md` 12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.deploy_rules import (
    Approvals,
    LockView,
    Surroundings,
    Wanted,
    approvals_asked,
    approved,
    check_not_before,
    exceptional_reasons,
    hindrances,
)
from conman.domain.deployment import Approval, DeploymentState, EnvironmentView, PastDeployment
from conman.domain.environment import RequiredApprovals
from conman.domain.errors import DomainError
from conman.domain.hold import Hold, check_hold
from conman.domain.release import DEPLOYABLE, ReleaseState
from conman.domain.roles import Role

NOW = "2026-03-01T10:00:00.000Z"
DEV, QA, PROD = (EnvironmentView(id=name, name=name.title(), position=place) for place, name in enumerate(("dev", "qa", "prod")))
REACHED_DEV = PastDeployment(environment_id="dev", release_id="r1", state=DeploymentState.SUCCEEDED)
IN_ORDER = Surroundings(ReleaseState.PUBLISHED, QA, (DEV, QA, PROD), (REACHED_DEV,))
WANTED = Wanted("r1", NOW)
HOLD = Hold(id="h", reason="an incident", at=NOW)


def codes(wanted: Wanted, here: Surroundings) -> list[str]:
    """The codes of what stands in the way."""
    return [one.error.code.value for one in hindrances(wanted, here)]


def test_nothing_stands_in_the_way_of_a_published_release_in_stage_order() -> None:
    assert codes(WANTED, IN_ORDER) == []
    assert exceptional_reasons(WANTED, IN_ORDER) == []


@pytest.mark.parametrize(
    ("here", "code", "who"),
    [
        (replace(IN_ORDER, release_state=ReleaseState.VALIDATED), "invalid_transition", "config_manager"),
        (replace(IN_ORDER, release_state=ReleaseState.ROLLED_BACK), "invalid_transition", "config_manager"),
        (replace(IN_ORDER, lock=LockView(closed=True)), "conflict", "app_admin"),
        (replace(IN_ORDER, lock=LockView(app_closed=True)), "conflict", "app_admin"),
        (replace(IN_ORDER, hold=HOLD), "app_on_hold", "config_manager"),
        (replace(IN_ORDER, bad_release_ids=["r1"]), "marked_bad", "config_manager"),
        (replace(IN_ORDER, past=()), "stage_skipped", "config_manager"),
        (replace(IN_ORDER, frozen_until="2026-03-02T00:00:00.000Z"), "environment_frozen", "time"),
        (replace(IN_ORDER, lock=LockView(holder_id="d1")), "environment_locked", "config_manager"),
    ],
)
def test_each_hindrance_has_its_code_and_who_can_clear_it(here: Surroundings, code: str, who: str) -> None:
    (found,) = hindrances(WANTED, here)

    assert (found.blocker().code, found.blocker().who) == (code, who)
    assert found.blocker().message == found.error.message


def test_the_refusals_tell_what_a_client_needs() -> None:
    everything = replace(
        IN_ORDER,
        past=(),
        frozen_until="2026-03-02T00:00:00.000Z",
        hold=HOLD,
        bad_release_ids=["r1"],
        lock=LockView(holder_id="d1"),
    )

    found = {one.error.code.value: one.error.details for one in hindrances(WANTED, everything)}

    assert list(found) == ["app_on_hold", "marked_bad", "stage_skipped", "environment_frozen", "environment_locked"]
    assert found["environment_locked"] == {"deployment_id": "d1"}
    assert found["environment_frozen"]["until"] == "2026-03-02T00:00:00.000Z"
    assert found["stage_skipped"]["environment_id"] == "dev"


def test_a_hold_with_an_end_does_not_hinder_what_starts_after_it() -> None:
    here = replace(IN_ORDER, hold=HOLD.model_copy(update={"until": "2026-03-01T11:00:00.000Z"}))

    assert codes(WANTED, here) == ["app_on_hold"]
    assert codes(replace(WANTED, start_at="2026-03-01T11:00:00.000Z"), here) == []


def test_what_waits_only_for_drift_gives_way_and_waiting_in_line_needs_no_free_lock() -> None:
    held = replace(IN_ORDER, lock=LockView(holder_id="d1"))

    assert codes(replace(WANTED, wait=True), held) == []
    assert codes(WANTED, replace(IN_ORDER, lock=LockView(holder_id="d1", waits_for_drift_only=True))) == []


def test_an_environment_passes_stage_order_when_the_one_just_before_it_is_in_the_same_request() -> None:
    fresh = replace(IN_ORDER, past=())

    assert codes(replace(WANTED, together=frozenset({"dev", "qa"})), fresh) == []
    assert codes(replace(WANTED, together=frozenset({"qa", "prod"})), fresh) == ["stage_skipped"]
    prod = replace(fresh, environment=PROD)
    assert codes(replace(WANTED, together=frozenset({"dev", "prod"})), prod) == ["stage_skipped"]


def test_only_what_is_made_use_of_makes_a_deployment_exceptional() -> None:
    asked = replace(WANTED, skip_stage=True, override_freeze=True)
    assert exceptional_reasons(asked, IN_ORDER) == []

    here = replace(IN_ORDER, past=(), frozen_until="2026-03-02T00:00:00.000Z", lock=LockView(others_running=True))
    together = replace(asked, together=frozenset({"qa", "prod"}))
    assert exceptional_reasons(together, here) == ["skip_stage", "multiple_environments", "concurrent", "override_freeze"]
    assert codes(together, here) == []


def test_exceptional_deployments_need_two_and_an_environment_may_ask_more() -> None:
    required = RequiredApprovals(count=3, role=Role.CONFIG_MANAGER)

    assert approvals_asked([], None).required == 0
    assert approvals_asked(["skip_stage"], None) == Approvals(exceptional=2)
    assert approvals_asked(["concurrent"], required).required == 3
    assert approvals_asked([], required) == Approvals(ordinary=3, role=Role.CONFIG_MANAGER)


def given_by(*users: str, digest: str = "shown") -> list[Approval]:
    """Approvals by these users of what was shown."""
    return [Approval(user_id=user, at=NOW, digest=digest) for user in users]


def test_a_lost_role_does_not_count_any_more() -> None:
    asked = Approvals(exceptional=2)

    assert approved(asked, given_by("ann", "rob"), {"ann": Role.REVIEWER, "rob": Role.CONFIG_MANAGER}, "shown") == ["ann", "rob"]
    assert approved(asked, given_by("ann", "rob"), {"ann": Role.REVIEWER, "rob": Role.USER}, "shown") == []
    assert approved(asked, given_by("ann", "rob"), {"ann": Role.REVIEWER, "rob": None}, "shown") == []
    assert approved(asked, given_by("ann", "ann"), {"ann": Role.APP_ADMIN}, "shown") == []


def test_an_ordinary_approval_is_void_when_what_was_shown_has_changed_and_an_exceptional_one_is_not() -> None:
    roles: dict[str, Role | None] = {"max": Role.CONFIG_MANAGER, "eve": Role.CONFIG_MANAGER}
    ordinary = Approvals(ordinary=1, role=Role.CONFIG_MANAGER)

    assert approved(ordinary, given_by("max"), roles, "shown") == ["max"]
    assert approved(ordinary, given_by("max"), roles, "changed") == []
    assert approved(Approvals(exceptional=2), given_by("max", "eve"), roles, "changed") == ["max", "eve"]


@given(
    exceptional=st.sampled_from([0, 2]),
    ordinary=st.integers(0, 3),
    role=st.sampled_from([Role.REVIEWER, Role.CONFIG_MANAGER, Role.APP_ADMIN]),
    votes=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["shown", "old"])), max_size=6),
    roles=st.fixed_dictionaries({user: st.one_of(st.none(), st.sampled_from(Role)) for user in "abcd"}),
)
def test_nobody_without_the_role_ever_carries_a_deployment(
    exceptional: int, ordinary: int, role: Role, votes: list[tuple[str, str]], roles: dict[str, Role | None]
) -> None:
    asked = Approvals(exceptional, ordinary, role)
    given_votes = [Approval(user_id=user, at=NOW, digest=digest) for user, digest in votes]

    counted = approved(asked, given_votes, roles, "shown")

    reviewers = {user for user, _ in votes if (held := roles[user]) is not None and held >= Role.REVIEWER}
    bound = {user for user, digest in votes if digest == "shown" and (held := roles[user]) is not None and held >= role}
    enough = len(reviewers) >= exceptional and len(bound) >= ordinary
    assert set(counted) == ((reviewers | bound) if enough else set())


@given(state=st.sampled_from(ReleaseState))
def test_only_published_releases_are_deployed(state: ReleaseState) -> None:
    assert ("invalid_transition" in codes(WANTED, replace(IN_ORDER, release_state=state))) == (state not in DEPLOYABLE)


def test_a_start_is_at_most_seven_days_ahead() -> None:
    check_not_before(None, NOW)
    check_not_before("2026-03-08T10:00:00.000Z", NOW)
    with pytest.raises(DomainError, match="7 days"):
        check_not_before("2026-03-08T10:00:00.001Z", NOW)


@pytest.mark.parametrize(("reason", "until"), [("", None), ("  ", None), ("x" * 501, None), ("an incident", NOW)])
def test_a_hold_needs_a_reason_and_an_end_that_is_to_come(reason: str, until: str | None) -> None:
    with pytest.raises(DomainError):
        check_hold(reason, until, NOW)
