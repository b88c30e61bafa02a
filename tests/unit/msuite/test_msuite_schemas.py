"""Files match the JSON Schemas that the repository keeps under `schemas/` (`spec.md` 9)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from conman.msuite.main import run

ENTITY: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer", "minimum": 1}},
    "required": ["name"],
    "additionalProperties": False,
}


def findings(root: Path, contents: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the files (what is no text as JSON) and run the suite; the findings of its report."""
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content if isinstance(content, str) else json.dumps(content))
    report = root.parent / f"{root.name}.json"
    run(root, report, io.StringIO())
    return json.loads(report.read_text())["findings"]


def places(root: Path, contents: dict[str, Any]) -> list[tuple[Any, ...]]:
    keys = ("path", "line", "column", "rule", "pointer")
    return [tuple(each.get(key) for key in keys) for each in findings(root, contents)]


@pytest.mark.parametrize(
    ("path", "content", "line", "column"),
    [
        ("entities/a.json", '{"name": "a",\n  "size": 0}', 2, 11),
        ("entities/deep/er/a.json", '{"name": "a", "size": 0}', 1, 23),
        ("entities/a.yaml", "name: a\nsize: 0\n", 2, 7),
        ("entities/a.yml", "name: ok\n---\nname: a\nsize: 0\n", 4, 7),
        ("entities/a.toml", 'name = "a"\nsize = 0\n', 2, 8),
        ("entities.json", '{"name": "a", "size": 0}', 1, 23),
    ],
)
def test_a_mismatch_is_told_with_its_pointer_and_the_place_of_the_value(
    tmp_path: Path, path: str, content: str, line: int, column: int
):
    assert places(tmp_path, {"schemas/entities.schema.json": ENTITY, path: content}) == [(path, line, column, "schema", "/size")]


@pytest.mark.parametrize(
    ("schema", "path", "held"),
    [
        ("schemas/pages.schema.json", "pages/a.json", True),
        ("schemas/pages.json", "pages/a.json", True),
        ("schemas/pages.schema.yaml", "pages/a.json", True),
        ("schemas/pages.yml", "pages/a.json", True),
        ("schemas/page.schema.json", "pages/a.json", True),
        ("schemas/entity.json", "entities/a.json", True),
        ("schemas/page.schema.json", "page/a.json", True),
        ("schemas/pages.schema.json", "a/pages/a.json", False),
        ("schemas/pages.schema.json", "pages2/a.json", False),
        ("schemas/pages.schema.json", "other/pages.json", False),
        ("schemas/pages.schema.json", "pages.json", True),
        ("schemas/a/b.schema.json", "a/b/c.json", True),
        ("schemas/a/b.schema.json", "a/b.json", True),
        ("schemas/a/b.schema.json", "a/c.json", False),
        ("other/pages.schema.json", "pages/a.json", False),
        ("schemas/a/b.schema.json", "schemas/x/c.json", False),
    ],
)
def test_a_schema_holds_for_the_folder_of_its_name(tmp_path: Path, schema: str, path: str, held: bool):
    found = places(tmp_path, {schema: ENTITY, path: {}})
    assert [(where, rule) for where, _, _, rule, _ in found] == ([(path, "schema")] if held else [])


def test_the_most_specific_schema_counts(tmp_path: Path):
    contents = {
        "schemas/a.json": {"required": ["outer"]},
        "schemas/a/b.json": {"required": ["inner"]},
        "a/x.json": {"outer": 1},
        "a/b/x.json": {"inner": 1},
        "a/b/c/x.json": {"inner": 1},
    }
    assert places(tmp_path, contents) == []


def test_a_folder_s_own_name_comes_before_the_name_of_its_config_type(tmp_path: Path):
    contents = {"schemas/entity.json": False, "schemas/entities.json": True, "entities/a.json": {}}
    assert places(tmp_path, contents) == []


