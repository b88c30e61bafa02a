"""A process that dies at a fault point, in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from conman import faults


class Crash(BaseException):
    """What a fault point does to the process of a test; nothing that handles errors sees it."""


@contextmanager
def crash_at(point: str, *, hit: int = 1) -> Iterator[None]:
    """The block dies at this point, the n-th time that it comes there. Fails the test if it does not."""

    def crash(_name: str) -> None:
        raise Crash(point)

    faults.arm({point: hit}, crash)
    try:
        with pytest.raises(Crash, match=point):
            yield
    finally:
        faults.arm({})
