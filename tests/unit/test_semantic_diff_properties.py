"""What the semantic diff tells is all there is to tell: applied to the base it gives the head (`spec.md` 8)."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from key_merge_samples import edited, equal, mapping, written
from semantic_diff_samples import applied, pair, records

from conman.domain.key_merge import Format

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=150)
SEEDS = st.integers(0, 2**32 - 1)

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "id", "a long text to be known by", ""])
KEYS = st.sampled_from(["id", "name", "key", "a", "b", "c/d", "~", "0", "1", "e=f", ""])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)
LISTS = st.lists(
    st.sampled_from(["a", "b", "c", "d", {"id": 1}, {"id": 2}, {"id": "1"}, {"a": [1]}, {"a": [2], "b": 0}, [1], [2]])
)


@pytest.mark.parametrize("fmt", list(Format), ids=str)
@given(SEEDS)
@QUICK
def test_edits_of_settings_in_any_style_are_told_whole(fmt: Format, seed: int) -> None:
    rng = Random(seed)
    paths = [f"entities/{name}.{fmt}" for name in ("one", "two", "three")]
    base = {path: mapping(rng, fmt) for path in paths}
    head = {path: edited(rng, fmt, tree) for path, tree in base.items()}
    told = records(*(pair(path, written(rng, fmt, base[path]), written(rng, fmt, head[path])) for path in paths))
    assert equal(applied(base, told), head)
    assert len({each["id"] for each in told}) == len(told)


@given(TREES, TREES)
@QUICK
def test_any_two_values_are_told_apart_whole(old: Any, new: Any) -> None:
    told = records(pair("entities/x.json", json.dumps(old), json.dumps(new)))
    assert equal(applied({"entities/x.json": old}, told), {"entities/x.json": new})
    assert bool(told) is not equal(old, new)


@given(LISTS, LISTS)
@QUICK
def test_any_two_lists_are_told_apart_whole(old: list[Any], new: list[Any]) -> None:
    told = records(pair("pages/x.json", json.dumps({"items": old}), json.dumps({"items": new})))
    assert equal(applied({"pages/x.json": {"items": old}}, told), {"pages/x.json": {"items": new}})


@given(TREES, st.randoms(use_true_random=False))
@QUICK
def test_what_only_stands_in_another_order_is_told_as_an_order(tree: Any, rng: Any) -> None:
    items = [{"name": str(index), "value": tree} for index in range(6)]
    shuffled = rng.sample(items, len(items))
    told = records(pair("menus/x.json", json.dumps(items), json.dumps(shuffled)))
    assert [each["operation"] for each in told] == ["moved"] * (items != shuffled)
    assert applied({"menus/x.json": items}, told) == {"menus/x.json": shuffled}


@given(SEEDS)
@QUICK
def test_the_same_change_has_the_same_id_on_every_call(seed: int) -> None:
    rng = Random(seed)
    base = mapping(rng, Format.JSON)
    files = [written(rng, Format.JSON, each) for each in (base, edited(rng, Format.JSON, base))]
    assert records(pair("queues/q.json", *files)) == records(pair("queues/q.json", *files))
