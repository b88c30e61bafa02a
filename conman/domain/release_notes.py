"""The notes of a release: what each of its changesets changes, in sentences, as text (Markdown) and as a record (`api.md` 3).

They are a function of the release and what its changesets brought: the same release has the same notes. Whatever people called
their changesets, files and keys stays text: none of it makes a heading, a link or HTML. What is longer than anybody reads is cut,
and says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from conman.domain.markdown import code, inline, sentence
from conman.domain.plain_text import plain_line, shortened
from conman.domain.release import ReleaseState
from conman.domain.semantic_diff import SemanticDiff
from conman.domain.semantic_diff_words import sentence as words
from conman.domain.times import parse_time

MOST_OF_A_CHANGESET = 50
"""Changes that are told of one changeset."""
MOST_CHANGES = 500
"""Changes that are told of all changesets together."""
MOST_KEYS = 30
"""Keys that are named of one override of a runtime profile."""
LONGEST_SENTENCE = 400
LONGEST_NAME = 200
"""Characters of a title, a path, a person's name or a key."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who did something: the id, and the name by which people know them."""

    user_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Told:
    """One change: its file, and what changed."""

    path: str
    description: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What two commits differ in, the first of it told, and how many changes there are."""

    told: tuple[Told, ...] = ()
    total: int = 0

    def cut(self, most: int) -> Changes:
        """The same with at most `most` changes told."""
        return replace(self, told=self.told[:most])


def changes_of(diff: SemanticDiff) -> Changes:
    """The changes of a semantic diff, the first of them in sentences."""
    first = diff.changes[:MOST_OF_A_CHANGESET]
    told = (Told(one.subject.path, shortened(plain_line(words(one)), LONGEST_SENTENCE)) for one in first)
    return Changes(tuple(told), len(diff.changes))


@dataclass(frozen=True, slots=True)
class OverrideNotes:
    """What arrives at a runtime profile: the keys that are set and removed, never their values."""

    target: str
    sets: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    migrations: str | None = None
    """How data is migrated from then on, in words."""


@dataclass(frozen=True, slots=True)
class ChangesetNotes:
    """One changeset of a release. `changes` is None where they were too many to compare."""

    changeset_id: str
    title: str
    author: Person
    approvers: tuple[Person, ...]
    changes: Changes | None
    overrides: tuple[OverrideNotes, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseNotes:
    """A release as its notes tell it, its changesets in merge order.

    `before` is the tag of the release published before it, `undoes` that of the one that it reverts; `outside`: since `before`
    the integration branch got commits that no release made. `own` are the changes of a release that has no changesets.
    """

    tag: str
    state: ReleaseState
    changesets: tuple[ChangesetNotes, ...]
    published_at: str | None = None
    published_by: Person | None = None
    before: str | None = None
    undoes: str | None = None
    outside: bool = False
    own: Changes | None = None


def fitted(notes: ReleaseNotes) -> ReleaseNotes:
    """The notes with no more changes told than they may have together; the first changesets keep theirs."""
    room = MOST_CHANGES
    fitting: list[ChangesetNotes] = []
    for one in notes.changesets:
        changes = one.changes.cut(room) if one.changes is not None else None
        room -= len(changes.told) if changes is not None else 0
        fitting.append(replace(one, changes=changes))
    return replace(notes, changesets=tuple(fitting))


def record_of(notes: ChangesetNotes) -> dict[str, Any]:
    """What the notes tell of a changeset, for programs; `more_changes` is null where its changes were not compared."""
    changes = notes.changes
    return {
        "changeset_id": notes.changeset_id,
        "title": notes.title,
        "author_user_id": notes.author.user_id,
        "approved_by": [person.user_id for person in notes.approvers],
        "changes": changes_record(changes),
        "more_changes": changes.total - len(changes.told) if changes is not None else None,
        "overrides": [_override_record(one) for one in notes.overrides],
    }


def changes_record(changes: Changes | None) -> list[dict[str, str]]:
    """The changes that are told, for programs."""
    return [{"file_path": one.path, "description": one.description} for one in changes.told] if changes is not None else []


def _override_record(one: OverrideNotes) -> dict[str, Any]:
    return {"target": one.target, "sets": list(one.sets), "removes": list(one.removes), "migrations": one.migrations}


def text_of(notes: ReleaseNotes) -> str:
    """The notes as Markdown."""
    blocks = [f"# Release {inline(notes.tag, LONGEST_NAME)}", " ".join(_status(notes))]
    if notes.outside:
        blocks.append(
            "The integration branch also got commits that no release made: they are in the release's diff, not in these notes."
        )
    if notes.own is not None:
        blocks += _change_blocks(notes.own)
    for number, one in enumerate(notes.changesets, start=1):
        blocks += _changeset_blocks(number, one)
    return "\n\n".join(blocks) + "\n"


def _status(notes: ReleaseNotes) -> list[str]:
    told = [_count(len(notes.changesets), "changeset") + "."]
    if notes.published_at is not None:
        by = f" by {inline(notes.published_by.name, LONGEST_NAME)}" if notes.published_by is not None else ""
        told.insert(0, f"Published at {parse_time(notes.published_at).strftime('%Y-%m-%d %H:%M UTC')}{by}.")
    elif notes.state is ReleaseState.DROPPED:
        told.insert(0, "Dropped: it was never published.")
    else:
        told.insert(0, f"Not published yet ({notes.state.value.replace('_', ' ')}): this is what it brings as it is now.")
    if notes.state is ReleaseState.ROLLED_BACK:
        told.append("It was rolled back since.")
    if notes.undoes is not None:
        told.append(f"It undoes {inline(notes.undoes, LONGEST_NAME)}.")
    if notes.before is not None:
        told.append(f"The release before it is {inline(notes.before, LONGEST_NAME)}.")
    return told


def _changeset_blocks(number: int, one: ChangesetNotes) -> list[str]:
    approved = f", approved by {_people(one.approvers)}" if one.approvers else ""
    blocks = [
        f"## {number}. {inline(one.title, LONGEST_NAME)}",
        f"By {inline(one.author.name, LONGEST_NAME)}{approved}.",
    ]
    if one.changes is None:
        blocks.append("Its changes are not listed here, since the release has too many changesets: its own diff has them.")
    else:
        blocks += _change_blocks(one.changes)
    if one.overrides:
        blocks += ["Runtime profiles:", "\n".join(line for override in one.overrides for line in _override_lines(override))]
    return blocks


def _people(people: Sequence[Person]) -> str:
    *others, last = [inline(person.name, LONGEST_NAME) for person in people]
    return f"{', '.join(others)} and {last}" if others else last


def _change_blocks(changes: Changes) -> list[str]:
    blocks: list[str] = []
    for path, of_file in groupby(changes.told, key=lambda one: one.path):
        blocks.append(f"File {code(path, LONGEST_NAME)}:")
        blocks.append("\n".join(f"- {sentence(one.description, LONGEST_SENTENCE)}" for one in of_file))
    more = changes.total - len(changes.told)
    if more:
        blocks.append(f"And {_count(more, 'more change')}." if changes.told else f"{_count(more, 'change')}, not listed here.")
    return blocks


def _override_lines(one: OverrideNotes) -> list[str]:
    told = [f"{what} {_keys(keys)}" for what, keys in (("sets", one.sets), ("removes", one.removes)) if keys]
    lines = [f"- The profile of {inline(one.target, LONGEST_NAME)}: {'; '.join(told)}"]
    if one.migrations is not None:
        lines.append(f"- Migrations there: {sentence(one.migrations, LONGEST_SENTENCE)}")
    return lines


def _keys(keys: Sequence[str]) -> str:
    named = [code(key, LONGEST_NAME) for key in keys[:MOST_KEYS]]
    more = len(keys) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
