"""The built-in suite finds what is wrong in JSON, YAML and TOML files, and says where (`spec.md` 9)."""

from __future__ import annotations

import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.scanner import ScannerError

from conman.msuite import files, json_format, main, toml_format, yaml_format
from conman.msuite.main import run

OURS = "<<<<<<< ours"
THEIRS = ">>>>>>> theirs"

Where = tuple[str, int, int, str]


def check(root: Path, contents: dict[str, str | bytes], name: str = "report.json") -> tuple[int, str, dict[str, Any]]:
    """Write the files, run the suite: exit code, output, report."""
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    report = root.parent / f"{root.name}.{name}"
    out = io.StringIO()
    code = run(root, report, out)
    return code, out.getvalue(), json.loads(report.read_text())


def found(root: Path, contents: dict[str, str | bytes]) -> list[Where]:
    _, _, report = check(root, contents)
    return [(each["path"], each["line"], each["column"], each["rule"]) for each in report["findings"]]


@pytest.mark.parametrize(
    ("path", "content", "line", "column", "rule"),
    [
        ("a.json", "", 1, 1, "syntax"),
        ("a.json", '{\n  "a": 1,\n}', 3, 1, "syntax"),
        ("a.json", '{"a": 1} x', 1, 10, "syntax"),
        ("a.json", "{'a': 1}", 1, 2, "syntax"),
        ("a.json", '{"a": "x\ny"}', 1, 9, "syntax"),
        ("a.json", "// comment\n{}", 1, 1, "syntax"),
        ("a.json", '[1,\n "NaN", NaN]', 2, 9, "syntax"),
        ("a.json", "-Infinity", 1, 1, "syntax"),
        ("a.json", "9" * 5000, 1, 1, "syntax"),
        ("a.json", "[" * 100_000, 1, 1, "too-large"),
        ("a.json", b"\xef\xbb\xbf{}", 1, 1, "encoding"),
        ("a.json", b'{\n"a": "\xe9"}', 2, 7, "encoding"),
        ("a.json", '{"a": 1}'.encode("utf-16"), 1, 1, "encoding"),
        ("a.json", '{\n"a": 1,\n"b": {"a": 2},\n"a": 3}', 4, 1, "duplicate-key"),
        ("a.json", '[{"x": [{"a": 1, "\\u0061": 2}]}]', 1, 18, "duplicate-key"),
        ("A.JSON", "{", 1, 2, "syntax"),
        ("a.yaml", "a: [1, 2", 1, 9, "syntax"),
        ("a.yml", "a: 1\nb: c: d", 2, 5, "syntax"),
        ("a.yaml", "a:\n\t- b", 2, 1, "syntax"),
        ("a.yaml", "- a\nb: c", 2, 1, "syntax"),
        ("a.yaml", "a: 'x", 1, 6, "syntax"),
        ("a.yaml", "a: 1\n---\nb: [", 3, 5, "syntax"),
        ("a.yaml", "a: !x!y 1", 1, 4, "syntax"),
        ("a.yaml", "a: 1\nb: \x07", 2, 4, "syntax"),
        ("a.yaml", b"a: \xff", 1, 4, "encoding"),
        ("a.yaml", "a: 1\nb: 2\na: 3", 3, 1, "duplicate-key"),
        ("a.yaml", "x: 1\n---\nb:\n  a: 1\n  'a': 2", 5, 3, "duplicate-key"),
        ("a.yaml", "{a: 1, a: 2}", 1, 8, "duplicate-key"),
        ("a.yaml", "1: a\n0x1: b", 2, 1, "duplicate-key"),
        ("a.yaml", "~: a\nnull: b", 2, 1, "duplicate-key"),
        ("a.yaml", "a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", 4, 3, "duplicate-key"),
        ("a.yaml", "a: *b", 1, 4, "yaml-alias"),
        ("a.yaml", "a: &a 1\n---\nb: *a", 3, 4, "yaml-alias"),
        ("a.yaml", "a: &a\n  b: *a", 2, 6, "yaml-alias"),
        ("a.yaml", "a: 1\n<<: 1", 2, 5, "yaml-alias"),
        ("a.toml", "a = ", 1, 5, "syntax"),
        ("a.toml", "a = 1\nb = 'x", 2, 7, "syntax"),
        ("a.toml", "a = 2020-02-30", 1, 5, "syntax"),
        ("a.toml", "a = 1\nb = 2\na = 3\n", 3, 6, "duplicate-key"),
        ("a.toml", "[a]\nb = 1\n[a]\n", 3, 3, "duplicate-key"),
        ("a.toml", "a = {b = 1, b = 2}", 1, 18, "duplicate-key"),
        ("a.toml", b"\xef\xbb\xbfa = 1", 1, 1, "encoding"),
        ("a.toml", "a = " + "[" * 100_000, 1, 1, "too-large"),
        ("a.md", f"x\n{OURS}\na\n=======\nb\n{THEIRS}\n", 2, 1, "merge-marker"),
        ("a.json", f'{{\n{OURS}\n"a": 1\n=======\n"a": 2\n{THEIRS}\n}}', 2, 1, "merge-marker"),
        ("a.txt", f"a\n=======\nb\n{THEIRS}\n", 4, 1, "merge-marker"),
        ("a.txt", "<<<<<<<\r\n", 1, 1, "merge-marker"),
        ("a.txt", "caf\xe9\n<<<<<<< x".encode("latin-1"), 2, 1, "merge-marker"),
    ],
)
def test_each_fault_is_told_with_its_place_and_rule(
    tmp_path: Path, path: str, content: str | bytes, line: int, column: int, rule: str
):
    assert found(tmp_path, {path: content}) == [(path, line, column, rule)]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.json", "null"),
        ("a.json", '{"a": {"b": 1}, "b": {"a": 1}}'),
        ("a.json", "\r\n{\r\n}\r\n"),
        ("a.json", "[" * 200 + "]" * 200),
        ("a.yaml", ""),
        ("a.yaml", "# only a comment\n"),
        ("a.yaml", "---\n...\n---\na: 1\n"),
        ("a.yaml", b"\xef\xbb\xbfa: 1"),
        ("a.yaml", "a: 1\n'1': b\n1: c\n1.0: d\ntrue: e\n'true': f"),
        ("a.yaml", "? [a, b]\n: 1\n? [a, b]\n: 2\n? {c: d}\n: 3"),
        ("a.yaml", "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\nc:\n  <<: [*a, {z: 1}]"),
        ("a.yaml", "a: !Ref x\nb: !secret {c: 1}\nd: !!python/object/apply:os.system ['id']\ne: !<tag:x,1:y> [1]"),
        ("a.yaml", "!Root\na: !Sub |\n  text\n"),
        ("a.yaml", "a: !!binary aGVsbG8=\nb: !!set {x, y}\nc: !!int '7'"),
        ("a.yaml", "a: 99999999999999999999\nb: .inf\nc: -.Inf\nd: .NaN\ne: 1e400\nf: 007\ng: 1.\nh: " + "9" * 5000),
        ("a.yaml", "a:\n  - &x 1\n  - *x\n  - &x 2\n  - *x"),
        ("a.toml", ""),
        ("a.toml", "a.b = 1\na.c = 2\n[[d]]\ne = 1\n[[d]]\ne = 2\nf = 1979-05-27\n"),
        ("a.md", "Title\n=======\n\ntext >>>>>>> text\n"),
        ("a.md", ">>>>>>> seven times quoted\n"),
        ("a.md", "<<<<<<<< eight\n <<<<<<< indented\n<<<<<<<no space"),
        ("a.bin", f"\0\n{OURS}\n".encode()),
        ("a.txt", b"\xff\xfe caf\xe9"),
        ("a.jsonc", "// comments\n{}"),
        (".git/config.json", "{"),
        (".git", "gitdir: elsewhere"),
        ("a/.git/b.json", "{"),
    ],
)
def test_what_is_allowed_is_no_finding(tmp_path: Path, path: str, content: str | bytes):
    code, output, report = check(tmp_path, {path: content})
    assert (code, report["findings"]) == (0, []), output


