"""Names that users choose, and the defaults of a new app (`spec.md` 6, 7 and 15)."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rule_samples import refused, sha, uid

from conman.domain import app as rules
from conman.domain.app import AppSettings, ValidationGate
from conman.domain.errors import DomainError, ErrorCode

# -- slugs and workspace branches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Web Shop", "web-shop"),
        ("ann.smith", "ann-smith"),
        ("ann+test_1", "ann-test-1"),
        ("--A--", "a"),
        ("Ünïcode", "n-code"),
        ("1", "1"),
        ("", "x"),
        ("日本", "x"),
        ("...", "x"),
    ],
)
def test_a_slug_is_lower_case_with_hyphens_for_all_else(text: str, slug: str) -> None:
    """`spec.md` 7: other characters → `-`."""
    assert rules.slug(text) == slug


@settings(deadline=None)
@given(st.text(max_size=40))
def test_every_slug_is_a_name_that_git_takes_and_its_own_slug(text: str) -> None:
    """`spec.md` 7."""
    slug = rules.slug(text)
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", slug)
    assert rules.slug(slug) == slug


@pytest.mark.parametrize(
    ("email", "app", "suffix", "branch"),
    [
        ("Ann.Smith@example.com", "Web Shop", 0, "ws/ann-smith/web-shop"),
        ("ann@example.com", "Web Shop", 1, "ws/ann/web-shop-1"),
        ("ann@b@example.com", "A", 2, "ws/ann/a-2"),
        ("@example.com", "!", 0, "ws/x/x"),
    ],
)
def test_the_default_workspace_is_named_after_user_and_app(email: str, app: str, suffix: int, branch: str) -> None:
    """`spec.md` 7: the email's local part and the app's name; a clash gets a suffix."""
    assert rules.workspace_branch(email, app, suffix) == branch


@settings(deadline=None)
@given(st.text(max_size=64), st.text(min_size=1, max_size=60), st.integers(0, 9))
def test_every_default_workspace_has_a_name_that_a_user_could_choose(email: str, app: str, suffix: int) -> None:
    """`spec.md` 7."""
    branch = rules.workspace_branch(email, app, suffix)
    assert rules.check_branch_name(branch) == branch


# -- branch names ------------------------------------------------------------------------------------------------------------

GOOD_BRANCHES = [
    "main",
    "a",
    "ws/ann/shop",
    "release-1.2",
    "feature/x_y",
    "_x",
    "9",
    "a/-b",
    "conmanx",
    "my/conman/x",
    "HEADS",
    "x" * 200,
]
BAD_BRANCHES = [
    "",
    "x" * 201,
    "/a",
    "a/",
    "a//b",
    "a..b",
    "..",
    ".",
    ".a",
    "a/.b",
    "a.",
    "a./b",
    "a.lock",
    "a.lock/b",
    "-a",
    "a b",
    "a~b",
    "a^b",
    "a:b",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "a@{b",
    "@",
    "ä",
    "a\tb",
    "a\x7fb",
    "a\x00b",
    "a\n",
    "a\nb",
    "\na",
]
OWN_BRANCHES = ["conman", "conman/pending/x", "Conman/x", "CONMAN", "refs/heads/x", "REFS/x", "HEAD", "head"]


@pytest.mark.parametrize("name", GOOD_BRANCHES, ids=ascii)
def test_a_branch_name_that_git_takes_is_taken(name: str) -> None:
    """`api.md` 3, `branch_name`; 200 characters at most."""
    assert rules.check_branch_name(name) == name


@pytest.mark.parametrize("name", BAD_BRANCHES, ids=ascii)
def test_a_branch_name_that_git_refuses_or_a_shell_misreads_is_refused(name: str) -> None:
    """`api.md` 3, `branch_name`: 400; a line break at the end counts too."""
    error = refused(ErrorCode.VALIDATION_ERROR, lambda: rules.check_branch_name(name))
    assert error.details[0]["field"] == "branch_name"


@pytest.mark.parametrize("name", OWN_BRANCHES)
def test_conmans_own_branches_are_refused_as_names_in_any_case(name: str) -> None:
    """`spec.md` 7: `conman/…` is hidden from users and refused as a name."""
    refused(ErrorCode.VALIDATION_ERROR, lambda: rules.check_branch_name(name))


def test_git_itself_agrees_with_every_name_that_is_taken() -> None:
    """`spec.md` 7: `git check-ref-format` is the judge."""
    for name in GOOD_BRANCHES:
        made = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False, capture_output=True)
        assert made.returncode == 0, name


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="aZ0._-/\n\r @~^:?*[\\", max_size=12))
def test_whatever_is_taken_keeps_gits_rules(name: str) -> None:
    """`spec.md` 7: the rules of `git check-ref-format`, said once more."""
    try:
        rules.check_branch_name(name)
    except DomainError as error:
        assert error.code is ErrorCode.VALIDATION_ERROR
        return
    assert not re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.$|^/|/$", name)
    assert not any(part.startswith(".") or part.endswith(".lock") for part in name.split("/"))


@pytest.mark.parametrize(
    ("wanted", "taken", "free"),
    [
        ("ws/ann/shop", [], "ws/ann/shop"),
        ("ws/ann/shop", ["main", "ws/ann/web", "ws/ann/shop2"], "ws/ann/shop"),
        ("ws/ann/shop", ["ws/ann/shop"], "ws/ann/shop-1"),
        ("ws/ann/shop", ["ws/ann/shop", "ws/ann/shop-1"], "ws/ann/shop-2"),
        ("ws/ann/shop", ["ws/ann/shop/old"], "ws/ann/shop-1"),
        ("ws/ann/shop", ["ws/ann"], "ws/ann-1/shop"),
        ("ws/ann/shop", ["ws"], "ws-1/ann/shop"),
        ("ws/ann/shop", ["ws", "ws-1/ann", "ws-1/ann-1/shop"], "ws-1/ann-1/shop-1"),
    ],
)
def test_a_clash_gets_a_suffix_where_it_clashes(wanted: str, taken: list[str], free: str) -> None:
    """`spec.md` 7; beside `a` Git holds no `a/b`."""
    assert rules.free_branch(wanted, taken) == free


_names = st.lists(st.sampled_from(["a", "b", "a-1"]), min_size=1, max_size=3).map("/".join)


@settings(deadline=None, derandomize=True, database=None)
@given(_names, st.frozensets(_names, max_size=8))
def test_a_free_name_has_nothing_in_its_way(wanted: str, taken: frozenset[str]) -> None:
    """`spec.md` 7: and a name that is free already stays as it is."""
    free = rules.free_branch(wanted, taken)
    assert rules.in_the_way(free, taken) is None
    assert (free == wanted) == (rules.in_the_way(wanted, taken) is None)


# -- repository paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a", "shop.git", "team/shop.git", "a/b/c", "_a", "A-b.c_d", "x" * 100, "/".join(["x" * 79] * 5)]
)
def test_a_relative_repository_path_is_taken(path: str) -> None:
    """`spec.md` 15: relative to the repositories folder; 100 characters a segment, 400 in all (here 100 and 399)."""
    assert rules.check_repo_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        ".",
        "../a",
        "a/../b",
        "a/..",
        "./a",
        ".git",
        "a/.hidden",
        "-a",
        "a b",
        "a\\b",
        "a:b",
        "~a",
        "a%2e",
        "ä",
        "a\x00",
        "a\n",
        "a\n/b",
        "x" * 101,
        "/".join(["x" * 79] * 5) + "xx",
    ],
    ids=ascii,
)
def test_a_repository_path_can_not_leave_its_folder(path: str) -> None:
    """`spec.md` 15: 400."""
    error = refused(ErrorCode.VALIDATION_ERROR, lambda: rules.check_repo_path(path))
    assert error.details[0]["field"] == "repo_path"


# -- private refs ------------------------------------------------------------------------------------------------------------


def test_private_refs_are_distinct_and_no_user_can_name_them() -> None:
    """`spec.md` 3, 7 and 11: revisions, pending edits and candidates are Conman's own."""
    refs = [
        rules.pending_ref(uid("x")),
        rules.journal_ref(uid("x")),
        rules.scratch_ref(uid("x"), "a"),
        rules.revision_ref(uid("x"), sha("one")),
        rules.revision_ref(uid("x"), sha("two")),
        rules.candidate_ref(uid("x"), 1),
        rules.candidate_ref(uid("x"), 2),
        rules.revalidation_ref(uid("x")),
    ]
    assert len(set(refs)) == len(refs)
    for ref in refs:
        assert "conman/" in ref
        refused(ErrorCode.VALIDATION_ERROR, lambda ref=ref: rules.check_branch_name(ref.removeprefix(rules.BRANCHES)))


