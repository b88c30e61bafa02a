"""A bulk write that met its own rows is no failure; all else is."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from conman.store.database import DUPLICATE_KEY, only_duplicates

DUPLICATE = {"index": 3, "code": DUPLICATE_KEY, "errmsg": "E11000 duplicate key"}
OTHER = {"index": 5, "code": 121, "errmsg": "Document failed validation"}


@pytest.mark.parametrize("refused", [[DUPLICATE], [DUPLICATE, {**DUPLICATE, "index": 4}]])
def test_duplicates_are_told_with_their_places(refused: list[dict[str, Any]]) -> None:
    assert only_duplicates(BulkWriteError({"writeErrors": refused, "writeConcernErrors": []})) == refused


@pytest.mark.parametrize(
    "details",
    [
        None,
        {},
        {"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]},
        {"writeErrors": [DUPLICATE], "writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]},
        {"writeErrors": [OTHER]},
        {"writeErrors": [DUPLICATE, OTHER]},
    ],
)
def test_all_else_is_raised(details: Any) -> None:
    error = BulkWriteError(details)
    with pytest.raises(BulkWriteError) as raised:
        only_duplicates(error)
    assert raised.value is error