def test_every_duplicate_key_of_a_file_is_told_with_the_first_place(tmp_path: Path):
    _, output, report = check(tmp_path, {"a.json": '{"a": 1,\n"a": 2,\n"a": {"b": 1,\n"b": 2}}'})
    assert [(each["line"], each["column"]) for each in report["findings"]] == [(2, 1), (3, 1), (4, 1)]
    assert "a.json:2:1: error: duplicate-key: the key 'a' stands in line 1 already" in output


def test_a_billion_laughs_are_refused_and_not_expanded(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/a.json").write_text('{"type": "object"}')
    rules = {(path, rule) for path, _, _, rule in found(tmp_path, {"a.yaml": "\n".join(lines)})}
    assert rules == {("a.yaml", "yaml-alias")}


def test_no_python_object_is_built_from_a_tag(tmp_path: Path):
    victim = tmp_path / "victim"
    found(tmp_path, {"a.yaml": f"a: !!python/object/apply:pathlib.Path.touch ['{victim}']"})
    assert not victim.exists()


def test_symlinks_are_not_followed_and_pipes_not_opened(tmp_path: Path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "bad.json").write_text("{")
    (root / "link.json").symlink_to(outside / "bad.json")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(root / "pipe.json")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket.json"))
        code, _, report = check(root, {})
    assert (code, report["checked"]) == (0, 0)


def test_a_folder_or_file_that_can_t_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scan, opened = os.scandir, os.open

    def refuse_folder(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    def refuse_file(path: Path, flags: int) -> int:
        if Path(path).name == "secret.txt":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    monkeypatch.setattr(files.os, "scandir", refuse_folder)
    monkeypatch.setattr(files.os, "open", refuse_file)
    places = found(tmp_path, {"closed/a.json": "{", "b/secret.txt": "x", "c.json": "{}"})
    assert places == [("closed", 1, 1, "unreadable"), ("b/secret.txt", 1, 1, "unreadable")]


def test_a_folder_of_which_nothing_can_be_read_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "scandir", refuse)
    out = io.StringIO()
    assert run(tmp_path, None, out) == main.NOT_CHECKED
    assert out.getvalue() == f"msuite: {tmp_path}: Permission denied\n"


def test_a_file_that_vanishes_while_the_check_runs_is_a_finding(tmp_path: Path):
    checker = files.Checker(tmp_path, ["gone.json"])
    assert [each.rule for each in checker.check("gone.json")] == ["unreadable"]


@pytest.mark.parametrize(("over", "rules"), [(0, []), (1, ["too-large"])])
def test_a_configuration_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: int, rules: list[str]):
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    contents: dict[str, str | bytes] = {"a.json": '"' + "x" * (8 + over) + '"', "a.txt": "x" * (10 + over)}
    assert [rule for *_, rule in found(tmp_path, contents)] == rules


