"""Rollbacks: what may be undone or returned to, what undoing takes back of profiles, and what an environment has lost
(`spec.md` 3 and 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from conman.domain.decision import Event, Model
from conman.domain.deployment import RollbackMode
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.jobs import ReasonCode
from conman.domain.override_travel import PublishedRelease, undone
from conman.domain.overrides import Override, overridden
from conman.domain.profile import Profile
from conman.domain.publishing import PROFILE_CHANGED
from conman.domain.release import HEAD_MOVED, Failure, Move, Release, ReleaseState, release_event, target
from conman.domain.typed_value import rendered_value

MOST_RETURNS = 20
"""How many releases to which an environment may return are named to somebody who asks for another one."""


class ReleaseName(Model):
    """A release as people see it named."""

    release_id: str
    tag: str


# -- Whether it may be


def check_undoable(release: Release) -> None:
    """A: only a published release that was not undone before. Raises `invalid_transition`."""
    target(release.state, Move.ROLL_BACK)


def check_returnable(
    name: ReleaseName, release: Release, environment: str, succeeded: Sequence[ReleaseName], bad: Iterable[str] = ()
) -> None:
    """B: a release that succeeded in this environment before, was not rolled back since, and is not marked bad there.

    `succeeded` are those that did, newest first, none twice. Raises `invalid_transition`, `marked_bad`, or `conflict` that names
    what may be returned to.
    """
    target(release.state, Move.DEPLOY_PARTIAL)
    if name.release_id in bad:
        message = f"{name.tag} was rolled back from {environment}, whose health check failed: clear it there first."
        raise DomainError(ErrorCode.MARKED_BAD, message, {"release_id": name.release_id})
    if all(one.release_id != name.release_id for one in succeeded):
        known = ", ".join(one.tag for one in succeeded[:5]) or "none yet"
        message = f"{name.tag} never succeeded in {environment}, so there is nothing to return to. What did: {known}."
        raise DomainError(ErrorCode.CONFLICT, message, {"succeeded": [one.model_dump() for one in succeeded[:MOST_RETURNS]]})


# -- What undoing takes back of profiles


@dataclass(frozen=True, slots=True)
class Touched:
    """A profile that the release to undo overrides.

    `before` is the profile without the release's `overrides`, `present` as it is now. `received`: it has them. `newer`: key → tag
    of a release published later that overrides it too.
    """

    profile_id: str
    before: Profile
    present: Profile
    overrides: Sequence[Override]
    received: bool
    newer: Mapping[str, str] = field(default_factory=dict[str, str])


class KeyClash(Model):
    """A key of a profile that can't be taken back, since it was changed later: by the release `tag`, or by hand (None)."""

    profile_id: str
    key: str
    tag: str | None = None


def keys_of(overrides: Sequence[Override]) -> list[str]:
    """The keys that overrides change, each once, in their order."""
    return list(dict.fromkeys(key for override in overrides for key in override.digests()))


def clashes(touched: Touched) -> list[KeyClash]:
    """The keys that were changed since: they have no value to go back to that would not undo the later change as well.

    A profile that has not received the overrides has nothing to give back.
    """
    if not touched.received:
        return []
    after = overridden(touched.before, touched.overrides)
    found: list[KeyClash] = []
    for key in keys_of(touched.overrides):
        if key in touched.newer:
            found.append(KeyClash(profile_id=touched.profile_id, key=key, tag=touched.newer[key]))
        elif _value(touched.present, key) != _value(after, key):
            found.append(KeyClash(profile_id=touched.profile_id, key=key))
    return found


def secrets_to_restore(touched: Touched) -> list[str]:
    """The names of the secrets whose earlier values an inverse sets: it needs their digests."""
    names = [key.partition(".")[2] for key in _restored(touched) if key.startswith("secrets.")]
    return [name for name in names if name in touched.before.secrets]


def inverse(touched: Touched, digests: Mapping[str, str]) -> Override | None:
    """The override that gives each key its value before; None where none is left. `digests` are those of `secrets_to_restore`.

    A key that a newer release overrides is left to that one: only a profile that has not received the release has such a key.
    """
    content: dict[str, Any] = {}
    for key in _restored(touched):
        group, _, name = key.partition(".")
        if not name:
            value = getattr(touched.before, group)
            content[group] = value.model_dump(mode="json") if isinstance(value, Model) else value
        elif group == "secrets":
            ref = touched.before.secrets.get(name)
            kept = None if ref is None else {**ref.model_dump(mode="json"), "digest": digests[name]}
            content.setdefault(group, {})[name] = kept
        else:
            variable = touched.before.env_vars.get(name)
            content.setdefault(group, {})[name] = None if variable is None else variable.model_dump(mode="json")
    return Override.model_validate(content) if content else None


def _restored(touched: Touched) -> list[str]:
    return [key for key in keys_of(touched.overrides) if key not in touched.newer]


