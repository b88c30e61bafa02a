"""What a changeset takes over of a drift, and what is left to people (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

import pytest

from conman.domain.drift import DriftItem
from conman.domain.drift_fix import description, drift_fix
from conman.domain.profile import Profile

APPLIED = Profile.model_validate(
    {
        "name": "QA",
        "base_url": "https://qa.example.com",
        "env_vars": {
            "LEVEL": {"type": "string", "value": "1"},
            "COUNT": {"type": "number", "value": 1},
            "FAST": {"type": "boolean", "value": False},
            "SHAPE": {"type": "json", "value": {"a": 1}},
        },
        "secrets": {"DB": {"value_id": "v", "mask": "****"}},
        "database": {"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "existing"},
    }
)


def var(key: str, observed: str | None, **more: Any) -> DriftItem:
    return DriftItem(kind="env_var", key=key, expected="1", observed=observed, **more)


def taken(*report: DriftItem) -> dict[str, Any]:
    fix = drift_fix("e", report, APPLIED)
    return fix.override.model_dump(mode="json", exclude_unset=True) if fix.override is not None else {}


def left(*report: DriftItem) -> list[str | None]:
    return [item.key for item in drift_fix("e", report, APPLIED).left]


@pytest.mark.parametrize(
    ("item", "value"),
    [
        (var("LEVEL", "2"), {"type": "string", "value": "2"}),
        (var("COUNT", "2"), {"type": "number", "value": 2}),
        (var("COUNT", "many"), {"type": "string", "value": "many"}),
        (var("COUNT", "NaN"), {"type": "string", "value": "NaN"}),
        (var("FAST", "true"), {"type": "boolean", "value": True}),
        (var("FAST", "1"), {"type": "string", "value": "1"}),
        (var("SHAPE", "[1]"), {"type": "json", "value": [1]}),
        (var("FRESH", "2"), {"type": "string", "value": "2"}),
        (var("LEVEL", None), None),
    ],
    ids=str,
)
def test_an_observed_variable_has_the_type_that_it_was_applied_with(item: DriftItem, value: Any) -> None:
    assert taken(item)["env_vars"] == {item.key: value}


def test_url_and_database_are_taken_over_whole() -> None:
    url = DriftItem(kind="base_url", expected="https://qa.example.com", observed="https://other.example.com")
    mode = DriftItem(kind="database", key="provisioning_mode", expected="existing", observed="empty")

    assert taken(url, mode) == {
        "target_environment_id": "e",
        "base_url": "https://other.example.com",
        "database": {"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "empty"},
    }


@pytest.mark.parametrize(
    "item",
    [
        DriftItem(kind="secret", key="DB", expected="aa", observed="bb"),
        DriftItem(kind="migration", key="1.js", expected="applied"),
        DriftItem(kind="files", key="a.json", expected="sha", observed="changed"),
        DriftItem(kind="files", expected="sha", observed="other"),
        DriftItem(kind="base_url", observed="ftp://nowhere"),
        DriftItem(kind="database", key="engine", expected="mongodb", observed="postgres"),
        var("not a name", "1"),
        var("LD_PRELOAD", "/tmp/evil.so"),
        var("LEVEL", "****", omitted=True),
        var("A_DEFAULT_OF_THE_APP", None),
        var("DB", "a value where a secret is"),
    ],
    ids=str,
)
def test_what_can_t_be_taken_over_is_left_for_somebody_to_set(item: DriftItem) -> None:
    assert (taken(item), left(item)) == ({}, [item.key])
    assert f"`{item.key}`" in description("QA", drift_fix("e", [item], APPLIED)) or item.key is None


def test_an_emergency_edit_is_in_the_profile_already() -> None:
    edit = DriftItem(kind="emergency_edit", expected=1, observed=2)

    assert (taken(edit), left(edit)) == ({}, [])


def test_no_description_tells_a_value() -> None:
    fix = drift_fix("e", [var("not a name", "a value"), DriftItem(kind="secret", key="PIN", expected="ffff")], APPLIED)

    assert "a value" not in description("QA", fix)
    assert "ffff" not in description("QA", fix)
