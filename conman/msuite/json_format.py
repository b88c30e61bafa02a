"""JSON for the built-in suite: parsed by the standard library, places found afterwards and only where needed."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from conman.msuite.findings import TOO_DEEP, Locate, Path, Place, Problem, Rule, locator, place

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


class _ConstantError(ValueError):
    """`NaN` or `Infinity`, which Python reads and JSON has not."""


def parse(text: str) -> tuple[list[Any], list[Problem]]:
    """The document, in a list that is empty when it does not parse, and what is wrong with it."""
    doubled = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        found = dict(pairs)
        doubled = doubled or len(found) != len(pairs)
        return found

    try:
        data = json.loads(text, object_pairs_hook=build, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return [], [Problem(Place(error.lineno, error.colno), Rule.SYNTAX, error.msg)]
    except _ConstantError as error:
        at = next(token.start() for token in _TOKEN.finditer(text) if token[0] == str(error))
        return [], [Problem(place(text, at), Rule.SYNTAX, f"{error} is no JSON value")]
    except ValueError as error:  # An integer with thousands of digits.
        return [], [Problem(Place(1, 1), Rule.SYNTAX, str(error))]
    except RecursionError:
        return [], [TOO_DEEP]
    return [data], _scan(text)[1] if doubled else []


def locate(text: str, document: int = 0) -> Locate:
    """Finds the places of the values of a text that parses; JSON has one document."""
    return locator(text, _scan(text)[0])


def _refuse(name: str) -> NoReturn:
    raise _ConstantError(name)


def _scan(text: str) -> tuple[dict[Path, int], list[Problem]]:
    """The offset of every value, and the keys that stand twice, of a text that parses."""
    offsets: dict[Path, int] = {}
    problems: list[Problem] = []
    path: list[str | int] = []
    seen: list[dict[str, int] | None] = []
    key_next = False
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "]}":
            seen.pop()
            path.pop()
            key_next = False
        elif word == ",":
            keys = seen[-1]
            key_next = keys is not None
            if keys is None:
                path[-1] = int(path[-1]) + 1
        elif key_next and word != ":":
            _key(text, json.loads(word), token.start(), path, seen[-1] or {}, problems)
            keys = seen[-1]
            if keys is not None:
                keys.setdefault(str(path[-1]), token.start())
            key_next = False
        elif word != ":":
            offsets[tuple(path)] = token.start()
            if word in "[{":
                seen.append({} if word == "{" else None)
                path.append("" if word == "{" else 0)
                key_next = word == "{"
    return offsets, problems


def _key(text: str, key: str, offset: int, path: list[str | int], keys: dict[str, int], problems: list[Problem]) -> None:
    path[-1] = key
    if key in keys:
        first = place(text, keys[key]).line
        problems.append(Problem(place(text, offset), Rule.DUPLICATE_KEY, f"the key {key!r} stands in line {first} already"))
