"""The version that a writer read, from header or body (`api.md` 1)."""

from __future__ import annotations

import pytest

from conman.api.versions import expected_version, required_version
from conman.domain.errors import DomainError, ErrorCode


@pytest.mark.parametrize(
    ("header", "in_body", "version"),
    [
        (None, None, None),
        ("7", None, 7),
        ('"7"', None, 7),
        ('W/"7"', None, 7),
        (" 7 ", None, 7),
        (None, 7, 7),
        (None, 0, 0),
        ("0", None, 0),
        ("7", 7, 7),
        ("999999999999999", None, 999_999_999_999_999),
    ],
)
def test_the_version_is_read_from_the_header_quoted_or_not_or_from_the_body(
    header: str | None, in_body: int | None, version: int | None
) -> None:
    assert expected_version(header, in_body) == version


@pytest.mark.parametrize("header", ["", "x", "*", "-1", "7.0", '"7', '7"', '"7", "8"', "7 8", "\u0667", "1" * 16, '""'])
def test_a_header_that_is_no_version_is_refused(header: str) -> None:
    with pytest.raises(DomainError, match="If-Match") as refused:
        expected_version(header)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR


@pytest.mark.parametrize(("header", "in_body"), [("7", 8), ('"0"', 1), ("1", 0)])
def test_header_and_body_that_name_different_versions_are_refused(header: str, in_body: int) -> None:
    with pytest.raises(DomainError, match="send the one that you read") as refused:
        expected_version(header, in_body)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR


def test_where_a_version_is_required_a_request_without_one_is_refused_and_any_other_is_not() -> None:
    with pytest.raises(DomainError, match="is required") as refused:
        required_version(None)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR
    assert required_version(None, 0) == 0
    assert required_version("3") == 3
