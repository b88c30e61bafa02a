"""Changing an app's settings (`spec.md` 6)."""

from __future__ import annotations

from typing import Any

import pytest

from conman.domain.app import AppSettings
from conman.domain.app_settings import KnownToSettings, change_settings, changed_settings, shown_settings
from conman.domain.errors import DomainError, ErrorCode

KNOWN = KnownToSettings(environment_ids=["dev", "prod"], profile_ids=frozenset({"p"}), suites=["msuite", "slow"])
PRESENT = AppSettings(canonical_env_id="prod", default_base_profile_id="p")
HOOK = {"url": "https://hooks.example.com/x?y=1", "events": ["release.published"]}


def changed(**patch: Any) -> AppSettings:
    return change_settings(PRESENT, patch, KNOWN)


@pytest.mark.parametrize(
    "patch",
    [
        {"baseline_mode": "integration_head"},
        {"canonical_env_id": "dev"},
        {"commit_mode_default": "manual_checkpoint"},
        {"blocked_paths": []},
        {"blocked_paths": ["*.pem", "secrets/**"]},
        {"file_size_limit_bytes": 1},
        {"file_size_limit_bytes": 52_428_800},
        {"required_approval_count": 50},
        {"runtime_profile_approval_policy": "same_as_changeset"},
        {"queue_gate": "clean_merge"},
        {"carry_votes": "identical_patch"},
        {"webhook": HOOK},
        {"temp_url_domain": "temp.example.com"},
        {"temp_url_domain": "localhost"},
        {"temp_env_access": "public"},
        {"env_defaults": {"A": {"type": "number", "value": 1.5}, "_b": {"type": "json", "value": {"x": [None]}}}},
        {"validation_gates": {"release": {"command": "slow", "profile_scope": "all", "timeout_seconds": 86_400}}},
        {"review_reminder_hours": 0},
        {"approval_ttl_hours": 1},
        {"revalidation_concurrency": 64},
    ],
    ids=lambda patch: next(iter(patch)),
)
def test_a_sound_change_is_applied_alone_and_shown_before_and_after(patch: dict[str, Any]) -> None:
    after = change_settings(PRESENT, patch, KNOWN)
    name = next(iter(patch))
    before, now = changed_settings(PRESENT, after)
    assert set(before) == set(now) == {name}
    rest = {field for field in AppSettings.model_fields if field != name}
    assert after.model_dump(include=rest) == PRESENT.model_dump(include=rest)
    assert AppSettings.model_validate(after.model_dump(mode="json")) == after


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"baseline_mode": None}, "baseline_mode"),
        ({"canonical_env_id": None}, "canonical_env_id"),
        ({"canonical_env_id": "archived"}, "canonical_env_id"),
        ({"default_base_profile_id": "other app's"}, "default_base_profile_id"),
        ({"file_size_limit_bytes": 0}, "file_size_limit_bytes"),
        ({"file_size_limit_bytes": 52_428_801}, "file_size_limit_bytes"),
        ({"required_approval_count": 0}, "required_approval_count"),
        ({"blocked_paths": [""]}, "blocked_paths"),
        ({"blocked_paths": ["!x"]}, "blocked_paths"),
        ({"blocked_paths": ["../x"]}, "blocked_paths"),
        ({"blocked_paths": ["x", "x"]}, "blocked_paths"),
        ({"blocked_paths": ["x" * 401]}, "blocked_paths"),
        ({"blocked_paths": [f"x{n}" for n in range(201)]}, "blocked_paths"),
        ({"temp_url_domain": ""}, "temp_url_domain"),
        ({"temp_url_domain": "Example.com"}, "temp_url_domain"),
        ({"temp_url_domain": "example.com:8080"}, "temp_url_domain"),
        ({"temp_url_domain": "-a.example.com"}, "temp_url_domain"),
        ({"temp_url_domain": "a..b"}, "temp_url_domain"),
        ({"temp_url_domain": "127.0.0.1"}, "temp_url_domain"),
        ({"temp_url_domain": f"{'a' * 64}.com"}, "temp_url_domain"),
        ({"temp_url_domain": ".".join(["a" * 60] * 3)}, "temp_url_domain"),
        ({"env_defaults": {"A": {"type": "number", "value": "1"}}}, "env_defaults.A"),
        ({"env_defaults": {"A": {"type": "number", "value": True}}}, "env_defaults.A"),
        ({"env_defaults": {"1A": {"type": "string", "value": "1"}}}, "env_defaults.1A"),
        ({"env_defaults": {"PATH": {"type": "string", "value": "/tmp"}}}, "env_defaults.PATH"),
        ({"env_defaults": {"CONMAN_X": {"type": "string", "value": ""}}}, "env_defaults.CONMAN_X"),
        ({"env_defaults": {"A": {"type": "string", "value": "\0"}}}, "env_defaults.A"),
        ({"validation_gates": {"submit": {"command": "/bin/sh"}}}, "validation_gates.submit.command"),
        ({"validation_gates": {"nightly": {"command": "msuite"}}}, "validation_gates.nightly"),
        (
            {"validation_gates": {"submit": {"command": "msuite", "profile_scope": "all"}}},
            "validation_gates.submit.profile_scope",
        ),
        (
            {"validation_gates": {"submit": {"command": "msuite", "reuse": "sometimes"}}},
            "validation_gates.submit.reuse",
        ),
        (
            {"validation_gates": {"submit": {"command": "msuite", "timeout_seconds": 0}}},
            "validation_gates.submit.timeout_seconds",
        ),
        ({"webhook": {**HOOK, "url": "ftp://example.com"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://u:p@example.com"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://example.com/#x"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://example.com:99999"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://example.com/\r\nX: y"}}, "webhook.url"),
        ({"webhook": {**HOOK, "events": []}}, "webhook.events"),
        ({"webhook": {**HOOK, "events": ["a", "a"]}}, "webhook.events"),
        ({"webhook": {**HOOK, "events": ["Not an event"]}}, "webhook.events"),
        ({"webhook": {**HOOK, "events": ["release.publishd"]}}, "webhook.events"),
        ({"webhook": {**HOOK, "url": "http://example.com"}}, "webhook.url"),
        ({"webhook": {**HOOK, "url": "https://169.254.169.254/"}}, "webhook.url"),
    ],
)
def test_a_bad_value_is_refused_naming_its_field(patch: dict[str, Any], field: str) -> None:
    with pytest.raises(DomainError) as refused:
        changed(**patch)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR
    assert refused.value.details[0]["field"] == field


def test_a_gate_that_is_not_named_stays_and_one_that_is_gets_its_default_profiles() -> None:
    after = changed(validation_gates={"deploy": {"command": "slow"}})
    assert after.validation_gates["submit"] == PRESENT.validation_gates["submit"]
    assert after.validation_gates["deploy"].model_dump() == {
        "command": "slow",
        "profile_scope": "target",
        "timeout_seconds": None,
    }


def test_a_gate_that_reuses_no_results_says_so_until_it_is_changed_again() -> None:
    after = changed(validation_gates={"submit": {"command": "slow", "reuse": False}})
    assert not after.validation_gates["submit"].reuse
    assert shown_settings(after)["validation_gates"]["submit"]["reuse"] is False
    assert AppSettings.model_validate(after.model_dump(mode="json")) == after, "it is kept so"
    again = change_settings(after, {"validation_gates": {"submit": {"command": "slow"}}}, KNOWN)
    assert again.validation_gates["submit"].reuse
    assert "reuse" not in shown_settings(again)["validation_gates"]["submit"]
    untouched = change_settings(after, {"required_approval_count": 2}, KNOWN)
    assert not untouched.validation_gates["submit"].reuse


def test_a_webhooks_secret_is_shown_by_its_mask_and_a_new_one_with_the_same_mask_is_a_change() -> None:
    one, other = (
        changed(webhook={**HOOK, "secret": {"value_id": value_id, "mask": "abcd****wxyz"}}) for value_id in ("one", "other")
    )
    assert shown_settings(one)["webhook"]["secret"] == "abcd****wxyz"
    before, after = changed_settings(one, other)
    assert before["webhook"]["secret"] == after["webhook"]["secret"] == "abcd****wxyz"
    assert "one" not in str(before)


def test_switching_off_what_may_be_absent() -> None:
    on = changed(webhook=HOOK, temp_url_domain="temp.example.com")
    off = change_settings(on, {"webhook": None, "temp_url_domain": None}, KNOWN)
    assert (off.webhook, off.temp_url_domain) == (None, None)


def test_a_change_to_what_is_there_is_none() -> None:
    assert changed_settings(PRESENT, changed(queue_gate="up_to_date", blocked_paths=list(PRESENT.blocked_paths))) == ({}, {})
