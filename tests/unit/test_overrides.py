"""Overrides of profiles: what may be sent, what is kept, what they make of a profile (`spec.md` 6 and 9)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_samples import DATABASE, EDITS, FULL, MIGRATIONS, URI, merged, text
from pydantic import ValidationError
from rule_samples import refused, uid

from conman.domain.errors import ErrorCode
from conman.domain.overrides import (
    MAX_KEYS,
    FrozenOverride,
    GivenOverride,
    Override,
    OverrideSecret,
    check_given,
    freeze,
    made_of,
    overlaid,
    overridden,
    overridden_names,
)
from conman.domain.profile import Source, effective_variables
from conman.domain.secrets import SecretRef, mask

QA = uid("qa profile")
OVERRIDES = EDITS.map(lambda edit: {field: value for field, value in edit.items() if field not in ("name", "lifecycle")})


def sent(**fields: Any) -> GivenOverride:
    target = {} if fields.keys() & {"target_environment_id", "target_profile_id"} else {"target_profile_id": QA}
    return GivenOverride.model_validate({**target, **fields})


def kept(one: GivenOverride) -> Override:
    """As the service keeps it; the digest of a secret is here the value itself."""
    refs = {
        key: OverrideSecret(value_id=f"id of {value}", mask=mask(value), digest=value) for key, value in one.new_secrets().items()
    }
    return made_of(one, refs)


def override(**fields: Any) -> Override:
    return kept(sent(**fields))


def frozen(**fields: Any) -> FrozenOverride:
    return freeze(sent(**fields), QA, override(**fields))


# -- What may be sent


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "persistent_env"},
        {"lifecycle": {"ttl_idle_hours": 1}},
        {"name": "x"},
        {"env_vars": {"A": "text"}},
        {"env_vars": {"A": {"type": "number", "value": "1"}}},
        {"env_vars": {"PATH": text("/tmp")}},
        {"env_vars": {"CONMAN_X": text("x")}},
        {"secrets": {"A": ""}},
        {"secrets": {"A": 1}},
        {"base_url": "ftp://a"},
        {"database": {**DATABASE, "engine": "postgres"}},
        {"migrations": {**MIGRATIONS, "more": 1}},
        {"data_strategy": {"seed_mode": "all"}},
    ],
    ids=lambda fields: str(fields),
)
def test_what_no_profile_could_hold_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sent(**fields)


def test_a_refusal_never_repeats_a_secret() -> None:
    with pytest.raises(ValidationError) as refusal:
        sent(secrets={"A": "open-sesame\0"}, env_vars={"A": {"type": "number", "value": "open-sesame"}})
    assert "open-sesame" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"target_environment_id": uid("e"), "target_profile_id": QA, "base_url": None}, "overrides.0"),
        ({"target_environment_id": None, "base_url": None}, "overrides.0"),
        ({"target_profile_id": QA}, "overrides.0"),
        ({"target_profile_id": QA, "env_vars": {}, "secrets": {}}, "overrides.0"),
        ({"target_profile_id": QA, "env_vars": {f"K{n}": None for n in range(MAX_KEYS + 1)}}, "overrides"),
    ],
    ids=["two targets", "no target", "nothing", "empty maps", "one key too many"],
)
def test_an_override_has_one_target_and_changes_something(fields: dict[str, Any], field: str) -> None:
    error = refused(ErrorCode.VALIDATION_ERROR, lambda: check_given([sent(**fields)]))
    assert [one["field"] for one in error.details] == [field]


@pytest.mark.parametrize(
    "fields",
    [{"base_url": None}, {"database": None}, {"env_vars": {"A": None}}, {"env_vars": {f"K{n}": None for n in range(MAX_KEYS)}}],
    ids=["a cleared field", "a cleared database", "a deleted key", "as many keys as may be"],
)
def test_clearing_is_a_change(fields: dict[str, Any]) -> None:
    check_given([sent(**fields)])


# -- What is kept


@given(OVERRIDES)
def test_what_is_kept_reads_back_the_same_and_has_only_what_was_given(fields: dict[str, Any]) -> None:
    one = override(**fields)
    assert one.content().keys() == fields.keys()
    again = Override.model_validate(one.content())
    assert (again, again.given, again.digests()) == (one, one.given, one.digests())


def test_secrets_are_shown_as_masks_and_nothing_else_of_them() -> None:
    shown = override(secrets={"TOKEN": "0123456789", "OLD": None}, base_url=None).masked()
    assert shown == {"secrets": {"TOKEN": "0123****6789", "OLD": None}, "base_url": None}


def test_equal_overrides_have_one_content_and_other_ones_another() -> None:
    one = frozen(env_vars={"A": {"type": "json", "value": {"a": 1, "b": 2}}})
    same = frozen(env_vars={"A": {"type": "json", "value": {"b": 2, "a": 1}}})
    assert one == same
    for other in ({"a": True, "b": 2}, {"a": "1", "b": 2}, {"a": 1.0, "b": 2}):
        assert frozen(env_vars={"A": {"type": "json", "value": other}}).content_id != one.content_id
    assert freeze(sent(base_url=None), uid("another"), override(base_url=None)).content_id != frozen(base_url=None).content_id


def test_a_default_that_is_written_out_is_the_same_value() -> None:
    assert frozen(database=DATABASE) == frozen(database={**DATABASE, "base_profile_id": None})


def test_the_target_is_kept_as_it_was_given() -> None:
    assert frozen(base_url=None).target == {"target_profile_id": QA}
    by_environment = sent(target_environment_id=uid("qa"), base_url=None)
    assert freeze(by_environment, QA, kept(by_environment)).target == {"target_environment_id": uid("qa")}


# -- What becomes of a profile


@given(OVERRIDES)
def test_an_override_does_to_its_profile_what_the_same_edit_does(fields: dict[str, Any]) -> None:
    assert overridden(FULL, [override(**fields)]) == merged(FULL, **fields)


def test_overrides_apply_in_their_order() -> None:
    first = override(env_vars={"A": text("1"), "B": text("b")}, base_url="http://a")
    second = override(env_vars={"A": text("2"), "B": None}, base_url=None)
    after = overridden(FULL, [first, second])
    assert (after.env_vars["A"].value, "B" in after.env_vars, after.base_url) == ("2", False, None)
    assert overridden(FULL, [second, first]).env_vars["A"].value == "1"


def test_laid_over_another_profile_what_is_set_takes_the_place_of_the_other_kind() -> None:
    after = overlaid(FULL, [override(env_vars={"TOKEN": text("plain")}, secrets={"A": "a secret now"})])
    assert after.env_vars["TOKEN"].value == "plain"
    assert "TOKEN" not in after.secrets
    assert "A" not in after.env_vars
    assert after.secrets["A"] == SecretRef(value_id="id of a secret now", mask=mask("a secret now"))
    assert after.secrets["MONGO_URI"].mask == mask(URI)


@given(st.lists(OVERRIDES, max_size=3))
def test_laid_over_a_profile_no_name_is_a_variable_and_a_secret(fields: list[dict[str, Any]]) -> None:
    after = overlaid(FULL, [override(**one) for one in fields])
    assert not after.env_vars.keys() & after.secrets.keys()


def test_effective_variables_say_which_come_from_an_override() -> None:
    changes = [override(env_vars={"A": text("new"), "N": None}, secrets={"TOKEN": "another value"})]
    profile = overlaid(FULL, changes)
    defaults = {"N": text("default"), "D": text("d")}
    shown = {one.key: one for one in effective_variables(defaults, profile, overridden_names(changes))}
    assert {key: (one.source, one.value.value) for key, one in shown.items()} == {
        "A": (Source.OVERRIDE, "new"),
        "D": (Source.APP_DEFAULT, "d"),
        "MONGO_URI": (Source.PROFILE, mask(URI)),
        "N": (Source.APP_DEFAULT, "default"),
        "TOKEN": (Source.OVERRIDE, mask("another value")),
    }
