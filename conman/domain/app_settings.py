"""Changing an app's settings: what may stand in them, and what of them has changed (`spec.md` 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from conman.domain.app import PROFILE_SCOPES, AppSettings, Webhook
from conman.domain.errors import invalid
from conman.domain.paths import check_glob
from conman.domain.typed_value import MAX_VARIABLES, MAX_VARIABLES_BYTES, TypedValue, name_problem, rendered_value, value_problem
from conman.domain.webhook import is_known
from conman.domain.webhook_target import check_url

MOST_BLOCKED_PATHS = 200
LONGEST_BLOCKED_PATH = 400
MOST_WEBHOOK_EVENTS = 100
LONGEST_TEMP_URL_DOMAIN = 180
"""Leaves room for the name of a temp environment before the domain (`spec.md` 13)."""

NULLABLE = frozenset({"webhook", "temp_url_domain"})
"""The settings that may be switched off by null."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class KnownToSettings:
    """What settings may name: the app's environments, its profiles for a base, the operator's suites and networks."""

    environment_ids: Sequence[str]
    profile_ids: frozenset[str]
    suites: Sequence[str]
    webhook_networks: Sequence[str] = ()


def change_settings(present: AppSettings, patch: Mapping[str, Any], known: KnownToSettings) -> AppSettings:
    """The settings with a flat patch of them applied; of `validation_gates` the named scopes are replaced, all else is whole.

    A webhook's secret must be sealed already. Raises `validation_error`.
    """
    for name, value in patch.items():
        if value is None and name not in NULLABLE:
            raise invalid(name, "can't be null")
    after = present.model_copy(update=_typed(present, patch))
    _check_names(after, patch, known)
    if "blocked_paths" in patch:
        _check_blocked_paths(after.blocked_paths)
    if "env_defaults" in patch:
        check_variables("env_defaults", after.env_defaults)
    if after.temp_url_domain is not None and "temp_url_domain" in patch:
        check_domain("temp_url_domain", after.temp_url_domain)
    if after.webhook is not None and "webhook" in patch:
        _check_webhook(after.webhook, known.webhook_networks)
    return after


def _typed(present: AppSettings, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patch as the settings' own types. Raises `validation_error` for a value out of range."""
    merged = dict(patch)
    if "env_defaults" in patch:
        for key, variable in patch["env_defaults"].items():
            problem = value_problem(variable["type"], variable["value"])
            if problem is not None:
                raise invalid(f"env_defaults.{key}", problem)
    if "validation_gates" in patch:
        given: dict[str, dict[str, Any]] = {}
        for scope, gate in patch["validation_gates"].items():
            scopes = PROFILE_SCOPES.get(scope)
            if scopes is None:
                raise invalid(f"validation_gates.{scope}", f"is no gate; there are {', '.join(PROFILE_SCOPES)}")
            given[scope] = {**gate, "profile_scope": gate.get("profile_scope") or scopes[0]}
            if given[scope]["profile_scope"] not in scopes:
                raise invalid(f"validation_gates.{scope}.profile_scope", f"is none of {', '.join(scopes)}")
        merged["validation_gates"] = {**present.model_dump()["validation_gates"], **given}
    try:
        whole = AppSettings.model_validate({**present.model_dump(), **merged})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise invalid(".".join(map(str, wrong["loc"])), wrong["msg"].removeprefix("Value error, ")) from error
    return {name: getattr(whole, name) for name in patch}


def _check_names(after: AppSettings, patch: Mapping[str, Any], known: KnownToSettings) -> None:
    if "canonical_env_id" in patch and after.canonical_env_id not in known.environment_ids:
        raise invalid("canonical_env_id", "is no environment of this app")
    if "default_base_profile_id" in patch and after.default_base_profile_id not in known.profile_ids:
        raise invalid("default_base_profile_id", "is no profile of this app")
    for scope in patch.get("validation_gates", {}):
        command = after.validation_gates[scope].command
        if command not in known.suites:
            raise invalid(
                f"validation_gates.{scope}.command",
                f"{command!r} is no msuite command of the operator's: choose one of {', '.join(known.suites)}",
            )


def _check_blocked_paths(globs: Sequence[str]) -> None:
    """What is left out is no longer blocked; `.git` itself always is, by the rules for paths (`spec.md` 7)."""
    if len(globs) > MOST_BLOCKED_PATHS:
        raise invalid("blocked_paths", f"has more than {MOST_BLOCKED_PATHS} patterns")
    for glob in globs:
        if len(glob) > LONGEST_BLOCKED_PATH:
            raise invalid("blocked_paths", f"a pattern is longer than {LONGEST_BLOCKED_PATH} characters")
        check_glob(glob)
    if len(set(globs)) != len(globs):
        raise invalid("blocked_paths", "names a pattern twice")


def check_variables(field: str, variables: Mapping[str, TypedValue]) -> None:
    """Variables that every process can be given. Raises `validation_error`, naming the variable."""
    if len(variables) > MAX_VARIABLES:
        raise invalid(field, f"has more than {MAX_VARIABLES} variables")
    for name in variables:
        problem = name_problem(name)
        if problem is not None:
            raise invalid(f"{field}.{name[:64]}", problem)
    size = sum(len(name.encode()) + len(rendered_value(value).encode()) for name, value in variables.items())
    if size > MAX_VARIABLES_BYTES:
        raise invalid(field, f"takes more than {MAX_VARIABLES_BYTES} bytes together")


def check_domain(field: str, domain: str) -> None:
    """A host name in lower case, without a port. Raises `validation_error`."""
    labels = domain.split(".")
    if len(domain) > LONGEST_TEMP_URL_DOMAIN or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise invalid(field, "is no domain: use labels of a-z, 0-9 and '-' with dots between them, such as temp.example.com")


def _check_webhook(webhook: Webhook, networks: Sequence[str]) -> None:
    check_url(webhook.url, networks)
    if not 1 <= len(webhook.events) <= MOST_WEBHOOK_EVENTS or len(set(webhook.events)) != len(webhook.events):
        raise invalid("webhook.events", f"needs from 1 to {MOST_WEBHOOK_EVENTS} events, each once")
    for event in webhook.events:
        if not is_known(event):
            raise invalid("webhook.events", f"{event[:80]!r} is no event; they look like release.published, release.* or *")


def shown_settings(settings: AppSettings) -> dict[str, Any]:
    """Settings as `api.md` 4 shows them: a webhook's secret masked."""
    shown = settings.model_dump(mode="json")
    if settings.webhook is not None and settings.webhook.secret is not None:
        shown["webhook"]["secret"] = settings.webhook.secret.mask
    if settings.webhook is not None:
        for of_the_change_over in ("previous", "previous_until"):
            shown["webhook"].pop(of_the_change_over, None)
    return shown


def changed_settings(before: AppSettings, after: AppSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that differ, before and after, as the audit shows them (`api.md` 5).

    A new secret counts as a change also where its mask is that of the old one.
    """
    old, new = shown_settings(before), shown_settings(after)
    kept_before, kept_after = before.model_dump(mode="json"), after.model_dump(mode="json")
    names = [name for name in new if kept_before[name] != kept_after[name]]
    return {name: old[name] for name in names}, {name: new[name] for name in names}
