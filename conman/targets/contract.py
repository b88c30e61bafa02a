"""What Conman and a target program say to each other, as JSON (`docs/targets.md`).

An answer is taken only when it is exactly what the contract says: a program that exits with 0 and prints something else did not
do its work, as far as anybody can tell.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conman.domain.target import MOST_PATHS, Health, Observation
from conman.targets.base import DeployOrder, ObserveOrder, TargetError

CONTRACT = 1
"""The version of the contract, in every order."""

Action = Literal["deploy", "observe", "health"]

ANSWER_BYTES = 1_048_576
"""The longest answer, bytes."""

_Name = Annotated[str, Field(min_length=1, max_length=1000)]
_Value = Annotated[str, Field(max_length=65_536)]
_Message = Annotated[str, Field(max_length=2000)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_MOST_KEYS = 10_000


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_AnswerT = TypeVar("_AnswerT", bound=_Answer)


class DeployAnswer(_Answer):
    """The answer to `deploy`: where it can be seen, if that is a folder of this machine, and what people should know."""

    folder: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    message: _Message = ""


class HealthAnswer(_Answer):
    """The answer to `health`."""

    healthy: bool
    message: _Message = ""


class ObserveAnswer(_Answer):
    """The answer to `observe`. What is left out, or null, can't be observed; `base_url` alone is observed as none with null."""

    env_vars: Annotated[dict[_Name, _Value], Field(max_length=_MOST_KEYS)] | None = None
    secrets: Annotated[dict[_Name, _Digest], Field(max_length=_MOST_KEYS)] | None = None
    base_url: Annotated[str, Field(max_length=2000)] | None = None
    database: Annotated[dict[_Name, _Value | None], Field(max_length=100)] | None = None
    migrations: Annotated[list[_Name], Field(max_length=_MOST_KEYS)] | None = None
    commit_sha: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    changed_paths: Annotated[list[_Name], Field(max_length=_MOST_KEYS)] = []

    def observation(self) -> Observation:
        """In the words of a profile."""
        return Observation(
            env_vars=self.env_vars,
            secrets=self.secrets,
            base_url=self.base_url,
            observes_base_url="base_url" in self.model_fields_set,
            database=self.database,
            migrations=self.migrations,
            files=self.commit_sha,
            changed_paths=self.changed_paths[:MOST_PATHS],
        )


def deploy_order(order: DeployOrder, action: Action, files: dict[str, str]) -> str:
    """What `deploy` and `health` read; `files` are the paths of what was written for them."""
    return json.dumps(
        {
            "contract": CONTRACT,
            "action": action,
            **_place(order),
            "fence": order.fence,
            "deployment_id": order.deployment_id,
            "release_id": order.release_id,
            "tag": order.tag,
            "commit_sha": order.commit_sha,
            "profile_revision_id": order.rendered.revision_id,
            **files,
        }
    )


def observe_order(order: ObserveOrder) -> str:
    """What `observe` reads: the names that Conman put there, and the key for this answer's digests."""
    applied = order.applied
    return json.dumps(
        {
            "contract": CONTRACT,
            "action": "observe",
            **_place(order),
            "fence": order.fence,
            "deployment_id": order.deployment_id,
            "commit_sha": order.commit_sha,
            "profile_revision_id": applied.revision_id if applied is not None else None,
            "digest_key": order.digest_key.hex(),
            "env_var_names": sorted(applied.variables.keys() - applied.secrets.keys()) if applied is not None else [],
            "secret_names": sorted(applied.secrets) if applied is not None else [],
        }
    )


def _place(order: DeployOrder | ObserveOrder) -> dict[str, Any]:
    place = order.place
    return {
        "app": {"id": place.app_id, "name": place.app},
        "environment": {"id": place.environment_id, "name": place.environment},
    }


def read_deploy(answer: bytes) -> DeployAnswer:
    """Raises `TargetError` for anything else than an answer to `deploy`."""
    return _read(DeployAnswer, answer, "deploy")


def read_health(answer: bytes) -> Health:
    """Raises `TargetError` for anything else than an answer to `health`."""
    found = _read(HealthAnswer, answer, "health")
    return Health(healthy=found.healthy, message=found.message)


def read_observe(answer: bytes) -> Observation:
    """Raises `TargetError` for anything else than an answer to `observe`."""
    return _read(ObserveAnswer, answer, "observe").observation()


def _read(model: type[_AnswerT], answer: bytes, action: Action) -> _AnswerT:
    """The problem's text names fields of the contract only: whatever else stands in the answer may be a secret."""
    try:
        value = json.loads(answer.decode(), object_pairs_hook=_no_key_twice, parse_constant=_no_number, parse_float=_finite)
    except UnicodeDecodeError:
        raise _broken(action, "it is not UTF-8") from None
    except _Refused as refused:
        raise _broken(action, str(refused)) from None
    except (ValueError, RecursionError):
        raise _broken(action, "it is no JSON" if answer.strip() else "it is empty") from None
    if not isinstance(value, dict):
        raise _broken(action, "it is no object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = first["loc"][0] if first["loc"] else ""
        known = field if field in model.model_fields else "a field that the contract does not know"
        raise _broken(action, f"{known}: {first['msg']}") from None


class _Refused(Exception):
    """JSON that says no one thing."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a key stands twice in one of its objects")
    return found


def _no_number(text: str) -> NoReturn:
    raise _Refused(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:20])


def _broken(action: Action, problem: str) -> TargetError:
    return TargetError(f"The target's answer to {action} breaks the contract: {problem}. Its operator mends the program.")
