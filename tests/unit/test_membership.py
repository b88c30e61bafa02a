"""An app always has an app_admin who counts (`spec.md` 5): the rules as properties over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.errors import ErrorCode
from conman.domain.membership import Admins, last_admin, loses_votes, promote, restore, suspend, without
from conman.domain.roles import Role

PEOPLE = ("ann", "bob", "cid")
STEPS = st.lists(
    st.tuples(st.sampled_from(("promote", "demote", "disable", "enable")), st.sampled_from(PEOPLE)), min_size=1, max_size=40
)


@given(STEPS)
def test_no_history_leaves_an_app_without_an_app_admin_who_counts(steps: list[tuple[str, str]]) -> None:
    admins, is_admin, disabled, number = Admins(["ann"], {}), {"ann"}, {}, 0
    for what, who in steps:
        match what:
            case "promote":
                admins = promote(admins, who, disabled.get(who))
                is_admin.add(who)
            case "demote":
                after = without(admins, who)
                if after is not None:
                    admins = after
                    is_admin.discard(who)
            case "disable":
                number += 1
                after = suspend(admins, who, number, joining=False, needed=True)
                if after is not None:
                    admins = after
                    disabled[who] = number
            case _:
                disabled.pop(who, None)
                admins = restore(admins, who)
        assert admins.counting, f"nobody is left after {what} {who}"
        assert set(admins.counting) == {one for one in is_admin if one not in disabled}
        assert set(admins.suspended) == {one for one in is_admin if one in disabled}
        assert len(set(admins.counting)) == len(admins.counting)


def test_the_last_one_who_counts_can_be_neither_demoted_nor_disabled() -> None:
    admins = Admins(["ann"], {"bob": 1})
    assert without(admins, "ann") is None
    assert suspend(admins, "ann", 2, joining=False, needed=True) is None


def test_who_is_disabled_may_go_and_takes_nobody_along() -> None:
    assert without(Admins(["ann"], {"bob": 1}), "bob") == Admins(["ann"], {})


def test_an_archived_app_holds_nobody_back() -> None:
    assert suspend(Admins(["ann"], {}), "ann", 3, joining=False, needed=False) == Admins([], {"ann": 3})


def test_an_earlier_disabling_can_not_take_the_place_of_a_later_one() -> None:
    admins = Admins(["ann"], {"bob": 5})
    assert suspend(admins, "bob", 4, joining=False, needed=True) == admins
    assert suspend(admins, "bob", 6, joining=False, needed=True) == Admins(["ann"], {"bob": 6})


def test_who_becomes_an_app_admin_while_being_disabled_counts_only_when_enabled() -> None:
    waiting = suspend(Admins(["ann"], {}), "bob", 1, joining=True, needed=True)
    assert waiting is not None
    assert waiting == Admins(["ann"], {"bob": 1})
    assert promote(waiting, "bob", None) == waiting
    assert restore(waiting, "bob") == Admins(["ann", "bob"], {})


def test_the_refusal_says_what_to_do() -> None:
    error = last_admin("ann@example.com", ["shop", "bank"])
    assert error.code is ErrorCode.CONFLICT
    assert error.message == "ann@example.com is the last app_admin of shop, bank: make somebody else app_admin there first."


@pytest.mark.parametrize(
    ("before", "after", "loses"),
    [
        (Role.REVIEWER, None, True),
        (Role.APP_ADMIN, Role.USER, True),
        (Role.APP_ADMIN, Role.REVIEWER, False),
        (Role.USER, None, False),
        (Role.USER, Role.REVIEWER, False),
    ],
)
def test_votes_are_lost_with_the_capability_to_review(before: Role, after: Role | None, loses: bool) -> None:
    assert loses_votes(before, after) is loses
