"""Replacing the list of an app's environments (`spec.md` 6, `api.md` 3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.environment import EnvironmentDefinition, Known, NewIds, ReplacedList, replace_list
from conman.domain.errors import DomainError, ErrorCode

KNOWN = Known(
    profile_ids=frozenset({"p-dev", "p-prod", "p-spare"}),
    deploy_targets=["directory", "k8s"],
    health_commands=["ping"],
    is_timezone=lambda name: name == "Europe/Berlin",
)
IDS = NewIds(environment=lambda number: f"new-{number}", profile=lambda number: f"new-profile-{number}")
DEV = EnvironmentDefinition(id="dev", name="Development", runtime_profile_id="p-dev")
PROD = EnvironmentDefinition(
    id="prod",
    name="Production",
    runtime_profile_id="p-prod",
    deploy_target="k8s",
    health_command="ping",
    auto_rollback=True,
    drift_policy="heal",
)


def replaced(*wanted: dict[str, Any]) -> ReplacedList:
    return replace_list([DEV, PROD], wanted, KNOWN, IDS)


def item(environment_id: str | None = None, name: str = "Development", *, canonical: bool = False, **more: Any) -> dict[str, Any]:
    return {**({"id": environment_id} if environment_id else {}), "name": name, "is_canonical": canonical, **more}


def refusal(*wanted: dict[str, Any]) -> str:
    with pytest.raises(DomainError) as refused:
        replaced(*wanted)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR
    return str(refused.value.details[0]["field"])


def test_an_id_keeps_what_is_not_named_and_the_order_is_that_of_the_request() -> None:
    after = replaced(item("prod", "Live", canonical=True), item("dev"))
    assert after.environments == (PROD.model_copy(update={"name": "Live"}), DEV)
    assert (after.canonical_id, after.archived, after.relinked, dict(after.new_profiles)) == ("prod", (), (), {})


def test_a_new_environment_gets_the_defaults_and_a_profile_of_its_own_unless_it_names_one() -> None:
    after = replaced(item("dev", canonical=True), item(None, "QA"), item(None, "UAT", runtime_profile_id="p-spare"))
    assert after.environments[1] == EnvironmentDefinition(id="new-1", name="QA", runtime_profile_id="new-profile-1")
    assert after.environments[2].runtime_profile_id == "p-spare"
    assert dict(after.new_profiles) == {"new-profile-1": "QA"}
    assert after.archived == ("prod",)


def test_another_profile_for_a_kept_environment_is_a_relink() -> None:
    after = replaced(item("dev", canonical=True, runtime_profile_id="p-spare"), item("prod", "Production"))
    assert after.relinked == ("dev",)


def test_null_clears_what_may_be_absent_and_nothing_else() -> None:
    cleared = item("prod", "Production", canonical=True, health_command=None, auto_rollback=None, deploy_target=None)
    after = replaced(cleared)
    assert after.environments[0] == PROD.model_copy(update={"health_command": None})


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([], "environments"),
        ([item(None, f"E{n}", canonical=n == 0) for n in range(51)], "environments"),
        ([item("dev")], "environments"),
        ([item("dev", canonical=True), item("prod", "Production", canonical=True)], "environments"),
        ([item("dev", canonical=True), item("dev", "Other")], "environments.1.id"),
        ([item("elsewhere", canonical=True)], "environments.0.id"),
        ([item("dev", canonical=True), item(None, "DEVELOPMENT")], "environments.1.name"),
        ([item("dev", canonical=True), item(None, "\uff24evelopment")], "environments.1.name"),
        ([item("dev", "", canonical=True)], "environments.0.name"),
        ([item("dev", "x" * 61, canonical=True)], "environments.0.name"),
        ([item("dev", " x", canonical=True)], "environments.0.name"),
        ([item("dev", "x\u202ey", canonical=True)], "environments.0.name"),
        ([item("dev", "x\0", canonical=True)], "environments.0.name"),
        ([item("dev", canonical=True, runtime_profile_id="p-other-app")], "environments.0.runtime_profile_id"),
        ([item("dev", canonical=True, deploy_target="/bin/sh")], "environments.0.deploy_target"),
        ([item("dev", canonical=True, health_command="directory")], "environments.0.health_command"),
        (
            [item("dev", canonical=True, required_approvals={"count": 0, "role": "reviewer"})],
            "environments.0.required_approvals.count",
        ),
        (
            [item("dev", canonical=True, required_approvals={"count": 1, "role": "user"})],
            "environments.0.required_approvals.role",
        ),
        ([item("dev", canonical=True, freeze_windows=[{"name": "x", "timezone": "UTC"}])], "environments.0.freeze_windows.0"),
        (
            [
                item(
                    "dev",
                    canonical=True,
                    freeze_windows=[{"name": "x", "timezone": "?", "cron": "0 0 * * *", "duration_minutes": 1}],
                )
            ],
            "environments.0.freeze_windows.0.timezone",
        ),
    ],
)
def test_a_list_that_breaks_a_rule_is_refused_naming_the_item_and_field(wanted: list[dict[str, Any]], field: str) -> None:
    assert refusal(*wanted) == field


@pytest.mark.parametrize("count", [1, 50])
def test_a_list_has_from_1_to_50_environments(count: int) -> None:
    assert len(replaced(*(item(None, f"E{n}", canonical=n == 0) for n in range(count))).environments) == count


def test_a_definition_is_read_as_it_was_written() -> None:
    windows = [
        {"name": "once", "timezone": "Europe/Berlin", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
        {"name": "weekly", "timezone": "Europe/Berlin", "cron": "0 18 * * FRI", "duration_minutes": 60},
    ]
    approvals = {"count": 2, "role": "config_manager"}
    after = replaced(item("prod", "Production", canonical=True, freeze_windows=windows, required_approvals=approvals))
    document = after.environments[0].document()
    assert document["freeze_windows"] == windows
    assert document["required_approvals"] == approvals
    assert EnvironmentDefinition.model_validate(document) == after.environments[0]


@given(st.lists(st.sampled_from(["dev", "prod", "new"]), min_size=1, max_size=6), st.data())
def test_every_accepted_list_has_one_canonical_unique_ids_and_names_and_archives_exactly_what_is_left_out(
    kinds: list[str], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from("ABCD"), min_size=len(kinds), max_size=len(kinds)))
    canonical = data.draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
    wanted = [
        item(None if kind == "new" else kind, name, canonical=flag)
        for kind, name, flag in zip(kinds, names, canonical, strict=True)
    ]
    kept = [kind for kind in kinds if kind != "new"]
    sound = canonical.count(True) == 1 and len(set(names)) == len(names) and len(set(kept)) == len(kept)
    if not sound:
        refusal(*wanted)
        return
    after = replaced(*wanted)
    ids = [definition.id for definition in after.environments]
    assert len(set(ids)) == len(ids)
    assert after.canonical_id == ids[canonical.index(True)]
    assert set(after.archived) == {"dev", "prod"} - set(kept)
