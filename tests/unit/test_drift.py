"""Drift: what an environment is, against what was last applied there (`spec.md` 12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.drift import Applied, DriftItem, drift, emergency_edit
from conman.domain.target import Observation

APPLIED = Applied(
    env_vars={"LEVEL": "info", "MODE": "fast"},
    secrets={"TOKEN": "aa"},
    base_url="https://qa.example.com",
    database={"engine": "mongodb", "connection_ref": "DB"},
    migrations=["001.js", "002.js"],
    files="c0ffee",
)
SEEN = Observation(
    env_vars={"LEVEL": "info", "MODE": "fast"},
    secrets={"TOKEN": "aa"},
    base_url="https://qa.example.com",
    observes_base_url=True,
    database={"engine": "mongodb", "connection_ref": "DB"},
    migrations=["001.js", "002.js"],
    files="c0ffee",
)


def test_what_is_as_it_was_applied_does_not_drift() -> None:
    assert drift(APPLIED, SEEN) == []


def test_nothing_applied_is_no_drift() -> None:
    assert drift(None, SEEN) == []


def test_what_a_target_can_t_observe_is_not_compared() -> None:
    assert drift(APPLIED, Observation()) == []


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (
            {"env_vars": {"LEVEL": "debug", "MODE": "fast"}},
            DriftItem(kind="env_var", key="LEVEL", expected="info", observed="debug"),
        ),
        ({"env_vars": {"LEVEL": "info"}}, DriftItem(kind="env_var", key="MODE", expected="fast")),
        ({"env_vars": {**APPLIED.env_vars, "NEW": "1"}}, DriftItem(kind="env_var", key="NEW", observed="1")),
        ({"secrets": {"TOKEN": "bb"}}, DriftItem(kind="secret", key="TOKEN", expected="aa", observed="bb")),
        ({"secrets": {}}, DriftItem(kind="secret", key="TOKEN", expected="aa")),
        ({"base_url": None}, DriftItem(kind="base_url", expected="https://qa.example.com")),
        (
            {"database": {"engine": "mongodb", "connection_ref": "OTHER"}},
            DriftItem(kind="database", key="connection_ref", expected="DB", observed="OTHER"),
        ),
        ({"migrations": ["001.js"]}, DriftItem(kind="migration", key="002.js", expected="applied")),
        ({"migrations": ["001.js", "002.js", "9.js"]}, DriftItem(kind="migration", key="9.js", observed="applied")),
        ({"files": "decaf"}, DriftItem(kind="files", expected="c0ffee", observed="decaf")),
        ({"changed_paths": ["a.json"]}, DriftItem(kind="files", key="a.json", expected="c0ffee", observed="changed")),
    ],
)
def test_each_category_is_told_with_what_was_expected_and_observed(seen: dict[str, object], found: DriftItem) -> None:
    assert drift(APPLIED, SEEN.model_copy(update=seen)) == [found]


def test_a_key_that_is_about_to_be_set_to_what_is_there_already_is_no_drift() -> None:
    seen = SEEN.model_copy(update={"env_vars": {"LEVEL": "debug", "MODE": "slow"}, "secrets": {"TOKEN": "bb"}, "files": "decaf"})
    coming = APPLIED.model_copy(update={"env_vars": {"LEVEL": "debug"}, "secrets": {"TOKEN": "bb"}, "files": "decaf"})

    assert drift(APPLIED, seen, coming) == [DriftItem(kind="env_var", key="MODE", expected="fast", observed="slow")]


_VALUES = st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["1", "2"]))


@given(applied=_VALUES, seen=_VALUES, coming=st.none() | _VALUES)
def test_a_key_drifts_exactly_when_it_is_neither_as_applied_nor_as_it_is_about_to_be(
    applied: dict[str, str], seen: dict[str, str], coming: dict[str, str] | None
) -> None:
    found = drift(Applied(env_vars=applied), Observation(env_vars=seen), Applied(env_vars=coming) if coming is not None else None)

    keys = sorted(applied.keys() | seen.keys())
    differs = [key for key in keys if applied.get(key) != seen.get(key)]
    assert [item.key for item in found] == [key for key in differs if coming is None or coming.get(key) != seen.get(key)]


def test_an_emergency_edit_names_both_revisions() -> None:
    assert emergency_edit(3, 4) == DriftItem(kind="emergency_edit", expected=3, observed=4)
