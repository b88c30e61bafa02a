"""Tokens in mails (`spec.md` 5)."""

from __future__ import annotations

import re

import pytest

from conman.domain.tokens import TokenPurpose, make_token, token_hash

SECRET = "s" * 40


def test_a_retried_mail_computes_the_same_token_again() -> None:
    assert make_token(SECRET, TokenPurpose.INVITE, "id", 1) == make_token(SECRET, TokenPurpose.INVITE, "id", 1)


@pytest.mark.parametrize(
    "other",
    [
        (SECRET + "x", TokenPurpose.INVITE, "id", 1),
        (SECRET, TokenPurpose.PASSWORD_RESET, "id", 1),
        (SECRET, TokenPurpose.INVITE, "id2", 1),
        (SECRET, TokenPurpose.INVITE, "id", 2),
    ],
    ids=["secret", "purpose", "record", "number"],
)
def test_a_token_differs_with_each_thing_that_it_is_made_of(other: tuple[str, TokenPurpose, str, int]) -> None:
    assert make_token(*other) != make_token(SECRET, TokenPurpose.INVITE, "id", 1)


def test_a_token_is_32_or_more_url_safe_characters() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{32,}", make_token(SECRET, TokenPurpose.PASSWORD_RESET, "id", 7))


def test_what_is_kept_does_not_contain_the_token() -> None:
    token = make_token(SECRET, TokenPurpose.INVITE, "id", 1)
    assert token not in token_hash(token)
    assert token_hash(token) != token_hash(make_token(SECRET, TokenPurpose.INVITE, "id", 2))
