"""A lifecycle as one literal table, and the one way to ask it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from conman.domain.errors import DomainError, ErrorCode

StateT = TypeVar("StateT", bound=StrEnum)
MoveT = TypeVar("MoveT", bound=StrEnum)


def follow(what: str, table: Mapping[tuple[StateT, MoveT], StateT], state: StateT, move: MoveT) -> StateT:
    """Where `move` leads a `what` from `state`; what is not in the table is refused.

    Raises `invalid_transition`, with the state that it is in and the (first) one that the move leads to.
    """
    found = table.get((state, move))
    if found is not None:
        return found
    wanted = sorted({to.value for (_, by), to in table.items() if by is move})
    raise DomainError(
        ErrorCode.INVALID_TRANSITION,
        f"A {what} that is {state.value} can't become {' or '.join(wanted)} by {move.value}.",
        {"from": state.value, "to": wanted[0], "command": move.value},
    )
