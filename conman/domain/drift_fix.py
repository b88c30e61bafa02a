"""What a changeset takes over of a drift, and what is left for somebody to set by hand (`spec.md` 12).

Values of variables get the type that they were applied with, where they are of that type, else they are text. What is no sound
part of a profile is left, as are secrets, whose values nobody knows, migrations and files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from conman.domain.decision import Model
from conman.domain.drift import DriftItem
from conman.domain.overrides import MAX_KEYS, GivenOverride
from conman.domain.profile import Profile, TypedValue
from conman.domain.typed_value import value_problem

LONGEST_TITLE = 200
MOST_LINES = 100
"""How many differences a description lists."""


class DriftFix(Model):
    """The change to propose for the environment, None when nothing can be taken over; `left` says what somebody must set."""

    override: GivenOverride | None = None
    left: list[DriftItem] = Field(default_factory=list[DriftItem])


def drift_fix(environment_id: str, report: Sequence[DriftItem], applied: Profile) -> DriftFix:
    """What of the report an override takes over, on the profile that was applied; an emergency edit is in the profile already."""
    change: dict[str, Any] = {}
    left: list[DriftItem] = []
    database: list[DriftItem] = []
    for item in report:
        match item.kind:
            case "env_var" if not item.omitted and (value := _variable(item, applied)) is not None:
                variables = change.setdefault("env_vars", {})
                if len(variables) < MAX_KEYS - 2 and _is_sound({"env_vars": value}):
                    variables.update(value)
                else:
                    left.append(item)
            case "base_url" if not item.omitted and _is_sound({"base_url": item.observed}):
                change["base_url"] = item.observed
            case "database" if not item.omitted:
                database.append(item)
            case "emergency_edit":
                pass
            case _:
                left.append(item)
    settings = _database(database, applied)
    if database and _is_sound({"database": settings}):
        change["database"] = settings
    else:
        left += database
    if not change.get("env_vars", True):
        del change["env_vars"]
    given = GivenOverride.model_validate({"target_environment_id": environment_id, **change}) if change else None
    return DriftFix(override=given, left=left)


def _variable(item: DriftItem, applied: Profile) -> dict[str, Any] | None:
    """The variable as it is set; None where none can: the name of a secret, or one of the app's defaults that is gone."""
    key = item.key or ""
    present = applied.env_vars.get(key)
    if key in applied.secrets:
        return None
    if item.observed is None:
        return {key: None} if present is not None else None
    return {key: _typed(str(item.observed), present)}


def _typed(text: str, present: TypedValue | None) -> dict[str, Any]:
    if present is not None and present.type != "string":
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        else:
            if value_problem(present.type, value) is None:
                return {"type": present.type, "value": value}
    return {"type": "string", "value": text}


def _database(items: Sequence[DriftItem], applied: Profile) -> dict[str, Any] | None:
    """The database's settings with what was observed; all of them gone is no database."""
    present = applied.database.model_dump(mode="json") if applied.database is not None else {}
    merged = {**present, **{item.key or "": item.observed for item in items}}
    known = {key: value for key, value in merged.items() if value is not None}
    return known or None


def _is_sound(change: Mapping[str, Any]) -> bool:
    try:
        GivenOverride.model_validate({"target_environment_id": "any", **change})
    except ValidationError:
        return False
    return True


def title(environment: str) -> str:
    """What the changeset is called."""
    return f"Take over what has drifted in {environment}"[:LONGEST_TITLE]


def description(environment: str, fix: DriftFix) -> str:
    """What the changeset takes over, and what somebody must set before it is whole."""
    lines = [f"{environment} is not what was last applied there. This changeset takes over what was observed."]
    if fix.left:
        lines += ["", "To be set by hand, here or there:", ""]
        lines += [f"- {_in_words(item)}" for item in fix.left[:MOST_LINES]]
        if len(fix.left) > MOST_LINES:
            lines.append(f"- and {len(fix.left) - MOST_LINES} more, see the drift report")
    return "\n".join(lines)


def _in_words(item: DriftItem) -> str:
    name = item.key or ""
    match item.kind:
        case "secret" if item.observed is None:
            return f"the secret `{name}` is not there"
        case "secret" if item.expected is None:
            return f"the secret `{name}` is there and was not applied"
        case "secret":
            return f"the secret `{name}` has another value"
        case "migration" if item.observed is None:
            return f"the migration `{name}` is recorded and not applied there"
        case "migration":
            return f"the migration `{name}` is applied there and not recorded"
        case "files":
            return f"the file `{name}` was changed there" if name else "the files of another commit are in place"
        case "env_var":
            return f"the variable `{name}` can't be taken over as it is"
        case "base_url":
            return "the URL can't be taken over as it is"
        case _:
            return f"the database setting `{name}` can't be taken over as it is"
