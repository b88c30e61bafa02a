"""Variables: their names, their typed values, and what both look like to a process (`spec.md` 6)."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal, Self, cast

from pydantic import model_validator

from conman.domain.decision import Model

MAX_NAME_CHARACTERS = 128

MAX_VALUE_BYTES = 64 * 1024
"""The longest value as a process gets it, bytes of UTF-8. Linux takes at most 128 KiB for a name and its value together."""

MAX_VARIABLES = 500
MAX_VARIABLES_BYTES = 256 * 1024
"""The most that all variables of a profile take together, names in. Linux takes about 2 MiB for a process, secrets in."""

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_NAMES = ("CONMAN_", "MSUITE_")
_MEANT_FOR_OTHERS = re.compile(
    r"""(LD|DYLD|LDR)_.* | _RLD.* | LIBPATH | SHLIB_PATH
    | PATH | HOME | TMPDIR
    | IFS | BASH_ENV | BASHOPTS | SHELLOPTS | PS4 | GLOBIGNORE | FPATH | ZDOTDIR
    | PYTHON(PATH|HOME|STARTUP|INSPECT|USERBASE|WARNINGS|BREAKPOINT|PLATLIBDIR)
    | PERLLIB | PERL5(LIB|OPT|DB) | RUBY(LIB|OPT) | NODE_(OPTIONS|PATH)
    | JAVA_TOOL_OPTIONS | JDK_JAVA_OPTIONS | _JAVA_OPTIONS
    | GIT_(SSH|SSH_COMMAND|EXTERNAL_DIFF|PROXY_COMMAND|ASKPASS|EXEC_PATH|TEMPLATE_DIR|CONFIG.*)""",
    re.VERBOSE,
)
"""Names by which a loader, shell or interpreter is made to run something else (after the list of what `sudo` removes). No member
of an app can make a worker run another program (`spec.md` 6), and the variables of a profile reach every program that it runs."""

SMALLEST_WHOLE, LARGEST_WHOLE = -(2**63), 2**63 - 1
_REFERENCE = {"$ref", "$id"}


def is_shell_name(text: str) -> bool:
    """Whether a shell can hold a variable of this name."""
    return _SHELL_NAME.fullmatch(text) is not None


def name_problem(name: str) -> str | None:
    """Why this can't be the name of a variable or secret, None when it can."""
    if len(name) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    if not is_shell_name(name):
        return "is no name of a variable: use letters, digits and '_', not a digit first"
    if name.startswith(_OWN_NAMES):
        return f"begins like Conman's own variables ({', '.join(_OWN_NAMES)}): choose another name"
    if _MEANT_FOR_OTHERS.fullmatch(name):
        return "is a variable by which programs are made to run others, or that Conman sets itself: choose another name"
    return None


def value_problem(kind: str, value: object) -> str | None:
    """Why a value is not of its type, or can't be kept, None when it is sound.

    A whole number has at most 64 bits; no object of a `json` value has a NUL in a key, or both `$ref` and `$id`: the database
    knows no larger number, ends a key at a NUL, and takes such an object for a reference of its own.
    """
    match kind:
        case "string":
            if isinstance(value, str) and "\0" in value:
                return "has a NUL, which no process can be given"
            sound = isinstance(value, str)
        case "boolean":
            sound = isinstance(value, bool)
        case "number":
            sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        case _:
            sound = True
    return _json_problem(value) if sound else f"is not of type {kind}"


def _json_problem(value: object) -> str | None:
    if value is None or isinstance(value, (bool, str)):
        return None
    if isinstance(value, int):
        fits = SMALLEST_WHOLE <= value <= LARGEST_WHOLE
        return None if fits else "has a whole number beyond 64 bits: give it as a string"
    if isinstance(value, float):
        return None if math.isfinite(value) else "has a number that is not finite"
    if isinstance(value, list):
        return next((problem for item in cast("list[object]", value) if (problem := _json_problem(item))), None)
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        if not all(isinstance(key, str) for key in fields):
            return "has a key that is not text"
        if any("\0" in cast("str", key) for key in fields):
            return "has a key with a NUL"
        if fields.keys() >= _REFERENCE:
            return "has an object with both $ref and $id, which the database can't keep: give the JSON as a string"
        return next((problem for item in fields.values() if (problem := _json_problem(item))), None)
    return f"is no JSON: {type(value).__name__}"


class TypedValue(Model):
    """A variable with its type; the value must match it (`spec.md` 6)."""

    type: Literal["string", "number", "boolean", "json"]
    value: Any

    @model_validator(mode="after")
    def _matches_its_type(self) -> Self:
        problem = value_problem(self.type, self.value)
        if problem is not None:
            raise ValueError(f"the value {problem}")
        return self


def rendered_value(value: TypedValue) -> str:
    """A variable as the text that a process gets: JSON for everything but strings."""
    return str(value.value) if value.type == "string" else json.dumps(value.value, sort_keys=True, separators=(",", ":"))


def is_same(one: TypedValue, other: TypedValue) -> bool:
    """Whether two variables are equal: type and value; JSON structurally, and `true` is not `1` (`spec.md` 6)."""
    return one.type == other.type and rendered_value(one) == rendered_value(other)
