"""The words of temp envs' host names and the labels that are made of them (`spec.md` 13)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conman.domain.temp_env import TempEnvKind
from conman.domain.temp_words import ADJECTIVES, NOUNS, PAIRS, is_label, label_prefix, temp_label, words_of

KINDS = list(TempEnvKind)
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A host name's label by RFC 1123, lower case."""
ROOTS = """
anal anus arse bastard bitch bollock boob bugger butt clit cock coon crap cunt damn dick dike dildo dyke fart fuck homo honk
horny jizz kike knob labia lust milf nazi negro nigg nude orgas orgy paki penis piss poof poop porn prick pube puss queer rape
scum semen sexy shag shit slag slut spic spunk suck tits turd twat vagin wank whore dead death kill hate hell satan drug
heroin slave stupid idiot ugly
"""
RUDE = ROOTS.split()
SHORT = ("ass", "cum", "fag", "gay", "god", "jap", "jew", "kkk", "pee", "poo", "sex", "tit", "wog")
"""What is harmless within a word (compass, document), and not as one."""


def test_the_words_are_many_and_each_stands_once() -> None:
    words = (*ADJECTIVES, *NOUNS)
    assert len(ADJECTIVES) >= 250
    assert len(NOUNS) >= 250
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("words", [ADJECTIVES, NOUNS], ids=["adjectives", "nouns"])
def test_a_word_has_three_to_nine_lower_case_letters(words: tuple[str, ...]) -> None:
    assert [word for word in words if not re.fullmatch(r"[a-z]{3,9}", word)] == []


def test_no_word_is_rude_and_no_two_become_so_where_they_meet() -> None:
    rude = re.compile("|".join(RUDE))
    assert [word for word in (*ADJECTIVES, *NOUNS) if rude.search(word) or word in SHORT] == []
    first, second = frozenset(ADJECTIVES), frozenset(NOUNS)
    ends = {word[-length:] for word in ADJECTIVES for length in range(1, 7)}
    begins = {word[:length] for word in NOUNS for length in range(1, 7)}
    cuts = [(word[:cut], word[cut:]) for word in (*RUDE, *SHORT) for cut in range(1, len(word))]
    assert [cut for cut in cuts if (cut[0] in first and cut[1] in begins) or (cut[0] in ends and cut[1] in second)] == []


@settings(max_examples=20, deadline=None)
@given(name=st.text(max_size=80), kind=st.sampled_from(KINDS), first=st.integers(0, 10 * PAIRS))
def test_a_thousand_labels_in_a_row_are_host_names_and_all_different(name: str, kind: TempEnvKind, first: int) -> None:
    labels = [temp_label(name, kind, first + number) for number in range(1000)]
    assert len(set(labels)) == len(labels)
    assert [label for label in labels if not LABEL.fullmatch(label) or not is_label(label)] == []


@pytest.mark.parametrize("name", ["conman", "workspace", "shop-workspace", "shop-workspace-calm", "-workspace-calm-lake", "www"])
def test_other_names_of_hosts_are_no_labels(name: str) -> None:
    assert not is_label(name)


@pytest.mark.parametrize("prefix", ["shop-workspace", "shop-changeset"])
def test_the_numbers_come_by_every_pair_before_they_come_by_one_again(prefix: str) -> None:
    assert len({words_of(prefix, number) for number in range(PAIRS)}) == PAIRS
    assert words_of(prefix, PAIRS) == words_of(prefix, 0)


def test_a_number_follows_the_words_once_all_pairs_were_given() -> None:
    label = temp_label("shop", TempEnvKind.WORKSPACE, 0)
    assert temp_label("shop", TempEnvKind.WORKSPACE, PAIRS) == f"{label}-2"
    assert temp_label("shop", TempEnvKind.WORKSPACE, 7 * PAIRS + 1).endswith("-8")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("Shop", "shop-changeset"),
        ("My Shop, 2nd", "my-shop-2nd-changeset"),
        ("twenty-characters-ab", "twenty-characters-ab-changeset"),
        ("twenty-one-characters", "twenty-one-character-changeset"),
        ("a name cut at dashes --- here", "a-name-cut-at-dashes-changeset"),
        ("nineteen-letters-ab c", "nineteen-letters-ab-changeset"),
        ("日本", "x-changeset"),
    ],
)
def test_the_app_part_is_slugged_and_cut_to_twenty_characters(name: str, prefix: str) -> None:
    assert label_prefix(name, TempEnvKind.CHANGESET) == prefix
