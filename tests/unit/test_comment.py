"""Where comments stand, and what may be changed of them (`spec.md` 8)."""

from __future__ import annotations

import difflib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.comment import (
    LONGEST_BODY,
    Anchor,
    Comment,
    FileFate,
    Hunk,
    Place,
    check_author,
    check_body,
    check_line,
    check_reply,
    count_lines,
    created_event,
    decide_change,
    follow,
    follow_line,
    hunks_of,
)
from conman.domain.errors import DomainError, ErrorCode

ON_A_LINE = Anchor(1, "a.json", 3)
LINES = st.lists(st.sampled_from(["{", "}", "  x", "  y", "  z", "", "@@ -1 +1 @@"]), max_size=12)


def patch(before: list[str], after: list[str]) -> str:
    return "".join(difflib.unified_diff([f"{line}\n" for line in before], [f"{line}\n" for line in after], n=0))


def places(before: list[str], after: list[str]) -> list[int | None]:
    hunks = hunks_of(patch(before, after))
    return [follow_line(hunks, number) for number in range(1, len(before) + 1)]


def field_of(refusal: pytest.ExceptionInfo[DomainError]) -> str:
    assert refusal.value.code is ErrorCode.VALIDATION_ERROR
    return refusal.value.details[0]["field"]


@given(LINES, LINES)
def test_a_line_that_is_followed_has_the_same_text_there(before: list[str], after: list[str]) -> None:
    for line, place in zip(before, places(before, after), strict=True):
        assert place is None or after[place - 1] == line


@given(LINES, LINES)
def test_lines_keep_their_order_and_no_two_stand_in_one_place(before: list[str], after: list[str]) -> None:
    found = [place for place in places(before, after) if place is not None]
    assert all(one < two for one, two in pairwise(found))


@given(LINES, LINES)
def test_a_line_is_lost_exactly_when_the_patch_takes_it_away(before: list[str], after: list[str]) -> None:
    removed = sum(line.startswith("-") for line in patch(before, after).splitlines()[2:])
    assert places(before, after).count(None) == removed


@given(LINES, LINES, LINES)
def test_what_stands_above_and_below_an_insertion_is_followed(above: list[str], below: list[str], new: list[str]) -> None:
    hunks = [Hunk(len(above), 0, len(new))] if new else []
    moved = [follow_line(hunks, number) for number in range(1, len(above) + len(below) + 1)]
    assert moved == [*range(1, len(above) + 1), *range(len(above) + len(new) + 1, len(above) + len(new) + len(below) + 1)]


@given(LINES)
def test_a_file_that_is_the_same_moves_nothing(lines: list[str]) -> None:
    assert places(lines, lines) == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("head", "hunk"),
    [
        ("@@ -3 +3 @@", Hunk(3, 1, 1)),
        ("@@ -3,2 +3 @@ in a function", Hunk(3, 2, 1)),
        ("@@ -3,0 +4,2 @@", Hunk(3, 0, 2)),
        ("@@ -3,2 +2,0 @@", Hunk(3, 2, 0)),
        ("@@ -0,0 +1 @@", Hunk(0, 0, 1)),
    ],
)
def test_a_hunk_is_read_from_its_head(head: str, hunk: Hunk) -> None:
    assert hunks_of(f"diff --git a/a b/a\n--- a/a\n+++ b/a\n{head}\n-old\n+new\n") == (hunk,)


def test_a_line_of_the_file_that_looks_like_the_head_of_a_hunk_is_none() -> None:
    text = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-@@ -5,5 +9,9 @@\n+x\r@@ -7 +7 @@\n\\ No newline at end of file\n"
    assert hunks_of(text) == (Hunk(1, 1, 1),)


@pytest.mark.parametrize(
    ("line", "place"), [(2, 2), (3, None), (4, None), (5, 4), (9, 8), (10, 12)], ids=lambda value: str(value)
)
def test_lines_just_above_in_and_below_what_changed(line: int, place: int | None) -> None:
    assert follow_line([Hunk(3, 2, 1), Hunk(9, 0, 3)], line) == place


@pytest.mark.parametrize(
    ("fate", "place"),
    [
        (FileFate("a.json"), Place("a.json", 3)),
        (FileFate("b.json"), Place("b.json", 3)),
        (FileFate("a.json", (Hunk(1, 0, 2),)), Place("a.json", 5)),
        (FileFate("b.json", (Hunk(3, 1, 1),)), Place("a.json", 3, outdated=True)),
        (FileFate("a.json", None), Place("a.json", 3, outdated=True)),
        (FileFate(None), Place("a.json", 3, outdated=True)),
    ],
    ids=["untouched", "moved", "lines above", "the line changed", "binary now", "gone"],
)
def test_a_comment_on_a_line_follows_it_or_is_outdated_where_it_was_put(fate: FileFate, place: Place) -> None:
    assert follow(ON_A_LINE, fate) == place


