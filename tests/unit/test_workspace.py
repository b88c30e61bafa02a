"""What a submit folds together, what a journal says, and what is wrong with refs touched outside (`spec.md` 7)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import sha, uid

from conman.domain import workspace as rules
from conman.domain.decision import Event
from conman.domain.workspace import BaseRef, JournalEntry, LineCommit, MoveKind, Trouble
from conman.git.checks import trailers

AT = "2026-01-02T03:04:05.678Z"


def line(*kinds: str) -> list[LineCommit]:
    """A workspace's line, newest first: c = checkpoint, s = submit, m = merge, M = a merge that a checkpoint tops as one."""
    made: list[LineCommit] = []
    for number, kind in enumerate(kinds):
        parents = (sha(f"{number + 1}"),) if kind in "cs" else (sha(f"{number + 1}"), sha("main"))
        made.append(LineCommit(sha(f"{number}"), parents, unsubmitted=kind in "cM"))
    return made


@pytest.mark.parametrize(
    ("kinds", "submitted", "onto"),
    [
        ("", [], None),
        ("s", [], None),
        ("sc", [], None),
        ("c", [], 1),
        ("ccc", [], 3),
        ("ccs", [], 2),
        ("cms", [], 1),
        ("cM", [], 1),
        ("m", [], None),
        ("ccc", [1], 1),
        ("ccc", [0], None),
    ],
    ids=lambda value: str(value) or "nothing",
)
def test_a_submit_folds_all_since_the_last_one_and_no_merge(kinds: str, submitted: list[int], onto: int | None) -> None:
    """`spec.md` 7, `submit_commit`: one commit of everything since the last submit."""
    found = rules.fold_onto(line(*kinds), [sha(f"{number}") for number in submitted])
    assert found == (None if onto is None else sha(f"{onto}"))


@pytest.mark.parametrize(("submit", "unsubmitted"), [(True, False), (False, True)])
def test_a_commit_says_whether_a_submit_made_it(submit: bool, unsubmitted: bool) -> None:
    message = rules.commit_message(
        "Conman-Checkpoint: not me\n\nConman-Checkpoint: nor me", command_id="c", user_id="u", submit=submit
    )
    assert rules.line_commit(sha("x"), (), trailers(message)).unsubmitted is unsubmitted


@settings(deadline=None, derandomize=True, database=None)
@given(st.text(max_size=300), st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=3))
def test_nothing_in_a_title_or_a_path_is_taken_for_a_trailer(title: str, moves: list[tuple[str, str]]) -> None:
    message = rules.save_message(title, command_id="c", user_id="u", at=AT, moves=moves)
    found = trailers(message)
    assert found[:3] == (("Conman-Command", "c"), ("Conman-User", "u"), ("Conman-At", AT))
    assert rules.moves_of(found) == moves
    assert message.split("\n\n")[0].isprintable()


@settings(deadline=None, derandomize=True, database=None)
@given(st.text(max_size=60), st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9) | st.none(), max_size=4))
def test_a_journal_entry_is_read_as_it_was_written(text: str, values: dict[str, object]) -> None:
    event = Event("file", uid("w"), "checkpoint", before=None, after={"message": text, **values}, git_sha=sha("x"))
    entry = JournalEntry(
        kind=MoveKind.SYNCED,
        command_id="c",
        user_id=None,
        at=AT,
        after=sha("x"),
        events=[rules.move_event(event)],
        answer=values,
        base=BaseRef(type="release", value=text),
    )
    read = rules.journal_entry(trailers(entry.message()))
    assert read == entry
    assert read is not None
    assert read.events[0].event() == event


def test_what_a_later_version_adds_to_an_entry_is_ignored_and_other_commits_are_no_entries() -> None:
    """`durability.md` 23."""
    entry = JournalEntry(kind=MoveKind.RESET, command_id="c", at=AT, after=sha("x"))
    later = json.dumps({**entry.model_dump(mode="json"), "colour": "red"})
    assert rules.journal_entry([("Conman-Move", later)]) == entry
    assert rules.journal_entry([("Conman-Command", "c")]) is None
    assert rules.journal_entry([("Conman-Move", "{}")]) is None


HEAD, ELSEWHERE, EDITS = sha("head"), sha("elsewhere"), sha("edits")


@pytest.mark.parametrize(
    ("head", "known", "pending", "contained", "trouble"),
    [
        (HEAD, HEAD, HEAD, True, None),
        (HEAD, HEAD, EDITS, True, None),
        (None, HEAD, EDITS, False, Trouble.DELETED),
        (None, None, None, False, Trouble.DELETED),
        (ELSEWHERE, HEAD, EDITS, True, Trouble.MOVED),
        (ELSEWHERE, HEAD, EDITS, False, Trouble.MOVED),
        (HEAD, HEAD, EDITS, False, Trouble.EDITS_LOST),
        (HEAD, HEAD, None, False, Trouble.EDITS_LOST),
        (HEAD, None, EDITS, True, None),
        (HEAD, None, EDITS, False, Trouble.MOVED),
    ],
)
def test_what_was_done_outside_is_told_apart(
    head: str | None, known: str | None, pending: str | None, contained: bool, trouble: Trouble | None
) -> None:
    assert rules.trouble_of(head=head, known=known, pending=pending, contained=contained) is trouble


@pytest.mark.parametrize("trouble", Trouble)
def test_each_trouble_is_told_with_the_branch_and_what_mends_it(trouble: Trouble) -> None:
    told = rules.told(trouble, "ws/ann/shop")
    assert "ws/ann/shop" in told
    assert "outside Conman" in told
    assert "reset" in told
