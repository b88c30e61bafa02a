"""The codes of refusals and failures are those of `api.md` 1, each with its status."""

from __future__ import annotations

import pytest

from conman.api.errors import STATUS
from conman.domain import errors
from conman.domain.errors import ConmanError, DomainError, ErrorCode, Unavailable

# The table of `api.md` 1, without its remarks. Where a row names two statuses, a slash parts their codes too.
SECTION_1 = """
| 400 | `validation_error`, `token_invalid`, `invite_invalid` |
| 401 | `unauthorized`, `invalid_credentials` |
| 403 | `forbidden`, `blocked_path` |
| 404 | `not_found` |
| 405 | `method_not_allowed` |
| 409 | `conflict`, `invalid_transition`, `out_of_date`, `gate_not_passed`, `stale_write`, `environment_locked`, `stage_skipped`, `environment_frozen`, `app_on_hold`, `marked_bad`, `command_expired` |
| 410 | `token_expired`, `invite_expired`, `grace_ended` |
| 413 / 415 | `payload_too_large` / `unsupported_media_type` |
| 429 | `rate_limited` |
| 500 | `internal` |
| 502 / 503 | `git_error`, `ai_error` / `unavailable`, `outcome_unknown` |
"""  # noqa: E501


def section_1() -> dict[str, int]:
    """Code → status, as the section says."""
    found: dict[str, int] = {}
    for line in SECTION_1.strip().split("\n"):
        statuses, codes = (cell.strip() for cell in line.strip("|").split("|"))
        for status, group in zip(statuses.split(" / "), codes.split(" / "), strict=True):
            for code in group.split(", "):
                assert code.strip("`") not in found
                found[code.strip("`")] = int(status)
    return found


def test_the_codes_are_those_of_the_contract_and_no_other() -> None:
    """`api.md` 1, in both directions."""
    assert {code.value for code in ErrorCode} == set(section_1())


def test_every_code_has_the_status_of_the_contract() -> None:
    """`api.md` 1, in both directions: the table of the HTTP layer knows each code, and nothing else."""
    assert {code.value: status for code, status in STATUS.items()} == section_1()


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.value)
def test_a_code_is_its_own_name_in_lower_case(code: ErrorCode) -> None:
    """`api.md` 1."""
    assert code.value == code.name.lower()


def test_a_refusal_and_an_outage_are_different_things() -> None:
    """`durability.md` 5: only a refusal means that nothing was written."""
    assert issubclass(DomainError, ConmanError)
    assert issubclass(Unavailable, ConmanError)
    assert not issubclass(DomainError, Unavailable)
    assert not issubclass(Unavailable, DomainError)


def test_an_error_carries_code_message_and_details() -> None:
    """`api.md` 1, the envelope."""
    error = DomainError(ErrorCode.CONFLICT, "Do this.", [{"changeset_id": "x"}])
    assert (error.code, error.message, error.details, str(error)) == (
        ErrorCode.CONFLICT,
        "Do this.",
        [{"changeset_id": "x"}],
        "Do this.",
    )
    assert DomainError(ErrorCode.CONFLICT, "Do this.").details is None


def test_a_validation_error_lists_its_field() -> None:
    """`api.md` 1: `details`: list of `{field, message}`."""
    error = errors.invalid("title", "is empty")
    assert error.code is ErrorCode.VALIDATION_ERROR
    assert error.details == [{"field": "title", "message": "is empty"}]
    assert "title" in error.message
    assert "is empty" in error.message


def test_what_is_not_there_is_named() -> None:
    """`api.md` 1: an id of another app looks the same."""
    error = errors.not_found("release")
    assert error.code is ErrorCode.NOT_FOUND
    assert "release" in error.message


def test_easily_confused_codes_have_their_litmus_sentences() -> None:
    """The module's opening tells them apart."""
    for pair in (
        "`conflict` / `invalid_transition`",
        "`stale_write` / `out_of_date`",
        "`unavailable` / `outcome_unknown`",
        "`forbidden` / `not_found`",
    ):
        assert pair in (errors.__doc__ or "")
