"""Conflicts by key and their resolution in place, on files as teams keep them (`spec.md` 7, `api.md` sync-integration)."""

from __future__ import annotations

from typing import Any

import pytest
from rule_samples import refused

from conman.domain.errors import ErrorCode
from conman.domain.key_merge import (
    ABSENT,
    MAX_BYTES,
    Format,
    KeyChoice,
    KeyConflict,
    Take,
    format_of,
    key_conflicts,
    resolve_keys,
)

ALL = list(Format)


@pytest.mark.parametrize(
    ("path", "fmt"),
    [
        ("app.json", Format.JSON),
        ("a/b/APP.YAML", Format.YAML),
        ("x.prod.yml", Format.YAML),
        ("pyproject.Toml", Format.TOML),
        ("json", None),
        ("a.json/readme", None),
        (".json", None),
        ("app.jsonc", None),
        ("a.json5", None),
    ],
)
def test_the_ending_names_the_format(path: str, fmt: Format | None) -> None:
    assert format_of(path) is fmt


def merged(fmt: Format, base: str | None, ours: str, theirs: str, *choices: KeyChoice) -> str:
    return resolve_keys(fmt, None if base is None else base.encode(), ours.encode(), theirs.encode(), choices).decode()


def conflicts(fmt: Format, base: str | None, ours: str, theirs: str) -> tuple[KeyConflict, ...] | None:
    return key_conflicts(fmt, None if base is None else base.encode(), ours.encode(), theirs.encode())


def edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


YAML_FILE = """\
# Payments service.  Owner: team-pay
service:
    name: 'payments'      # shown in the console
    port: 8080
    # seconds
    timeout: 30

    limits: {cpu: 2, memory: "1Gi"}
servers:
- name: eu-1
  host: eu1.example.com
  # keep in sync with DNS
  weight: 10
- name: us-1
  host: us1.example.com
banner: |
  Welcome,
    dear customer!
ключ/путь~1: да
empty:
"""

TOML_FILE = """\
# Payments service
title = "payments"
"quoted key" = 'C:\\temp'
limits.cpu = 2          # cores
limits.memory = "1Gi"
since = 2024-05-01

[server]  # the front
hosts = [
  "a",  # first
  "b",
]
retry = { max = 3, wait = 1.5 }

# Replicas
[[replica]]
name = "eu"
weight = 10

[[replica]]
name = "us"
weight = 20
"""

