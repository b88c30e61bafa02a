"""Paths keep the rules of `spec.md` 7: one spelling, inside the repository, never Git's own files."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.paths import (
    DEFAULT_BLOCKED_PATHS,
    MAX_PATH_BYTES,
    MAX_PATH_SEGMENTS,
    MAX_SEGMENT_BYTES,
    blocking_glob,
    check_blocked,
    check_glob,
    normalise_path,
)

BAD = {
    "empty": "",
    "a dot": ".",
    "only dots and slashes": "././",
    "parent": "..",
    "parent first": "../a",
    "parent in the middle": "a/../b",
    "parent last": "a/..",
    "many parents": "../../../../etc/passwd",
    "parent of .git": ".git/../a",
    "parent with a parameter": "a/..;x/b",
    "parent in fullwidth": "\uff0e\uff0e/a",
    "parent as a two-dot leader": "\u2025/a",
    "parent with a zero-width character": ".\u200b./a",
    "parent with a space": ".. /a",
    "three dots": ".../a",
    "dot with a zero-width character": ".\u200b/a",
    "zero-width only": "a/\u200b",
    "absolute": "/etc/passwd",
    "absolute twice": "//etc/passwd",
    "network share": "//host/share/a",
    "home": "~/a",
    "home alone": "~",
    "NUL": "a\0b",
    "NUL and an extension": "a.json\0.png",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "escape": "a\x1b[31mb",
    "delete": "a\x7fb",
    "C1 control": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "lone surrogate": "a\ud800b",
    "right-to-left override": "a\u202egpj.exe",
    "left-to-right isolate": "a\u2066b",
    "byte order mark": "\ufeffa",
    "backslash": "a\\b",
    "backslash parent": "..\\a",
    "backslash absolute": "\\a",
    "backslash share": "\\\\host\\a",
    "backslash before .git": "a\\.git\\config",
    "fullwidth backslash": "a\uff3cb",
    "fullwidth slash": "a\uff0fb",
    "a/c sign": "\u2100",
    "drive": "C:/a",
    "drive without slash": "c:a",
    "drive with backslash": "C:\\a",
    "stream": "a::$DATA",
    "stream in a folder": "a::$INDEX_ALLOCATION/b",
    "stream by name": "a:x:$DATA",
    "stream without a type": "a.json:hidden",
    "device": "NUL",
    "device with an extension": "a/aux.json",
    "HTML reference": "&#46;&#46;/a",
    "home of another": "~root/a",
    "too deep": "a/" * MAX_PATH_SEGMENTS + "b",
    "percent dot": "%2e%2e/a",
    "percent dot in capitals": "%2E%2E/a",
    "percent slash": "a%2fb",
    "percent backslash": "a%5cb",
    "percent NUL": "a%00",
    "percent percent": "%252e%252e/a",
    "percent over-long UTF-8": "%c0%ae%c0%ae/a",
    "percent u": "%u002e%u002e/a",
    "percent .git": "%2egit/config",
    "percent letter": "%61",
    "fullwidth percent": "\uff052e",
    "trailing slash": "a/",
    "trailing dot segment": "a/.",
    "trailing dot": "a.",
    "trailing dots": "a/b../c",
    "trailing space": "a ",
    "trailing space in a folder": "a /b",
    "trailing no-break space": "a\u00a0",
    "space": " ",
}

GIT = {
    "itself": ".git",
    "a file in it": ".git/config",
    "in a folder": "a/.git/config",
    "as a file": "a/.git",
    "behind a dot": "./.git/config",
    "behind an empty segment": "a//.git/config",
    "in capitals": ".GIT/config",
    "mixed case": "a/.gIt/hooks/post-checkout",
    "trailing dot": ".git./config",
    "trailing dots": ".git.../config",
    "trailing space": ".git /config",
    "trailing dot and space": ".git. . /config",
    "index stream": ".git::$INDEX_ALLOCATION/config",
    "named stream": ".git:x/config",
    "short name": "git~1/config",
    "short name in capitals": "GIT~1/config",
    "short name two": "a/git~2",
    "zero-width non-joiner": ".g\u200cit/config",
    "zero-width joiner": ".gi\u200dt/config",
    "left-to-right mark": "\u200e.git/config",
    "right-to-left override in it": ".g\u202eit",
    "byte order mark in it": ".gi\ufefft",
    "soft hyphen": ".g\u00adit",
    "variation selector": ".git\ufe0f/config",
    "fullwidth letters": ".\uff47\uff49\uff54",
    "fullwidth dot": "\uff0egit",
    "one-dot leader": "\u2024git",
    "mathematical letters": ".\U0001d420\U0001d422\U0001d42d",
}

GOOD = {
    "a": "a",
    "a.json": "a.json",
    "a/b/c.yaml": "a/b/c.yaml",
    "./a": "a",
    "a//b": "a/b",
    "a/./b": "a/b",
    ".//a///b/./c": "a/b/c",
    ".gitignore": ".gitignore",
    ".gitattributes": ".gitattributes",
    ".github/workflows/ci.yml": ".github/workflows/ci.yml",
    "git": "git",
    "a.git": "a.git",
    "x.git/config": "x.git/config",
    "..a": "..a",
    "a..b": "a..b",
    ".a": ".a",
    "a~1": "a~1",
    "50%": "50%",
    "50%off": "50%off",
    "%zz": "%zz",
    "a b": "a b",
    " a": " a",
    "<what?>": "<what?>",
    "auxiliary.json": "auxiliary.json",
    "console": "console",
    "~a": "~a",
    "ünïcode/ß.json": "ünïcode/ß.json",
    "e\u0301.json": "\u00e9.json",
    "日本語.toml": "日本語.toml",
    "👩\u200d💻.md": "👩\u200d💻.md",
    "-rf": "-rf",
    "$(id)": "$(id)",
    "a;b|c&d'e\"f`g": "a;b|c&d'e\"f`g",
}


def _refusal(raw: str) -> DomainError:
    with pytest.raises(DomainError) as refused:
        normalise_path(raw)
    return refused.value


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_what_can_be_no_path_is_a_validation_error(raw: str) -> None:
    error = _refusal(raw)
    assert error.code is ErrorCode.VALIDATION_ERROR
    assert error.details[0]["field"] == "path"


@pytest.mark.parametrize("raw", GIT.values(), ids=GIT.keys())
def test_git_s_own_folder_is_blocked_in_every_spelling(raw: str) -> None:
    error = _refusal(raw)
    assert error.code is ErrorCode.BLOCKED_PATH
    assert error.details["glob"] == ".git"


@pytest.mark.parametrize(("raw", "spelling"), GOOD.items(), ids=GOOD.keys())
def test_an_ordinary_path_gets_its_one_spelling(raw: str, spelling: str) -> None:
    assert normalise_path(raw) == spelling


@pytest.mark.parametrize(("over", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_name_is_at_most_255_bytes(over: int, refused: bool) -> None:
    name = "é" + "a" * (MAX_SEGMENT_BYTES - 2 + over)
    if refused:
        assert "255 bytes" in _refusal(f"a/{name}").message
    else:
        assert normalise_path(f"a/{name}") == f"a/{name}"


@pytest.mark.parametrize(("over", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_path_is_at_most_4095_bytes(over: int, refused: bool) -> None:
    path = ("a" * 99 + "/") * (MAX_PATH_BYTES // 100) + "b" * (MAX_PATH_BYTES % 100 + over)
    assert len(path) == MAX_PATH_BYTES + over
    if refused:
        assert "4095 bytes" in _refusal(path).message
    else:
        assert normalise_path(path) == path


@pytest.mark.parametrize(("over", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_path_is_at_most_256_names_deep(over: int, refused: bool) -> None:
    path = "/".join("a" * (MAX_PATH_SEGMENTS + over))
    if refused:
        assert "256 names" in _refusal(path).message
    else:
        assert normalise_path(path) == path


@pytest.mark.parametrize(("raw", "spelling"), [("", ""), (".", ""), ("./", ""), ("a/", "a"), ("a//b/", "a/b"), ("a", "a")])
def test_a_folder_may_be_the_root_and_may_end_in_a_slash(raw: str, spelling: str) -> None:
    assert normalise_path(raw, folder=True) == spelling


@pytest.mark.parametrize("raw", ["/", "//", "..", "a/../", ".git/", "a\\"])
def test_a_folder_keeps_every_other_rule(raw: str) -> None:
    with pytest.raises(DomainError):
        normalise_path(raw, folder=True)


HOSTILE = st.lists(
    st.sampled_from([*".gitGIT~1/:\\%2e ", "..", ".git", "\u200c", "\u202e", "\uff0e", "e\u0301", "\0", "a", "é"])
    | st.characters(),
    max_size=24,
).map("".join)


def _survives(raw: str, *, folder: bool) -> str | None:
    try:
        return normalise_path(raw, folder=folder)
    except DomainError:
        return None


@given(HOSTILE, st.booleans())
def test_whatever_passes_is_inside_the_repository_and_has_one_spelling(raw: str, folder: bool) -> None:
    path = _survives(raw, folder=folder)
    if path is None or path == "":
        assert path is None or folder
        return
    segments = path.split("/")
    assert not path.startswith(("/", "~/")) and "\\" not in path and "\0" not in path
    assert not {"", ".", ".."} & set(segments)
    assert ".git" not in [segment.casefold() for segment in segments]
    assert ".git" not in [unicodedata.normalize("NFKC", segment).casefold() for segment in segments]
    assert unicodedata.is_normalized("NFC", path)
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert normalise_path(path) == path


@given(st.text())
def test_any_text_is_either_a_path_or_refused(raw: str) -> None:
    path = _survives(raw, folder=False)
    assert path is None or normalise_path(path) == path


@given(st.lists(st.from_regex(r"[a-z0-9_-]{1,12}(\.(json|yaml))?", fullmatch=True), min_size=1, max_size=8))
def test_plain_names_always_pass_unchanged(names: list[str]) -> None:
    path = "/".join(names)
    assert normalise_path(path) == path


@pytest.mark.parametrize(
    ("glob", "path", "blocked"),
    [
        (".gitignore", ".gitignore", True),
        (".gitignore", "a/b/.gitignore", True),
        (".gitignore", ".GitIgnore", True),
        (".gitignore", ".gitignore.json", False),
        (".gitignore", "a.gitignore", False),
        (".gitignore", ".git\u200dignore", True),
        (".github/**", ".github/workflows/ci.yml", True),
        (".github/**", ".GITHUB/x", True),
        (".github/**", ".github", True),
        (".github/**", "a/.github/x", False),
        (".github/**", "GITHUB~1/x", True),
        (".github/**", "githu~12/x", True),
        (".github/**", "github~/x", False),
        ("secrets.yaml", "a/SECRET~1.YAM", True),
        ("secrets.yaml", "a/SECRET~1.JSO", False),
        ("config", "config~1", False),
        (".github/**", ".githubx/a", False),
        (".git/**", ".git/config", True),
        ("*.pem", "a/b/key.pem", True),
        ("*.pem", "key.pem.txt", False),
        ("*.pem", "certs.pem/readme", True),
        ("/*.pem", "key.pem", True),
        ("/*.pem", "a/key.pem", False),
        ("a/*.json", "a/b.json", True),
        ("a/*.json", "a/b/c.json", False),
        ("a/*.json", "b/a/c.json", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "a/b/c", False),
        ("**/z", "z", True),
        ("**/z", "a/b/z/file", True),
        ("**/a/**/z", "x/a/y/z", True),
        ("**/a/**/z", "x/z/a", False),
        ("secrets/", "secrets/a", True),
        ("secrets/", "a/secrets/b", True),
        ("config/prod", "config/prod/a.json", True),
        ("config/prod", "config/product", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a?c", "a/c", False),
        ("a*c", "ac", True),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "axxcyyb", False),
        ("*", "anything", True),
        ("**", "a/b", True),
        ("**/**", "a", True),
        ("straße", "STRASSE", True),
        ("a[b]", "ab", False),
        ("/", "a", False),
        ("**", "", False),
    ],
)
def test_a_glob_blocks_what_its_rules_say(glob: str, path: str, blocked: bool) -> None:
    assert (blocking_glob(path, [glob]) == glob) is blocked


def test_a_blocked_path_is_refused_naming_the_glob() -> None:
    with pytest.raises(DomainError) as refused:
        check_blocked("a/b/.gitignore", DEFAULT_BLOCKED_PATHS)
    assert refused.value.code is ErrorCode.BLOCKED_PATH
    assert "`.gitignore`" in refused.value.message
    assert refused.value.details == {"path": "a/b/.gitignore", "glob": ".gitignore"}


def test_a_path_that_no_glob_matches_passes() -> None:
    check_blocked("entities/customer.json", DEFAULT_BLOCKED_PATHS)
    check_blocked("entities/customer.json", [])


def test_a_pattern_full_of_stars_is_matched_without_trying_every_way() -> None:
    assert blocking_glob("a" * 255, ["*a" * 120 + "b"]) is None
    assert blocking_glob("/".join("a" * 500), ["**/a/" * 200 + "b"]) is None


@pytest.mark.parametrize(
    "glob",
    ["", "/", "!a", "a[b]", "a\\b", "a/../b", "./a", "a\nb", "a\0", "a" * (MAX_PATH_BYTES + 1)],
)
def test_a_pattern_that_would_be_read_otherwise_than_meant_is_refused(glob: str) -> None:
    with pytest.raises(DomainError) as refused:
        check_glob(glob)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize("glob", [*DEFAULT_BLOCKED_PATHS, "*.pem", "a/**/b?", "/a", "a/", "a" * MAX_PATH_BYTES])
def test_a_plain_pattern_is_accepted(glob: str) -> None:
    check_glob(glob)


@given(st.lists(st.sampled_from(["a", "b", "ab", ".git"]), min_size=1, max_size=5), st.text("ab*?/", max_size=12))
def test_what_blocks_a_folder_blocks_everything_in_it(names: list[str], glob: str) -> None:
    path = "/".join(names)
    if blocking_glob(path, [glob]) is not None:
        assert blocking_glob(f"{path}/below", [glob]) == glob
