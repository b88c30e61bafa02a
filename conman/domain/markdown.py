"""Markdown (CommonMark) with text in it that others wrote: it stays text, whatever it looks like.

What comes out may stand anywhere inside a line, but not begin one: a number or a dash there would begin a list.
"""

from __future__ import annotations

import re

from conman.domain.plain_text import plain_line, shortened

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~&!]")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
"""A code span whose content has no backtick; runs of several backticks are text."""


def inline(text: str, most: int) -> str:
    """The text as text, in one line, its first `most` characters."""
    return _SPECIAL.sub(r"\\\g<0>", shortened(plain_line(text), most))


def code(text: str, most: int) -> str:
    """The text as code, in one line, its first `most` characters; one with backticks in it as text."""
    line = shortened(plain_line(text), most)
    return f"`{line}`" if line and "`" not in line else inline(text, most)


def sentence(text: str, most: int) -> str:
    """A sentence of Conman's that quotes names as code: what is between single backticks stays code, all else is text."""
    line = shortened(plain_line(text), most)
    told: list[str] = []
    end = 0
    for span in _CODE.finditer(line):
        told += [_SPECIAL.sub(r"\\\g<0>", line[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*told, _SPECIAL.sub(r"\\\g<0>", line[end:])])