JSON_FILE = """\
{
    "name": "payments",
    "limits": { "cpu": 2, "memory": "1Gi" },
    "big": 12345678901234567890123,
    "rate": 1.50,
    "replicas": [
        { "id": 1, "weight": 10 },
        { "id": 2, "weight": 20 }
    ],
    "a/b~c": null
}
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("fmt", "base", "ours", "theirs", "wanted"),
    [
        pytest.param(
            Format.YAML,
            YAML_FILE,
            [("port: 8080", "port: 9090"), ("weight: 10", "weight: 11")],
            [
                ("timeout: 30", "timeout: 60  # longer"),
                ("cpu: 2", "cpu: 4"),
                ("    dear", "    dearest"),
                ("empty:", "empty: no"),
            ],
            [("timeout: 30", "timeout: 60"), ("cpu: 2", "cpu: 4"), ("    dear", "    dearest"), ("empty:", "empty: no")],
            id="yaml-values",
        ),
        pytest.param(
            Format.YAML,
            YAML_FILE,
            [("port: 8080", "port: 9090")],
            [
                ("    timeout: 30\n", "    timeout: 30\n    # Added for the audit\n    audit:\n      to: [a, b]  # who\n"),
                ("  # keep in sync with DNS\n  weight: 10\n", ""),
                ("- name: us-1\n", "- name: ap-1\n  host: ap1.example.com\n- name: us-1\n"),
                (', memory: "1Gi"', ""),
            ],
            [
                ("    timeout: 30\n", "    timeout: 30\n    # Added for the audit\n    audit:\n      to: [a, b]  # who\n"),
                ("  # keep in sync with DNS\n  weight: 10\n", ""),
                ("- name: us-1\n", "- name: ap-1\n  host: ap1.example.com\n- name: us-1\n"),
                (', memory: "1Gi"', ""),
            ],
            id="yaml-keys-come-and-go-with-their-comments",
        ),
        pytest.param(
            Format.YAML,
            "# Old\na: 1\nb:\n  # Older\n  c: 1\n  d: 2\n",
            [("d: 2", "d: 3")],
            [("# Old\na: 1\n", ""), ("  # Older\n  c: 1\n", "")],
            [("# Old\na: 1\n", ""), ("  # Older\n  c: 1\n", "")],
            id="yaml-the-first-keys-go-with-their-comments",
        ),
        pytest.param(
            Format.YAML,
            YAML_FILE,
            [("    # seconds\n    timeout: 30\n", "    # in whole seconds\n    timeout: 30\n")],
            [("    # seconds\n    timeout: 30\n", "")],
            [("    timeout: 30\n", "")],
            id="yaml-a-comment-that-ours-wrote-stays",
        ),
        pytest.param(
            Format.TOML,
            TOML_FILE,
            [("limits.cpu = 2 ", "limits.cpu = 3 "), ("weight = 20", "weight = 21")],
            [
                ('limits.memory = "1Gi"\n', 'limits.memory = "1Gi"\nlimits.disk = "9Gi" # new\n'),
                ("max = 3, ", ""),
                ("weight = 10", "weight = 12"),
                ('[[replica]]\nname = "us"', '# Asia\n[[replica]]\nname = "ap"\n\n[[replica]]\nname = "us"'),
                ("2024-05-01", "2024-06-01"),
                ("# Replicas", "[client]\nsize = 1\n\n# Replicas"),
            ],
            [
                ('limits.memory = "1Gi"\n', 'limits.memory = "1Gi"\nlimits.disk = "9Gi" # new\n'),
                ("max = 3, ", ""),
                ("weight = 10", "weight = 12"),
                ('[[replica]]\nname = "us"', '# Asia\n[[replica]]\nname = "ap"\n\n[[replica]]\nname = "us"'),
                ("2024-05-01", "2024-06-01"),
                ("# Replicas", "[client]\nsize = 1\n\n# Replicas"),
            ],
            id="toml",
        ),
        pytest.param(
            Format.TOML,
            TOML_FILE,
            [('title = "payments"', 'title = "pay"')],
            [('# Replicas\n[[replica]]\nname = "eu"\nweight = 10\n\n', "")],
            [('# Replicas\n[[replica]]\nname = "eu"\nweight = 10\n\n', "")],
            id="toml-a-table-goes-with-its-comment",
        ),
        pytest.param(
            Format.JSON,
            JSON_FILE,
            [('"rate": 1.50', '"rate": 2.50')],
            [
                ('"cpu": 2', '"cpu": 4, "disk": 9'),
                ("23,", "24,"),
                ('        { "id": 1, "weight": 10 },\n', '        { "id": 3 },\n        { "id": 1, "weight": 10 },\n'),
                (', "weight": 20', ""),
                ('"a/b~c": null', '"a/b~c": null,\n    "x": {\n        "y": []\n    }'),
            ],
            [
                ('"cpu": 2', '"cpu": 4, "disk": 9'),
                ("23,", "24,"),
                ('        { "id": 1, "weight": 10 },\n', '        { "id": 3 },\n        { "id": 1, "weight": 10 },\n'),
                (', "weight": 20', ""),
                ('"a/b~c": null', '"a/b~c": null,\n    "x": {\n        "y": []\n    }'),
            ],
            id="json",
        ),
    ],
)
def test_what_only_theirs_changed_comes_as_theirs_wrote_it_and_the_rest_stays_byte_for_byte(
    fmt: Format, base: str, ours: Any, theirs: Any, wanted: Any, newline: str, bom: str
) -> None:
    mine = edited(base, *ours)
    files = [each.replace("\n", newline) for each in (base, bom + mine, edited(base, *theirs))]
    assert conflicts(fmt, *files) == ()
    assert merged(fmt, *files) == bom + edited(mine, *wanted).replace("\n", newline)


@pytest.mark.parametrize(
    ("fmt", "base", "ours", "theirs", "found"),
    [
        (Format.JSON, '{"a": 1}', '{"a": 2}', '{"a": 3}', [("/a", 1, 2, 3)]),
        (Format.JSON, '{"a": 1}', '{"a": 2}', '{"a": 2.0}', [("/a", 1, 2, 2.0)]),
        (Format.JSON, '{"a/b": {"c~d": 1}}', '{"a/b": {"c~d": 2}}', '{"a/b": {}}', [("/a~1b/c~0d", 1, 2, ABSENT)]),
        (Format.JSON, "{}", '{"é": 1, "x": 1}', '{"\\u00e9": 2, "y": 2}', [("/é", ABSENT, 1, 2)]),
        (Format.JSON, None, '{"a": {"x": 1, "z": 0}}', '{"a": {"x": 2, "y": 3}}', [("/a/x", ABSENT, 1, 2)]),
        (Format.JSON, '{"a": [1, 2]}', '{"a": [1]}', '{"a": [2]}', [("/a", [1, 2], [1], [2])]),
        (Format.JSON, '{"a": {"b": 1}}', "{}", '{"a": {"b": 2}}', [("/a", {"b": 1}, ABSENT, {"b": 2})]),
        (
            Format.JSON,
            '{"a": 1}',
            '{"a": 0.1000000000000000055511}',
            '{"a": 1e999}',
            [("/a", 1, "0.1000000000000000055511", "1e999")],
        ),
        (Format.JSON, '{"a": {"b": 1}}', '{"a": {"b": 2, "c": 1}}', '{"a": [1]}', [("/a", {"b": 1}, {"b": 2, "c": 1}, [1])]),
        (
            Format.YAML,
            "a: 2024-05-01\n",
            "a: 2024-05-02\n",
            "a: 2024-05-03\n",
            [("/a", "2024-05-01", "2024-05-02", "2024-05-03")],
        ),
        (Format.YAML, "a: NO\n", 'a: "NO"\n', "a: false\n", [("/a", "NO", "NO", False)]),
        (Format.YAML, "a: !Ref x\n", "a: !Ref y\n", "a: .inf\n", [("/a", {"!Ref": "x"}, {"!Ref": "y"}, ".inf")]),
        (Format.YAML, "8080: a\n", "8080: b\n", "8080:\n", [("/8080", "a", "b", None)]),
        (
            Format.TOML,
            "a = 1979-05-27 07:32:00z\n",
            "a = nan\n",
            "a = 07:32:00\n",
            [("/a", "1979-05-27T07:32:00Z", "nan", "07:32:00")],
        ),
        (Format.TOML, "a.b = 1\n", "[a]\nb = 2\n", "a = { b = 3 }\n", [("/a/b", 1, 2, 3)]),
    ],
)
def test_a_conflict_is_the_smallest_subtree_that_both_sides_changed_differently(
    fmt: Format, base: str | None, ours: str, theirs: str, found: list[tuple[Any, ...]]
) -> None:
    answer = conflicts(fmt, base, ours, theirs)
    assert answer == tuple(KeyConflict(*each) for each in found)
    assert [type(each.theirs) for each in answer or ()] == [type(each[3]) for each in found]


LISTS = '{"l": [{"name": "a/x", "v": 1}, {"name": "b", "v": 1}, {"name": "c", "v": 1}]}'


def test_items_with_a_natural_key_are_named_by_it_wherever_they_stand() -> None:
    ours = '{"l": [{"name": "new", "v": 0}, {"name": "a/x", "v": 2}, {"name": "c", "v": 1}]}'
    theirs = '{"l": [{"name": "a/x", "v": 3}, {"name": "b", "v": 3}, {"name": "c", "v": 1}]}'
    assert conflicts(Format.JSON, LISTS, ours, theirs) == (
        KeyConflict("/l/name=a~1x/v", 1, 2, 3),
        KeyConflict("/l/name=b", {"name": "b", "v": 1}, ABSENT, {"name": "b", "v": 3}),
    )
    taken = merged(Format.JSON, LISTS, ours, theirs, *(KeyChoice(each, Take.THEIRS) for each in ("/l/name=a~1x/v", "/l/name=b")))
    assert taken == '{"l": [{"name": "new", "v": 0}, {"name": "a/x", "v": 3}, {"name": "b", "v": 3}, {"name": "c", "v": 1}]}'


@pytest.mark.parametrize(
    "ours",
    [
        '{"l": [{"name": "b", "v": 2}, {"name": "a/x", "v": 1}, {"name": "c", "v": 1}]}',
        '{"l": [{"name": "b", "v": 2}, {"name": "b", "v": 1}]}',
        '{"l": [{"name": "b", "v": 2}, {"v": 1}]}',
        '{"l": [{"name": "b", "v": 2}, 1]}',
        '{"l": [{"name": true, "v": 2}]}',
    ],
    ids=["another order", "twice the same name", "no name", "no mapping", "a name that is no text"],
)
def test_a_list_without_a_natural_key_in_one_order_is_one_value(ours: str) -> None:
    found = conflicts(Format.JSON, LISTS, ours, LISTS.replace('"c", "v": 1', '"c", "v": 9'))
    assert found is not None
    assert [each.pointer for each in found] == ["/l"]


@pytest.mark.parametrize(
    ("fmt", "text", "why"),
    [
        (Format.JSON, '{"a": 1, "a": 2}', "a key twice"),
        (Format.JSON, '{"a": 1} // no', "a comment"),
        (Format.JSON, '{"a": NaN}', "no JSON number"),
        (Format.JSON, '{"a": "\\ud800"}', "half a surrogate pair"),
        (Format.JSON, '{"a": ' + "[" * 70 + "]" * 70 + "}", "too deep"),
        (Format.JSON, '{"a": "' + "x" * MAX_BYTES + '"}', "too large"),
        (Format.YAML, "a: 1\n---\nb: 1\n", "several documents"),
        (Format.YAML, "a: &x 1\nb: *x\n", "anchors"),
        (Format.YAML, "a: 1\n<<: {b: 1}\n", "a merge key"),
        (Format.YAML, "? a\n: 1\n", "an explicit key"),
        (Format.YAML, "a: 1\n'a': 2\n", "a key twice"),
        (Format.YAML, "%YAML 1.1\n---\na: 1\n", "a directive"),
        (Format.YAML, "a: |+\n  x\n\n", "kept line breaks"),
        (Format.YAML, "a: |\n  x", "a block scalar without a line end"),
        (Format.YAML, "a: [b: 1]\n", "a pair without braces"),
        (Format.YAML, "a: 1\rb: 2\r", "other line breaks"),
        (Format.TOML, "[a]\nx = 1\n[b]\n[a.c]\n", "a table in two places"),
        (Format.TOML, "a = {b.c = 1}\n", "dotted keys in an inline table"),
        (Format.TOML, "a = 1\na = 2\n", "a key twice"),
    ],
)
def test_a_file_that_is_not_safe_to_edit_by_key_is_resolved_as_a_whole(fmt: Format, text: str, why: str) -> None:
    safe = {Format.JSON: '{"z": 1}', Format.YAML: "z: 1\n", Format.TOML: "z = 1\n"}[fmt]
    for versions in ((text, safe, safe), (safe, text, safe), (safe, safe, text)):
        assert conflicts(fmt, *versions) is None, why
        refused(ErrorCode.VALIDATION_ERROR, lambda versions=versions: merged(fmt, *versions))


def test_a_missing_side_a_broken_encoding_and_roots_that_differ_are_resolved_as_a_whole() -> None:
    assert key_conflicts(Format.JSON, b"{}", None, b"{}") is None
    assert key_conflicts(Format.JSON, b"{}", b"{}", None) is None
    assert key_conflicts(Format.JSON, b"{}", b"{}", b'{"\xff": 1}') is None
    assert key_conflicts(Format.JSON, b"[1]", b"[1, 2]", b"[1]") is None
    assert key_conflicts(Format.YAML, b"a: 1\n", b"", b"a: 2\n") is None
    assert key_conflicts(Format.YAML, b"1: a\n", b"'1': a\n", b"1: b\n") is None
    assert key_conflicts(Format.JSON, b"[1]", b"[1] ", b"[1]") == ()


CONFLICT = ('{"a": 1, "b": 1}', '{"a": 2, "b": 2}', '{"a": 3, "b": 3}')
OURS_B = KeyChoice("/b", Take.OURS)


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ([OURS_B], "/a"),
        ([OURS_B, OURS_B, KeyChoice("/a", Take.OURS)], "/b"),
        ([OURS_B, KeyChoice("/a", Take.OURS), KeyChoice("/c", Take.OURS)], "/c"),
        ([OURS_B, KeyChoice("/a", Take.VALUE)], "/a"),
        ([OURS_B, KeyChoice("/a", Take.THEIRS, 1)], "/a"),
        ([OURS_B, KeyChoice("/a", Take.VALUE, float("nan"))], "/a"),
        ([OURS_B, KeyChoice("/a", Take.VALUE, "\ud800")], "/a"),
    ],
    ids=["missing", "doubled", "unknown", "no value", "a value too many", "no finite number", "half a surrogate pair"],
)
def test_each_conflict_needs_exactly_one_choice_that_can_be_written(choices: list[KeyChoice], named: str) -> None:
    error = refused(ErrorCode.VALIDATION_ERROR, lambda: merged(Format.JSON, *CONFLICT, *choices))
    assert error.details[0]["field"] == "resolutions"
    assert repr(named) in error.message


@pytest.mark.parametrize("bad", [None, [1, None], 2**63], ids=repr)
def test_toml_refuses_what_it_has_no_value_for(bad: Any) -> None:
    error = refused(
        ErrorCode.VALIDATION_ERROR,
        lambda: merged(Format.TOML, "a = 1\n", "a = 2\n", "a = 3\n", KeyChoice("/a", Take.VALUE, bad)),
    )
    assert "'/a'" in error.message


GIVEN: Any = {"yes": ["on", 1, 1.5, None, {"k": []}], "t": "l1\nl2\t'\"\\"}


@pytest.mark.parametrize(
    ("fmt", "versions", "choice", "wanted"),
    [
        (Format.JSON, ('{\n  "a": 1\n}', '{\n  "a": 2\n}', "{}"), KeyChoice("/a", Take.THEIRS), "{}"),
        (Format.JSON, ('{"a": 1}', '{"a":  2}', '{"a": [ 3 ]}'), KeyChoice("/a", Take.THEIRS), '{"a":  [ 3 ]}'),
        (Format.JSON, ('{"a": 1}', '{"a":  2}', '{"a": 3}'), KeyChoice("/a", Take.BASE), '{"a":  1}'),
        (
            Format.JSON,
            ('{\n  "a": 1\n}', '{\n  "a": 2\n}', '{\n  "a": 3\n}'),
            KeyChoice("/a", Take.VALUE, {"é": [1]}),
            '{\n  "a": {\n    "é": [\n      1\n    ]\n  }\n}',
        ),
        (Format.YAML, ("a: 1 # c\n", "a: 2   # c\n", "a: 3\n"), KeyChoice("/a", Take.VALUE, "yes"), 'a: "yes"   # c\n'),
        (Format.YAML, ("a: yes\n", "a: no\n", "a: off\n"), KeyChoice("/a", Take.VALUE, "on"), "a: on\n"),
        (Format.YAML, ("a: 1\n", "a: 2 # c\n", "a:\n  b: 3\n"), KeyChoice("/a", Take.THEIRS), "a: # c\n  b: 3\n"),
        (Format.YAML, ("a: 1\n", "a: 2 # c\n", "a: |\n  x\n"), KeyChoice("/a", Take.THEIRS), "a: | # c\n  x\n"),
        (Format.YAML, ("a: 1\n", "a: # c\n  b: 2\nz: 1\n", "a: 3\n"), KeyChoice("/a", Take.THEIRS), "a: 3 # c\nz: 1\n"),
        (Format.YAML, ("a: 1\n", "a: 2\n", "{}\n"), KeyChoice("/a", Take.THEIRS), "{}\n"),
        (
            Format.YAML,
            ("a: 1\n", "a: 2", "a: 3\n"),
            KeyChoice("/a", Take.VALUE, GIVEN),
            'a:\n  "yes":\n    - "on"\n    - 1\n    - 1.5\n    - null\n    - k: []\n  t: "l1\\nl2\\t\'\\"\\\\"',
        ),
        (
            Format.YAML,
            ("l:\n- id: 1\n- id: 2\n", "l:\n- id: 1\n  x: 1\n- id: 2\n", "l:\n- id: 2\n"),
            KeyChoice("/l/id=1", Take.VALUE, ["a", 1]),
            "l:\n- - a\n  - 1\n- id: 2\n",
        ),
        (Format.YAML, ("{}\n", "'': 1\nb: 1\n", "'': 2\n"), KeyChoice("/", Take.THEIRS), "'': 2\nb: 1\n"),
        (Format.TOML, ("a = 1\n", "a = 2 # c\n", "[a]\nb = 3\n"), KeyChoice("/a", Take.THEIRS), "a = { b = 3 } # c\n"),
        (
            Format.TOML,
            ("x = 1\n[a]\nb = 1\n", "x = 1\n\n[a]\nb = 2\n\n[z]\n", "x = 1\na = 3\n"),
            KeyChoice("/a", Take.THEIRS),
            "x = 1\na = 3\n\n[z]\n",
        ),
        (
            Format.TOML,
            ("a = 2024-05-01\n", "a = 2024-05-02\n", "a = 2024-05-03\n"),
            KeyChoice("/a", Take.VALUE, "2024-05-04"),
            "a = 2024-05-04\n",
        ),
        (
            Format.TOML,
            ("a = 1\n", "a = 2024-05-02\n", "a = 2\n"),
            KeyChoice("/a", Take.VALUE, "2024-05-04"),
            'a = "2024-05-04"\n',
        ),
        (Format.TOML, ("[a]\nb = 1\n", "[a.b]\nc = 1\n", "[a]\nb = 2\n"), KeyChoice("/a/b", Take.THEIRS), "[a]\nb = 2\n"),
    ],
)
def test_a_conflicting_key_gets_what_was_chosen_in_the_style_of_the_file(
    fmt: Format, versions: tuple[str, str, str], choice: KeyChoice, wanted: str
) -> None:
    assert merged(fmt, *versions, choice) == wanted


def test_ours_is_kept_byte_for_byte_where_every_choice_is_ours() -> None:
    ours = "# c\nports:   [ 80,443 ]   # x\n\n\nz: 'a'"
    assert merged(Format.YAML, "ports: [80]\n", ours, "ports: [81]\n", KeyChoice("/ports", Take.OURS)) == ours


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_a_file_that_both_sides_added_is_merged_without_a_base(fmt: Format) -> None:
    ours, theirs = {
        Format.JSON: ('{"a": 1}', '{"b": 2}'),
        Format.YAML: ("a: 1\n", "b: 2\n"),
        Format.TOML: ("a = 1\n", "b = 2\n"),
    }[fmt]
    both = {Format.JSON: '{"b": 2, "a": 1}', Format.YAML: "b: 2\na: 1\n", Format.TOML: "b = 2\na = 1\n"}[fmt]
    assert merged(fmt, None, ours, theirs) == both
