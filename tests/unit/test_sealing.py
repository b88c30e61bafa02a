"""Chains of seals: they are made in one way, and whatever is done to one is found (docs/adr/0035-the-audit-is-a-chain.md)."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.seal_check import ChainCheck, Problem, ProblemKind
from conman.domain.sealing import (
    GENESIS,
    NOTE_EVERY,
    Seal,
    anchor_bytes,
    batch_of,
    canonical,
    content_of,
    digest_of,
    is_noted,
    link_hash,
    plan,
    read_anchor,
    seals,
)
from conman.domain.times import later

AT = "2026-01-31T09:30:00.000Z"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"_id": f"e{number:02}", "app_id": "a", "entity_type": "app", "action": "held", "after": {"n": number}, **more}


def chain_of(events: list[dict[str, Any]]) -> list[Seal]:
    return plan("a", 0, GENESIS, events, AT).seals


def walk(rows: list[Seal], events: list[dict[str, Any]], known: list[tuple[int, str, str]] | None = None) -> list[Problem]:
    """As the service leads the check: by places, with what stands beside each seal."""
    check, place = ChainCheck(known or []), 0
    there = {one["_id"]: one for one in events}
    for row in sorted(rows, key=lambda one: one.seq):
        for seq in range(place + 1, row.seq):
            check.missing(seq)
        check.place(row, there.get(row.event_id))
        place = max(place, row.seq)
    return check.settled()


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4))
def test_the_order_of_keys_does_not_count_and_every_value_does(value: dict[str, Any]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)
    for name in value:
        assert canonical({**value, name: [value[name]]}) != canonical(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}])
def test_what_is_no_json_value_has_no_digest(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest_of({"value": value})


def test_a_seal_is_made_as_the_page_about_it_says() -> None:
    content = digest_of({"id": "e01", "app_id": "a"})
    assert content == hashlib.sha256(b'{"app_id":"a","id":"e01"}').hexdigest()
    link = f'{{"chain":"a","content":"{content}","previous_hash":"{GENESIS}","seq":1}}'
    assert link_hash("a", 1, GENESIS, content) == hashlib.sha256(link.encode()).hexdigest()
    [seal] = seals("a", 0, GENESIS, [("e01", content)])
    assert seal == Seal("e01", "a", 1, GENESIS, content, link_hash("a", 1, GENESIS, content))
    assert seal.holds
    others = [
        replace(seal, chain="b"),
        replace(seal, seq=2),
        replace(seal, previous_hash="1" * 64),
        replace(seal, content="1" * 64),
    ]
    assert not any(one.holds for one in others)


def test_events_are_sealed_in_the_order_of_their_ids_behind_what_is_sealed() -> None:
    batch = plan("a", 7, "f" * 64, [event(3), event(1), event(2)], AT)
    assert [(seal.event_id, seal.seq) for seal in batch.seals] == [("e01", 8), ("e02", 9), ("e03", 10)]
    assert batch.seals[0].previous_hash == "f" * 64
    assert batch_of(batch.document()).seals == batch.seals


def test_the_audit_notes_its_seals_once_a_day_and_not_on_its_own_account() -> None:
    batch = plan("a", 0, GENESIS, [event(1)], AT)
    assert is_noted(batch, later(AT, -NOTE_EVERY))
    assert not is_noted(batch, later(AT, -NOTE_EVERY / 2))
    own = plan("a", 0, GENESIS, [event(1, entity_type="audit", action="sealed")], AT)
    assert not is_noted(own, later(AT, -10 * NOTE_EVERY))


def test_an_anchor_reads_as_it_was_written_and_nothing_else_does() -> None:
    data = anchor_bytes(chain="a", seq=3, last_hash="f" * 64, at=AT, platform={"seq": 2, "hash": "e" * 64})
    found = read_anchor(data)
    assert (found.chain, found.seq, found.hash, found.platform) == ("a", 3, "f" * 64, (2, "e" * 64))
    for other in (b"", b"{}", b"[]", b"\xff", data[:-10]):
        with pytest.raises(ValueError, match="no anchor"):
            read_anchor(other)


CHAINS = st.integers(1, 12).map(lambda count: [event(number) for number in range(1, count + 1)])


@given(CHAINS)
def test_a_chain_that_nobody_touched_is_whole(events: list[dict[str, Any]]) -> None:
    rows = chain_of(events)
    assert walk(rows, events, [(len(rows), rows[-1].hash, "the head")]) == []


@given(CHAINS, st.data())
def test_what_was_changed_or_removed_is_named_and_nothing_else(events: list[dict[str, Any]], data: st.DataObject) -> None:
    rows, now = chain_of(events), deepcopy(events)
    places = data.draw(st.lists(st.integers(0, len(events) - 1), unique=True))
    expected: list[tuple[str, int, ProblemKind]] = []
    for place in sorted(places):
        gone = data.draw(st.booleans())
        expected.append((events[place]["_id"], place + 1, ProblemKind.REMOVED if gone else ProblemKind.CHANGED))
        now[place] = {**now[place], "_id": "gone" if gone else now[place]["_id"], "actor": place}
    found = walk(rows, now, [(len(rows), rows[-1].hash, "the head")])
    assert [(one.event_id, one.seq, one.kind) for one in found] == expected


@given(st.integers(2, 12), st.data())
def test_what_changed_places_is_named_with_the_place_that_is_its_own(count: int, data: st.DataObject) -> None:
    events = [event(number) for number in range(1, count + 1)]
    rows = chain_of(events)
    one, two = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True).map(sorted))
    if data.draw(st.booleans()):
        rows[one], rows[two] = replace(rows[one], seq=two + 1), replace(rows[two], seq=one + 1)
    else:
        events[one], events[two] = {**events[two], "_id": events[one]["_id"]}, {**events[one], "_id": events[two]["_id"]}
    found = walk(rows, events)
    assert [(problem.seq, problem.kind) for problem in found] == [(place + 1, ProblemKind.REORDERED) for place in (one, two)]


@given(st.integers(1, 12), st.data())
def test_whoever_makes_seals_anew_from_some_place_on_is_found_where_he_stops_or_by_a_hash_that_is_kept_elsewhere(
    count: int, data: st.DataObject
) -> None:
    events = [event(number) for number in range(1, count + 1)]
    rows = chain_of(events)
    head = (count, rows[-1].hash, "the anchor")
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    events[first] = {**events[first], "actor": "somebody else"}
    entries = [(one["_id"], digest_of(content_of(one))) for one in events[first : last + 1]]
    rows[first : last + 1] = seals("a", first, rows[first].previous_hash, entries)
    found = walk(rows, events, [head])
    assert [(one.seq, one.kind) for one in found] == [(last + 1, ProblemKind.CHANGED)]


@given(st.integers(2, 12), st.data())
def test_a_chain_of_which_a_part_is_gone_with_its_seals_has_places_without_events(count: int, data: st.DataObject) -> None:
    events = [event(number) for number in range(1, count + 1)]
    rows = chain_of(events)
    gone = data.draw(st.integers(0, count - 2))
    found = walk([row for row in rows if row.seq != gone + 1], events)
    assert [(one.event_id, one.seq, one.kind) for one in found] == [(None, gone + 1, ProblemKind.REMOVED)]
