"""The built-in suite finds references to what is not in the repository, and says nothing of what it can't know."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conman.msuite import references
from conman.msuite.files import Checker, list_files
from tests.unit.msuite.test_msuite_findings import Where, check, found

RULE = "dangling-reference"


def refs(*texts: str) -> str:
    """A YAML file with these references, one a line."""
    return "".join(f"- $ref: {json.dumps(text)}\n" for text in texts)


def lines(where: list[Where], path: str = "a/use.yaml") -> list[int]:
    """In which lines of a file something is dangling; nothing else may be found."""
    assert {(each[0], each[3]) for each in where} <= {(path, RULE)}
    return [each[1] for each in where]


@pytest.mark.parametrize(
    ("path", "content", "line", "column", "pointer"),
    [
        ("a.json", '{"a": 1,\n "b": {"$ref": "#/c"}}', 2, 16, "/b/$ref"),
        ("a.yaml", "a: 1\nb:\n  - $ref: '#/a/b'", 3, 11, "/b/0/$ref"),
        ("a.yaml", "a: 1\n---\nb: {$ref: '#/a'}", 3, 11, "/b/$ref"),
        ("a.toml", 'a = 1\n[b]\n"$ref" = "gone.toml"', 3, 10, "/b/$ref"),
    ],
)
def test_a_reference_that_names_nothing_is_told_with_its_place(
    tmp_path: Path, path: str, content: str, line: int, column: int, pointer: str
) -> None:
    code, output, report = check(tmp_path / "root", {path: content})
    assert [(each["line"], each["column"], each["pointer"]) for each in report["findings"]] == [(line, column, pointer)]
    assert (code, report["by_rule"]) == (1, {RULE: 1})
    assert output.startswith(f"{path}:{line}:{column}: error: {RULE}: ")


FILES: dict[str, str | bytes] = {
    "types.yaml": "money: {id: money, parts: [{name: amount}, {name: currency}]}\na/b: {'~': 1}\nunknown: !secret x\n",
    "a/more.json": '{"x": [10, 20], "on": {"$ref": "../types.yaml"}}',
    "many.yaml": "one: 1\n---\ntwo: 2\n",
    "notes.txt": "not looked into",
}


def test_what_a_reference_names_is_found_from_its_folder_and_from_the_root(tmp_path: Path) -> None:
    good = refs(
        "../types.yaml",
        "types.yaml",
        "/types.yaml",
        "./more.json",
        "more.json#/x/1",
        "types.yaml#",
        "types.yaml#/money/parts/0",
        "types.yaml#/money/parts/name=currency/name",
        "types.yaml#/a~1b/~0",
        "types.yaml#/a%7E1b",
        "../notes.txt#/anything",
        "/notes.txt",
        "./more",
        "many.yaml#/two",
        "more.json#/on/behind/another/reference",
        "types.yaml#/unknown/inside/a/tag",
        "types.yaml#anchor",
        "#",
        "../a/use.yaml#/0",
        "#/3/$ref",
        "./",
        "../a",
    )
    assert found(tmp_path, {**FILES, "a/use.yaml": good}) == []


def test_each_way_to_name_nothing_is_told(tmp_path: Path) -> None:
    bad = refs(
        "gone.yaml",
        "/a/types.yaml",
        "../../types.yaml",
        "types.yaml#/mony",
        "types.yaml#/money/parts/2",
        "types.yaml#/money/parts/-",
        "types.yaml#/money/parts/name=none",
        "types.yaml#/money/id/deeper",
        "many.yaml#/three",
        "#/99",
        "#/0/$ref/none",
        "./none/",
    )
    assert lines(found(tmp_path, {**FILES, "a/use.yaml": bad})) == list(range(1, 13))


def test_what_may_mean_something_to_another_program_is_left_alone(tmp_path: Path) -> None:
    left = refs(
        "Money",
        "providers/stripe",
        "https://example.com/gone.yaml",
        "//example.com/gone.yaml",
        "urn:gone.yaml",
        "${DIR}/gone.yaml",
        "{{ dir }}/gone.yaml",
        "",
        "two\nlines.yaml",
        "x" * 1001 + ".yaml",
    )
    content: dict[str, str | bytes] = {
        "a/use.yaml": left + "- $ref: [gone.yaml]\n- $ref: 7\n- $ref: !env gone.yaml\n",
        "based.json": '{"$id": "https://example.com/x", "a": {"$ref": "gone.json"}}',
        "old.json": '{"id": "https://example.com/x", "a": {"$ref": "gone.json"}}',
        "schemas/entity.json": '{"$defs": {"a": {"$ref": "gone.json"}}}',
        "gone.txt": '{"$ref": "gone.json"}',
    }
    assert found(tmp_path, content) == []


def test_a_pointer_may_start_at_a_document_that_stands_inside_another(tmp_path: Path) -> None:
    inner = {"definitions": {"x": 1}, "use": [{"$ref": "#/definitions/x"}, {"$ref": "#/definitions/y"}]}
    content: dict[str, str | bytes] = {"a/use.yaml": json.dumps({"schema": inner}, indent=1)}
    assert len(lines(found(tmp_path, content))) == 1


def test_nothing_is_said_of_what_lies_in_a_file_that_does_not_parse(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {"b.yaml": "a: [", "a/use.yaml": refs("b.yaml#/a", "b.yaml")}
    assert [each[3] for each in found(tmp_path, content)] == ["syntax"]


def test_a_symlink_is_there_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.yaml").write_text("a: 1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.yaml").symlink_to(outside / "x.yaml")
    (root / "folder").symlink_to(outside)
    used = refs("file.yaml#/none", "folder/x.yaml#/none", "folder/none.yaml", "../outside/x.yaml")
    assert lines(found(root, {"use.yaml": used}), "use.yaml") == [4]


def test_references_in_a_circle_and_far_down_are_judged_once(tmp_path: Path) -> None:
    deep = 300
    content: dict[str, str | bytes] = {
        "a.json": '{"b": {"$ref": "b.json#/a"}}',
        "b.json": '{"a": {"$ref": "a.json#/b"}}',
        "self.json": '{"$ref": "#"}',
        "deep.json": '{"a":' * deep + '{"x": {"$ref": "#/' + "a/" * deep + 'x"}}' + "}" * deep,
        "deeper.json": '{"a":' * deep + '{"x": {"$ref": "#/' + "a/" * deep + 'y"}}' + "}" * deep,
    }
    assert [each[0] for each in found(tmp_path, content)] == ["deeper.json"]


def test_shared_values_are_visited_once_and_a_files_findings_are_bounded(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(17)]
    shared = "a0: &a0 {$ref: '#/none'}\n" + "".join(
        f"{name}: &{name} [*{before}, *{before}]\n" for before, name in pairwise(names)
    )
    content: dict[str, str | bytes] = {"a/use.yaml": shared}
    assert lines(found(tmp_path / "shared", content)) == [1]
    many = refs(*(f"#/none/{number}" for number in range(5000)), *(f"./{number}.yaml" for number in range(5000)))
    assert lines(found(tmp_path / "many", {"a/use.yaml": many})) == list(range(1, 101))


def test_a_file_is_parsed_once_for_all_who_refer_to_it_and_only_so_many_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"a": 1}'
    for name in ("x.json", "y.json", "z.json"):
        (tmp_path / name).write_text(text)
    parsed: list[str] = []

    def read(path: str) -> references.Documents:
        parsed.append(path)
        return [{"a": 1}], len(text)

    monkeypatch.setattr(references, "KEPT_CHARACTERS", 2 * len(text))
    judged = references.References(tmp_path, list_files(tmp_path).paths, read)
    for name in ("x.json", "x.json", "y.json", "x.json", "z.json", "x.json", "y.json"):
        assert judged.check("use.json", [[{"$ref": f"{name}#/a"}] * 3], lambda _: lambda _: pytest.fail()) == []
    assert parsed == ["x.json", "y.json", "z.json", "y.json"]


LATEST = "https://json-schema.org/draft/2020-12/schema"
PATH = {"format": "conman-path"}
PROVIDER = {"x-conman-ref": "providers"}
PROVIDERS: dict[str, str | bytes] = {
    "providers/stripe.yaml": "id: payments\nlimits: {soft: 1}\n",
    "providers/eu/local.v2.json": '{"items": [{"name": "sepa", "key": "sp", "id": 7}]}',
    "providers/README.md": "text",
}


def schema(**properties: Any) -> str:
    return json.dumps({"$schema": LATEST, "properties": properties})


def test_a_schema_says_which_values_are_paths(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {
        "schemas/page.json": schema(logo=PATH, all={"items": PATH}),
        "pages/good.yaml": "logo: ../img/a.png\nall: [img/a.png, /img, img/a, good.yaml, '${X}/a', 'https://e.com/x', 7]\n",
        "pages/bad.yaml": "logo: a.png\nall:\n- img/a.png\n- ../../img/a.png\n- img/a.png/deeper\n",
        "img/a.png": b"\x89PNG\0",
    }
    assert lines(found(tmp_path, content), "pages/bad.yaml") == [1, 4, 5]


def test_a_schema_says_which_values_name_what_a_folder_defines(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": schema(uses={"items": PROVIDER}),
        "pages/good.yaml": "uses: [stripe, payments, limits, local, eu/local.v2, sepa, sp, 7, README, '{{ x }}', null, true]",
        "pages/bad.yaml": "uses:\n- stripe\n- strip\n- soft\n- 8\n- eu\n",
    }
    assert lines(found(tmp_path, content), "pages/bad.yaml") == [3, 4, 5, 6]


@pytest.mark.parametrize("folder", ["/providers/", "./providers", "x/../providers"])
def test_the_folder_of_a_keyword_is_a_path_from_the_root(tmp_path: Path, folder: str) -> None:
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": schema(uses={"x-conman-ref": folder}),
        "pages/a.yaml": "uses: stripe",
        "pages/b.yaml": "uses: none",
    }
    assert lines(found(tmp_path, content), "pages/b.yaml") == [1]


@pytest.mark.parametrize("folder", ["provider", "../outside", 7, ["providers"]], ids=str)
def test_a_keyword_that_names_no_folder_is_told_where_it_is_used(tmp_path: Path, folder: Any) -> None:
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": schema(uses={"x-conman-ref": folder}),
        "pages/a.yaml": "uses: stripe",
    }
    _, output, _ = check(tmp_path / "root", content)
    assert "a.yaml:1:7: error: dangling-reference: " in output and "folder" in output


def test_a_folder_with_a_file_that_does_not_parse_may_define_anything(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {
        "providers/broken.yaml": "a: [",
        "schemas/page.json": schema(uses=PROVIDER),
        "pages/a.yaml": "uses: none",
    }
    assert [each[3] for each in found(tmp_path, content)] == ["syntax"]


@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema", None]
)
def test_the_keywords_hold_in_schemas_of_every_dialect_and_in_those_that_others_refer_to(
    tmp_path: Path, dialect: str | None
) -> None:
    named = {"$schema": dialect} if dialect else {}
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": json.dumps({**named, "allOf": [{"$ref": "parts/common.json#/definitions/uses"}]}),
        "schemas/parts/common.json": json.dumps({**named, "definitions": {"uses": {"properties": {"uses": PROVIDER}}}}),
        "pages/a.yaml": "uses: none",
    }
    assert lines(found(tmp_path, content), "pages/a.yaml") == [1]


def test_a_value_that_may_be_a_name_or_something_else_fails_only_if_it_is_neither(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": schema(uses={"anyOf": [PROVIDER, {"const": "none"}]}),
        "pages/a.yaml": "uses: none",
        "pages/b.yaml": "uses: stripe",
        "pages/c.yaml": "uses: nothing",
    }
    assert [(each[0], each[3]) for each in found(tmp_path, content)] == [("pages/c.yaml", "schema")]


def test_a_value_with_a_custom_tag_is_not_judged(tmp_path: Path) -> None:
    content: dict[str, str | bytes] = {
        **PROVIDERS,
        "schemas/page.json": schema(uses=PROVIDER, logo=PATH),
        "pages/a.yaml": "uses: !env NAME\nlogo: !env PATH\n",
    }
    assert found(tmp_path, content) == []


def test_a_reference_to_a_folder_that_can_not_be_read_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "use.yaml").write_text(refs("closed/x.yaml", "open/x.yaml"))
    checker = Checker(tmp_path, ["use.yaml"])
    lstat = references.os.lstat

    def guarded(path: Path) -> Any:
        if "closed" in path.parts:
            raise PermissionError
        return lstat(path)

    monkeypatch.setattr(references.os, "lstat", guarded)
    assert [(each.line, each.rule) for each in checker.check("use.yaml")] == [(2, RULE)]
