"""Nobody changes or removes an audit event or its seal, and one module each adds them (`spec.md` 14).

A collection is used by its name, at the place where it is used, and only to read: another name for it (`events = db["audit"]`)
would let a write hide. docs/adr/0037-the-audit-is-only-added-to.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import conman

ROOT = Path(conman.__file__).parent
APPEND_ONLY = {"audit", "audit_seals"}
CONSTANTS = {"SEALS"}
"""Names that stand for one of these collections."""
WRITERS: dict[str, set[str]] = {"store/audit.py": {"_insert_once"}, "services/sealing.py": {"insert_many"}}
"""Module → what it calls to add to one of them, and only to add."""
READS = {"find", "find_one", "count_documents"}
NAMES_IT = {
    "Index",
    "page",
    "find",
    "Event",
    "derived_uuid7",
    "entry_id",
    "_pages",
    "_ids",
    "Typer",
    "add_typer",
    "command",
    "Finding",
}
"""Functions that may be given the word: they read the collection, or mean another thing by it."""


def offences(source: str, allowed: set[str]) -> Iterator[str]:
    """Each use of the collection that is not one of the `allowed` calls, or a read."""
    tree = ast.parse(source)
    fine: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if _is_audit(value) and method in READS | allowed:
                fine.add(id(value))
            case _:
                pass
    for node in ast.walk(tree):
        if _is_audit(node) and id(node) not in fine:
            yield f"line {getattr(node, 'lineno', 0)}: the collection is used for more than reading"
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if name not in NAMES_IT | allowed and any(_is_word(value) for value in given):
                yield f"line {node.lineno}: {name} is given the collection's name"


def _is_audit(node: ast.AST) -> bool:
    match node:
        case ast.Subscript(value=database, slice=name):
            return _is_word(name) and _is_database(database)
        case ast.Attribute(value=ast.Name(id="db"), attr=name):
            return name in APPEND_ONLY
        case _:
            return False


def _is_database(node: ast.expr) -> bool:
    """By its name, which is the same everywhere; or taken from a client. Else it is a document with a field of that name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in ("db", "database")
        case _:
            return isinstance(node, ast.Subscript | ast.Call)


def _is_word(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str(word)):
            return word in APPEND_ONLY
        case ast.Name(id=name):
            return name in CONSTANTS
        case _:
            return False


def test_the_audit_and_its_seals_are_only_read_but_for_the_modules_that_add_to_them() -> None:
    found = {
        f"{name}: {offence}"
        for path in ROOT.rglob("*.py")
        for name in [str(path.relative_to(ROOT))]
        for offence in offences(path.read_text(encoding="utf-8"), WRITERS.get(name, set()))
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        'await db["audit"].delete_one({})',
        'await self.db["audit"].update_many({}, {})',
        'await platform.db["audit"].insert_one({})',
        'await db["audit"].aggregate([{"$out": "x"}])',
        'await db["audit"].drop()',
        "await db.audit.delete_many({})",
        'events = db["audit"]\nawait events.delete_one({})',
        'await update_part(db, "audit", "id")',
        'await db.drop_collection("audit")',
        'await db.get_collection("audit").delete_one({})',
        'await client[name]["audit"].drop()',
        'collection = store(name="audit")',
    ],
)
def test_a_write_is_seen_however_it_is_put(source: str) -> None:
    assert list(offences(source, set()))


@pytest.mark.parametrize("source", ['await db["audit"].find_one({})', 'records.page(db, "audit", {})', 'Event("app", "audit2")'])
def test_a_read_is_none(source: str) -> None:
    assert not list(offences(source, set()))


def test_what_adds_to_them_only_inserts() -> None:
    """A writer may be given the collection's name: then that is all that it does with it."""
    tree = ast.parse((ROOT / "store" / "audit.py").read_text(encoding="utf-8"))
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    assert called == {"insert_many"}