def test_a_file_may_name_a_schema_of_its_own(tmp_path: Path):
    contents = {
        "kinds/thing.json": {"properties": {"size": {"type": "integer"}}, "additionalProperties": False},
        "a/x.json": {"$schema": "../kinds/thing.json", "size": 1},
        "a/y.json": '{"$schema": "../kinds/thing.json",\n"size": "big"}',
        "a/z.yaml": '$schema: "../kinds/thing.json"\nsize: big\n',
    }
    assert places(tmp_path, contents) == [
        ("a/y.json", 2, 9, "schema", "/size"),
        ("a/z.yaml", 2, 7, "schema", "/size"),
    ]


def test_a_schema_of_its_own_does_not_free_a_file_from_its_folder_s(tmp_path: Path):
    contents = {
        "schemas/a.json": {"required": ["name"]},
        "easy.json": True,
        "a/x.json": {"$schema": "../easy.json"},
    }
    assert [each[0] for each in places(tmp_path, contents)] == ["a/x.json"]


@pytest.mark.parametrize(
    "reference", ["../missing.json", "../../outside.json", "/etc/passwd", "../link.json", "x\u0000.json", "../folder"]
)
def test_a_schema_outside_of_the_repository_is_refused(tmp_path: Path, reference: str):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "outside.json").write_text("true")
    (root / "link.json").symlink_to(tmp_path / "outside.json")
    assert places(root, {"a/x.json": {"$schema": reference}}) == [("a/x.json", 1, 13, "schema-reference", "/$schema")]


@pytest.mark.parametrize("reference", ["https://example.com/x.json", "urn:x", "#", "", 7])
def test_a_url_in_schema_names_no_file(tmp_path: Path, reference: Any):
    assert places(tmp_path, {"a/x.json": {"$schema": reference}}) == []


@pytest.mark.parametrize(
    ("schema", "line", "column", "pointer"),
    [
        ('{"type":\n "strnig"}', 2, 2, "/type"),
        ('{"properties": {"a": {"minimum": "1"}}}', 1, 34, "/properties/a/minimum"),
        ('{"properties": {"a": {"pattern": "("}}}', 1, 34, "/properties/a/pattern"),
        ('{"patternProperties": {"[": {}}}', 1, 23, "/patternProperties"),
        ('{"$schema": "https://example.com/mine"}', 1, 13, "/$schema"),
        ('{"$schema": ["x"]}', 1, 13, "/$schema"),
        ("[]", 1, 1, None),
        ('"text"', 1, 1, None),
    ],
)
def test_a_schema_that_is_none_is_a_finding_also_when_no_file_needs_it(
    tmp_path: Path, schema: str, line: int, column: int, pointer: str | None
):
    found = places(tmp_path, {"schemas/a.schema.json": schema})
    assert found == [("schemas/a.schema.json", line, column, "schema-invalid", pointer)]
    assert places(tmp_path, {"a/x.json": {}, "a/y.json": {}}) == found


def test_a_schema_that_does_not_parse_is_told_once(tmp_path: Path):
    found = places(tmp_path, {"schemas/a.json": "{", "a/x.json": {}, "a/y.json": {}})
    assert [(path, rule) for path, _, _, rule, _ in found] == [("schemas/a.json", "syntax")]


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"a": {"type": "integer"}},
            "$ref": "#/definitions/a",
        },
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a"},
        {"$ref": "parts/int.json"},
        {"$ref": "./parts/int.json#/$defs/int"},
        {"$id": "https://example.com/mine", "$ref": "int"},
        {"$ref": "https://example.com/int"},
        {"properties": {"pattern": {"type": "string"}}, "default": {"pattern": "("}, "type": "integer"},
    ],
    ids=str,
)
def test_dialects_and_references_between_schemas_are_understood(tmp_path: Path, schema: Any):
    parts = {"$id": "https://example.com/int", "$defs": {"int": {"type": "integer"}}, "type": "integer"}
    contents = {"schemas/a.schema.json": schema, "schemas/parts/int.json": parts, "a/x.json": 1}
    assert places(tmp_path, contents) == []
    wrong = places(tmp_path, {"a/x.json": "text" if schema in (True, {}) else '"text"'})
    assert [rule for _, _, _, rule, _ in wrong] == (["syntax"] if schema in (True, {}) else ["schema"])


