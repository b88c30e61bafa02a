"""The JSON Schemas of a repository: which holds for a file, and what does not match (the package has the convention)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from conman.msuite.findings import OPAQUE, Finding, Locate, Place, Problem, Rule, finding, pointer, walked
from conman.msuite.findings import Path as ValuePath
from conman.msuite.references import References

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from referencing import Resource

FOLDER = "schemas"
"""The folder of the schemas, at the root."""

SUFFIXES = (".schema.json", ".schema.yaml", ".schema.yml", ".json", ".yaml", ".yml")
"""How the name of a schema ends, in the order in which they are looked for."""

CONFIG_TYPES = {
    "entity": "entities",
    "page": "pages",
    "queue": "queues",
    "provider": "providers",
    "workflow": "workflows",
    "tenant": "tenants",
    "menu": "menus",
    "asset": "assets",
    "script": "scripts",
}
"""The config types and their folders (`spec.md` 8)."""

MOST_PER_DOCUMENT = 20
"""How many mismatches of one document are told; the first by place."""

PATH_FORMAT = "conman-path"
"""The `format` of a value that is the path of a file or folder, from the root or from the folder of its file."""

NAME_KEYWORD = "x-conman-ref"
"""The schema keyword of a value that names something which a folder defines; the folder is the keyword's value."""

_UNDECIDABLE = frozenset({"anyOf", "oneOf", "not", "contains", "const", "enum", "uniqueItems"})
_BASE = "file:///"

Load = Callable[[str], tuple[list[Any], list[Finding], Callable[[], Locate]] | None]
"""Reads a file by its path in the repository: its documents, its findings, and how to find a place in the first one.

None: there is no such regular file, or it is reached by a symlink.
"""


