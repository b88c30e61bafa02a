"""The environments of an app as its admins define them, and the replacement of their list (`spec.md` 6, `api.md` 3).

The list stands whole in the app's record: its order is the stage order, and exactly one is canonical. What is deployed where
belongs to the workflows, in the record of each environment.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from conman.domain.decision import Model
from conman.domain.errors import DomainError, invalid
from conman.domain.freeze import FreezeWindow
from conman.domain.roles import Role

MOST_ENVIRONMENTS = 50
LONGEST_NAME = 60
DIRECTORY_TARGET = "directory"


class RequiredApprovals(Model):
    """How many people of at least which role agree to every deployment (`spec.md` 12)."""

    count: int = Field(ge=1, le=20)
    role: Literal[Role.REVIEWER, Role.CONFIG_MANAGER, Role.APP_ADMIN]


class EnvironmentDefinition(Model):
    """One environment, as the app's admins define it. Programs are named, never given (`spec.md` 6)."""

    id: str
    name: str
    runtime_profile_id: str
    deploy_target: str = DIRECTORY_TARGET
    health_command: str | None = None
    auto_rollback: bool = False
    drift_policy: Literal["block", "heal"] = "block"
    freeze_windows: list[FreezeWindow] = Field(default_factory=list[FreezeWindow])
    required_approvals: RequiredApprovals | None = None

    def document(self) -> dict[str, Any]:
        """As it is kept and shown."""
        made = self.model_dump(mode="json", by_alias=True)
        made["freeze_windows"] = [
            window.model_dump(mode="json", by_alias=True, exclude_none=True) for window in self.freeze_windows
        ]
        return made


@dataclass(frozen=True, slots=True)
class Known:
    """What a list of environments may name: profiles of the app for persistent environments, the operator's programs, zones."""

    profile_ids: frozenset[str]
    deploy_targets: Sequence[str]
    health_commands: Sequence[str]
    is_timezone: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class NewIds:
    """The ids of what the n-th environment of a request makes, the same for each repeat of the request."""

    environment: Callable[[int], str]
    profile: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class ReplacedList:
    """A list of environments after its replacement.

    `new_profiles`: profile id → name, for environments that came without one. `archived` are the ids that are left out,
    `relinked` those that changed their profile.
    """

    environments: tuple[EnvironmentDefinition, ...]
    canonical_id: str
    new_profiles: Mapping[str, str]
    archived: tuple[str, ...]
    relinked: tuple[str, ...]


def replace_list(
    present: Sequence[EnvironmentDefinition], wanted: Sequence[Mapping[str, Any]], known: Known, new_ids: NewIds
) -> ReplacedList:
    """The list that a request asks for: an `id` keeps that environment with all that is not named anew, without one a new
    environment is made. Raises `validation_error`, naming the item and field.
    """
    if not 1 <= len(wanted) <= MOST_ENVIRONMENTS:
        raise invalid("environments", f"needs from 1 to {MOST_ENVIRONMENTS} environments")
    by_id = {definition.id: definition for definition in present}
    made: list[EnvironmentDefinition] = []
    new_profiles: dict[str, str] = {}
    for number, item in enumerate(wanted):
        environment_id = item.get("id")
        if environment_id is not None and environment_id not in by_id:
            raise _invalid(number, "id", "is no environment of this app; leave it out to make a new one")
        if any(environment_id == earlier.id for earlier in made):
            raise _invalid(number, "id", "stands twice in the list")
        fields = _base(by_id.get(environment_id or ""), number, new_ids) | _given(item)
        if fields.get("runtime_profile_id") is None:
            profile_id = new_ids.profile(number)
            fields["runtime_profile_id"] = profile_id
            new_profiles[profile_id] = str(fields["name"])
        elif fields["runtime_profile_id"] not in known.profile_ids:
            raise _invalid(number, "runtime_profile_id", "is no profile of this app for persistent environments")
        made.append(_checked(number, fields, made, known))
    kept = {definition.id for definition in made}
    return ReplacedList(
        environments=tuple(made),
        canonical_id=_canonical(wanted, made),
        new_profiles=new_profiles,
        archived=tuple(definition.id for definition in present if definition.id not in kept),
        relinked=tuple(
            definition.id
            for definition in made
            if definition.id in by_id and by_id[definition.id].runtime_profile_id != definition.runtime_profile_id
        ),
    )


def _invalid(number: int, field: str, message: str) -> DomainError:
    return invalid(f"environments.{number}.{field}", message)


def _base(kept: EnvironmentDefinition | None, number: int, new_ids: NewIds) -> dict[str, Any]:
    return kept.document() if kept is not None else {"id": new_ids.environment(number)}


def _given(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the request names; null is as good as not named, where there is no such thing as none."""
    cleared = {"health_command", "required_approvals"}
    given = {name: value for name, value in item.items() if name not in ("id", "is_canonical")}
    return {name: value for name, value in given.items() if value is not None or name in cleared}


def _checked(
    number: int, fields: Mapping[str, Any], earlier: Sequence[EnvironmentDefinition], known: Known
) -> EnvironmentDefinition:
    try:
        made = EnvironmentDefinition.model_validate(fields)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise _invalid(number, ".".join(map(str, wrong["loc"])), wrong["msg"].removeprefix("Value error, ")) from error
    problem = name_problem(made.name)
    if problem is not None:
        raise _invalid(number, "name", problem)
    if any(_folded(made.name) == _folded(other.name) for other in earlier):
        raise _invalid(number, "name", f"{made.name!r} stands twice in the list: names are unique, whatever their case")
    if made.deploy_target not in known.deploy_targets:
        raise _invalid(number, "deploy_target", f"is none of the operator's targets: {', '.join(known.deploy_targets)}")
    if made.health_command is not None and made.health_command not in known.health_commands:
        offered = ", ".join(known.health_commands) or "there are none"
        raise _invalid(number, "health_command", f"is none of the operator's health commands: {offered}")
    for place, window in enumerate(made.freeze_windows):
        if not known.is_timezone(window.timezone):
            raise _invalid(number, f"freeze_windows.{place}.timezone", f"{window.timezone!r} is no zone of the IANA database")
    return made


def name_problem(name: str) -> str | None:
    """Why this can't be the name of an environment, None when it can."""
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"needs from 1 to {LONGEST_NAME} characters"
    if name != name.strip() or not name.isprintable():
        return "must not begin or end with a space, nor hold characters that can't be seen"
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _canonical(wanted: Sequence[Mapping[str, Any]], made: Sequence[EnvironmentDefinition]) -> str:
    chosen = [definition.id for item, definition in zip(wanted, made, strict=True) if item["is_canonical"]]
    if len(chosen) != 1:
        raise invalid("environments", f"exactly one environment is canonical, not {len(chosen)}")
    return chosen[0]
