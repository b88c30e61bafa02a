"""The files of a repository for the built-in suite: found, read, parsed and judged one at a time."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from conman.msuite.findings import Finding, Locate, Place, Problem, Rule, finding, place
from conman.msuite.references import Documents, References
from conman.msuite.schemas import FOLDER, Schemas

MAX_BYTES = 52_428_800
"""The largest file that is checked, bytes: the most that an app's `file_size_limit_bytes` may be (`spec.md` 6)."""

MOST_PER_FILE = 100
"""How many findings of one file are told, the first by place."""

FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
"""Ending → format, without regard to case."""

_SNIFFED_BYTES = 8192
_MARKERS = re.compile(rb"^(?:<{7}|={7}|>{7})(?=[ \r\n]|\Z).*", re.MULTILINE)
_BOM = "\ufeff"
_TOO_LARGE = Problem(Place(1, 1), Rule.TOO_LARGE, f"it is larger than {MAX_BYTES} bytes")
_TOO_MUCH = Problem(Place(1, 1), Rule.TOO_LARGE, "it takes more memory to check than is allowed")


@dataclass(frozen=True, slots=True)
class Listing:
    """The regular files below a folder, relative and sorted, and what could not be listed."""

    paths: list[str]
    findings: list[Finding]


class Checker:
    """Checks the files of one repository."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root = root
        self._references = References(root, paths, self._documents)
        self._schemas = Schemas(paths, lru_cache(maxsize=None)(self._load), self._references)

    def check(self, path: str) -> list[Finding]:
        """Everything that is wrong with one file, by place."""
        kind = FORMATS.get(Path(path).suffix.lower())
        try:
            data = _read(self.root / path, whole=kind is not None)
            if data is None:
                return [] if kind is None else [finding(path, _TOO_LARGE)]
            found = self._check_data(path, kind, data)
        except OSError as error:
            return [finding(path, Problem(Place(1, 1), Rule.UNREADABLE, error.strerror or str(error)))]
        except MemoryError:
            return [finding(path, _TOO_MUCH)]
        return sorted(found, key=lambda each: (each.path, each.line, each.column))[:MOST_PER_FILE]

    def _check_data(self, path: str, kind: str | None, data: bytes) -> list[Finding]:
        marked = list(_merge_markers(data))
        if kind is None or marked:
            return [finding(path, problem) for problem in marked]
        text, problems = _decode(kind, data)
        if text is None:
            return [finding(path, problem) for problem in problems]
        form = _format(kind)
        documents, problems = form.parse(text)
        found = [finding(path, problem) for problem in problems]
        if all(problem.rule is Rule.DUPLICATE_KEY for problem in problems):
            found += self._schemas.check_schema(path)
            locate = _locate_once(form, text)
            found += self._schemas.check(path, documents, locate)
            if "$ref" in text and not path.startswith(f"{FOLDER}/"):
                found += self._references.check(path, documents, locate)
        return found

    def _documents(self, path: str) -> Documents | None:
        """A file of the repository for the references: see `conman.msuite.references.Read`."""
        parsed = self._parsed(path)
        if parsed is None:
            return None
        text, _, documents, problems = parsed
        return (documents, len(text)) if all(problem.rule is Rule.DUPLICATE_KEY for problem in problems) else None

    def _load(self, path: str) -> tuple[list[Any], list[Finding], Callable[[], Locate]] | None:
        """A file of the repository for the schemas: see `conman.msuite.schemas.Load`."""
        parsed = self._parsed(path)
        if parsed is None:
            return None
        text, form, documents, problems = parsed
        return documents, [finding(path, problem) for problem in problems], lambda: form.locate(text)

    def _parsed(self, path: str) -> tuple[str, ModuleType, list[Any], list[Problem]] | None:
        """A file's text, format and documents, and what is wrong with it; None without a text, which its own check tells."""
        kind = FORMATS.get(Path(path).suffix.lower())
        if kind is None or not _is_own_file(self.root, path):
            return None
        try:
            data = _read(self.root / path, whole=True)
        except OSError:
            return None
        text, _ = _decode(kind, data) if data is not None else (None, [])
        if text is None:
            return None
        form = _format(kind)
        return text, form, *form.parse(text)


def list_files(root: Path) -> Listing:
    """The regular files below a folder, but for `.git`; symlinks, sockets and pipes are left out.

    A folder in it that can't be read is a finding. Raises `OSError` when the folder itself can't be.
    """
    paths: list[str] = []
    findings: list[Finding] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != ".git":
                            waiting.append(path)
                    elif entry.is_file(follow_symlinks=False) and entry.name != ".git":
                        paths.append(path)
        except OSError as error:
            if not folder:
                raise
            problem = Problem(Place(1, 1), Rule.UNREADABLE, error.strerror or str(error))
            findings.append(finding(folder, problem))
    return Listing(sorted(paths), sorted(findings, key=lambda each: each.path))


def _is_own_file(root: Path, path: str) -> bool:
    """Whether it is a regular file that is reached without a symlink."""
    whole = root / path
    folders = [root / folder for folder in list(Path(path).parents)[:-1]]
    try:
        return stat.S_ISREG(whole.lstat().st_mode) and not any(folder.is_symlink() for folder in folders)
    except OSError:
        return False


def _read(path: Path, *, whole: bool) -> bytes | None:
    """The file's bytes; None when it is larger than `MAX_BYTES` or, unless `whole`, binary. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > MAX_BYTES:
            return None
        head = file.read(_SNIFFED_BYTES)
        if not whole and b"\0" in head:
            return None
        return head + file.read(MAX_BYTES)


def _merge_markers(data: bytes) -> Iterator[Problem]:
    """Each beginning of an unresolved merge, and each end without one.

    A line of `=` alone is a heading's underline in many texts: it counts only between the two others.
    """
    if b"<<<<<<<" not in data and b">>>>>>>" not in data:
        return
    opened = divided = False
    for match in _MARKERS.finditer(data):
        mark = match[0][:1]
        wrong = mark == b"<" or (mark == b">" and divided and not opened)
        if wrong:
            line = data.count(b"\n", 0, match.start()) + 1
            shown = match[0].decode(errors="replace").strip()
            yield Problem(Place(line, 1), Rule.MERGE_MARKER, f"an unresolved merge: {shown}")
        divided = mark == b"=" or (divided and mark != b">")
        opened = mark == b"<" or (opened and mark != b">")


def _decode(kind: str, data: bytes) -> tuple[str | None, list[Problem]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"it is not UTF-8: byte 0x{data[error.start]:02x}"
        return None, [Problem(place(before, len(before)), Rule.ENCODING, message)]
    if text.startswith(_BOM):
        if kind == "yaml":
            return text[1:], []
        return None, [Problem(Place(1, 1), Rule.ENCODING, "it starts with a byte order mark; save it without")]
    return text.replace("\r\n", "\n"), []


@lru_cache
def _format(kind: str) -> ModuleType:
    """The module of a format, imported with its first file: a repository without YAML does not wait for its parser."""
    return import_module(f"conman.msuite.{kind}_format")


def _locate_once(form: ModuleType, text: str) -> Callable[[int], Locate]:
    return lru_cache(maxsize=4)(lambda document: form.locate(text, document))