class Schemas:
    """The schemas of one repository, read when they are first needed."""

    def __init__(self, paths: list[str], load: Load, references: References) -> None:
        self._load = load
        self._references = references
        self._judged = ""
        self._with_references = lru_cache(maxsize=None)(self._extended)
        self._named = _by_folder(paths)
        self._ready: dict[str, tuple[Any, list[Finding]]] = {}
        self._ids: dict[str, str] | None = None
        self._paths = [path for path in paths if path.startswith(f"{FOLDER}/") and path.endswith(SUFFIXES)]

    def check_schema(self, path: str) -> list[Finding]:
        """What is wrong with the schema in this file, as a schema; nothing for files outside of `schemas/`."""
        return self._validator(path)[1] if path in self._paths else []

    def check(self, path: str, documents: list[Any], locate: Callable[[int], Locate]) -> list[Finding]:
        """What does not match the schemas that hold for a file. `locate` finds places in the document of an index."""
        found: list[Finding] = []
        folder_schema = self._for_folder(path)
        self._judged = path
        for index, document in enumerate(documents):
            schemas = [folder_schema] if folder_schema else []
            own = document.get("$schema") if isinstance(document, dict) else None
            if isinstance(own, str) and _is_relative(own) and not path.startswith(f"{FOLDER}/"):
                document = {key: value for key, value in document.items() if key != "$schema"}
                target = _resolve(path, own)
                if target is None or self._load(target) is None:
                    problem = Problem(locate(index)(("$schema",)), Rule.SCHEMA_REFERENCE, f"no such file: {own}")
                    found.append(finding(path, problem, "/$schema"))
                elif target != folder_schema:
                    found += self._validator(target)[1] if target not in self._paths else []
                    schemas.append(target)
            for schema in schemas:
                found += self._mismatches(path, schema, document, lambda index=index: locate(index))
        return found

    def _for_folder(self, path: str) -> str | None:
        """The most specific schema of `schemas/` that holds for a file."""
        if path.startswith(f"{FOLDER}/"):
            return None
        pure = PurePosixPath(path)
        names = [str(pure.with_suffix("")), *(str(parent) for parent in pure.parents)]
        return next((self._named[name] for name in names if name in self._named), None)

    def _validator(self, path: str) -> tuple[Any, list[Finding]]:
        """The validator of a schema, None when it is none, and what is wrong with it."""
        if path not in self._ready:
            self._ready[path] = (None, [])  # A schema that fails below must not be tried for each file again.
            self._ready[path] = self._make(path)
        return self._ready[path]

    def _make(self, path: str) -> tuple[Any, list[Finding]]:
        from jsonschema import Draft202012Validator, validators
        from jsonschema.exceptions import SchemaError
        from referencing import Registry

        loaded = self._load(path)
        if loaded is None or len(loaded[0]) != 1:
            return None, []
        documents, _, locate = loaded
        schema = documents[0]
        if not isinstance(schema, (dict, bool)):
            return None, [_invalid(path, Place(1, 1), "a schema is an object or a boolean")]
        dialect = schema.get("$schema") if isinstance(schema, dict) else None
        kind: Any = Draft202012Validator
        if dialect is not None:
            nothing: Any = None
            kind = validators.validator_for(schema, default=nothing) if isinstance(dialect, str) else nothing
        if kind is None:
            return None, [_invalid(path, locate()(("$schema",)), f"unknown dialect: {dialect}", "/$schema")]
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            where = tuple(error.absolute_path)
            return None, [_invalid(path, locate()(where), error.message, pointer(where))]
        except RecursionError:
            return None, [_invalid(path, Place(1, 1), "it is nested too deeply to be checked")]
        name = _own_id(schema)
        uri = urljoin(_BASE + quote(path), name or "")
        registry: Any = Registry(retrieve=lambda uri: self._retrieve(uri, kind))  # pyright: ignore[reportCallIssue]
        validator = self._with_references(kind)
        return validator({"$ref": uri}, registry=registry.with_resource(uri, _resource(schema, kind))), []

    def _extended(self, kind: Any) -> Any:
        """The validator of a dialect that also knows what refers to the repository."""
        from jsonschema import validators
        from jsonschema.exceptions import ValidationError

        def is_path(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
            if wanted == PATH_FORMAT and isinstance(value, str):
                problem = self._references.path_problem(self._judged, value)
                if problem is not None:
                    yield ValidationError(problem)

        def is_name(_validator: Any, folder: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
            if not isinstance(folder, str):
                yield ValidationError(f"{NAME_KEYWORD} takes the name of a folder, not {folder!r}")
            elif isinstance(value, (str, int)) and not isinstance(value, bool):
                problem = self._references.name_problem(folder, str(value))
                if problem is not None:
                    yield ValidationError(problem)

        return validators.extend(kind, {"format": is_path, NAME_KEYWORD: is_name})

    def _retrieve(self, uri: str, kind: Any) -> Any:
        """What a reference between schemas means; only files of the repository, by path or by `$id`."""
        from jsonschema_specifications import REGISTRY
        from referencing.exceptions import NoSuchResource

        dialect = REGISTRY.get(uri)
        if dialect is not None:
            return dialect
        path = unquote(uri.removeprefix(_BASE)) if uri.startswith(_BASE) else self._by_id().get(uri.rstrip("#"))
        loaded = self._load(path) if path else None
        if loaded is None or len(loaded[0]) != 1:
            raise NoSuchResource(ref=uri)
        return _resource(loaded[0][0], kind)

    def _by_id(self) -> dict[str, str]:
        if self._ids is None:
            self._ids = {}
            for path in self._paths:
                loaded = self._load(path)
                name = _own_id(loaded[0][0]) if loaded and loaded[0] else None
                if name is not None:
                    self._ids.setdefault(name, path)
        return self._ids

    def _mismatches(self, path: str, schema: str, document: Any, locate: Callable[[], Locate]) -> Iterator[Finding]:
        from referencing.exceptions import Unresolvable

        validator, _ = self._validator(schema)
        if validator is None:
            return
        try:
            errors = sorted(
                (error for error in validator.iter_errors(document) if not _depends_on_tag(document, error)),
                key=lambda error: ([str(part) for part in error.absolute_path], error.message),
            )
        except Unresolvable as error:
            message = f"it refers to {error.ref!r}, which is not in the repository"
            yield _invalid(schema, Place(1, 1), message)
            return
        except re.error as error:
            yield _invalid(schema, Place(1, 1), f"the pattern {error.pattern!r}: {error.msg}")
            return
        except RecursionError:
            yield _invalid(schema, Place(1, 1), "it refers to itself without end, or the file is nested too deeply")
            return
        find = locate() if errors else None
        for error in errors[:MOST_PER_DOCUMENT]:
            where: ValuePath = tuple(error.absolute_path)
            assert find is not None
            names = error.validator in ("format", NAME_KEYWORD)
            rule = Rule.DANGLING_REFERENCE if names else Rule.SCHEMA
            problem = Problem(find(where), rule, f"{error.message} ({schema})")
            yield finding(path, problem, pointer(where))


def _by_folder(paths: list[str]) -> dict[str, str]:
    """Folder (or file without its ending) → the schema that holds for it."""
    found: dict[str, tuple[int, str]] = {}
    for path in paths:
        suffix = next((suffix for suffix in SUFFIXES if path.endswith(suffix)), None)
        if not path.startswith(f"{FOLDER}/") or suffix is None:
            continue
        name = path[len(FOLDER) + 1 : -len(suffix)]
        for folder, later in ((name, 0), (CONFIG_TYPES.get(name), len(SUFFIXES))):
            rank = SUFFIXES.index(suffix) + later
            if folder and (folder not in found or rank < found[folder][0]):
                found[folder] = (rank, path)
    return {folder: path for folder, (_, path) in found.items()}


def _resource(contents: Any, kind: Any) -> Resource[Any]:
    """A schema for the registry. One that names the dialect by which it is judged anyway does so without naming it.

    `jsonschema` takes its own validator for every schema that names a dialect, one that does not know of references.
    """
    from jsonschema import validators
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012, specification_with

    if not isinstance(contents, dict) or validators.validator_for(contents, default=kind) is not kind:
        return Resource.from_contents(contents, default_specification=DRAFT202012)
    specification = specification_with(contents["$schema"]) if "$schema" in contents else DRAFT202012
    return specification.create_resource({key: value for key, value in contents.items() if key != "$schema"})


def _is_relative(reference: str) -> bool:
    parts = urlsplit(reference)
    return bool(parts.path) and not parts.scheme and not parts.netloc


def _resolve(path: str, reference: str) -> str | None:
    """The path in the repository that a reference from a file means; None when it leaves the repository."""
    name = unquote(urlsplit(reference).path)
    if name.startswith("/") or "\0" in name:
        return None
    parts = walked(PurePosixPath(path).parent.parts, name)
    return None if parts is None else "/".join(parts)


def _depends_on_tag(document: Any, error: ValidationError) -> bool:
    """Whether only the program that reads a custom tag could say if this is wrong."""
    value = document
    for step in error.absolute_path:
        if isinstance(value, OPAQUE):
            return True
        value = value[step]
    return isinstance(value, OPAQUE) or (error.validator in _UNDECIDABLE and _holds_opaque(value))


def _holds_opaque(value: Any) -> bool:
    waiting, seen = [value], set[int]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, OPAQUE):
            return True
        if isinstance(each, (dict, list)) and id(each) not in seen:
            seen.add(id(each))
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return False


def _own_id(schema: Any) -> str | None:
    """The `$id` of a schema (`id` in draft 4), without an empty fragment."""
    name = schema.get("$id", schema.get("id")) if isinstance(schema, dict) else None
    return name.rstrip("#") if isinstance(name, str) else None


def _invalid(path: str, place: Place, message: str, where: str | None = None) -> Finding:
    return finding(path, Problem(place, Rule.SCHEMA_INVALID, message), where)
