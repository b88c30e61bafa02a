"""What a target of deployments is told and what it says (`spec.md` 12).

A target is where an environment lives: the built-in `directory`, or a program of the operator. It says what it observes in the
words of a runtime profile, so that one comparison finds drift whatever the target is.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from pydantic import Field

from conman.domain.decision import Model


class Place(Model):
    """Which environment of which app an order is about."""

    app_id: str
    app: str
    environment_id: str
    environment: str
    target: str


class Observation(Model):
    """What is there now. A field that is None can't be observed by this target, and is not compared.

    `secrets` maps a key to the lower-case hexadecimal HMAC-SHA256 of the value in place, under the key that was handed to the
    target with the question: no value leaves the environment. A text that holds the value of a secret is `WITHHELD`. `files` is
    the sha of the commit whose files are in place, empty where there are none; `changed_paths` are paths that are not as that
    commit has them, at most `MOST_PATHS`. What is there beside the files begins with `current/`.
    """

    env_vars: dict[str, str] | None = None
    secrets: dict[str, str] | None = None
    base_url: str | None = None
    observes_base_url: bool = False
    database: dict[str, Any] | None = None
    migrations: list[str] | None = None
    files: str | None = None
    changed_paths: list[str] = Field(default_factory=list[str])


MOST_PATHS = 100
"""How many changed paths an observation names."""

WITHHELD = "****"
"""Stands for an observed text that holds the value of a secret of the profile."""


def secret_digest(key: bytes, value: str) -> str:
    """A secret as an observation tells it, under the key of the question."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


class Health(Model):
    """Whether an environment works; `message` says in one sentence what the check found.

    Histories from before there was a health check say nothing: then what was put in place was found there.
    """

    healthy: bool = True
    message: str = ""