def test_too_little_memory_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def exhausted(_: str) -> Any:
        raise MemoryError

    monkeypatch.setattr(json_format, "parse", exhausted)
    assert [rule for *_, rule in found(tmp_path, {"a.json": "{}"})] == ["too-large"]


def test_odd_file_names_are_shown_on_one_line(tmp_path: Path):
    (tmp_path / "a\nb\x1b[31m.json").write_text("{")
    (tmp_path / os.fsdecode(b"caf\xe9.json")).write_text("{")
    code, output, report = check(tmp_path, {})
    assert code == 1
    assert output.splitlines()[0].startswith(r"a\nb\x1b[31m.json:1:2: error: syntax: ")
    assert [each["path"] for each in report["findings"]] == [r"a\nb\x1b[31m.json", r"caf\udce9.json"]


def test_the_report_has_the_findings_and_their_counts(tmp_path: Path):
    code, output, report = check(tmp_path, {"a.json": "{", "b.yaml": "a: 1\na: 2\na: 3", "c.toml": "", "d.md": ""})
    assert code == 1
    assert {key: report[key] for key in ("checked", "failed", "omitted")} == {"checked": 4, "failed": 2, "omitted": 0}
    assert report["by_rule"] == {"duplicate-key": 2, "syntax": 1}
    assert isinstance(report["duration_ms"], int)
    assert report["findings"][0] == {
        "path": "a.json",
        "line": 1,
        "column": 2,
        "severity": "error",
        "rule": "syntax",
        "message": report["findings"][0]["message"],
    }
    assert output.splitlines()[-1] == "msuite: 4 files checked, 2 failed, 3 findings (duplicate-key 2, syntax 1)"


