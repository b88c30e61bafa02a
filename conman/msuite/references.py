"""References between the files of a repository, and whether what they name is there (the package has the convention).

What counts as a path, and what a folder defines, is what the risk rules of a changeset take for it
(`conman/domain/risk_rules_references.py`): there a reference is told that a change breaks, here one that is broken.
"""

from __future__ import annotations

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from conman.domain.key_merge_rules import NATURAL_KEYS
from conman.msuite.findings import OPAQUE, Finding, Locate, Problem, Rule, finding, pointer, walked
from conman.msuite.findings import Path as ValuePath

MOST_PER_FILE = 100
"""How many broken references of one file are told, the first ones."""

LONGEST = 1000
"""A longer text is no reference, characters."""

KEPT_CHARACTERS = 16_777_216
"""So much text of files that references lead into is kept parsed; beyond it they are parsed again."""

_ENDINGS = (".json", ".yaml", ".yml", ".toml")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_TEMPLATE = re.compile(r"\$\{|\{\{|\$\(|%\(|<%")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")

Documents = tuple[list[Any], int]
"""What a file holds, and how many characters its text has."""

Read = Callable[[str], Documents | None]
"""The documents of a regular file of the repository; None: it is of no format that is known, or does not parse."""


class _Link(NamedTuple):
    """How a value was reached: in which container it stands, under which key or index, and how that was reached."""

    above: _Link | None
    container: Any
    step: str | int


class _Reference(NamedTuple):
    """A `$ref`: the mapping that it stands in, and how that was reached."""

    text: str
    holder: dict[str, Any]
    link: _Link | None

    def roots(self) -> list[Any]:
        """Where a pointer may start: at the document, or at a document that was put into this one as a value."""
        found: list[Any] = [self.holder]
        link = self.link
        while link is not None:
            found.append(link.container)
            link = link.above
        return found[::-1]

    def path(self) -> ValuePath:
        """Where it stands."""
        steps: list[str | int] = ["$ref"]
        link = self.link
        while link is not None:
            steps.append(link.step)
            link = link.above
        return tuple(reversed(steps))


class References:
    """What the files of one repository name of it. Nothing outside is looked at, and no symlink is followed."""

    def __init__(self, root: Path, paths: list[str], read: Read) -> None:
        self._root = root
        self._files = frozenset(paths)
        self._folders = frozenset(str(parent) for path in paths for parent in PurePosixPath(path).parents)
        self._without_ending = frozenset(str(PurePosixPath(path).with_suffix("")) for path in paths)
        self._read = read
        self._kept: OrderedDict[str, Documents] = OrderedDict()
        self._kept_characters = 0
        self._defined = lru_cache(maxsize=None)(self._find_defined)

    def check(self, path: str, documents: list[Any], locate: Callable[[int], Locate]) -> list[Finding]:
        """The `$ref` of a file that name nothing. `locate` finds places in the document of an index."""
        broken: list[tuple[int, ValuePath, str]] = []
        elsewhere: dict[str, list[tuple[int, _Reference, str]]] = {}
        for index, document in enumerate(documents):
            for each in _references(document):
                name, _, fragment = each.text.partition("#")
                if name:
                    elsewhere.setdefault(unquote(name), []).append((index, each, fragment))
                elif len(broken) < MOST_PER_FILE and not any(_leads_somewhere(root, fragment) for root in each.roots()):
                    broken.append((index, each.path(), f"{each.text!r} names no value of this file"))
        for name, named in elsewhere.items():
            if _looks_like_a_path(name):
                broken += self._broken(path, name, named)
        return [
            finding(path, Problem(locate(index)(where), Rule.DANGLING_REFERENCE, message), pointer(where))
            for index, where, message in broken[:MOST_PER_FILE]
        ]

    def path_problem(self, within: str, text: str) -> str | None:
        """What is wrong with a path in the file `within`; None: nothing, or nothing that can be known."""
        if not _is_plain(text) or _SCHEME.match(text) or self._is_there(within, text):
            return None
        return f"there is no file or folder {text!r}"

    def name_problem(self, folder: str, name: str) -> str | None:
        """What is wrong with the name of a thing that a folder defines; None: nothing, or nothing that can be known."""
        if not _is_plain(name):
            return None
        clean = _joined((), folder)
        if clean is None or clean not in self._folders:
            known = clean is not None and self._is_on_disk(clean)
            return None if known else f"there is no folder {folder!r} that could define {name!r}"
        defined = self._defined(clean)
        return None if defined is None or name in defined else f"nothing in {clean}/ is called {name!r}"

    def _broken(self, path: str, name: str, named: list[tuple[int, _Reference, str]]) -> Iterator[tuple[int, ValuePath, str]]:
        """The references to one file that name nothing."""
        targets = [target for target in _meant(path, name) if target in self._files]
        if not targets:
            if not self._is_there(path, name):
                yield from ((index, each.path(), f"there is no file {name!r}") for index, each, _ in named)
            return
        with_fragment = [one for one in named if one[2]]
        if not with_fragment:
            return
        loaded = [self._load(target) for target in targets]
        if any(each is None for each in loaded):
            return  # What a file holds that does not parse is not known; its own check tells of it.
        documents = [document for each in loaded if each is not None for document in each[0]]
        for index, each, fragment in with_fragment:
            if not any(_leads_somewhere(document, fragment) for document in documents):
                yield index, each.path(), f"{each.text!r} names no value of {' or '.join(targets)}"

    def _load(self, path: str) -> Documents | None:
        """A file's documents, kept as long as there is room."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        found = self._read(path)
        if found is None or found[1] > KEPT_CHARACTERS:
            return found
        self._kept[path] = found
        self._kept_characters += found[1]
        while self._kept_characters > KEPT_CHARACTERS:
            _, (_, characters) = self._kept.popitem(last=False)
            self._kept_characters -= characters
        return found

    def _is_there(self, within: str, name: str) -> bool:
        """Whether a path names something, with or without its ending; also what is not looked into, such as a symlink."""
        for target in _meant(within, name):
            if target in self._files or target in self._folders or ("/" in name and target in self._without_ending):
                return True
            if self._is_on_disk(target):
                return True
        return False

    def _is_on_disk(self, path: str) -> bool:
        """Whether a path is there though it was not listed, or can't be known not to be: beyond a symlink, or unreadable."""
        parts = PurePosixPath(path).parts
        for length in range(1, len(parts) + 1):
            try:
                mode = os.lstat(self._root.joinpath(*parts[:length])).st_mode
            except PermissionError:
                return True
            except (OSError, ValueError):
                return False
            if stat.S_ISLNK(mode):
                return True
        return True

    def _find_defined(self, folder: str) -> frozenset[str] | None:
        """The names of all that the files in a folder define; None when one of them can't be read."""
        names: set[str] = set()
        for path in sorted(each for each in self._files if folder == "." or each.startswith(f"{folder}/")):
            within = PurePosixPath(path).relative_to(folder)
            names |= {within.name.partition(".")[0], str(within.with_suffix(""))}
            if within.suffix.lower() in _ENDINGS:
                found = self._read(path)
                if found is None:
                    return None
                for document in found[0]:
                    names.update(_defined_in(document))
        return frozenset(names)


