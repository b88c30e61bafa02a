"""Rules and workflows give the same answer wherever they run (`durability.md` 22, style 3).

A set's order depends on the process's hash seed: a replay elsewhere would do its steps in another order. So nothing in
`conman/domain` and `conman/workflows` goes through a set, unless into something that has no order or makes one (`sorted`).
And nothing in `conman/domain` asks for the time or for chance: both are passed in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import conman

ROOT = Path(conman.__file__).parent
DOMAIN = sorted((ROOT / "domain").glob("**/*.py"))
WORKFLOWS = sorted((ROOT / "workflows").glob("**/*.py"))

ORDER_FREE = frozenset({"sorted", "set", "frozenset", "len", "any", "all", "min", "max", "sum"})
"""What may consume a set: the answer does not depend on the order."""

ORDER_KEEPING = frozenset(
    {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "join", "fromkeys", "extend"}
)
"""What would carry a set's order on."""

SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet"})
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)

IMPURE = ("time.", "random.", "secrets.", "uuid.uuid1", "uuid.uuid4", "os.urandom", "conman.domain.ids.random_uuid7")
IMPURE_ENDINGS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.fromtimestamp")
ALLOWED = {"conman.domain.ids": frozenset({"secrets.token_bytes"})}
"""`random_uuid7` is the one door to chance, for services; no rule and no workflow goes through it."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.AST) -> dict[str, str]:
    """Local name → the dotted name that it stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.AST, imports: Mapping[str, str]) -> str | None:
    """The full name of what `a.b.c` stands for, None when it is more than names."""
    if isinstance(node, ast.Name):
        return imports.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, imports)
        return f"{before}.{node.attr}" if before else None
    return None


def _bound(target: ast.expr) -> str:
    """How a name or an attribute is remembered: `name`, `.attribute`."""
    match target:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=attribute):
            return f".{attribute}"
        case _:
            return "?"


class Module:
    """One file: the names in it that are sets, and what it does with them."""

    def __init__(self, name: str, source: str, elsewhere: Mapping[str, Module] | None = None) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.imports = imports_of(self.tree)
        self.elsewhere = elsewhere or {}
        self.sets: set[str] = set()
        self._learn_sets()

    def _learn_sets(self) -> None:
        """Names that are bound or annotated as sets anywhere in the file, until no new one is found."""
        before = -1
        while before != len(self.sets):
            before = len(self.sets)
            for node in ast.walk(self.tree):
                match node:
                    case ast.Assign(targets=targets, value=value) if self.is_set(value):
                        self.sets |= {_bound(target) for target in targets}
                    case ast.NamedExpr(target=target, value=value) if self.is_set(value):
                        self.sets.add(_bound(target))
                    case ast.AnnAssign(target=target, annotation=annotation, value=value):
                        if self._annotated(annotation) or (value is not None and self.is_set(value)):
                            self.sets.add(_bound(target))
                    case ast.arg(arg=name, annotation=ast.expr() as annotation) if self._annotated(annotation):
                        self.sets.add(name)
                    case ast.FunctionDef(name=name, returns=ast.expr() as returns) if self._annotated(returns):
                        self.sets.add(f"{name}()")
                    case ast.ClassDef(body=body):
                        fields = [item for item in body if isinstance(item, ast.AnnAssign) and self._annotated(item.annotation)]
                        self.sets |= {f".{_bound(item.target)}" for item in fields}
                    case _:
                        pass

    def _annotated(self, node: ast.expr) -> bool:
        outer = node.value if isinstance(node, ast.Subscript) else node
        name = dotted(outer, {}) or ""
        return name.rpartition(".")[2] in SET_TYPES

    def is_set(self, node: ast.expr) -> bool:
        """Whether an expression is surely a set."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name() | ast.Attribute():
                return self._named_set(node)
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in SET_METHODS and self.is_set(value):
                return True
            case ast.Call(func=ast.Name(id=name)):
                return f"{name}()" in self.sets
            case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, SET_OPERATORS):
                return any(self.is_set(side) or self._is_keys(side) for side in (left, right))
            case ast.IfExp(body=body, orelse=other):
                return self.is_set(body) or self.is_set(other)
            case _:
                return False

    @staticmethod
    def _is_keys(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"

    def _named_set(self, node: ast.expr) -> bool:
        if _bound(node) in self.sets:
            return True
        module, _, name = (dotted(node, self.imports) or "").rpartition(".")
        return module in self.elsewhere and name in self.elsewhere[module].sets

    def walks_over_sets(self) -> Iterator[str]:
        """One finding for each place where a set's order would show."""
        free: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.SetComp):
                free.add(id(node))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDER_FREE:
                free |= {id(argument) for argument in node.args}
        for node in ast.walk(self.tree):
            match node:
                case ast.For(iter=source) | ast.AsyncFor(iter=source) if self.is_set(source):
                    yield self._finding(node, "a loop over a set")
                case ast.ListComp() | ast.DictComp() | ast.GeneratorExp() | ast.SetComp() if id(node) not in free:
                    if any(self.is_set(part.iter) for part in node.generators):
                        yield self._finding(node, "a comprehension over a set")
                case ast.Starred(value=value) if self.is_set(value):
                    yield self._finding(node, "a set that is unpacked")
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in ORDER_KEEPING:
                    if any(self.is_set(argument) for argument in args):
                        yield self._finding(node, f"a set given to {name}()")
                case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]) if self.is_set(value):
                    yield self._finding(node, "a set that gives one of its items")
                case ast.Assign(targets=[ast.Tuple() | ast.List()], value=value) if self.is_set(value):
                    yield self._finding(node, "a set that is unpacked")
                case _:
                    pass

    def asks_for_time_or_chance(self) -> Iterator[str]:
        """One finding for each use of a clock or of chance."""
        allowed = ALLOWED.get(self.name, frozenset())
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            name = dotted(node, self.imports) or ""
            root = name.partition(".")[0]
            known = root in {full.partition(".")[0] for full in self.imports.values()}
            if known and name not in allowed and (name.startswith(IMPURE) or name.endswith(IMPURE_ENDINGS)):
                yield self._finding(node, name)

    def _finding(self, node: ast.AST, what: str) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 0)}: {what}"