def test_candidates_sort_by_their_step() -> None:
    """`spec.md` 11: prefix k."""
    steps = [rules.candidate_ref("r", step) for step in range(0, 130, 7)]
    assert sorted(steps) == steps


# -- settings ----------------------------------------------------------------------------------------------------------------


def test_a_new_app_has_the_defaults_of_the_specification() -> None:
    """`spec.md` 1, 3 and 6."""
    made = AppSettings()
    assert made.baseline_mode.value == "canonical_env_release"
    assert made.commit_mode_default.value == "submit_commit"
    assert made.blocked_paths == [".git/**", ".gitignore", ".github/**"]
    assert made.file_size_limit_bytes == 5 * 1024 * 1024
    assert (made.required_approval_count, made.queue_gate, made.carry_votes) == (1, "up_to_date", "never")
    assert (made.runtime_profile_approval_policy, made.temp_env_access) == ("stricter_two_approvals", "members")
    assert (made.review_reminder_hours, made.approval_ttl_hours, made.revalidation_concurrency) == (48, 24, 4)
    assert sorted(made.validation_gates) == ["deploy", "release", "submit"]
    assert rules.DEFAULT_ENVIRONMENTS == ("Development", "QA", "UAT", "Production")
    assert rules.CANONICAL_DEFAULT == "Production"


