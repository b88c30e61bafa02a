"""The notes of a release as text, and what others wrote in it (`api.md` 3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from conman.domain.markdown import code, inline, sentence
from conman.domain.release import ReleaseState
from conman.domain.release_notes import (
    LONGEST_SENTENCE,
    MOST_CHANGES,
    MOST_KEYS,
    MOST_OF_A_CHANGESET,
    Changes,
    ChangesetNotes,
    OverrideNotes,
    Person,
    ReleaseNotes,
    Told,
    changes_of,
    fitted,
    record_of,
    text_of,
)
from conman.domain.semantic_diff import summarised
from conman.domain.semantic_diff_files import FilePair, Type, Version, compare

ANN, ROB, EVE = Person("u1", "Ann"), Person("u2", "Rob"), Person("u3", "Eve")
RETRIES = Told("entities/Pay.json", "`retryCount` of entity `Pay` changed from 3 to 5")
URL = Told("entities/Pay.json", '`url` of entity `Pay` was added: "https://pay.example.com"')
MENU = Told("menus/main.yaml", "menu `main` was added")


def changeset(title: str = "Pay more often", changes: Changes | None = None, **more: object) -> ChangesetNotes:
    found = changes or Changes((RETRIES, URL, MENU), 3)
    return replace(ChangesetNotes("c1", title, ANN, (ROB, EVE), found), **more)


def release(*changesets: ChangesetNotes, **more: object) -> ReleaseNotes:
    published = {"published_at": "2026-10-02T10:11:12.000Z", "published_by": EVE, "before": "r2026.10.01.3"}
    return ReleaseNotes("r2026.10.02.1", ReleaseState.PUBLISHED, changesets, **published | more)  # type: ignore[arg-type]


def test_notes_tell_who_changed_what_in_each_file_and_what_arrives_at_the_profiles() -> None:
    overrides = (
        OverrideNotes("production", ("env_vars.MODE", "migrations"), ("secrets.TOKEN",), "`migrate` runs what is in `sql/`"),
        OverrideNotes("staging", ("base_url",)),
    )
    other = changeset("Less", Changes((MENU,), 7), approvers=(), author=Person("u4", "Max_M"))
    assert text_of(release(changeset(overrides=overrides), other, outside=True)) == (
        "# Release r2026.10.02.1\n\n"
        "Published at 2026-10-02 10:11 UTC by Eve. 2 changesets. The release before it is r2026.10.01.3.\n\n"
        "The integration branch also got commits that no release made: they are in the release's diff, not in these notes.\n\n"
        "## 1. Pay more often\n\n"
        "By Ann, approved by Rob and Eve.\n\n"
        "File `entities/Pay.json`:\n\n"
        "- `retryCount` of entity `Pay` changed from 3 to 5\n"
        '- `url` of entity `Pay` was added: "https://pay.example.com"\n\n'
        "File `menus/main.yaml`:\n\n"
        "- menu `main` was added\n\n"
        "Runtime profiles:\n\n"
        "- The profile of production: sets `env_vars.MODE`, `migrations`; removes `secrets.TOKEN`\n"
        "- Migrations there: `migrate` runs what is in `sql/`\n"
        "- The profile of staging: sets `base_url`\n\n"
        "## 2. Less\n\n"
        "By Max\\_M.\n\n"
        "File `menus/main.yaml`:\n\n"
        "- menu `main` was added\n\n"
        "And 6 more changes.\n"
    )


@pytest.mark.parametrize(
    ("state", "more", "begins"),
    [
        (ReleaseState.DRAFT_RELEASE, {}, "Not published yet (draft release): this is what it brings as it is now. 1 changeset."),
        (ReleaseState.VALIDATED, {}, "Not published yet (validated): this is what it brings as it is now."),
        (ReleaseState.DROPPED, {}, "Dropped: it was never published. 1 changeset."),
        (
            ReleaseState.ROLLED_BACK,
            {"published_at": "2026-10-02T10:11:12.000Z"},
            "Published at 2026-10-02 10:11 UTC. 1 changeset. It was rolled back since.",
        ),
    ],
)
def test_notes_say_what_became_of_the_release(state: ReleaseState, more: dict[str, str], begins: str) -> None:
    text = text_of(ReleaseNotes("r1", state, (changeset(),), **more))  # type: ignore[arg-type]
    assert text.split("\n\n")[1].startswith(begins)


def test_a_deployment_changes_nothing_about_the_notes() -> None:
    notes = release(changeset())
    assert text_of(replace(notes, state=ReleaseState.DEPLOYED_FULL)) == text_of(notes)


def test_a_release_that_undoes_another_tells_what_it_changes_itself() -> None:
    text = text_of(release(undoes="r2026.10.01.1", own=Changes((MENU,), 1)))
    assert "0 changesets. It undoes r2026.10.01.1." in text
    assert text.endswith("File `menus/main.yaml`:\n\n- menu `main` was added\n")


# -- What is longer than anybody reads


def test_of_a_changeset_only_the_first_changes_are_told() -> None:
    def version(text: str) -> Version:
        return Version(text[:9], Type.FILE, text.encode())

    keys = MOST_OF_A_CHANGESET + 1
    old, new = ("".join(f"k{key:03}: {value}\n" for key in range(keys)) for value in ("1", "2"))
    found = changes_of(summarised([compare(FilePair("a.yaml", version(old), version(new)))]))
    assert (len(found.told), found.total) == (MOST_OF_A_CHANGESET, keys)
    assert found.told[0] == Told("a.yaml", "`k000` of file `a.yaml` changed from 1 to 2")
    assert "\n\nAnd 1 more change.\n" in text_of(release(changeset(changes=found)))
    record = record_of(changeset(changes=found))
    assert (len(record["changes"]), record["more_changes"]) == (MOST_OF_A_CHANGESET, 1)


def test_all_changesets_together_have_room_for_so_many_changes_and_the_first_ones_keep_theirs() -> None:
    whole = Changes((MENU,) * MOST_OF_A_CHANGESET, MOST_OF_A_CHANGESET)
    fit = MOST_CHANGES // MOST_OF_A_CHANGESET
    notes = fitted(release(*[changeset(changes=whole)] * (fit + 1)))
    assert [len(one.changes.told) for one in notes.changesets if one.changes] == [MOST_OF_A_CHANGESET] * fit + [0]
    assert text_of(notes).endswith(f"\n\n{MOST_OF_A_CHANGESET} changes, not listed here.\n")


def test_a_changeset_that_was_not_compared_says_so() -> None:
    one = replace(changeset(), changes=None)
    assert "Its changes are not listed here" in text_of(fitted(release(one)))
    assert (record_of(one)["changes"], record_of(one)["more_changes"]) == ([], None)


@pytest.mark.parametrize(("keys", "more"), [(MOST_KEYS, ""), (MOST_KEYS + 1, " and 1 more")])
def test_of_an_override_only_the_first_keys_are_named(keys: int, more: str) -> None:
    override = OverrideNotes("staging", tuple(f"env_vars.K{key:03}" for key in range(keys)))
    assert text_of(release(changeset(overrides=(override,)))).endswith(f"`env_vars.K{MOST_KEYS - 1:03}`{more}\n")


# -- What others wrote


HOSTILE = st.text(st.sampled_from("`*_[]()<>#|~&!\\:/-+.=1 \n\r\t\u2028\u202ea\"'"), min_size=1, max_size=40) | st.sampled_from(
    ["</h1><script>x</script>", "x\n# y", "![a](b)", "<!-- ", "`` ` ``", "a`b", "&lt;", "- x", "[x]: y", "***", "\\", "`a``b`"]
)


def shape(text: str) -> list[str]:
    """What blocks and inline elements the text is made of, as GitHub's flavour of Markdown reads it, without what they say."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inside = ((token, token.children or []) for token in tokens)
    kinds = [[token.type, *(child.type for child in children)] for token, children in inside]
    return [kind for row in kinds for kind in row if kind not in ("text", "text_special", "code_inline", "softbreak")]


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_title_name_path_or_value_makes_structure(title: str, name: str, path: str, value: str) -> None:
    def noted(title: str, name: str, path: str, value: str) -> str:
        who = Person("u", name)
        change = Told(path, f"`{value}` of file `{path}` changed from {value} to {value}")
        override = OverrideNotes(name, (value,), (path,), f"`{value}` runs what is in `{path}`")
        one = ChangesetNotes("c", title, who, (who,), Changes((change,), 1), (override,))
        return text_of(release(one, published_by=who, before=title, undoes=name))

    assert shape(noted(title, name, path, value)) == shape(noted("t", "n", "p", "v"))


@given(HOSTILE)
def test_text_is_read_as_it_was_written(text: str) -> None:
    [_, line, _] = MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {inline(text, 100)} x")
    read = "".join(child.content for child in line.children or [])
    assert read.split() == ["x", *text.replace("\u202e", "").split(), "x"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("`a` of `b`", "`a` of `b`"),
        ("`a*` is <b>", "`a*` is \\<b\\>"),
        ("`a``b`", "\\`a\\`\\`b\\`"),
        ("an odd ` one", "an odd \\` one"),
        ("a\nb", "a b"),
    ],
)
def test_a_sentence_keeps_its_names_as_code(text: str, written: str) -> None:
    assert sentence(text, LONGEST_SENTENCE) == written


@pytest.mark.parametrize(("text", "written"), [("a/b_c.json", "`a/b_c.json`"), ("a`b", "a\\`b"), ("aaaaaaa", "`aaa…`"), ("", "")])
def test_a_name_is_code_unless_it_has_backticks(text: str, written: str) -> None:
    most = 4 if text == "aaaaaaa" else 200
    assert code(text, most) == written
