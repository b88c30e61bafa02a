"""TOML for the built-in suite: parsed by the standard library, places found afterwards and only where needed."""

from __future__ import annotations

import re
import tomllib
from datetime import date, datetime, time
from typing import Any

from conman.msuite.findings import TOO_DEEP, Locate, Path, Place, Problem, Rule, locator, place

_WHERE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_DUPLICATES = ("Cannot overwrite", "Cannot declare", "Cannot redefine", "Duplicate", "Cannot mutate")
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2}(?!"))|' + r"'''.*?'''(?:'{0,2}(?!'))|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\n#]+")
_KEY_PART = re.compile(r'[ \t]*("(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*")


def parse(text: str) -> tuple[list[Any], list[Problem]]:
    """The document, in a list that is empty when it does not parse, and what is wrong with it."""
    try:
        return [_plain(tomllib.loads(text))], []
    except tomllib.TOMLDecodeError as error:
        return [], [_problem(text, str(error))]
    except ValueError as error:  # An integer with thousands of digits.
        return [], [Problem(Place(1, 1), Rule.SYNTAX, str(error))]
    except RecursionError:
        return [], [TOO_DEEP]


def locate(text: str, document: int = 0) -> Locate:
    """Finds the places of the values and tables of a text that parses; TOML has one document."""
    scan = _Scan(text)
    scan.run()
    return locator(text, scan.offsets)


def _problem(text: str, message: str) -> Problem:
    match = _WHERE.fullmatch(message)
    reason = match[1] if match else message
    where = Place(int(match[2]), int(match[3])) if match and match[2] else place(text, len(text.rstrip("\n")))
    rule = Rule.DUPLICATE_KEY if reason.startswith(_DUPLICATES) else Rule.SYNTAX
    return Problem(where, rule, reason)


def _plain(value: Any) -> Any:
    """The value as JSON has it: dates and times are text (RFC 3339)."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return value


class _Scan:
    """One walk over a text that parses, which notes where each value begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.offsets: dict[Path, int] = {(): 0}
        self.counts: dict[Path, int] = {}

    def run(self) -> None:
        """Walk over all tables and their keys."""
        table: Path = ()
        while self._skip() < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self) -> int:
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.at

    def _header(self) -> Path:
        start = self.at
        several = self.text.startswith("[[", start)
        self.at += 2 if several else 1
        *outer, last = self._keys()
        path = self._within((), outer)
        if several:
            path = (*path, last)
            self.counts[path] = self.counts.get(path, 0) + 1
            self.offsets.setdefault(path, start)
            path = (*path, self.counts[path] - 1)
        else:
            path = self._within(path, [last])
        self.offsets[path] = start
        self.at += 2 if several else 1
        return path

    def _within(self, path: Path, keys: list[str]) -> Path:
        """The path of a table below `path`: of an array of tables the last one is meant."""
        for key in keys:
            path = (*path, key)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
            self.offsets.setdefault(path, self.at)
        return path

    def _keys(self) -> list[str]:
        """The parts of a dotted key; stands after it then."""
        parts: list[str] = []
        while True:
            part = _KEY_PART.match(self.text, self.at)
            if part is None:
                raise AssertionError(f"no key at offset {self.at} of a text that parses")
            self.at = part.end()
            quoted = part[1][0] in "\"'"
            parts.append(tomllib.loads(f"key = {part[1]}")["key"] if quoted else part[1])
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _pair(self, table: Path) -> None:
        start = self.at
        *outer, last = self._keys()
        for key in outer:
            table = (*table, key)
            self.offsets.setdefault(table, start)
        self.at += 1
        self._value((*table, last))

    def _value(self, path: Path) -> None:
        self._skip()
        self.offsets[path] = self.at
        opening = self.text[self.at]
        if opening == "[":
            index = 0
            while self._item("]"):
                self._value((*path, index))
                index += 1
        elif opening == "{":
            while self._item("}"):
                self._pair(path)
        else:
            whole = (_STRING if opening in "\"'" else _PLAIN).match(self.text, self.at)
            self.at = whole.end() if whole else self.at + 1

    def _item(self, closing: str) -> bool:
        """Step over an opening bracket or a comma; False, behind it, at the closing bracket."""
        self._skip()
        if self.text[self.at] != closing:
            self.at += self.text[self.at] in "[{,"
            self._skip()
        if self.text[self.at] != closing:
            return True
        self.at += 1
        return False
