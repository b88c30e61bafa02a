"""Runtime profiles: typed values, and how they are rendered for processes (`spec.md` 6 and 9)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from conman.domain.profile import Profile, TypedValue, effective, env_file, environment_variables, rendered_value

KINDS = ["string", "number", "boolean", "json"]
VALUES: list[tuple[Any, list[str]]] = [
    ("x", ["string", "json"]),
    ("1", ["string", "json"]),
    ("", ["string", "json"]),
    (1, ["number", "json"]),
    (0, ["number", "json"]),
    (-1.5, ["number", "json"]),
    (2**63 - 1, ["number", "json"]),
    (2**63, []),
    (-(2**63), ["number", "json"]),
    (-(2**63) - 1, []),
    (10**400, []),
    (True, ["boolean", "json"]),
    (False, ["boolean", "json"]),
    (None, ["json"]),
    ([1, "a", None], ["json"]),
    ({"a": {"b": [True]}}, ["json"]),
    (float("nan"), []),
    (float("inf"), []),
    ({"a": float("nan")}, []),
    ({1: "a"}, []),
    ("a\0b", ["json"]),
    ({"a\0b": 1}, []),
    ([{"a": 2**63}], []),
    ({"$ref": "#/a", "$id": "b"}, []),
    ({"$ref": "#/a"}, ["json"]),
    ({"$gt": "", "a.b": {"$id": 1}}, ["json"]),
]


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        pytest.param(kind, value, kind in kinds, id=f"{kind} {'takes' if kind in kinds else 'refuses'} {str(value)[:22]!r}")
        for value, kinds in VALUES
        for kind in KINDS
    ],
)
def test_a_value_must_match_its_type(kind: Any, value: Any, accepted: bool) -> None:
    """`spec.md` 6: `1` and `"1"` differ, and a flag is no number."""
    if accepted:
        assert TypedValue(type=kind, value=value).value == value
    else:
        with pytest.raises(ValidationError):
            TypedValue(type=kind, value=value)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("string", "plain text", "plain text"),
        ("string", "", ""),
        ("string", "true", "true"),
        ("number", 8080, "8080"),
        ("number", -0.5, "-0.5"),
        ("boolean", True, "true"),
        ("boolean", False, "false"),
        ("json", None, "null"),
        ("json", "text", '"text"'),
        ("json", {"b": [1, True], "a": "x"}, '{"a":"x","b":[1,true]}'),
    ],
)
def test_a_process_gets_strings_as_they_are_and_all_else_as_json(kind: Any, value: Any, text: str) -> None:
    """`spec.md` 6; keys of JSON in one order, so that equal values look alike."""
    assert rendered_value(TypedValue(type=kind, value=value)) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON)
def test_rendered_json_reads_back_as_the_value(value: Any) -> None:
    """`spec.md` 6."""
    text = rendered_value(TypedValue(type="json", value=value))
    assert json.loads(text) == value
    assert "\n" not in text


def test_a_profile_overrides_the_defaults_of_its_app() -> None:
    """`spec.md` 6: app defaults < environment profile."""
    profile = Profile(name="qa", env_vars={"B": TypedValue(type="number", value=2), "C": TypedValue(type="string", value="c")})
    found = effective({"A": {"type": "string", "value": "a"}, "B": {"type": "string", "value": "b"}}, profile)
    assert environment_variables(found) == {"A": "a", "B": "2", "C": "c"}


def test_variables_are_rendered_in_the_order_of_their_names() -> None:
    """`durability.md` 22: the same profile gives the same text."""
    variables = {name: TypedValue(type="string", value=name) for name in ("B", "A", "c", "_")}
    assert list(environment_variables(variables)) == ["A", "B", "_", "c"]
    assert env_file({"B": "2", "A": "1"}) == "A='1'\nB='2'\n"
    assert env_file({}) == ""


AWKWARD = {
    "QUOTE": "it's",
    "QUOTES": "''\"\"'",
    "LINES": "one\ntwo\n\n",
    "DOLLAR": "$HOME ${HOME} $(echo no) `echo no`",
    "BACKSLASH": "a\\b\\\\n\\'",
    "SPACES": "  a\tb  ",
    "GLOB": "* ? [a] ~",
    "EQUALS": "a=b;c&d|e>f #g !h",
    "UNICODE": "Grüße 日本 😀",
    "RETURN": "a\r\nb",
    "EMPTY": "",
    "_9": "underscore",
}


def read_by_sh(text: str, names: list[str], folder: Path) -> dict[str, str]:
    """The variables that a real `sh` has after it read the file."""
    file = folder / "profile.env"
    file.write_bytes(text.encode())
    shown = "; ".join(f"printf '%s\\0' \"${name}\"" for name in names)
    made = subprocess.run(["sh", "-c", f'set -eu; . "$0"; {shown}', str(file)], check=True, capture_output=True)
    assert made.stderr == b""
    return dict(zip(names, (value.decode() for value in made.stdout.split(b"\0")[:-1]), strict=True))


def test_a_shell_reads_every_value_back_exactly(tmp_path: Path) -> None:
    """`spec.md` 9: the profile of its scope is rendered into a file."""
    assert read_by_sh(env_file(AWKWARD), list(AWKWARD), tmp_path) == AWKWARD


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))), min_size=1, max_size=25))
def test_a_shell_reads_any_text_back_exactly(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    """`spec.md` 9."""
    variables = {f"V{index}": value for index, value in enumerate(values)}
    assert read_by_sh(env_file(variables), list(variables), tmp_path_factory.mktemp("env")) == variables


@pytest.mark.parametrize("name", ["", "9A", "A-B", "A.B", "A B", "A=B", "A;rm", "$(x)", "A\n", "Ä", "A'"])
def test_what_no_shell_could_read_back_is_not_written(name: str) -> None:
    """`spec.md` 6: no member of an app can make a worker run another program, by a variable's name neither."""
    with pytest.raises(ValueError, match="no shell"):
        env_file({"GOOD": "1", name: "1"})


def test_a_nul_in_a_value_is_not_written() -> None:
    """`spec.md` 9: no process could hold it."""
    with pytest.raises(ValueError, match="'A'"):
        env_file({"A": "a\0b"})
