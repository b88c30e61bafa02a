"""Names of settings as the words that they are made of."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as one text."""
    return frozenset(text.split())


def words_of(name: str) -> list[str]:
    """The words of `camelCase`, `snake_case`, `kebab-case` and `dotted.case`, in lower case; digits are words of their own."""
    return [word.lower() for word in _WORD.findall(name)]


def singular(word: str) -> str:
    """A word of English without the ending of its plural: `entities` and `entity` are both `entity`."""
    lower = word.lower()
    if lower.endswith("ies") and len(lower) > 4:
        return lower[:-3] + "y"
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") and len(lower) > 3 else lower
