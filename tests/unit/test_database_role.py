"""The database role of production: everything that Conman does, and nothing that changes the audit (`spec.md` 14)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conman
from conman.store.database_role import APPEND_ONLY, COLLECTIONS, may_harm, role_of

ROOT = Path(conman.__file__).parent


def _named() -> Iterator[str]:
    """The collections that the source names where it uses one: in words, or by a constant."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")]
    words: dict[str, set[str]] = {}
    for tree in trees:
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(word))):
                    words.setdefault(name, set()).add(word)
                case _:
                    pass
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Name(id="db") | ast.Attribute(attr="db"), slice=ast.Constant(value=str(word))):
                    yield word
                case ast.Subscript(value=ast.Name(id="db") | ast.Attribute(attr="db"), slice=ast.Name(id=name)):
                    yield from words.get(name, ())
                case _:
                    pass


def _granted(collection: str) -> set[str]:
    (privilege,) = (one for one in role_of("conman")["privileges"] if one["resource"]["collection"] == collection)
    return set(privilege["actions"])


def test_the_role_names_every_collection_that_is_used() -> None:
    assert set(_named()) <= set(COLLECTIONS)


def test_the_audit_and_its_seals_may_only_be_added_to_and_the_rest_be_changed() -> None:
    for collection in COLLECTIONS:
        changing = {"update", "remove"} & _granted(collection)
        assert changing == (set() if collection in APPEND_ONLY else {"update", "remove"}), collection
        assert {"find", "insert"} <= _granted(collection)


def test_who_has_the_role_alone_harms_nothing() -> None:
    assert may_harm({"authenticatedUserPrivileges": role_of("conman")["privileges"]}, "conman") == []


@pytest.mark.parametrize(
    ("resource", "actions", "harms"),
    [
        ({"db": "conman", "collection": "audit"}, ["find", "remove"], ["remove"]),
        ({"db": "conman", "collection": "audit_seals"}, ["update"], ["update"]),
        ({"db": "conman", "collection": ""}, ["insert", "dropCollection", "update"], ["update", "dropCollection"]),
        ({"db": "", "collection": ""}, ["dropDatabase"], ["dropDatabase"]),
        ({"anyResource": True}, ["anyAction"], ["anyAction"]),
        ({"db": "other", "collection": ""}, ["remove"], []),
        ({"db": "conman", "collection": "audit_unsealed"}, ["remove"], []),
        ({"cluster": True}, ["shutdown"], []),
    ],
    ids=str,
)
def test_a_user_who_may_more_is_seen(resource: dict[str, Any], actions: list[str], harms: list[str]) -> None:
    assert may_harm({"authenticatedUserPrivileges": [{"resource": resource, "actions": actions}]}, "conman") == harms
