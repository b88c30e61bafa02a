"""How much the longest tests do: `make test` must end within minutes on two cores, `make thorough` may take its time.

The tests are the same ones. Where one tries many cases that differ in their place only, `make test` takes some from all over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")

THOROUGH = os.environ.get("CONMAN_TESTS") == "thorough"


thorough = pytest.mark.skipif(not THOROUGH, reason="make thorough")
"""What tells little beside its neighbours, at a high cost."""


def size(usual: int, thorough: int) -> int:
    """How many: in `make test`, and in `make thorough`."""
    return thorough if THOROUGH else usual


def some_of(cases: Sequence[T], *, one_in: int) -> Sequence[T]:
    """Every `one_in`-th case in `make test`, each in `make thorough`."""
    return cases if THOROUGH else cases[::one_in]


def some(cases: Mapping[str, T], *, one_in: int) -> dict[str, T]:
    """As `some_of`, of cases by name."""
    return dict(cases) if THOROUGH else {name: case for number, (name, case) in enumerate(cases.items()) if number % one_in == 0}