def _value(profile: Profile, key: str) -> object:
    """What tells the value of a key from others; a secret's is which value it is."""
    group, _, name = key.partition(".")
    if not name:
        return getattr(profile, group)
    if group == "secrets":
        ref = profile.secrets.get(name)
        return ref.value_id if ref is not None else None
    variable = profile.env_vars.get(name)
    return (variable.type, rendered_value(variable)) if variable is not None else None


def newer_than(release_id: str, published: Sequence[PublishedRelease]) -> list[PublishedRelease]:
    """What was published after a release and is in force; `published` is in publish order.

    A pair of two later ones, of which one undid the other, changes nothing together.
    """
    numbers = {release.id: number for number, release in enumerate(published)}
    later = published[numbers[release_id] + 1 :]
    gone = undone(later)
    ids = {release.id for release in later}
    return [one for one in later if one.id not in gone and one.reverts_release_id not in ids]


class Builder(Model):
    """A newer release that changed the same paths, or the same keys of profiles."""

    release_id: str
    tag: str
    paths: list[str]
    keys: list[KeyClash]


def refusal(tag: str, paths: Sequence[str], keys: Sequence[KeyClash], builders: Sequence[Builder]) -> DomainError:
    """Why a release can't be undone: `conflict`, with all paths and keys that were changed since."""
    named = [*paths, *(f"{clash.key} of a profile" for clash in keys)]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    newer = f" Releases that build on it: {', '.join(one.tag for one in builders[:5])}: undo these first." if builders else ""
    message = f"{tag} can't be undone, since later changes touch the same: {', '.join(named[:5])}{more}.{newer}"
    details = {
        "paths": list(paths),
        "keys": [clash.model_dump() for clash in keys],
        "newer_releases": [one.model_dump() for one in builders],
    }
    return DomainError(ErrorCode.CONFLICT, message, details)


# -- What an environment has lost


def environments_left(succeeded: Iterable[tuple[str, int]], taken: Iterable[tuple[str, int]]) -> list[str]:
    """The environments in which a release has succeeded and that no return to an earlier one took from it since (`spec.md` 3).

    Both are pairs of an environment and the fence under which it happened there; a newer release over it takes nothing.
    """
    last_taken: dict[str, int] = {}
    for environment_id, fence in taken:
        last_taken[environment_id] = max(fence, last_taken.get(environment_id, 0))
    left = [environment_id for environment_id, fence in succeeded if fence > last_taken.get(environment_id, 0)]
    return list(dict.fromkeys(left))


def rolled_back(release_id: str, before: Release, mode: RollbackMode, **more: Any) -> tuple[Release, Event]:
    """The release as it is once it was undone, or replaced in the last environment that ran it. Raises `invalid_transition`."""
    after = before.model_copy(update={"state": target(before.state, Move.ROLL_BACK)})
    return after, release_event(release_id, "rolled_back", before, after, mode=mode.value, **more)


# -- The way of a release that undoes another

MOST_ASSEMBLIES = 5
"""How often a release that undoes another is assembled, while the integration branch keeps moving beneath it."""

_AGAIN = frozenset({HEAD_MOVED, PROFILE_CHANGED, ReasonCode.INFRASTRUCTURE.value})
"""Ends of an assembly, or of a try to publish, that say nothing against undoing the release: it is tried again."""


class Step(StrEnum):
    """What is to be done next for a release that undoes another."""

    WAIT = "wait"
    STOP = "stop"
    ASSEMBLE = "assemble"
    PUBLISH = "publish"
    DROP = "drop"
    DEPLOY = "deploy"
    GIVE_UP = "give_up"


def next_step(release: Release, *, assemblies: int, wanted: bool) -> Step:
    """It goes on by itself to `published`, or is dropped. `wanted`: its deployment still waits for it (`spec.md` 12)."""
    if release.published_sha is not None:
        return Step.DEPLOY
    if release.edit is not None or release.publishing is not None:
        return Step.WAIT
    match release.state:
        case ReleaseState.ASSEMBLING:
            return Step.WAIT if wanted else Step.STOP
        case ReleaseState.VALIDATED:
            return Step.PUBLISH if wanted else Step.DROP
        case ReleaseState.DRAFT_RELEASE:
            again = release.failure is None or release.failure.reason_code in _AGAIN
            return Step.ASSEMBLE if wanted and again and assemblies < MOST_ASSEMBLIES else Step.DROP
        case _:
            return Step.GIVE_UP


def reverting_release_id(deployment_id: str) -> str:
    """The id of the release that undoes another for a deployment: the same again, so that any process may make its record."""
    return derived_uuid7(int(deployment_id.replace("-", "")[:12], 16), "reverting-release", deployment_id)


def failed_because(tag: str, failure: Failure | None) -> tuple[ReasonCode, str]:
    """How the deployment ends whose release was dropped: a job's reason, and a sentence."""
    if failure is None:
        return ReasonCode.CANCELED, f"{tag}, which was to undo the release, was dropped."
    known = {reason.value for reason in ReasonCode}
    reason = ReasonCode(failure.reason_code) if failure.reason_code in known else ReasonCode.GIT_ERROR
    return reason, f"Nothing was undone: {failure.message}"
