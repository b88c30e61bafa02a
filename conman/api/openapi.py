"""The OpenAPI document, made to say what routes take and answer beyond what FastAPI reads from their signatures.

Bodies are parsed by Conman after the policy (`body.py`), refusals have one shape (`errors.py`), and mutations take an
`Idempotency-Key` (`access.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

Schema = dict[str, Any]

_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "description": "says what to do"},
                "request_id": {"type": "string"},
                "details": {"description": "its shape belongs to the code"},
            },
        }
    },
}
_REFUSED: Schema = {
    "description": "Refused, or failed: the code says why.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeat with the same key gets the same answer for 24 h and has no second effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
_VALIDATION = ("HTTPValidationError", "ValidationError")
"""FastAPI's own shape of a refused request, which Conman never answers."""


def request_body(model: type[BaseModel]) -> Schema:
    """The `requestBody` of a route whose body is this model; without a required field it may be left out."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.pop("$defs", {}))
    return {"required": bool(schema.get("required")), "content": {"application/json": {"schema": whole}}}


def _inlined(part: Any, definitions: Schema) -> Any:
    """A schema with its definitions where they are meant: a reference in a body would point into the whole document."""
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if reference is not None:
        rest = {name: value for name, value in part.items() if name != "$ref"}
        return _inlined({**definitions[reference.rpartition("/")[2]], **rest}, definitions)
    return {name: _inlined(value, definitions) for name, value in part.items()}


def install(app: FastAPI, takes_key: Callable[[str, str], bool]) -> None:
    """Serve the document with what only Conman knows of its routes; `takes_key`: whether an `Idempotency-Key` counts there."""
    plain: Callable[[], Schema] = app.openapi

    def openapi() -> Schema:
        if app.openapi_schema is None:
            _complete(plain(), takes_key)
        return plain()

    app.openapi = openapi


def _complete(document: Schema, takes_key: Callable[[str, str], bool]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _VALIDATION:
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _REFUSED
            if takes_key(method.upper(), path):
                operation.setdefault("parameters", []).append(_KEY)
