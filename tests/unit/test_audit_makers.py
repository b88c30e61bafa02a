"""Every action of the audit table is made somewhere (`api.md` 5): one that nothing makes would be a promise that nobody keeps.

The makers are found in the source: an `Event` with its entity type and action in words, or a function that makes one of the
action that it is given, with the words that it is given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import conman
from conman.domain.audit import ACTIONS

ROOT = Path(conman.__file__).parent
Made = set[tuple[str, str]]

CHOSEN: dict[str, set[str]] = {
    "services/workspace_history.py": {"file.written", "file.deleted", "file.moved"},
    "domain/changeset_review.py": {"changeset.changes_requested", "changeset.rejected"},
    "domain/changeset_news.py": {"changeset.conflicted", "changeset.needs_revalidation", "changeset.released"},
    "domain/release.py": {"release.assembled", "release.validated"},
    "domain/deploy_ending.py": {
        f"deployment.{action}"
        for action in (
            "succeeded",
            "failed",
            "canceled",
            "superseded",
            "approval_expired",
            "promoted",
            "rolled_back",
            "auto_rolled_back",
        )
    },
}
"""Module → the actions that it chooses by a variable; each must at least stand in it as a word."""

NOT_MADE: dict[str, str] = {}
"""Action → why nothing makes it."""


@dataclass
class Module:
    """One file: its words by name, the functions in it that make events of an action that they are given, and what it makes."""

    path: str
    tree: ast.Module
    words: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(word))):
                    self.words[name] = word
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(word))):
                    self.words[name] = word
                case _:
                    pass

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def strings(self) -> set[str]:
        return {node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def modules() -> list[Module]:
    skipped = ("audit_table", "audit.py", "audit_schema")
    return [
        Module(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(ROOT.rglob("*.py"))
        if not (path.parent.name == "domain" and path.name.startswith(skipped))
    ]


def words_of(node: ast.AST, module: Module, imported: dict[str, str]) -> set[str]:
    """The words that an expression may be."""
    match node:
        case ast.Constant(value=str(word)):
            return {word}
        case ast.IfExp(body=one, orelse=other):
            return words_of(one, module, imported) | words_of(other, module, imported)
        case ast.Name(id=name) if name in module.words:
            return {module.words[name]}
        case ast.Name(id=name) if name in imported:
            return {imported[name]}
        case _:
            return set()


def events_in(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event" and len(node.args) >= 3:
            yield node


def made() -> Made:
    everything = modules()
    imported = {name: word for module in everything for name, word in module.words.items() if name == "ENTITY_TYPE"}
    found: Made = set()
    givers: list[tuple[Module, str, set[str]]] = []
    for module in everything:
        for event in events_in(module.tree):
            types, actions = (words_of(event.args[place], module, imported) for place in (0, 2))
            found |= {(entity, action) for entity in types for action in actions}
        for function in module.functions():
            for event in events_in(function):
                if not words_of(event.args[2], module, imported):
                    givers.append((module, function.name, words_of(event.args[0], module, imported)))
    for module in everything:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for home, giver, types in givers:
                if name == giver and (home is module or not giver.startswith("_")):
                    given = [*node.args, *(keyword.value for keyword in node.keywords)]
                    words = set[str]().union(*(words_of(value, module, imported) for value in given))
                    found |= {(entity, word) for entity in types for word in words if word in ACTIONS[entity]}
    for path, actions in CHOSEN.items():
        (module,) = (module for module in everything if module.path == path)
        for action in actions:
            entity, _, word = action.partition(".")
            assert word in module.strings(), f"{path} does not name {word}"
            found.add((entity, word))
    return found


def test_every_action_of_the_table_is_made_somewhere_or_has_a_reason() -> None:
    table = {(entity, action) for entity, actions in ACTIONS.items() for action in actions}
    missing = {f"{entity}.{action}" for entity, action in table - made()}
    assert missing == set(NOT_MADE)