def test_the_dialect_s_own_schema_may_be_referred_to(tmp_path: Path):
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    contents = {"schemas/a.json": meta, "a/x.json": {"type": "object"}, "a/y.json": {"type": 7}}
    assert ("a/y.json", "schema") in {(path, rule) for path, _, _, rule, _ in places(tmp_path, contents)}


@pytest.mark.parametrize(
    "reference",
    ["missing.json", "../../outside.json", "https://example.com/none", "file:///etc/hostname", "#/$defs/none"],
)
def test_a_schema_that_refers_to_what_is_not_there_is_told_once(tmp_path: Path, reference: str):
    contents = {"schemas/a.json": {"$ref": reference}, "a/x.json": 1, "a/y.json": 2}
    found = findings(tmp_path, contents)
    assert [(each["path"], each["rule"]) for each in found] == [("schemas/a.json", "schema-invalid")]


def test_a_pattern_that_an_old_dialect_does_not_check_is_told(tmp_path: Path):
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {"(": {}}}
    found = findings(tmp_path, {"schemas/a.json": old, "a/x.json": {"b": 1}})
    assert [(each["path"], each["rule"]) for each in found] == [("schemas/a.json", "schema-invalid")]


def test_a_schema_that_refers_to_itself_without_end_is_told(tmp_path: Path):
    found = findings(tmp_path, {"schemas/a.json": {"$ref": "#"}, "a/x.json": 1})
    assert [(each["path"], each["rule"]) for each in found] == [("schemas/a.json", "schema-invalid")]


def test_values_with_a_custom_tag_are_not_judged(tmp_path: Path):
    schema = {
        "type": "object",
        "properties": {
            "port": {"type": "integer"},
            "host": {"type": "string"},
            "either": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
            "map": {"type": "object", "required": ["x"], "properties": {"y": {"type": "integer"}}},
        },
        "required": ["port"],
    }
    tagged = "port: !secret p\nhost: !Ref h\neither: [1, !x y]\nmap: !Sub {y: text}\n"
    assert places(tmp_path, {"schemas/a.json": schema, "a/x.yaml": tagged}) == []
    assert places(tmp_path, {"a/x.yaml": "host: !Ref h\neither: text\nport: !x 1\n"}) == [("a/x.yaml", 2, 9, "schema", "/either")]


def test_pointers_are_escaped_and_messages_are_kept_short(tmp_path: Path):
    contents = {"schemas/a.json": {"additionalProperties": {"type": "integer"}}, "a/x.json": {"a/b~c": "x" * 5000}}
    (found,) = findings(tmp_path, contents)
    assert found["pointer"] == "/a~1b~0c"
    assert len(found["message"]) < 400 and "schemas/a.json" in found["message"]


def test_only_the_first_mismatches_of_a_document_are_told(tmp_path: Path):
    contents = {"schemas/a.json": {"items": {"type": "integer"}}, "a/x.json": ["text"] * 50}
    assert len(findings(tmp_path, contents)) == 20


def test_times_of_toml_are_text_for_a_schema(tmp_path: Path):
    schema = {"properties": {"on": {"type": "string", "pattern": "^2024-01-02$"}}}
    assert places(tmp_path, {"schemas/a.json": schema, "a/x.toml": "on = 2024-01-02\n"}) == []


def test_a_file_that_is_wrong_already_is_not_judged_by_its_schema(tmp_path: Path):
    contents = {"schemas/a.json": {"type": "array"}, "a/x.json": '{"a": 1', "a/y.yaml": "a: *b"}
    assert [rule for _, _, _, rule, _ in places(tmp_path, contents)] == ["syntax", "yaml-alias"]
