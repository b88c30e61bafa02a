"""The fault points themselves: off unless asked for, named once, and placed where workflows can't replay them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import conman
from conman import faults

SOURCE = Path(conman.__file__).parent
PLACED = re.compile(r"""fault_point\(f?"([a-z._]+)(\{[a-z.]+\})?"\)""")


def _placed() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        for name, varying in PLACED.findall(path.read_text(encoding="utf-8")):
            found.update([f"{name}{collection}" for collection in faults.COLLECTIONS] if varying else [name])
    return found


def test_every_point_is_placed_once_and_every_place_is_named() -> None:
    assert _placed() == Counter(list(faults.POINTS))


def test_no_point_stands_in_what_a_workflow_replays() -> None:
    for folder in ("workflows", "domain"):
        for path in (SOURCE / folder).rglob("*.py"):
            assert "conman.faults" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("text", ["nonsense:1", "refs.moved", "refs.moved:0", "refs.moved:x", "refs.moved:-1", "tell.one:1,b:1"])
def test_a_name_or_count_that_arms_nothing_is_refused(text: str) -> None:
    with pytest.raises(faults.FaultPointError, match="CONMAN_FAULT_POINTS"):
        faults.parse(text)


def test_an_unarmed_process_passes_every_point() -> None:
    for name in faults.POINTS:
        faults.fault_point(name)


def test_an_armed_point_acts_at_its_count_and_only_then() -> None:
    acted: list[str] = []
    faults.arm(faults.parse(" refs.moved:2 , tell.one:1 "), acted.append)
    try:
        for name in ("refs.moved", "refs.begun", "refs.moved", "refs.moved", "tell.one"):
            faults.fault_point(name)
    finally:
        faults.arm({})
    assert acted == ["refs.moved", "tell.one"]