def test_a_clean_folder_says_so(tmp_path: Path):
    code, output, _ = check(tmp_path, {"a.json": "{}"})
    assert (code, output) == (0, "msuite: 1 files checked, 0 failed, no findings\n")


def test_a_report_holds_a_bounded_number_of_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(main, "MOST_IN_REPORT", 3)
    monkeypatch.setattr(files, "MOST_PER_FILE", 4)
    doubled = "\n".join(f"{key}: 1" for key in ["a"] * 9)
    _, output, report = check(tmp_path, {"a.yaml": doubled, "b.yaml": doubled})
    assert (len(report["findings"]), report["omitted"]) == (3, 5)
    assert len(output.splitlines()) == 9


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_path_that_is_no_folder_is_a_usage_error(tmp_path: Path, kind: str):
    path = tmp_path / "x"
    if kind == "a file":
        path.write_text("{}")
    out = io.StringIO()
    assert run(path, None, out) == 2
    assert "no such folder" in out.getvalue()


def test_a_report_that_can_t_be_written_is_no_success(tmp_path: Path):
    out = io.StringIO()
    assert run(tmp_path, tmp_path / "no" / "report.json", out) == 2
    assert "report" in out.getvalue()


SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, inner in below for each in _paths(inner, (*path, key)))]


@given(DATA, st.sampled_from([None, 1]))
def test_every_value_of_a_json_text_has_its_place(data: Any, indent: int | None):
    text = json.dumps(data, indent=indent)
    assert json_format.parse(text) == ([data], [])
    at = json_format.locate(text)
    lines = text.split("\n")
    for path in _paths(data):
        value = data
        for step in path:
            value = value[step]
        line, column = at(path)
        assert lines[line - 1][column - 1 :].startswith(json.dumps(value)[:1])


@given(DATA)
def test_a_json_text_is_yaml_of_the_same_value(data: Any):
    text = json.dumps(data)
    if "\\ud" in text or any(code in text for code in ("\\ufff", "\\u007f", "\\u008", "\\u009")):
        return
    assert yaml_format.parse(text) == ([data], [])


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_parsed_or_told_in_every_format(text: str):
    for form in (json_format, yaml_format, toml_format):
        documents, problems = form.parse(text)
        for index, document in enumerate(documents):
            at = form.locate(text, index)
            assert all(at(path).line >= 1 for path in _paths(document))
        assert all(problem.place.line >= 1 and problem.place.column >= 1 for problem in problems)


YAML_TEXT = st.lists(
    st.sampled_from(
        ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "'", '"', "&x ", "*x", "!t ", "<<", "|", "?", "#", "---\n"]
    ),
    max_size=16,
).map("".join)


@given(YAML_TEXT)
@settings(max_examples=400)
def test_any_yaml_is_composed_or_told(text: str):
    documents, problems = yaml_format.parse(text)
    for index, document in enumerate(documents):
        if not problems:
            at = yaml_format.locate(text, index)
            assert all(at(path).line >= 1 for path in _paths(document))