@pytest.mark.parametrize(
    ("fate", "place"),
    [
        (FileFate("a.json", (Hunk(1, 9, 9),)), Place("a.json", None)),
        (FileFate("b.json", None), Place("b.json", None)),
        (FileFate(None), Place("a.json", None, outdated=True)),
    ],
    ids=["rewritten", "moved and binary", "gone"],
)
def test_a_comment_on_a_file_is_outdated_only_when_the_file_is_gone(fate: FileFate, place: Place) -> None:
    assert follow(Anchor(1, "a.json"), fate) == place


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2), (b"a\r\nb\r", 2), (b"a\0b\n", None)],
)
def test_lines_are_counted_as_git_does(data: bytes, lines: int | None) -> None:
    assert count_lines(data) == lines


def test_a_file_is_binary_by_a_nul_near_its_start_only() -> None:
    assert count_lines(b"x" * 7999 + b"\0\n") is None
    assert count_lines(b"x" * 8000 + b"\0\n") == 1


@pytest.mark.parametrize("body", ["x", "<script>alert(1)</script>", " two\n lines ", "x" * LONGEST_BODY])
def test_a_body_is_kept_as_it_was_written(body: str) -> None:
    assert check_body(body) == body


@pytest.mark.parametrize("body", ["", " ", "\n\t\u00a0", "x" * (LONGEST_BODY + 1)])
def test_a_body_that_says_nothing_or_too_much_is_refused(body: str) -> None:
    with pytest.raises(DomainError) as refusal:
        check_body(body)
    assert field_of(refusal) == "body"


@pytest.mark.parametrize(("line", "lines", "sound"), [(1, 1, True), (3, 3, True), (4, 3, False), (1, 0, False), (1, None, False)])
def test_a_line_must_be_one_of_the_files(line: int, lines: int | None, sound: bool) -> None:
    if sound:
        check_line("a.json", line, lines, 1)
        return
    with pytest.raises(DomainError, match=r"a\.json") as refusal:
        check_line("a.json", line, lines, 1)
    assert field_of(refusal) == "line_number"


@pytest.mark.parametrize(
    ("path", "line"),
    [(None, None), ("a.json", None), ("b.json", 7), ("a.json", 3), (None, 7)],
)
def test_a_reply_may_repeat_where_its_thread_stands_or_stood(path: str | None, line: int | None) -> None:
    check_reply(ON_A_LINE, Place("b.json", 7), path, line)


@pytest.mark.parametrize(("path", "line", "field"), [("c.json", None, "file_path"), (None, 4, "line_number")])
def test_a_reply_stands_nowhere_but_where_its_thread_does(path: str | None, line: int | None, field: str) -> None:
    with pytest.raises(DomainError) as refusal:
        check_reply(ON_A_LINE, Place("b.json", 7), path, line)
    assert field_of(refusal) == field


def test_a_reply_to_a_comment_on_the_changeset_names_no_file() -> None:
    with pytest.raises(DomainError):
        check_reply(Anchor(1), Place(None, None), "a.json", None)


def test_only_the_author_edits_a_body() -> None:
    check_author("ann", "ann")
    with pytest.raises(DomainError) as refusal:
        check_author("ann", "rob")
    assert refusal.value.code is ErrorCode.FORBIDDEN


def comment(**fields: Any) -> Comment:
    return Comment(**{"id": "c", "changeset_id": "cs", "thread_id": None, "body": "one", "resolved": False} | fields)


@pytest.mark.parametrize(
    ("body", "resolved", "events"),
    [
        ("two", None, [("edited", {"body": "one"}, {"body": "two"})]),
        (None, True, [("resolved", {"resolved": False}, {"resolved": True})]),
        (
            "two",
            True,
            [("edited", {"body": "one"}, {"body": "two"}), ("resolved", {"resolved": False}, {"resolved": True})],
        ),
        ("one", True, [("resolved", {"resolved": False}, {"resolved": True})]),
    ],
)
def test_each_change_is_an_event_of_its_own(body: str | None, resolved: bool | None, events: list[Any]) -> None:
    changed = decide_change(comment(), body=body, resolved=resolved)
    assert changed is not None
    assert (changed.body, changed.resolved) == (body or "one", bool(resolved))
    assert changed.new_body == (body == "two")
    of = {"changeset_id": "cs"}
    assert [(event.action, event.before, event.after) for event in changed.events] == [
        (action, of | before, of | after) for action, before, after in events
    ]


@pytest.mark.parametrize(("body", "resolved"), [(None, None), ("one", None), (None, False), ("one", False)])
def test_what_stands_already_is_no_change(body: str | None, resolved: bool | None) -> None:
    assert decide_change(comment(), body=body, resolved=resolved) is None


def test_reopening_is_the_resolution_taken_back() -> None:
    changed = decide_change(comment(resolved=True), body=None, resolved=False)
    assert changed is not None
    assert [(event.action, event.after) for event in changed.events] == [("resolved", {"changeset_id": "cs", "resolved": False})]


def test_a_thread_is_resolved_at_its_first_comment() -> None:
    with pytest.raises(DomainError, match="thread-1") as refusal:
        decide_change(comment(thread_id="thread-1"), body=None, resolved=True)
    assert field_of(refusal) == "resolved"


def test_the_audit_shows_a_new_comment_where_it_stands() -> None:
    event = created_event("c", "cs", "one", Place("b.json", 7), 2, "thread-1")
    assert event.after == {
        "changeset_id": "cs",
        "body": "one",
        "file_path": "b.json",
        "line_number": 7,
        "parent_comment_id": "thread-1",
        "revision_number": 2,
    }
