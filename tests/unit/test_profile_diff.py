"""What differs between two revisions, what the audit says of it, and where an effective variable comes from (`spec.md` 6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_samples import DATABASE, EDITS, FULL, merged, text

from conman.domain.audit import entry_of
from conman.domain.profile import Profile, TypedValue, effective, effective_variables
from conman.domain.profile_audit import Revision, created, deleted, edited, relinked
from conman.domain.profile_diff import changes, secrets_to_compare
from conman.domain.secrets import SecretRef

APP, PROFILE, OTHER, QA, UAT = (f"0190a000-0000-7000-8000-00000000000{number}" for number in range(5))


def typed(kind: Any, value: Any) -> TypedValue:
    return TypedValue(type=kind, value=value)


def rows(one: Profile, other: Profile, **more: Any) -> list[tuple[Any, ...]]:
    return [(row.field, row.key, row.difference.value, row.before, row.after) for row in changes(one, other, **more)]


CASES: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = [
    ("nothing", {}, []),
    ("the same again", {"env_vars": {"A": text("a")}, "base_url": FULL.base_url}, []),
    ("a name", {"name": "uat"}, [("name", None, "changed", "qa", "uat")]),
    ("a URL goes", {"base_url": None}, [("base_url", None, "removed", "https://qa.example.com", None)]),
    ("a variable comes", {"env_vars": {"B": text("b")}}, [("env_vars", "B", "added", None, text("b"))]),
    ("a variable goes", {"env_vars": {"A": None}}, [("env_vars", "A", "removed", text("a"), None)]),
    (
        "a number becomes text that looks like it",
        {"env_vars": {"N": text("1")}},
        [("env_vars", "N", "changed", {"type": "number", "value": 1}, text("1"))],
    ),
    ("a secret comes", {"secrets": {"PIN": "4711"}}, [("secrets", "PIN", "added", None, "****")]),
    ("a secret goes", {"secrets": {"TOKEN": None}}, [("secrets", "TOKEN", "removed", "0123****6789", None)]),
    (
        "a secret changes to one of the same mask",
        {"secrets": {"TOKEN": "0123-other-6789"}},
        [("secrets", "TOKEN", "changed", "0123****6789", "0123****6789")],
    ),
    (
        "one field of an object",
        {"database": {**DATABASE, "provisioning_mode": "empty", "base_profile_id": OTHER}},
        [
            ("database", "base_profile_id", "added", None, OTHER),
            ("database", "provisioning_mode", "changed", "clone_from_base", "empty"),
        ],
    ),
    (
        "an object goes",
        {"migrations": None},
        [
            ("migrations", "command_ref", "removed", "migrate", None),
            ("migrations", "repo_paths", "removed", ["migrations"], None),
        ],
    ),
    (
        "a lifecycle is cleared",
        {"lifecycle": None},
        [
            ("lifecycle", "auto_cleanup", "changed", False, True),
            ("lifecycle", "ttl_idle_hours", "removed", 4, None),
        ],
    ),
]


@pytest.mark.parametrize(("fields", "found"), [pytest.param(fields, found, id=name) for name, fields, found in CASES])
def test_each_difference_is_told_by_field_and_key_with_secrets_masked(
    fields: dict[str, Any], found: list[tuple[Any, ...]]
) -> None:
    assert rows(FULL, merged(FULL, **fields)) == found


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (typed("json", 1), typed("json", True), True),
        (typed("json", {"a": [0]}), typed("json", {"a": [False]}), True),
        (typed("json", {"a": 1, "b": 2}), typed("json", {"b": 2, "a": 1}), False),
        (typed("json", [1, 2]), typed("json", [2, 1]), True),
        (typed("json", None), typed("string", "null"), True),
        (typed("number", 1), typed("json", 1), True),
        (typed("number", 1), typed("number", 1.0), True),
        (typed("string", "é"), typed("string", "e\u0301"), True),
    ],
)
def test_values_are_equal_when_type_and_structure_are(one: TypedValue, other: TypedValue, differ: bool) -> None:
    """`spec.md` 6: `1` and `"1"` differ; JSON compares structurally."""
    found = changes(Profile(name="x", env_vars={"A": one}), Profile(name="x", env_vars={"A": other}))
    assert bool(found) == differ


def test_secrets_of_two_profiles_are_compared_by_value_and_not_shown() -> None:
    one = Profile(name="x", secrets={"A": SecretRef(value_id="1", mask="****"), "B": SecretRef(value_id="2", mask="****")})
    other = Profile(name="x", secrets={"A": SecretRef(value_id="3", mask="****"), "B": SecretRef(value_id="4", mask="****")})
    assert secrets_to_compare(one, other) == ["A", "B"]
    assert rows(one, other, same_secrets=["A"]) == [("secrets", "B", "changed", "****", "****")]
    assert secrets_to_compare(one, one) == []


@settings(deadline=None)
@given(st.lists(EDITS, max_size=3), st.lists(EDITS, max_size=3))
def test_a_difference_read_backwards_is_its_mirror(past: list[dict[str, Any]], future: list[dict[str, Any]]) -> None:
    one = Profile(name="x")
    for fields in past:
        one = merged(one, **fields)
    other = one
    for fields in future:
        other = merged(other, **fields)
    forth, back = changes(one, other), changes(other, one)
    assert [(row.field, row.key, row.before, row.after) for row in forth] == [
        (row.field, row.key, row.after, row.before) for row in back
    ]
    assert bool(forth) == (one != other)
    assert changes(one, one) == []
    if forth:
        for deployed_in in ([], [QA]):
            for event in edited(PROFILE, Revision(1, one), Revision(2, other), deployed_in=deployed_in):
                assert problems(event) == []


def problems(event: Any) -> list[str]:
    return list(entry_of(event.entity_type, event.action).problems(event.before, event.after))


AFTER = merged(FULL, env_vars={"A": None}, secrets={"TOKEN": "98765432100"}, lifecycle=None)


@pytest.mark.parametrize(
    ("deployed_in", "reverted_to", "actions"),
    [
        ([], None, ["updated"]),
        ([], 1, ["reverted"]),
        ([QA], None, ["emergency_edited"]),
        ([QA, UAT], 1, ["reverted", "emergency_edited"]),
    ],
)
def test_a_change_where_it_was_deployed_is_an_emergency_edit(
    deployed_in: list[str], reverted_to: int | None, actions: list[str]
) -> None:
    """`spec.md` 6; before the first deployment there it is an ordinary edit."""
    found = edited(PROFILE, Revision(3, FULL), Revision(4, AFTER), deployed_in=deployed_in, reverted_to=reverted_to)
    assert [event.action for event in found] == actions
    for event in found:
        assert problems(event) == []
        assert event.before is not None
        assert event.after is not None
        assert event.before["secrets"] == {"TOKEN": "0123****6789"}
        assert event.after["secrets"] == {"TOKEN": "9876****2100"}
        assert event.after["env_vars"] == {"A": None}
        assert (event.before["revision_number"], event.after["revision_number"]) == (3, 4)
    if deployed_in:
        assert found[-1].after is not None
        assert found[-1].after["environment_ids"] == deployed_in


def test_making_and_deleting_show_the_whole_profile_masked() -> None:
    made, gone = created(PROFILE, Revision(1, FULL)), deleted(PROFILE, Revision(1, FULL))
    assert problems(made) == problems(gone) == []
    assert made.after == gone.before == {**FULL.masked(), "revision_number": 1}
    assert "open-sesame" not in str(made)


def test_another_profile_for_a_deployed_environment_is_an_emergency_edit_of_the_new_one() -> None:
    event = relinked(QA, PROFILE, Revision(3, FULL), OTHER, Revision(1, AFTER))
    assert problems(event) == []
    assert (event.entity_id, event.action) == (OTHER, "emergency_edited")
    assert event.before is not None
    assert event.before["runtime_profile_id"] == PROFILE


# -- Effective variables


def test_each_effective_variable_says_where_it_comes_from() -> None:
    """`spec.md` 6: app defaults < environment profile."""
    defaults = {"A": text("default"), "TOKEN": text("default"), "ONLY_APP": {"type": "number", "value": 5}}
    shown = [variable.record() for variable in effective_variables(defaults, FULL)]
    assert [(row["key"], row["value"], row["source"], row["secret"]) for row in shown] == [
        ("A", "a", "profile", False),
        ("MONGO_URI", "mong****shop", "profile", True),
        ("N", 1, "profile", False),
        ("ONLY_APP", 5, "app_default", False),
        ("TOKEN", "0123****6789", "profile", True),
    ]
    assert effective(defaults, FULL).keys() == {"A", "N", "ONLY_APP"}
