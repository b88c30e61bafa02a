"""What the semantic diff tells of changed files, and in which words (`spec.md` 8)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from semantic_diff_samples import changes, diff, pair, records, sentences, version

from conman.domain import semantic_diff_files
from conman.domain.semantic_diff import change_record, summarised
from conman.domain.semantic_diff_files import ConfigType, FilePair, Type, Version, compare

ENTITY = "entities/PaymentProvider.json"
FIELDS = {"id", "configType", "operation", "target", "description", "filePath", "lineStart", "lineEnd", "details"}


def entity(old: Any, new: Any) -> list[str]:
    return sentences(ENTITY, json.dumps(old), json.dumps(new))


# -- One change


def test_a_change_has_the_fields_of_the_contract() -> None:
    [found] = changes(ENTITY, '{\n  "retryCount": 3\n}\n', '{\n  "a": {},\n  "retryCount": 5\n}\n')[1:]
    assert set(found) == FIELDS
    assert found["description"] == "`retryCount` of entity `PaymentProvider` changed from 3 to 5"
    assert {key: found[key] for key in ("configType", "operation", "target", "filePath", "lineStart", "lineEnd")} == {
        "configType": "entity",
        "operation": "modified",
        "target": "PaymentProvider",
        "filePath": ENTITY,
        "lineStart": 3,
        "lineEnd": 3,
    }
    assert found["details"] == {
        "pointer": "/retryCount",
        "before": 3,
        "beforeType": "integer",
        "after": 5,
        "afterType": "integer",
        "baseLineStart": 2,
        "baseLineEnd": 2,
    }


SENTENCES = {
    "a value": ({"a": 1}, {"a": 2}, ["`a` of entity `PaymentProvider` changed from 1 to 2"]),
    "a nested value": ({"a": {"b": "x"}}, {"a": {"b": "y"}}, ['`a.b` of entity `PaymentProvider` changed from "x" to "y"']),
    "a type": ({"a": 80}, {"a": "80"}, ['`a` of entity `PaymentProvider` changed its type, from 80 (integer) to "80" (text)']),
    "a fraction": ({"a": 1}, {"a": 1.0}, ["`a` of entity `PaymentProvider` changed its type, from 1 (integer) to 1.0 (number)"]),
    "a null": ({"a": None}, {"a": 1}, ["`a` of entity `PaymentProvider` changed its type, from null to 1 (integer)"]),
    "a shape": (
        {"a": [1]},
        {"a": {"b": 1}},
        ["`a` of entity `PaymentProvider` changed its type, from a list with 1 item to an object with 1 key"],
    ),
    "an added key": ({}, {"a": True}, ["`a` of entity `PaymentProvider` was added: true"]),
    "a removed key": ({"a": 1}, {}, ["`a` of entity `PaymentProvider` was removed; it was 1"]),
    "a key with a dot": ({"a.b": 1}, {"a.b": 2}, ['`"a.b"` of entity `PaymentProvider` changed from 1 to 2']),
    "a long text": ({"a": ""}, {"a": "x" * 99}, [f'`a` of entity `PaymentProvider` changed from "" to "{"x" * 58}…']),
    "the name": (
        {"name": "Old", "a": 1},
        {"name": "New", "a": 1},
        ['`name` of entity `New` changed from "Old" to "New"'],
    ),
    "the root": ([1], {"a": 1}, ["entity `PaymentProvider` changed its type, from a list with 1 item to an object with 1 key"]),
    "an item by its key": (
        {"s": [{"name": "web", "port": 1}, {"name": "db", "port": 2}]},
        {"s": [{"name": "db", "port": 3}]},
        [
            "`s[web]` of entity `PaymentProvider` was removed; it was an object with 2 keys",
            "`s[db].port` of entity `PaymentProvider` changed from 2 to 3",
        ],
    ),
    "an added item": (
        {"s": [{"id": 1}]},
        {"s": [{"id": 2}, {"id": 1}]},
        ["`2` was added to `s` of entity `PaymentProvider`: an object with 1 key"],
    ),
    "an item by its place": (
        {"s": ["a", "b", "c"]},
        {"s": ["a", "x", "c"]},
        ['`s[1]` of entity `PaymentProvider` changed from "b" to "x"'],
    ),
    "items without a key, the first one new": (
        {"s": ["a", "b"]},
        {"s": ["n", "a", "b"]},
        ['an item was added to `s` of entity `PaymentProvider`: "n"'],
    ),
    "arguments, which repeat": (
        {"s": ["--a", "1", "--b", "1"]},
        {"s": ["--a", "2", "--b", "1", "--c", "1"]},
        [
            'an item was added to `s` of entity `PaymentProvider`: "--c"',
            'an item was added to `s` of entity `PaymentProvider`: "1"',
            '`s[1]` of entity `PaymentProvider` changed from "1" to "2"',
        ],
    ),
    "an order by keys": (
        {"s": [{"id": "a"}, {"id": "b"}, {"id": "c"}]},
        {"s": [{"id": "c"}, {"id": "a"}, {"id": "b"}]},
        ["the items of `s` of entity `PaymentProvider` were reordered: `c` moved"],
    ),
    "an order of texts": (
        {"s": ["a", "b", "c"]},
        {"s": ["c", "b", "a"]},
        ["the items of `s` of entity `PaymentProvider` were reordered"],
    ),
    "keys of one name and two kinds": (
        {"s": [{"id": 1, "a": 1}]},
        {"s": [{"id": "1", "a": 1}]},
        ['`s[0].id` of entity `PaymentProvider` changed its type, from 1 (integer) to "1" (text)'],
    ),
    "the order of keys alone": ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
    "a move within the file": (
        {"a": {"x": 1, "y": 2}},
        {"b": {"c": {"x": 1, "y": 2}}},
        [
            "`a` of entity `PaymentProvider` was removed; it was an object with 2 keys",
            "`b` of entity `PaymentProvider` was added: an object with 1 key",
        ],
    ),
    "a key's new name": (
        {"a": {"x": 1, "y": 2}},
        {"b": {"x": 1, "y": 2}},
        ["`a` of entity `PaymentProvider` moved to `b`"],
    ),
    "a new name and a change": (
        {"a": {"w": 1, "x": 2, "y": 3, "z": 4}},
        {"b": {"w": 1, "x": 2, "y": 3, "z": 5}},
        ["`a` of entity `PaymentProvider` moved to `b`, and changed"],
    ),
    "a new name of what says little": (
        {"a": True},
        {"b": True},
        ["`a` of entity `PaymentProvider` was removed; it was true", "`b` of entity `PaymentProvider` was added: true"],
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), SENTENCES.values(), ids=SENTENCES.keys())
def test_a_change_is_told_in_a_sentence(old: Any, new: Any, told: list[str]) -> None:
    assert entity(old, new) == told


@pytest.mark.parametrize(
    ("path", "kind", "target"),
    [
        ("entities/a.json", "entity", "a"),
        ("pages/deep/a.b.yaml", "page", "a.b"),
        ("queues/a.yml", "queue", "a"),
        ("providers/a.toml", "provider", "a"),
        ("workflows/a.json", "workflow", "a"),
        ("tenants/a.json", "tenant", "a"),
        ("menus/a.json", "menu", "a"),
        ("assets/logo.svg", "asset", "logo.svg"),
        ("scripts/run.sh", "script", "run.sh"),
        ("other/a.json", "asset", "other/a.json"),
        ("entities", "asset", "entities"),
        ("Entities/a.json", "asset", "Entities/a.json"),
    ],
)
def test_the_first_folder_tells_what_a_file_configures(path: str, kind: str, target: str) -> None:
    [found] = changes(path, "x = 1\n" if path.endswith("toml") else "1", "x = 2\n" if path.endswith("toml") else "2")
    assert (found["configType"], found["target"]) == (kind, target)


def test_the_summary_counts_all_changes_under_every_key() -> None:
    found = diff(pair("entities/a.json", "{}", '{"a": 1, "b": 2}'), pair("README.md", "a", "b"), pair("menus/m.json", "1", "1"))
    counts = dict.fromkeys((each.value for each in ConfigType), 0) | {"entity": 2, "asset": 1}
    assert found.summary() == {"totalChanges": 3, "byConfigType": counts}


# -- Lines


@pytest.mark.parametrize(
    ("path", "old", "new", "lines"),
    [
        ("pages/a.yaml", "a: 1\n", "# c\n\na: 1\nb:\n  c: |\n    x\n    y\n\n# end\n", (4, 7)),
        ("pages/a.yaml", "a: [1]\n", "a:\r\n- 1\r\n- b:\r\n    c: 1\r\n", (3, 4)),
        ("pages/a.toml", "a = 1\n", "# c\na = 1\n\n[b]\nc = 1\nd = [\n 1,\n]\n\n[e]\n", (4, 8)),
        ("pages/a.json", "{}", '{\n "a": [\n  1\n ]}', (2, 4)),
        ("pages/a.json", "\ufeff{}", '\ufeff{\n\n"a": 1}', (3, 3)),
    ],
)
def test_lines_are_those_of_the_heads_file(path: str, old: str, new: str, lines: tuple[int, int]) -> None:
    found = changes(path, old, new)[0]
    assert (found["lineStart"], found["lineEnd"]) == lines


def test_what_is_gone_has_no_line_in_the_head_and_its_lines_in_the_base() -> None:
    [found] = changes("pages/a.yaml", "x: 1\na:\n  b: 1\n", "x: 1\n")
    assert "lineStart" not in found
    assert (found["details"]["baseLineStart"], found["details"]["baseLineEnd"]) == (2, 3)


# -- Files as a whole


def test_a_new_or_removed_file_is_one_change() -> None:
    told = records(pair("menus/a.json", None, '{"name": "Main"}'), pair("menus/b.json", '{"x": 1}', None))
    assert [each["description"] for each in told] == ["menu `Main` was added", "menu `b` was removed"]


def test_a_renamed_file_moved_and_its_changes_are_told_besides() -> None:
    old, new = '{"a": 1, "b": 2}', '{"a": 1, "b": 3}'
    first, second = records(pair("entities/new.json", old, new, old_path="entities/old.json"))
    assert first["description"] == "entity `new` moved from `entities/old.json` to `entities/new.json`"
    assert first["details"]["from"] == {"filePath": "entities/old.json", "pointer": ""}
    assert second["description"] == "`b` of entity `new` changed from 2 to 3"


def test_a_file_with_the_same_values_in_another_format_moved() -> None:
    told = records(pair("pages/a.json", '{"a": 1, "b": [2]}', None), pair("pages/a.yaml", None, "b: [2]\na: 1\n"))
    assert [(each["operation"], each["filePath"]) for each in told] == [("moved", "pages/a.yaml")]


def test_a_value_moves_between_files() -> None:
    value = {"url": "https://pay.example.com/", "retries": 3}
    told = records(
        pair("providers/a.json", json.dumps({"pay": value, "z": 1}), '{"z": 1}'),
        pair("providers/b.json", "{}", json.dumps({"pay": value})),
    )
    assert [each["description"] for each in told] == ["`pay` of provider `a` moved to `pay` of provider `b`"]
    assert told[0]["details"]["from"] == {"filePath": "providers/a.json", "pointer": "/pay"}


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("pages/a.json", '{"a": 1,\n}', "Expecting property name enclosed in double quotes (line 2)"),
        ("pages/a.json", '{"a": NaN}', "NaN is no JSON value"),
        ("pages/a.json", '{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("pages/a.json", "[" * 70 + "]" * 70, "it is nested deeper than 64 levels"),
        ("pages/a.json", "[" * 100_000, "it is nested too deep"),
        ("pages/a.json", "", "Expecting value (line 1)"),
        ("pages/a.yaml", "a: 1\nb: [\n", "did not find expected node content, while parsing a flow node (line 3)"),
        ("pages/a.yaml", "a: 1\nb: 2\na: 3\n", "the key 'a' stands twice, in the lines 1 and 3"),
        ("pages/a.yaml", "a: *b\n", "the alias *b names no anchor"),
        ("pages/a.yaml", "a: &a [*a]\n", "the alias *a names the value that it stands in"),
        ("pages/a.yaml", "a:\n  <<: 1\n", "`<<` takes a mapping, or a list of mappings"),
        ("pages/a.toml", "a = 1\na = 2\n", "Cannot overwrite a value (line 2)"),
        ("pages/a.toml", "[a]\nb = 1\n[a]\n", "Cannot declare ('a',) twice (line 3)"),
        ("pages/a.toml", b"a = '\xff'\n", "it is not UTF-8: byte 0xff (line 1)"),
        ("pages/a.json", b" " * (5 * 1024 * 1024 + 1), "it is larger than 5242880 bytes"),
    ],
)
def test_a_file_that_cant_be_read_is_a_change_that_says_so(path: str, content: str | bytes, reason: str) -> None:
    good = "x = 1\n" if path.endswith("toml") else '{"x": 1}'
    for side, old, new in (("head", good, content), ("base", content, good)):
        [found] = changes(path, old, new)
        assert found["operation"] == "modified"
        assert found["description"].endswith(f"since the {side} version can't be read: {reason}")
    [added] = changes(path, None, content)
    assert added["operation"] == "added"
    assert added["details"]["problem"]["side"] == "head"


def test_many_aliases_that_stand_for_more_than_anybody_reads_are_no_values() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    [found] = changes("pages/a.yaml", "a: 1\n", laughs)
    assert found["details"]["problem"]["reason"] == "it holds more than 100000 values"


def test_other_files_change_as_a_whole() -> None:
    assert sentences("scripts/run.sh", "a", "b") == ["script `run.sh` changed"]
    assert sentences("assets/logo.png", b"\x00a", b"\x00b") == ["asset `logo.png` changed"]
    [moved] = records(pair("assets/b.txt", "a b c", "a b d", old_path="assets/a.txt"))
    assert moved["description"] == "asset `b.txt` moved from `assets/a.txt` to `assets/b.txt`, and changed"


def test_a_change_of_mode_or_type_is_told() -> None:
    script, other = version("a", Type.EXECUTABLE), version("b", Type.SYMLINK)
    told = records(FilePair("scripts/a.sh", version("a"), script), FilePair("pages/a.json", version("{}"), other))
    assert [each["description"] for each in told] == [
        "script `a.sh` changed: its type changed from file to executable file",
        "page `a` changed: its type changed from file to symbolic link",
    ]


def test_a_file_that_is_not_compared_says_why() -> None:
    old, new = (Version(each, Type.FILE, None, "the diff is too large") for each in "ab")
    assert [each["description"] for each in records(FilePair("pages/a.json", old, new))] == [
        "page `a` changed: the diff is too large"
    ]


def test_more_changes_than_anybody_reads_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_diff_files, "MAX_FINDINGS", 2)
    assert len(entity([1, 2], [3, 4])) == 2
    assert entity([1, 2, 3], [4, 5, 6]) == ["entity `PaymentProvider` changed: more than 2 values differ, too many to list"]


# -- What formats have of their own


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (
            "a.yaml",
            "a: yes\n",
            "a: 'yes'\n",
            ['`a` of file `a.yaml` changed its type, from yes (switch) to "yes" (text)'],
        ),
        ("a.yaml", "a: 2024-01-01\n", "a: 2024-01-02\n", ["`a` of file `a.yaml` changed from 2024-01-01 to 2024-01-02"]),
        ("a.yaml", "a: .nan\n", "a: .inf\n", ["`a` of file `a.yaml` changed from .nan to .inf"]),
        ("a.yaml", "a: !x 1\n", "a: !y 1\n", ['`a` of file `a.yaml` changed its type, from !x "1" to !y "1"']),
        (
            "a.yaml",
            "1: a\n",
            '"1": a\n',
            ['the key of `1` of file `a.yaml` is of another type; its value was "a" and is "a"'],
        ),
        (
            "a.yaml",
            "b: &b {c: 1}\nd: *b\ne:\n  <<: *b\n  f: 1\n",
            "b: &b {c: 2}\nd: *b\ne:\n  <<: *b\n  f: 1\n",
            [
                "`b.c` of file `a.yaml` changed from 1 to 2",
                "`d.c` of file `a.yaml` changed from 1 to 2",
                "`e.c` of file `a.yaml` changed from 1 to 2",
            ],
        ),
        ("a.yaml", "b: &b {c: 1}\nd: *b\n", "b: {c: 1}\nd: {c: 1}\n", []),
        ("a.yaml", "a: 1\n---\nb: 1\n", "a: 1\n---\nb: 2\n", ["`b` of document 2 of file `a.yaml` changed from 1 to 2"]),
        ("a.yaml", "a: 1\n", "a: 1\n---\nb: 2\n", ["document 2 of file `a.yaml` was added: an object with 1 key"]),
        ("a.yaml", "", "a: 1\n", ["file `a.yaml` changed its type, from null to an object with 1 key"]),
        ("a.yaml", "? [a, b]\n: 1\n", "? [a, b]\n: 2\n", ['`"[\\"a\\", \\"b\\"]"` of file `a.yaml` changed from 1 to 2']),
        ("a.toml", "a = 2024-01-01\n", 'a = "2024-01-01"\n', None),
        (
            "a.toml",
            "[a]\nx = 1\n[b]\n[a.c]\ny = 1\n",
            "[a]\nx = 1\n[a.c]\ny = 2\n[b]\n",
            ["`a.c.y` of file `a.toml` changed from 1 to 2"],
        ),
        ("a.toml", "a = {b.c = 1}\n", "[a.b]\nc = 1\n", []),
        ("a.toml", "a.b = 1\n[[c]]\nid = 1\n", "[[c]]\nid = 1\n[[c]]\nid = 2\n[a]\nb = 1\n", None),
        (
            "a.json",
            f'{{"a": {"9" * 30}}}',
            f'{{"a": {"9" * 29}8}}',
            [f"`a` of file `a.json` changed from {'9' * 30} to {'9' * 29}8"],
        ),
        ("a.json", '{"a": 1e999}', '{"a": 1e998}', ["`a` of file `a.json` changed from 1e999 to 1e998"]),
    ],
)
def test_each_formats_own_values_are_compared(path: str, old: str, new: str, told: list[str] | None) -> None:
    found = sentences(path, old, new)
    assert found == told if told is not None else len(found) == 1


def test_long_values_are_shown_by_their_beginning() -> None:
    [found] = records(pair("pages/a.json", '{"a": "x"}', json.dumps({"a": "y" * 9_000})), most_shown=4_000)
    details = found["details"]
    assert details["afterTruncated"] is True
    assert "beforeTruncated" not in details
    assert details["after"] == '"' + "y" * 199
    assert found["description"] == "`a` of page `a` changed"


def test_an_id_depends_on_what_changed() -> None:
    files = [("{}", '{"a": 1}'), ("{}", '{"a": 2}'), ("{}", '{"b": 1}'), ('{"a": 1}', "{}"), ('{"a": 0}', '{"a": 1}')]
    ids = [changes(path, *each)[0]["id"] for each in files for path in ("pages/a.json", "pages/b.json")]
    ids += [changes("scripts/a.sh", "a", new)[0]["id"] for new in "bc"]
    assert len(set(ids)) == len(ids)


def test_a_file_is_compared_by_itself_so_that_its_answer_can_be_kept() -> None:
    pairs = [pair("pages/a.json", '{"a": [1, 2]}', "{}"), pair("pages/b.json", "{}", '{"b": [1, 2]}')]
    kept = [compare(each) for each in pairs]
    assert [change_record(each) for each in summarised(kept).changes] == records(*pairs)
    assert [change_record(each)["operation"] for each in summarised(kept[:1]).changes] == ["removed"]
