"""Every hostile path of the corpus meets the refusal that the corpus says (`spec.md` 7)."""

from __future__ import annotations

import json

import pytest

from conman.domain.errors import DomainError
from conman.domain.paths import DEFAULT_BLOCKED_PATHS, check_blocked, normalise_path
from tests.paths.hostile import ACCEPTED, REFUSED, ROWS, Row


def _outcome(path: str, *, folder: bool) -> str:
    try:
        check_blocked(normalise_path(path, folder=folder), DEFAULT_BLOCKED_PATHS)
    except DomainError as error:
        return error.code.value
    return ACCEPTED


def test_the_corpus_has_hundreds_of_hostile_paths_each_once() -> None:
    assert len({row.path for row in REFUSED}) == len(REFUSED) >= 400


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_path_meets_what_the_corpus_says(row: Row) -> None:
    assert _outcome(row.path, folder=False) == row.outcome, row.why
    assert _outcome(row.path, folder=True) == row.as_folder, row.why


@pytest.mark.parametrize("row", [row for row in ROWS if row.outcome == ACCEPTED], ids=lambda row: row.id)
def test_an_accepted_path_has_one_spelling(row: Row) -> None:
    path = normalise_path(row.path)
    assert normalise_path(path) == path


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.id)
def test_a_refusal_can_be_shown_and_stored(row: Row) -> None:
    with pytest.raises(DomainError) as refused:
        check_blocked(normalise_path(row.path), DEFAULT_BLOCKED_PATHS)
    assert refused.value.message.encode()
    assert json.dumps(refused.value.details, ensure_ascii=False).encode()