TOML = """
title = "x" # a comment with [brackets]
a.b = { c = [1, 2,
  3], "d e" = 'f' }
multi = \"\"\"
[not a table]
\"\"\"
many = [ { x = 1 }, # one
  { x = 2 } ]
when = 1979-05-27T07:32:00Z

[server]
ports = [8001, 8002]
'quoted.key' = true

[[fruit]]
name = "apple"
[fruit.colour]
red = 1
[[fruit]]
name = '''it's'''
[[fruit.kind]]
id = 7
"""


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ((), 1, 1),
        (("title",), 2, 9),
        (("a", "b"), 3, 7),
        (("a", "b", "c"), 3, 13),
        (("a", "b", "c", 2), 4, 3),
        (("a", "b", "d e"), 4, 15),
        (("multi",), 5, 9),
        (("many", 1, "x"), 9, 9),
        (("when",), 10, 8),
        (("server",), 12, 1),
        (("server", "ports", 1), 13, 16),
        (("server", "quoted.key"), 14, 16),
        (("fruit", 0), 16, 1),
        (("fruit", 0, "colour", "red"), 19, 7),
        (("fruit", 1, "name"), 21, 8),
        (("fruit", 1, "kind", 0, "id"), 23, 6),
        (("server", "missing", 3), 12, 1),
    ],
    ids=str,
)
def test_every_value_of_a_toml_text_has_its_place(path: tuple[str | int, ...], line: int, column: int):
    assert toml_format.parse(TOML)[1] == []
    assert toml_format.locate(TOML)(path) == (line, column)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (
            "a: yes\nb: on\nc: 0o17\nd: 0x1F\ne: +1\nf: 1.5e3\ng: 2024-01-01",
            {"a": "yes", "b": "on", "c": 15, "d": 31, "e": 1, "f": 1500.0, "g": "2024-01-01"},
        ),
        (
            "a:\nb: ~\nc: Null\nd: ''\ne: !!str 1\nf: ! 1\ng: '1'",
            {"a": None, "b": None, "c": None, "d": "", "e": "1", "f": "1", "g": "1"},
        ),
        ("1: a\ntrue: b\nnull: c\n2.5: d", {"1": "a", "true": "b", "null": "c", "2.5": "d"}),
        ("x: &x {a: 1, b: 2}\ny:\n  b: 3\n  <<: *x", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
        ("y:\n  <<: [{a: 1}, {a: 2, c: 3}]", {"y": {"a": 1, "c": 3}}),
        ("- - 1\n  - 2\n- [3, {a: }]", [[1, 2], [3, {"a": None}]]),
        ("text", "text"),
    ],
)
def test_yaml_values_are_those_of_its_core_schema(text: str, data: Any):
    documents, problems = yaml_format.parse(text)
    assert problems == []
    assert documents == [data]
    assert json.dumps(documents[0], sort_keys=True) == json.dumps(data, sort_keys=True)


class _FastParser:
    """Stands in for the C parser: the same calls, and refuses every text that holds `refused`."""

    def __init__(self, text: str) -> None:
        self.refuses = "refused" in text
        self.events = list(YAML(typ="safe", pure=True).parse(text))

    def check_event(self) -> bool:
        if self.refuses and len(self.events) < 3:
            raise ScannerError(problem="it is refused")
        return bool(self.events)

    def get_event(self) -> Any:
        return self.events.pop(0)


@pytest.mark.parametrize("text", ["a: [1, 2]\n---\nb: x\n", "a: refused\n"])
def test_what_the_fast_parser_refuses_is_judged_by_the_other_one(text: str, monkeypatch: pytest.MonkeyPatch):
    expected = yaml_format.parse(text)
    monkeypatch.setattr(yaml_format, "_C_PARSER", _FastParser)
    assert yaml_format.parse(text) == expected
    assert expected[1] == []