def _references(document: Any) -> Iterator[_Reference]:
    """Every `$ref` that can be judged, in the order of the file; a value that aliases share is visited once."""
    if isinstance(document, dict) and isinstance(document.get("id"), str) and _SCHEME.match(document["id"]):
        return  # a JSON Schema of draft 4, whose references are resolved against that
    waiting: list[tuple[Any, _Link | None]] = [(document, None)]
    seen: set[int] = set()
    while waiting:
        value, link = waiting.pop()
        if not isinstance(value, (dict, list)) or isinstance(value, OPAQUE) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            waiting.extend((item, _Link(link, value, index)) for index, item in reversed(list(enumerate(value))))
            continue
        if isinstance(value.get("$id"), str):
            continue  # a JSON Schema with a base of its own
        text = value.get("$ref")
        if isinstance(text, str) and not isinstance(text, OPAQUE) and _is_plain(text) and not _SCHEME.match(text):
            yield _Reference(text, value, link)
        waiting.extend((item, _Link(link, value, key)) for key, item in reversed(list(value.items())))


def _leads_somewhere(root: Any, fragment: str) -> bool:
    """Whether a JSON pointer (RFC 6901) names a value. An anchor, and what lies behind another reference, are not judged.

    An item of a list may be named by how it names itself, `name=web-1`, as in the pointers of conflicts.
    """
    if not fragment.startswith("/"):
        return True
    value = root
    for part in unquote(fragment).split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, OPAQUE):
            return True
        if isinstance(value, dict):
            if step not in value:
                return "$ref" in value and value is not root
            value = value[step]
        elif isinstance(value, list):
            item = _item(value, step)
            if item is None:
                return False
            value = item[0]
        else:
            return False
    return True


def _item(items: list[Any], step: str) -> tuple[Any] | None:
    if _INDEX.fullmatch(step):
        return (items[int(step)],) if int(step) < len(items) else None
    natural, _, name = step.partition("=")
    if natural not in NATURAL_KEYS:
        return None
    return next(((item,) for item in items if isinstance(item, dict) and str(item.get(natural)) == name), None)


def _defined_in(document: Any) -> Iterator[str]:
    """How the mappings of a document name themselves, and the keys that mappings stand under."""
    waiting, seen = [document], set[int]()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            waiting.extend(value)
            continue
        named = (value[key] for key in NATURAL_KEYS if key in value)
        yield from (str(name) for name in named if isinstance(name, (str, int)) and not isinstance(name, bool))
        yield from (key for key, inner in value.items() if isinstance(inner, dict))
        waiting.extend(value.values())


def _meant(within: str, name: str) -> list[str]:
    """The paths that a name in a file may mean, from the file's folder and from the root; none outside of the repository."""
    starts = [()] if name.startswith("/") else [PurePosixPath(within).parent.parts, ()]
    return list(dict.fromkeys(path for start in starts if (path := _joined(start, name)) is not None))


def _joined(start: tuple[str, ...], name: str) -> str | None:
    parts = walked(start, name)
    return None if parts is None else "/".join(parts) or "."


def _looks_like_a_path(name: str) -> bool:
    """Whether it says by itself that it is the path of a file, and no name in some program's own sense."""
    return name.startswith(("/", "./", "../")) or name.lower().endswith(_ENDINGS)


def _is_plain(text: str) -> bool:
    """Whether a text stands for itself: no template, and no prose."""
    return 0 < len(text) <= LONGEST and "\n" not in text and not _TEMPLATE.search(text)
