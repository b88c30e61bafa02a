"""Settings of the addresses of temp environments."""

from __future__ import annotations

import re

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST = 180


class TempUrlSettings(BaseSettings):
    """Where temp environments are reached (`spec.md` 13)."""

    temp_url_domain: str = Field(
        default="localhost",
        description="Domain under which each temp environment has a host name, unless its app sets another domain; scheme and "
        "port are those of `CONMAN_PUBLIC_URL`. Every name below it needs to lead to the API (a wildcard in DNS and in the TLS "
        "certificate), which answers to none of them itself: let nothing else be below it. `localhost`: browsers find such names "
        "on their own machine.",
    )

    @field_validator("temp_url_domain")
    @classmethod
    def _is_a_domain(cls, value: str) -> str:
        labels = value.split(".")
        if len(value) > _LONGEST or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
            raise ValueError("needs to be labels of a-z, 0-9 and '-' with dots between them, such as temp.example.com")
        return value