SOURCES = {module_name(path): path.read_text() for path in [*DOMAIN, *WORKFLOWS]}
ALONE = {name: Module(name, source) for name, source in SOURCES.items()}
MODULES = {name: Module(name, source, ALONE) for name, source in SOURCES.items()}
"""Each file is read alone first, so that a file knows the sets of those that it imports."""


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", [*DOMAIN, *WORKFLOWS], ids=name_of)
def test_nothing_goes_through_a_set_in_the_sets_own_order(path: Path) -> None:
    """`durability.md` 22."""
    assert list(MODULES[module_name(path)].walks_over_sets()) == []


@pytest.mark.parametrize("path", DOMAIN, ids=name_of)
def test_no_rule_asks_for_the_time_or_for_chance(path: Path) -> None:
    """`durability.md` 3 and 22: times and ids are passed in."""
    assert list(MODULES[module_name(path)].asks_for_time_or_chance()) == []


def test_the_walk_sees_every_file_and_the_sets_in_them() -> None:
    """Else the tests above would prove nothing."""
    assert len(DOMAIN) > 15
    assert len(WORKFLOWS) > 8
    assert {"TERMINAL", "DEPLOYABLE", "OPEN"} <= MODULES["conman.domain.release"].sets
    assert "CANCELABLE" in MODULES["conman.workflows.deployment"].sets


TERMINAL_ELSEWHERE = {"conman.domain.release": Module("conman.domain.release", "TERMINAL = frozenset({1, 2})")}


@pytest.mark.parametrize(
    "bad",
    [
        "for x in {1, 2}: pass",
        "for x in set(found): pass",
        "for x in frozenset(found): pass",
        "for x in {y for y in found}: pass",
        "names = {1, 2}\nfor x in names: pass",
        "names: set[int] = make()\nfor x in names: pass",
        "def f(names: frozenset[str]):\n    return [x for x in names]",
        "def f() -> set[int]: ...\nfor x in f(): pass",
        "one = {1}\ntwo = one | other\nfor x in two: pass",
        "one = {1}\nfor x in one.union(other): pass",
        "for x in a.keys() - b.keys(): pass",
        "class A:\n    def f(self):\n        self.names = set()\n        for x in self.names: pass",
        "class A:\n    names: set[str]\ndef f(a):\n    return list(a.names)",
        "for x in (s := {1}): pass\nfor y in s: pass",
        "for x in ({1} if yes else found): pass",
        "async def f():\n    async for x in {1}: pass",
        "[x for x in {1, 2}]",
        "{x: 1 for x in {1, 2}}",
        "send(x for x in {1, 2})",
        "[y for x in found for y in {x}]",
        "names = {1, 2}\nlist(names)",
        "tuple({1, 2})",
        "next(iter({1, 2}))",
        "enumerate({1, 2})",
        "', '.join({'a', 'b'})",
        "dict.fromkeys({1, 2})",
        "found.extend({1, 2})",
        "gather(*{1, 2})",
        "one, two = {1, 2}",
        "names = {1, 2}\nnames.pop()",
        "from conman.domain.release import TERMINAL\nfor x in TERMINAL: pass",
        "from conman.domain import release as rules\nfor x in rules.TERMINAL: pass",
        "import conman.domain.release\nfor x in conman.domain.release.TERMINAL: pass",
    ],
)
def test_a_walk_over_a_set_is_found(bad: str) -> None:
    """`durability.md` 22: the lint catches bad examples."""
    assert list(Module("bad", bad, TERMINAL_ELSEWHERE).walks_over_sets())


