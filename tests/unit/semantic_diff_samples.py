"""Files for the semantic diff, and the reader of its answer: it applies what `details` say to the base, as a client could."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from typing import Any

from conman.domain.semantic_diff import SemanticDiff, change_record, summarised
from conman.domain.semantic_diff_files import FilePair, Type, Version, compare

Record = dict[str, Any]


def version(data: bytes | str | None, kind: Type = Type.FILE) -> Version | None:
    if data is None:
        return None
    content = data.encode() if isinstance(data, str) else data
    return Version(hashlib.sha1(content).hexdigest(), kind, content)


def pair(path: str, old: bytes | str | None, new: bytes | str | None, old_path: str | None = None) -> FilePair:
    return FilePair(path, version(old), version(new), old_path)


def diff(*pairs: FilePair, most_shown: int = 100_000) -> SemanticDiff:
    return summarised([compare(each, most_shown=most_shown) for each in pairs])


def records(*pairs: FilePair, most_shown: int = 100_000) -> list[Record]:
    return [change_record(each) for each in diff(*pairs, most_shown=most_shown).changes]


def changes(path: str, old: bytes | str | None, new: bytes | str | None) -> list[Record]:
    return records(pair(path, old, new))


def sentences(path: str, old: bytes | str | None, new: bytes | str | None) -> list[str]:
    return [each["description"] for each in changes(path, old, new)]


def applied(base: dict[str, Any], told: list[Record]) -> dict[str, Any]:
    """The trees of the base, by path, with all changes of values."""
    trees = json.loads(json.dumps(base))  # as many values as there are, however many objects they were
    gone: list[tuple[str, list[str]]] = []
    for each in told:
        details = each["details"]
        if each["operation"] == "removed":
            gone.append((each["filePath"], tokens(details["pointer"])))
        elif "from" in details:
            gone.append((details["from"]["filePath"], tokens(details["from"]["pointer"])))
    for path, way in sorted(gone, key=lambda one: (one[0], [_order(each) for each in one[1]]), reverse=True):
        around = _walked(trees[path], way[:-1])
        del around[_place(around, way[-1])]
    for each in told:
        if each["operation"] != "removed":
            trees[each["filePath"]] = _changed(trees[each["filePath"]], each)
    return trees


def tokens(pointer: str) -> list[str]:
    return [each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:]]


def _order(token: str) -> tuple[int, str]:
    return (int(token), "") if token.isdigit() else (-1, token)


def _changed(tree: Any, change: Record) -> Any:
    details = change["details"]
    way = tokens(details["pointer"])
    if details.get("reordered"):
        items = _walked(tree, way)
        there = sorted(details["order"], key=int) if details["order"][0].isdigit() else None
        wanted = [items[_place(items, each) if there is None else there.index(each)] for each in details["order"]]
        items[:] = wanted
        return tree
    if not way:
        return deepcopy(details["after"])
    around = _walked(tree, way[:-1])
    after = deepcopy(details["after"])
    if "index" in details:
        around.insert(details["index"], after)
    elif isinstance(around, list):
        around[_place(around, way[-1])] = after
    else:
        around[way[-1]] = after
    return tree


def _walked(tree: Any, way: list[str]) -> Any:
    for token in way:
        tree = tree[_place(tree, token)]
    return tree


def _place(around: Any, token: str) -> Any:
    if isinstance(around, dict):
        return token
    if token.isdigit():
        return int(token)
    key, _, value = token.partition("=")
    [place] = [index for index, each in enumerate(around) if str(each[key]) == value]
    return place
