"""Bodies are parsed after login, membership and capability: the order of refusals of `api.md` 1.

Duplicate keys, unknown fields and nesting deeper than 32 are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from conman.api.access import check_size, settle
from conman.api.errors import field_of
from conman.domain.errors import DomainError, ErrorCode, invalid

DEEPEST = 32
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


class Body(BaseModel):
    """Base of every request body: unknown fields are refused, text is not taken for numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Empty(Body):
    """A body without fields."""


BodyT = TypeVar("BodyT", bound=Body)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise invalid(key, "stands twice in the body")
        made[key] = value
    return made


def _check_shape(value: Any, depth: int = 0) -> None:
    """Refuse what no store can keep: nesting deeper than `DEEPEST`, halves of surrogate pairs, numbers beyond 64 bits."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise invalid("body", "has half of a surrogate pair, which is no text")
        return
    if isinstance(value, (int, float)):
        if not _SMALLEST <= value <= _LARGEST and not (isinstance(value, float) and math.isfinite(value)):
            raise invalid("body", "has a number that does not fit into 64 bits")
        return
    if not isinstance(value, (dict, list)):
        return
    if depth == DEEPEST:
        raise invalid("body", f"is nested deeper than {DEEPEST}")
    for child in (*value, *value.values()) if isinstance(value, dict) else value:
        _check_shape(child, depth + 1)


def _no_constant(text: str) -> Any:
    raise invalid("body", f"{text} is no JSON number")


async def read_json(request: Request) -> Any:
    """The body as JSON, {} when there is none. Raises `validation_error` or `unsupported_media_type`."""
    raw = await request.body()
    check_size(request, len(raw))
    if not raw.strip():
        return {}
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise DomainError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")
    try:
        value = json.loads(raw, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise invalid("body", f"is nested deeper than {DEEPEST}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise invalid("body", "is not JSON") from error
    _check_shape(value)
    return value


def body(model: type[BodyT]) -> Any:
    """A dependency that gives the parsed body; it runs where it stands among the parameters, after the policy."""

    async def parsed(request: Request) -> BodyT:
        value = await read_json(request)
        if not isinstance(value, dict):
            raise invalid("body", "must be a JSON object")
        try:
            made = model.model_validate(value)
        except ValidationError as error:
            details = [{"field": field_of(item["loc"]), "message": item["msg"]} for item in error.errors()]
            named = "; ".join(f"{item['field']}: {item['message']}" for item in details[:3])
            raise DomainError(ErrorCode.VALIDATION_ERROR, f"Mend the request: {named}.", details) from error
        await settle(request)
        return made

    marked: Callable[[Request], Awaitable[BodyT]] = parsed
    marked.body_model = model  # type: ignore[attr-defined]
    return Depends(marked)