@pytest.mark.parametrize(
    "good",
    [
        "for x in [1, 2]: pass",
        "for x in sorted({1, 2}): pass",
        "for x in {1: 2}: pass",
        "for x in found.items(): pass",
        "for x in a.keys(): pass",
        "1 in {1, 2}",
        "len({1, 2})",
        "any(x > 1 for x in {1, 2})",
        "sorted(x + 1 for x in {1, 2})",
        "{x + 1 for x in {1, 2}}",
        "names = {1, 2}\nfor x in sorted(names): pass",
        "names = {1, 2}\nrest = [x for x in found if x not in names]",
        "from conman.domain.release import TERMINAL\nstate in TERMINAL",
        "for x in a - b: pass",
        "found.pop()",
    ],
)
def test_what_has_an_order_or_needs_none_is_left_alone(good: str) -> None:
    """`durability.md` 22: membership and sorting are what sets are for."""
    assert not list(Module("good", good, TERMINAL_ELSEWHERE).walks_over_sets())


@pytest.mark.parametrize(
    "bad",
    [
        "from datetime import datetime\ndatetime.now()",
        "from datetime import UTC, datetime as clock\nclock.now(UTC)",
        "import datetime\ndatetime.datetime.now()",
        "import datetime as dt\ndt.datetime.utcnow()",
        "from datetime import date\ndate.today()",
        "from datetime import datetime\nField(default_factory=datetime.now)",
        "import time\ntime.time()",
        "from time import time\ntime()",
        "from time import monotonic as tick\ntick()",
        "import random\nrandom.random()",
        "from random import choice\nchoice(found)",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4\nuuid4()",
        "from uuid import uuid4 as fresh\nfresh()",
        "import secrets\nsecrets.token_hex()",
        "import os\nos.urandom(8)",
        "from conman.domain.ids import random_uuid7\nrandom_uuid7(1)",
        "from conman.domain import ids\nids.random_uuid7(1)",
    ],
)
def test_a_clock_or_chance_in_a_rule_is_found(bad: str) -> None:
    """`durability.md` 22: the lint catches bad examples, under any name."""
    assert list(Module("bad", bad).asks_for_time_or_chance())


@pytest.mark.parametrize(
    "good",
    [
        "from datetime import datetime\ndatetime.fromisoformat(text)",
        "from datetime import UTC, datetime\ndatetime(1970, 1, 1, tzinfo=UTC)",
        "from datetime import timedelta\ntimedelta(hours=1)",
        "from conman.domain.ids import derived_uuid7\nderived_uuid7(1, 'a')",
        "from conman.domain.times import later\nlater(at, delta)",
        "time = at\ntime.hour",
        "from uuid import UUID\nUUID(text)",
    ],
)
def test_times_and_ids_that_are_passed_in_are_left_alone(good: str) -> None:
    """`durability.md` 3."""
    assert not list(Module("good", good).asks_for_time_or_chance())


@pytest.mark.parametrize(
    "path", [path for path in WORKFLOWS if "workflow.defn" in path.read_text() or path.name == "entity.py"], ids=name_of
)
def test_no_workflow_asks_for_the_time_or_for_chance_but_through_its_sdk(path: Path) -> None:
    """`durability.md` 22: `workflow.now` and `workflow.uuid4` are the same on a replay; the front door is no workflow."""
    assert list(MODULES[module_name(path)].asks_for_time_or_chance()) == []
