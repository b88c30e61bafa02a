"""A file read for the semantic diff: its tree with the lines of its values, or why it can't be read."""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from conman.domain import key_merge_json, key_merge_toml, semantic_diff_yaml
from conman.domain.key_merge import Format
from conman.domain.key_merge_tree import MAX_BYTES, Entry, Node, Shape, UnreadableError

_BOM = "\ufeff"
_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file's tree. Of several YAML documents (`several`) it is a sequence."""

    root: Node
    text: str
    breaks: tuple[int, ...]
    """The offsets of the line ends."""
    several: bool = False

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """The first and the last line, from 1, of `text[start:end]`."""
        return bisect_right(self.breaks, start - 1) + 1, bisect_right(self.breaks, max(start, end - 1) - 1) + 1


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Why a file has no tree, and in which line, from 1, if that is known."""

    reason: str
    line: int | None = None


def parse(fmt: Format, data: bytes) -> Parsed | Unparsed:
    """Read a file."""
    if len(data) > MAX_BYTES:
        return Unparsed(f"it is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        return Unparsed(f"it is not UTF-8: byte 0x{data[error.start]:02x}", data.count(b"\n", 0, error.start) + 1)
    try:
        documents = _documents(fmt, text)
    except UnreadableError as error:
        return _unparsed(fmt, text, error)
    root = documents[0] if len(documents) == 1 else stream(documents)
    breaks = tuple(found.start() for found in re.finditer("\n", text))
    return Parsed(root, text, breaks, several=len(documents) > 1)


def alike(one: Parsed, other: Parsed) -> tuple[Parsed, Parsed]:
    """Both as sequences of documents where one of them is: so a file that becomes two documents keeps its first."""
    if one.several == other.several:
        return one, other
    return _as_several(one), _as_several(other)


def _as_several(read: Parsed) -> Parsed:
    return read if read.several else Parsed(stream([read.root]), read.text, read.breaks, several=True)


def stream(documents: list[Node]) -> Node:
    """The sequence of a file's documents."""
    entries = [Entry("", node.start, node.end, node, item=True) for node in documents]
    return Node(documents[0].start, documents[-1].end, Shape.SEQUENCE, entries=entries, flow=False).seal()


def _documents(fmt: Format, text: str) -> list[Node]:
    match fmt:
        case Format.JSON:
            return [key_merge_json.read(text)]
        case Format.YAML:
            return semantic_diff_yaml.read(text)
        case Format.TOML:
            return [key_merge_toml.read(text, scattered=True)]


def _unparsed(fmt: Format, text: str, error: UnreadableError) -> Unparsed:
    """The parser's own reason, with its line, where it has one."""
    cause: BaseException | None = error.__cause__
    if fmt is Format.TOML:
        cause = _toml_error(text) or cause
    if isinstance(cause, json.JSONDecodeError):
        return Unparsed(cause.msg, cause.lineno)
    if isinstance(cause, tomllib.TOMLDecodeError):
        found = _TOML_PLACE.fullmatch(str(cause))
        line = int(found[2]) if found and found[2] else text.rstrip("\n").count("\n") + 1
        return Unparsed(found[1] if found else str(cause), line)
    if isinstance(cause, MarkedYAMLError | ReaderError):
        return Unparsed(*semantic_diff_yaml.complaint(cause, text))
    if isinstance(cause, RecursionError):
        return Unparsed("it is nested too deep")
    return Unparsed(str(error))


def _toml_error(text: str) -> Exception | None:
    """What the standard library says of a text that the scan gave up first."""
    try:
        tomllib.loads(text, parse_float=str)
    except (ValueError, RecursionError) as error:
        return error
    return None
