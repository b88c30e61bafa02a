"""What a password must be (`spec.md` 5), and the list that ships."""

from __future__ import annotations

import pytest

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.passwords import LONGEST, SHORTEST, password_problem
from conman.services.passwords import check_password, commonest

EMAIL = "ann.example@example.com"


@pytest.mark.parametrize("length", [SHORTEST, SHORTEST + 1, LONGEST - 1, LONGEST])
def test_12_to_128_characters_are_fine(length: int) -> None:
    assert password_problem("ä" * length, EMAIL, commonest()) is None


@pytest.mark.parametrize("length", [0, 1, SHORTEST - 1, LONGEST + 1, 1024])
def test_fewer_and_more_are_not(length: int) -> None:
    assert password_problem("ä" * length, EMAIL, commonest()) == "needs 12 to 128 characters"


@pytest.mark.parametrize("password", [EMAIL, EMAIL.upper(), f" {EMAIL} "])
def test_the_email_is_no_password(password: str) -> None:
    assert password_problem(password, EMAIL, commonest()) == "must not be the email"


def test_what_holds_the_email_is_a_password() -> None:
    assert password_problem(f"{EMAIL} and more", EMAIL, commonest()) is None


@pytest.mark.parametrize("password", ["password1234", "PassWord1234", "qwertyuiop123", "1q2w3e4r5t6y", "administrator"])
def test_the_commonest_are_refused_in_any_case(password: str) -> None:
    assert "commonest" in (password_problem(password, EMAIL, commonest()) or "")


def test_the_list_holds_only_what_could_be_chosen() -> None:
    assert len(commonest()) > 400
    assert [password for password in commonest() if not SHORTEST <= len(password) <= LONGEST] == []
    assert [password for password in commonest() if password != password.casefold() or password != password.strip()] == []


def test_the_refusal_names_the_field() -> None:
    with pytest.raises(DomainError) as refused:
        check_password("too short", EMAIL, field="password.new")
    assert refused.value.code is ErrorCode.VALIDATION_ERROR
    assert refused.value.details == [{"field": "password.new", "message": "needs 12 to 128 characters"}]