def test_two_apps_share_no_setting() -> None:
    """`spec.md` 6: a list that one changes is its own."""
    AppSettings().blocked_paths.append("secret")
    assert AppSettings().blocked_paths == rules.DEFAULT_BLOCKED_PATHS


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("file_size_limit_bytes", 0, False),
        ("file_size_limit_bytes", 1, True),
        ("file_size_limit_bytes", 52_428_800, True),
        ("file_size_limit_bytes", 52_428_801, False),
        ("required_approval_count", 0, False),
        ("required_approval_count", 1, True),
        ("review_reminder_hours", -1, False),
        ("review_reminder_hours", 0, True),
        ("approval_ttl_hours", 0, False),
        ("approval_ttl_hours", 1, True),
        ("revalidation_concurrency", 0, False),
        ("revalidation_concurrency", 1, True),
        ("queue_gate", "clean_merge", True),
        ("queue_gate", "none", False),
        ("baseline_mode", "integration_head", True),
        ("baseline_mode", "head", False),
        ("temp_env_access", "public", True),
        ("temp_env_access", "all", False),
    ],
)
def test_a_setting_out_of_range_is_refused(field: str, value: Any, accepted: bool) -> None:
    """`spec.md` 6: just below, at and above each boundary."""
    if accepted:
        AppSettings.model_validate({field: value})
    else:
        with pytest.raises(ValidationError):
            AppSettings.model_validate({field: value})


@pytest.mark.parametrize(("seconds", "accepted"), [(0, False), (1, True), (86_400, True), (86_401, False), (None, True)])
def test_a_gate_has_a_timeout_within_a_day(seconds: int | None, accepted: bool) -> None:
    """`spec.md` 6 and 9."""
    if accepted:
        assert ValidationGate(timeout_seconds=seconds).command == "msuite"
    else:
        with pytest.raises(ValidationError):
            ValidationGate(timeout_seconds=seconds)
