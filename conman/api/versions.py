"""The version that a writer read: `If-Match: 7`, quoted or not, or `version` in a PATCH body (`api.md` 1).

A service gives it to its guarded write, which refuses with `stale_write` what is no longer the record's.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header
from pydantic import Field

from conman.api.body import Body
from conman.domain.errors import invalid

LARGEST_VERSION = 10**15 - 1
"""More than any record will ever have, and exact in every JSON reader."""

IfMatch = Annotated[str | None, Header(description="the record's version that you read, such as 7")]
"""A route's `if_match: IfMatch = None`: the header as it came, for `expected_version`."""

_HEADER = re.compile(r'(?:W/)?("?)([0-9]{1,15})\1')


class Versioned(Body):
    """Base of a PATCH body: the version that the change was made on may stand in it instead of in `If-Match`."""

    version: int | None = Field(default=None, ge=0, le=LARGEST_VERSION, description="the record's version that you read")


def expected_version(if_match: str | None, in_body: int | None = None) -> int | None:
    """The version that the change was made on, None when the request names none.

    Raises `validation_error` for a header that is no version, and when header and body name different ones.
    """
    if if_match is None:
        return in_body
    found = _HEADER.fullmatch(if_match.strip())
    if found is None:
        raise invalid("If-Match", "must be a record's version, such as 7")
    version = int(found[2])
    if in_body is not None and in_body != version:
        raise invalid("version", f"is {in_body} in the body and {version} in If-Match: send the one that you read")
    return version


def required_version(if_match: str | None, in_body: int | None = None, *, field: str = "version") -> int:
    """As `expected_version`, for the routes where a version is required: without one `validation_error`, on `field`."""
    version = expected_version(if_match, in_body)
    if version is None:
        raise invalid(field, "is required: send the version that you read, in If-Match or in the body of a PATCH")
    return version
