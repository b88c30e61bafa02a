"""Overrides of two changesets collide where they give one key of one profile different values (`spec.md` 6 and 10)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_samples import uid
from test_overrides import OVERRIDES, QA, frozen

from conman.domain.override_collisions import Collision, collided, colliding_keys
from conman.domain.overrides import FrozenOverride

LIVE = uid("live profile")
SETS = st.lists(st.tuples(st.sampled_from([QA, LIVE]), OVERRIDES), max_size=2, unique_by=lambda one: one[0]).map(
    lambda found: [frozen(**fields).model_copy(update={"profile_id": profile_id}) for profile_id, fields in found]
)


def typed(kind: str, value: Any) -> dict[str, Any]:
    return {"env_vars": {"A": {"type": kind, "value": value}}}


@pytest.mark.parametrize(
    ("one", "other", "keys"),
    [
        (typed("number", 1), typed("number", 1), []),
        (typed("number", 1), typed("number", 2), ["env_vars.A"]),
        (typed("number", 1), typed("string", "1"), ["env_vars.A"]),
        (typed("boolean", True), typed("number", 1), ["env_vars.A"]),
        (typed("json", True), typed("json", 1), ["env_vars.A"]),
        (typed("json", {"a": [1, 2], "b": None}), typed("json", {"b": None, "a": [1, 2]}), []),
        (typed("json", {"a": [1, 2]}), typed("json", {"a": [2, 1]}), ["env_vars.A"]),
        (typed("json", None), {"env_vars": {"A": None}}, ["env_vars.A"]),
        ({"env_vars": {"A": None}}, {"env_vars": {"A": None}}, []),
        (typed("number", 1), {"env_vars": {"B": None}}, []),
        ({"secrets": {"A": "one"}}, {"secrets": {"A": "one"}}, []),
        ({"secrets": {"A": "one"}}, {"secrets": {"A": "two"}}, ["secrets.A"]),
        ({"secrets": {"A": "one"}}, {"secrets": {"A": None}}, ["secrets.A"]),
        (typed("string", "one"), {"secrets": {"A": "one"}}, ["secrets.A"]),
        (typed("string", "one"), {"secrets": {"A": None}}, []),
        ({"base_url": "http://a"}, {"base_url": "http://a"}, []),
        ({"base_url": "http://a"}, {"base_url": None}, ["base_url"]),
        ({"data_strategy": {"seed_mode": "none"}}, {"data_strategy": {"seed_mode": "baseline"}}, ["data_strategy"]),
        ({"database": None, "migrations": None}, {"database": None, "base_url": None}, []),
    ],
)
def test_only_different_typed_values_of_one_key_collide(one: dict[str, Any], other: dict[str, Any], keys: list[str]) -> None:
    assert colliding_keys([frozen(**one)], [frozen(**other)]) == [(QA, key) for key in keys]


def test_the_same_key_of_another_profile_does_not_collide() -> None:
    other = frozen(**typed("number", 2)).model_copy(update={"profile_id": LIVE})
    assert colliding_keys([frozen(**typed("number", 1))], [other]) == []


@given(SETS, SETS)
def test_it_is_the_same_collision_whichever_is_asked_first(one: list[FrozenOverride], other: list[FrozenOverride]) -> None:
    assert colliding_keys(one, other) == colliding_keys(other, one)
    assert colliding_keys(one[::-1], other) == colliding_keys(one, other[::-1])


@given(SETS)
def test_equal_overrides_never_collide(one: list[FrozenOverride]) -> None:
    again = [FrozenOverride.model_validate_json(override.model_dump_json()) for override in one]
    assert colliding_keys(one, again) == []


@given(st.lists(SETS, max_size=5))
def test_the_later_of_two_that_collide_leaves_and_what_stays_is_free_of_collisions(sets: list[list[FrozenOverride]]) -> None:
    order = [(f"c{number}", overrides) for number, overrides in enumerate(sets)]
    leaving = collided(order)
    staying = [(name, overrides) for name, overrides in order if name not in leaving]
    assert collided(staying) == {}
    for name, found in leaving.items():
        before = [one for one in staying if one[0] < name]
        assert {one.changeset_id for one in found} <= {one[0] for one in before}
        assert found == [
            Collision(profile_id, key, other)
            for other, theirs in before
            for profile_id, key in colliding_keys(dict(order)[name], theirs)
        ]


def test_what_has_left_takes_nobody_with_it() -> None:
    one, two = typed("number", 1), typed("number", 2)
    both = {"env_vars": {**two["env_vars"], "B": {"type": "number", "value": 1}}}
    order = [("a", [frozen(**one)]), ("b", [frozen(**both)]), ("c", [frozen(env_vars={"B": {"type": "number", "value": 2}})])]
    assert list(collided(order)) == ["b"]
